#!/usr/bin/env python3
"""Trains the byte-level BPE of the shipped model on generated text and writes tokenizer.json and tokenizer_config.json.

The pre-tokenizer is Llama 3's expression, so that GGUF readers know it under the name "llama-bpe"; `ignore_merges` is set as there.
Usage: train_tokenizer.py --out FOLDER [--books FOLDER] [--documents 40000] [--vocabulary 4096]
"""

import argparse
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from generate_text import documents, load_books

SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = ("{{ bos_token }}{% for message in messages %}{% if message['role'] not in ['system', 'user', 'assistant'] %}"
                 "{{ raise_exception('the roles are system, user and assistant') }}{% endif %}"
                 "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
CONTEXT = 1024


def split(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(books, count, vocabulary):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    # While merges are learnt, digits stand alone: then no merge joins digits, and a number is always a row of single digits.
    tokenizer.pre_tokenizer = split(SPLIT.replace(r"\p{N}{1,3}", r"\p{N}"))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)

    def texts():
        for passage in books:
            yield passage
        for kind, body in documents(777, count):
            if kind == "text":
                yield body
            else:
                yield from (text for _, text in body)
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.pre_tokenizer = split(SPLIT)
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", begin)])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--books", default="")
    parser.add_argument("--documents", type=int, default=40000)
    parser.add_argument("--vocabulary", type=int, default=4096)
    options = parser.parse_args()
    tokenizer = train(load_books(options.books) if options.books else [], options.documents, options.vocabulary)
    assert tokenizer.get_vocab_size() == options.vocabulary, tokenizer.get_vocab_size()
    os.makedirs(options.out, exist_ok=True)
    tokenizer.save(os.path.join(options.out, "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "add_bos_token": True, "add_eos_token": False,
              "clean_up_tokenization_spaces": False, "model_max_length": CONTEXT, "chat_template": CHAT_TEMPLATE,
              "added_tokens_decoder": {str(tokenizer.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} for t in SPECIAL}}
    with open(os.path.join(options.out, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
