#!/usr/bin/env python3
"""Compares cairn's tokenizers with Hugging Face tokenizers, sentencepiece and tiktoken on random Unicode strings.

    tokenizer_diff.py TOKENIZE_PIPE DATA [--count N] [--seed S] [--only NAME ...] [--work FOLDER] [--show N]

TOKENIZE_PIPE is the program built from tools/tokenize_pipe.cpp, DATA the shared test material. Needs the Python packages
tokenizers, sentencepiece, tiktoken and transformers. Families that DATA lacks in tokenizer.json form (byte fallback BPE,
Unigram, WordLevel, ...) are trained small on its books. Each case encodes and decodes N strings with both sides; exits 1
when any case has a mismatch that is not explained by a character newer than the oldest Unicode tables involved.
"""

import argparse, base64, json, os, random, re, struct, subprocess, sys, time

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = ("the of and to in that he was it his is with as had for on you not be her at by which have or from this but all "
         "she they were my are me one their so an said them we who would been will no when there if more out do up any "
         "your what has man could other than our some very time upon about may its only now like little then can should "
         "HTTP JSON iPhone McDonald O'Neill naïve café résumé Straße ΑΒΓ αβγ Привет мир 你好 世界 こんにちは カタカナ 안녕하세요 "
         "שלום مرحبا नमस्ते สวัสดี ελληνικά").split()
CONTRACTIONS = "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'Ve 'M 'LL 'D 'ſ 'K n't don't I'll WE'VE it's' ''s".split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u2028", "\x0b",
          "\x0c", "\x85", "\u1680", "\ufeff", "\u180e", "    ", " \t ", "\r", "▁", "▁▁"]
SPECIALS = ("<s> </s> <unk> <pad> <mask> [CLS] [SEP] [MASK] [UNK] <|endoftext|> <|im_start|> <|im_end|> <|eot_id|> <|fim_prefix|> "
            "<|begin_of_text|> <0x0A> <0xFF> <0x> <|endofprompt|> <bos> <eos> <|en|> <|0.00|> <extra_id_0> ##ing ## Ġ Ċ "
            "<|padding|> <s <|end").split()
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🇩🇪", "🇩", "1️⃣", "✅", "🦙", "😶‍🌫️", "‍", "️", "⚧️"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["—", "…", "„", "“", "¿", "،", "。", "！", "«", "₹", "±", "×", "¨", "´"]
NUMBERS = ["0", "1", "12", "123", "1234", "3.14", "1,000,000", "٣٤", "½", "²", "Ⅷ", "१२३", "①", "0x1F", "1e-5", "𝟘𝟙"]
MARKS = ["\u0301", "\u0308", "\u0327", "\u0323", "\u093f", "\u0e31", "\u064b", "\u3099", "\u20dd", "\u0345", "\u1ab0", "\u0300\u0316"]
COMPAT = ["ﬁ", "ﬀ", "Å", "Ω", "K", "①", "㍿", "ｱ", "ﾞ", "Ａ", "㌔", "ﷺ", "Ǆ", "İ", "ß", "ẞ", "ſ", "ﬆ", "µ", "\u1100\u1161\u11a8", "각", "ᄀ", "o\u0302", "\u212a", "\u2126", "\u212b", "\u1f7d", "\u0958"]


def code_point(r):
    kind = r.randrange(10)
    while True:
        if kind < 3: c = r.randrange(0x20, 0x250)
        elif kind < 5: c = r.randrange(0x250, 0x3000)
        elif kind < 7: c = r.randrange(0x3000, 0x10000)
        elif kind < 8: c = r.randrange(0x10000, 0x20000)
        elif kind < 9: c = r.randrange(0x20000, 0x40000)
        else: c = r.randrange(0, 0x110000)
        if not 0xd800 <= c < 0xe000: return chr(c)


