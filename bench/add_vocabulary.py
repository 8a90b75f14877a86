#!/usr/bin/env python3
"""Gives a GGUF v3 file that has no vocabulary that of a tiktoken file (Llama 3's), so that starts can be timed with a
tokenizer of real size, and its chat template (system, user and assistant messages), so that servers can be loaded with
chats. Merges are all splits of a token into two tokens, as converters write them. Standard library only.

usage: add_vocabulary.py MODEL.gguf tiktoken.model OUT.gguf
"""

import base64
import shutil
import struct
import sys

SPECIAL = 256  # Llama 3's, of which these have names
NAMED = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "<|eot_id|>"}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def byte_characters():
    """GPT-2's characters for bytes: printable ones are themselves, the others 256 and up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(256 + len(characters) - len(printable))
    return characters


def read_ranks(path):
    ranks = {}
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                token, rank = line.split()
                ranks[base64.b64decode(token)] = int(rank)
    return ranks


def splits(ranks):
    for token in sorted(ranks, key=ranks.get):
        found = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        yield from sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def array(kind, items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def vocabulary(path):
    ranks = read_ranks(path)
    characters = byte_characters()
    shown = {token: "".join(characters[byte] for byte in token) for token in ranks}
    tokens = [shown[token] for token in sorted(ranks, key=ranks.get)]
    first_special = len(tokens)
    tokens += [NAMED.get(i, f"<|reserved_special_token_{i}|>") for i in range(SPECIAL)]
    types = [1] * first_special + [3] * SPECIAL
    merges = [f"{shown[left]} {shown[right]}" for left, right in splits(ranks)]
    print(len(tokens), "tokens,", len(merges), "merges")
    u32 = lambda value: struct.pack("<I", value)
    return [
        entry("tokenizer.ggml.model", 8, text("gpt2")),
        entry("tokenizer.ggml.pre", 8, text("llama-bpe")),
        entry("tokenizer.ggml.tokens", 9, array(8, [text(token) for token in tokens])),
        entry("tokenizer.ggml.token_type", 9, array(5, [struct.pack("<i", kind) for kind in types])),
        entry("tokenizer.ggml.merges", 9, array(8, [text(merge) for merge in merges])),
        entry("tokenizer.ggml.bos_token_id", 4, u32(first_special)),
        entry("tokenizer.ggml.eos_token_id", 4, u32(first_special + 9)),
        entry("tokenizer.chat_template", 8, text(TEMPLATE)),
    ]


SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def skip_value(data, at, kind):
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != 9:
        return at + SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count):
        at = skip_value(data, at, inner)
    return at


def main():
    model, tiktoken, out = sys.argv[1:4]
    with open(model, "rb") as source:
        data = source.read(1 << 24)
        magic, version, tensors, keys = struct.unpack_from("<4sIQQ", data, 0)
        assert magic == b"GGUF" and version == 3
        at, kept = 24, []
        for _ in range(keys):
            begin = at
            length = struct.unpack_from("<Q", data, at)[0]
            key = data[at + 8 : at + 8 + length].decode()
            kind = struct.unpack_from("<I", data, at + 8 + length)[0]
            at = skip_value(data, at + 12 + length, kind)
            if not key.startswith("tokenizer."):
                kept.append(data[begin:at])
        begin = at
        for _ in range(tensors):
            at += 8 + struct.unpack_from("<Q", data, at)[0]
            at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
        infos, old_data = data[begin:at], (at + 31) // 32 * 32
        kept += vocabulary(tiktoken)
        with open(out, "wb") as result:
            result.write(struct.pack("<4sIQQ", magic, version, tensors, len(kept)) + b"".join(kept) + infos)
            result.write(bytes(-result.tell() % 32))
            source.seek(old_data)
            shutil.copyfileobj(source, result, 1 << 24)


main()