def random_string(r, books):
    parts = []
    style = r.randrange(8)
    for _ in range(r.choice([1, 1, 2, 3, 5, 8, 13, 30])):
        k = r.randrange(14) if style < 5 else r.choice([0, 1, 2, 10]) if style < 7 else 13
        if k == 0: parts.append(r.choice(WORDS))
        elif k == 1: parts.append(" " + r.choice(WORDS))
        elif k == 2: parts.append(r.choice(SPACES) * r.choice([1, 1, 1, 2, 5]))
        elif k == 3: parts.append(r.choice(CONTRACTIONS))
        elif k == 4: parts.append(r.choice(SPECIALS))
        elif k == 5: parts.append(r.choice(EMOJI))
        elif k == 6: parts.append(r.choice(PUNCTUATION) * r.choice([1, 1, 2, 6]))
        elif k == 7: parts.append(r.choice(NUMBERS))
        elif k == 8: parts.append(r.choice(LETTERS) + r.choice(MARKS) * r.choice([1, 1, 2]))
        elif k == 9: parts.append(r.choice(COMPAT))
        elif k == 10: parts.append("".join(r.choice(LETTERS) for _ in range(r.randrange(1, 12))))
        elif k == 11: parts.append("".join(chr(r.randrange(0x4e00, 0x9fff)) for _ in range(r.randrange(1, 5))))
        elif k == 12: parts.append("".join(code_point(r) for _ in range(r.randrange(1, 6))))
        else:
            book = r.choice(books)
            at = r.randrange(len(book))
            parts.append(book[at:at + r.randrange(1, 60)])
    return "".join(parts)


class Cairn:
    """One run of tokenize_pipe over a file of requests."""

    def __init__(self, program, work):
        self.program, self.work = program, work

    def ask(self, path, requests, flags=()):
        inp, out = (os.path.join(self.work, f"{name}.{os.getpid()}") for name in ("requests", "answers"))
        with open(inp, "wb") as f:
            for kind, payload in requests:
                f.write(struct.pack("<II", kind, len(payload)) + payload)
        with open(inp, "rb") as i, open(out, "wb") as o:
            subprocess.run([self.program, str(path), *flags], stdin=i, stdout=o, check=True)
        data, at, answers = open(out, "rb").read(), 0, []
        while at < len(data):
            n, = struct.unpack_from("<I", data, at)
            at += 4
            error = n == 0xffffffff
            if error:
                n, = struct.unpack_from("<I", data, at)
                at += 4
            answers.append(RuntimeError(data[at:at + n].decode()) if error else data[at:at + n])
            at += n
        return answers

    def encode(self, path, texts, flags=()):
        raw = [t if isinstance(t, bytes) else t.encode() for t in texts]
        return [a if isinstance(a, Exception) else list(struct.unpack(f"<{len(a) // 4}i", a))
                for a in self.ask(path, [(0, t) for t in raw], flags)]

    def decode(self, path, lists, skip):
        return [a if isinstance(a, Exception) else a.decode()
                for a in self.ask(path, [(2 if skip else 1, struct.pack(f"<{len(x)}i", *x)) for x in lists])]


def assigned_after(version):
    """Code points that Unicode gained after a version (or never), from perl's tables."""
    program = f"for (0..0x10ffff) {{ next if $_ >= 0xd800 && $_ < 0xe000; print $_, chr(10) unless chr($_) =~ /\\p{{Present_In: {version}}}/ }}"
    return {chr(int(c)) for c in subprocess.run(["perl", "-e", program], capture_output=True, check=True, text=True).stdout.split()}


AGES = {}


def newer_unicode(text, version):
    """Whether the text has characters whose properties the two sides know from different Unicode versions."""
    if version not in AGES:
        AGES[version] = assigned_after(version)
        if version == "8.0": AGES[version] |= set("\u166d\u1734\u1cf2\u1cf3\u1885\u1886\ua9bd\U000111c9")  # changed category since
    return not AGES[version].isdisjoint(text)


class Report:
    def __init__(self, show):
        self.show, self.failed = show, 0

    def compare(self, name, inputs, got, want, unicode="14.0"):
        """got and want are functions from inputs to results. A mismatch in a string with characters newer than a Unicode
        version counts as explained when the string without them gives the same on both sides."""
        ours, theirs = got(inputs), want(inputs)
        bad = [i for i in range(len(inputs)) if ours[i] != theirs[i]]
        explained = [i for i in bad if isinstance(inputs[i], str) and newer_unicode(inputs[i], unicode)]
        known = ["".join(c for c in inputs[i] if c not in AGES[unicode]) for i in explained]
        explained = [i for i, o, t in zip(explained, got(known), want(known)) if o == t] if known else []
        rest = sorted(set(bad) - set(explained), key=lambda i: len(inputs[i]))
        print(f"{name:44} {len(inputs):8} strings  {len(rest):6} mismatches" +
              (f"  and {len(explained)} by characters newer than Unicode {unicode}" if explained else ""), flush=True)
        self.failed += len(rest)
        for i in rest[:self.show]:
            print("   ", ascii(inputs[i])[:300], "\n      cairn", ascii(ours[i])[:300], "\n      want ", ascii(theirs[i])[:300])


def hf_case(name, path, flags=()):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(str(path))
    t.no_padding()
    t.no_truncation()
    kinds = json.dumps([json.load(open(path)).get(k) for k in ("normalizer", "pre_tokenizer")])
    # The reference's own tables: Unicode 8 for punctuation and accents, 12 for the normalisation forms.
    version = ("8.0" if any(k in kinds for k in ("Bert", "Punctuation", "StripAccents")) else
               "12.0" if any(k in kinds for k in ("NFC", "NFD", "NFKC", "NFKD")) else "14.0")

    def run(cairn, report, texts, r):
        want = lambda x: [e.ids for e in t.encode_batch(x)]
        report.compare(name, texts, lambda x: cairn.encode(path, x, flags), want, version)
        t.encode_special_tokens = True
        part = texts[:len(texts) // 5]
        report.compare(name + " plain specials", part, lambda x: cairn.encode(path, x, ("--plain-special",)), want, version)
        t.encode_special_tokens = False
        size = t.get_vocab_size()
        lists = want(texts[:len(texts) // 10]) + [[r.randrange(size) for _ in range(r.randrange(0, 20))] for _ in range(len(texts) // 10)]
        for skip in (True, False):
            report.compare(f"{name} decode skip={skip}", lists, lambda x: cairn.decode(path, x, skip),
                           lambda x: t.decode_batch(x, skip_special_tokens=skip))
    return run


def spm_case(name, path, flags=("--no-special", "--plain-special")):
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def run(cairn, report, texts, r):
        # Broken UTF-8 too: sentencepiece takes bytes.
        raw = [t.encode() for t in texts]
        for i in range(0, len(raw), 10):
            b = bytearray(raw[i])
            for _ in range(r.randrange(1, 4)):
                if b: b[r.randrange(len(b))] = r.randrange(0x80, 0x100)
            raw[i] = bytes(b)
        raw = [b.replace(b"\0", b"") for b in raw]  # sentencepiece treats zero as the end of a trie key
        report.compare(name, raw, lambda x: cairn.encode(path, x, flags), sp.encode)
        size = sp.get_piece_size()
        lists = [[r.randrange(size) for _ in range(r.randrange(0, 20))] for _ in range(len(texts) // 10)]
        lists += [[r.randrange(min(300, size)) for _ in range(r.randrange(0, 12))] for _ in range(len(texts) // 10)]
        report.compare(name + " decode", lists, lambda x: cairn.decode(path, x, True), lambda x: [sp.decode(i) for i in x])
    return run


def write_gguf(path, model, tokens, types, pre=None, merges=None, scores=None, charsmap=None, space_prefix=None, trim=None):
    """A GGUF file of a vocabulary only."""
    import gguf
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model(model)
    if pre: w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if merges is not None: w.add_token_merges(merges)
    if scores is not None: w.add_token_scores(scores)
    if charsmap: w.add_precompiled_charsmap(charsmap)
    if space_prefix is not None: w.add_add_space_prefix(space_prefix)
    if trim is not None: w.add_remove_extra_whitespaces(trim)
    if model == "t5": w.add_unk_token_id(types.index(2))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    return path


def gguf_bpe_case(path, pre, ignore_merges=False):
    """The same vocabulary through GGUF, whose tokenizer.ggml.pre names the way to split."""
    from tokenizers import Tokenizer
    document = json.load(open(path))
    t = Tokenizer.from_file(str(path))
    t.no_padding()
    size = t.get_vocab_size()
    tokens = [t.id_to_token(i) for i in range(size)]
    added = {a["id"]: 3 if a["special"] else 4 for a in document["added_tokens"]}
    merges = [" ".join(m) for m in document["model"]["merges"]]
    out = write_gguf(str(path).replace(".json", f".{pre}.gguf"), "gpt2", tokens, [added.get(i, 1) for i in range(size)], pre, merges)

    def run(cairn, report, texts, r):
        texts = [x for x in texts if not any(a["content"] in x for a in document["added_tokens"])]  # GGUF lacks their flags
        report.compare(f"gguf {pre}", texts, lambda x: cairn.encode(out, x, ("--no-special",)),
                       lambda x: [e.ids for e in t.encode_batch(x, add_special_tokens=False)])
    return run


def gguf_spm_case(path):
    """A SentencePiece model through GGUF (model llama for BPE, t5 for unigram)."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto()
    proto.ParseFromString(open(path, "rb").read())
    kind = "t5" if proto.trainer_spec.model_type == 1 else "llama"
    out = write_gguf(str(path) + ".gguf", kind, [p.piece for p in proto.pieces], [p.type for p in proto.pieces],
                     scores=[p.score for p in proto.pieces], charsmap=proto.normalizer_spec.precompiled_charsmap,
                     space_prefix=proto.normalizer_spec.add_dummy_prefix, trim=proto.normalizer_spec.remove_extra_whitespaces)
    sp = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def run(cairn, report, texts, r):
        texts = [x.replace("\0", "") for x in texts if not any(p.piece in x for p in proto.pieces if p.type in (2, 4))]
        report.compare(f"gguf {kind} {os.path.basename(path)}", texts,
                       lambda x: cairn.encode(out, x, ("--no-special", "--plain-special")), sp.encode)
    return run


def tiktoken_case(name, path, pattern, specials, flags=("--no-special",)):
    import tiktoken
    ranks = {}
    for line in open(path, "rb"):
        token, rank = line.split(b" ") if not line.startswith(b" ") and line.count(b" ") == 1 else (b"", line.split()[-1])
        if token and token != b"=": ranks[base64.b64decode(token)] = int(rank)
    e = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)

    def run(cairn, report, texts, r):
        report.compare(name, texts, lambda x: cairn.encode(path, x, flags), lambda x: [e.encode(t, allowed_special="all") for t in x])
        part = texts[:len(texts) // 5]
        report.compare(name + " plain specials", part, lambda x: cairn.encode(path, x, flags + ("--plain-special",)),
                       lambda x: [e.encode(t, disallowed_special=()) for t in x])
        ids = list(ranks.values()) + list(specials.values())
        lists = [[r.choice(ids) for _ in range(r.randrange(0, 20))] for _ in range(len(texts) // 10)]
        report.compare(name + " decode", lists, lambda x: cairn.decode(path, x, False), lambda x: [e.decode(i) for i in x])
    return run


def tiktoken_cases(data):
    from tiktoken_ext import openai_public
    source = open(openai_public.__file__).read()
    scope = {}
    exec(source.replace("load_tiktoken_bpe(", "(lambda *a, **k: {})(").replace("data_gym_to_mergeable_bpe_ranks(", "(lambda *a, **k: {})("), scope)
    for name in ("r50k_base", "cl100k_base", "o200k_base"):
        spec = scope[name]()
        yield name, lambda p=data / f"tokenizers/tiktoken/{name}.tiktoken", s=spec, n=name: tiktoken_case(n, p, s["pat_str"], s["special_tokens"])
    llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    config = json.load(open(data / "tokenizers/llama3/tokenizer_config.json"))
    specials = {t["content"]: int(i) for i, t in config["added_tokens_decoder"].items()}
    yield "llama3", lambda: tiktoken_case("llama3", data / "tokenizers/llama3/tiktoken.model", llama3, specials)
    yield "whisper", lambda: tiktoken_case("whisper", data / "tokenizers/whisper/multilingual.tiktoken", scope["r50k_base"]()["pat_str"],
                                           {"<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|en|>": 50259, "<|0.00|>": 50364})


def trained_cases(work, books):
    """tokenizer.json files of the families that the test material lacks, trained on the books."""
    from tokenizers import Tokenizer, models, trainers, normalizers, pre_tokenizers, decoders, processors, Regex, AddedToken
    import sentencepiece

    lines = [l for b in books for l in b.split("\n") if l.strip()][:20000]

    def save(name, t):
        path = os.path.join(work, name + ".json")
        t.save(path)
        return path

    def specials():
        return [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=False),
                AddedToken("<mask>", special=True, lstrip=True, normalized=False)]

    def train(name, model, trainer, pre=None, norm=None, dec=None, post=None, added=()):
        t = Tokenizer(model)
        if norm: t.normalizer = norm
        if pre: t.pre_tokenizer = pre
        if dec: t.decoder = dec
        t.train_from_iterator(lines, trainer)
        t.add_tokens(list(added))
        if post: t.post_processor = post(t)
        return save(name, t)

    split = lambda p, b="isolated", invert=False: pre_tokenizers.Split(Regex(p), b, invert)
    bl = lambda **k: pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **k})
    byte_level = dict(dec=decoders.ByteLevel())
    bpe = lambda **k: trainers.BpeTrainer(vocab_size=3000, show_progress=False, **k)
    alphabet = dict(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    qwen2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    qwen35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tekken = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
              r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    deepseek3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
                 r"""\s*[\r\n]+|\s+(?!\S)|\s+""")
    seq = pre_tokenizers.Sequence
    end = AddedToken("<|im_end|>", special=True, normalized=False)
    word = AddedToken("upon", single_word=True, normalized=True)
    strip = AddedToken("<|eot_id|>", special=True, lstrip=True, rstrip=True, normalized=False)

    def template(t):
        return processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>",
                                             special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])

    yield "qwen2", lambda: hf_case("json qwen2", train("qwen2", models.BPE(), bpe(**alphabet), seq([split(qwen2), bl(use_regex=False)]),
                                                       normalizers.NFC(), added=[end, word], **byte_level))
    yield "qwen35", lambda: hf_case("json qwen35", train("qwen35", models.BPE(), bpe(**alphabet), seq([split(qwen35), bl(use_regex=False)]),
                                                         normalizers.NFC(), added=[end, strip], **byte_level))
    yield "tekken", lambda: hf_case("json tekken", train("tekken", models.BPE(ignore_merges=True), bpe(**alphabet),
                                                         seq([split(tekken), bl(use_regex=False)]), added=[strip], **byte_level))
    yield "deepseek3", lambda: hf_case("json deepseek-v3", train(
        "deepseek3", models.BPE(), bpe(**alphabet),
        seq([split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(deepseek3), bl(use_regex=False)]), added=[word], **byte_level))
    yield "deepseek-coder", lambda: hf_case("json deepseek-coder", train(
        "deepseek-coder", models.BPE(), bpe(**alphabet),
        seq([split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), pre_tokenizers.Digits(True),
             bl(use_regex=False)]), **byte_level))
    yield "falcon", lambda: hf_case("json falcon", train(
        "falcon", models.BPE(), bpe(**alphabet),
        seq([pre_tokenizers.Punctuation("contiguous"), bl(), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]), **byte_level))
    yield "starcoder", lambda: hf_case("json starcoder", train("starcoder", models.BPE(), bpe(**alphabet),
                                                               seq([pre_tokenizers.Digits(True), bl()]), **byte_level))
    yield "roberta", lambda: hf_case("json roberta", train(
        "roberta", models.BPE(), bpe(special_tokens=specials(), **alphabet), bl(add_prefix_space=True),
        post=lambda t: processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>"))), **byte_level))
    yield "clip", lambda: hf_case("json clip", train(
        "clip", models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=False),
        bpe(end_of_word_suffix="</w>", special_tokens=["<|endoftext|>"], **alphabet),
        seq([split(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""", "removed", True), bl(use_regex=False)]),
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]), dec=decoders.ByteLevel()))
    yield "gpt1", lambda: hf_case("json gpt1", train(
        "gpt1", models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), bpe(end_of_word_suffix="</w>", special_tokens=["<unk>"]),
        pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True), decoders.BPEDecoder("</w>")))
    yield "char-bpe-fuse", lambda: hf_case("json char BPE, fused unknowns, ## prefix", train(
        "char-bpe-fuse", models.BPE(unk_token="<unk>", fuse_unk=True, continuing_subword_prefix="##"),
        bpe(continuing_subword_prefix="##", special_tokens=["<unk>"], limit_alphabet=60), pre_tokenizers.Whitespace(),
        normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]), decoders.WordPiece("##")))
    yield "word-piece-cased", lambda: hf_case("json WordPiece cased", train(
        "word-piece-cased", models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=3000, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
        pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=False, strip_accents=True), decoders.WordPiece("##"),
        post=lambda t: processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))))
    yield "word-level", lambda: hf_case("json WordLevel", train(
        "word-level", models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=3000, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"]),
        seq([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.CharDelimiterSplit("x")]),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()]), post=template))
    yield "fixed-length", lambda: hf_case("json WordLevel, fixed length", train(
        "fixed-length", models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=3000, show_progress=False, special_tokens=["<unk>"]),
        seq([pre_tokenizers.FixedLength(3), split("[aeiou]", "merged_with_next"), split(r"\w", "contiguous")]), normalizers.NFD()))
    yield "metaspace-first", lambda: hf_case("json BPE, Metaspace first", train(
        "metaspace-first", models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        bpe(special_tokens=["<unk>"] + specials() + [f"<0x{i:02X}>" for i in range(256)]), pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        dec=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]), post=template))
    yield "byte-fallback", lambda: hf_case("json byte-fallback BPE (Llama 2 form)", train(
        "byte-fallback", models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        bpe(special_tokens=["<unk>"] + specials() + [f"<0x{i:02X}>" for i in range(256)]),
        norm=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        dec=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]), post=template))

    source = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../src/text/gguf_pre_tokenizer.cpp")).read()
    cased = "".join(re.findall(r'R"\((.*)\)"', source.split("kCasedLetters =")[1].split(";")[0]))
    yield "deepseek-llm", lambda: hf_case("json deepseek-llm", train(
        "deepseek-llm", models.BPE(), bpe(**alphabet),
        seq([split("[\r\n]"), split(cased), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split("[一-龥ࠀ-一가-퟿]+"),
             pre_tokenizers.Digits(True), bl(use_regex=False)]), **byte_level))
    for pre, trained in (("tekken", "tekken"), ("deepseek-v3", "deepseek3"), ("deepseek-coder", "deepseek-coder"), ("falcon", "falcon"),
                         ("starcoder", "starcoder"), ("deepseek-llm", "deepseek-llm")):
        yield f"gguf-{pre}", lambda p=pre, n=trained: gguf_bpe_case(os.path.join(work, n + ".json"), p)

    def spm(name, **options):
        prefix = os.path.join(work, name)
        if not os.path.exists(prefix + ".model"):
            sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=prefix, vocab_size=3000,
                                                     minloglevel=2, num_threads=1, **options)
        return prefix + ".model"

    yield "spm-user", lambda: spm_case("spm BPE, byte fallback, user symbols", spm(
        "spm-user", model_type="bpe", byte_fallback=True, user_defined_symbols=["<sep>", "upon", "<|im_start|>", "▁▁▁", "123"],
        remove_extra_whitespaces=False, normalization_rule_name="identity", character_coverage=0.99))
    yield "spm-suffix", lambda: spm_case("spm unigram, suffix, user symbols", spm(
        "spm-suffix", model_type="unigram", treat_whitespace_as_suffix=True, user_defined_symbols=["<sep>", "upon", "ab"],
        normalization_rule_name="nfkc_cf"))
    yield "spm-nmt", lambda: spm_case("spm unigram, byte fallback, nmt_nfkc", spm("spm-nmt", model_type="unigram", byte_fallback=True,
                                                                                  character_coverage=0.98))

    yield "gguf-t5", lambda: gguf_spm_case(spm("spm-plain", model_type="unigram"))
    yield "gguf-llama", lambda: gguf_spm_case(spm("spm-bpe", model_type="bpe", byte_fallback=True, remove_extra_whitespaces=False,
                                                  normalization_rule_name="identity"))

    def unigram(name, path):
        """As transformers converts SentencePiece unigram models (T5, XLM-R)."""
        from sentencepiece import sentencepiece_model_pb2 as pb
        proto = pb.ModelProto()
        proto.ParseFromString(open(path, "rb").read())
        t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback))
        t.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
                                             normalizers.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.decoder = decoders.Metaspace()
        t.add_special_tokens(specials())
        t.post_processor = template(t)
        return hf_case(name, save(name.replace(" ", "-"), t))

    yield "unigram", lambda: unigram("json Unigram", spm("spm-plain", model_type="unigram"))
    yield "unigram-bytes", lambda: unigram("json Unigram byte fallback", spm("spm-nmt", model_type="unigram", byte_fallback=True, character_coverage=0.98))


def cases(data, work, books):
    yield from tiktoken_cases(data)
    t = data / "tokenizers"
    for name, path in (("bert", t / "bert/bert-base-uncased.json"), ("minilm", t / "bert/all-minilm-l6-v2.json"),
                       ("gpt-neox", t / "gpt-neox/20B_tokenizer.json"),
                       ("model2vec", data / "weights/model2vec/test-model-float32/tokenizer.json"),
                       ("model2vec-quantized", data / "weights/model2vec/test-model-vocab-quantized/tokenizer.json")):
        yield name, lambda n=name, p=path: hf_case("json " + n, p)
    for name, path in (("llama2", "llama2/tokenizer.model"), ("albert", "sentencepiece/spiece.model"),
                       ("spm-bpe", "sentencepiece/test_sentencepiece_bpe.model"),
                       ("spm-bytes", "sentencepiece/test_sentencepiece_with_bytefallback.model"),
                       ("spm-test", "sentencepiece/python/test/test_model.model"), ("spm-ja", "sentencepiece/python/test/test_ja_model.model")):
        yield name, lambda n=name, p=path: spm_case("spm " + n, t / p)
    yield from trained_cases(work, books)


def main():
    import pathlib
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tool")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sweep", action="store_true", help="instead of random strings, every code point of planes 0 and 1 and some others")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--work", default="tokenizer_diff.work", help="folder for trained tokenizers and requests")
    parser.add_argument("--show", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.makedirs(args.work, exist_ok=True)
    books = [(args.data / "corpora/books" / n).read_text() for n in ("frankenstein.txt", "botchan.txt", "wagahaiwa_nekodearu.txt")]
    r = random.Random(args.seed)
    if args.sweep:
        points = [c for c in range(0x110000) if not 0xd800 <= c < 0xe000 and (c < 0x20000 or r.random() < 0.01)]
        texts = [f"a{chr(c)}b {chr(c)}1{chr(c)}" for c in points]
    else:
        texts = [random_string(r, books) for _ in range(args.count)]
    report = Report(args.show)
    for name, make in cases(args.data, args.work, books):
        if args.only and name not in args.only: continue
        start = time.time()
        make()(Cairn(args.tool, args.work), report, texts, random.Random(args.seed))
        print(f"    {name}: {time.time() - start:.1f} s", flush=True)
    print("mismatches:", report.failed)
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
