"""Generates and tokenizes training rows in worker processes while the trainer consumes them.

A shard is a file of `ROWS` rows of `CONTEXT + 1` token ids (uint16). Shard i is a function of (seed, i) alone, and the trainer reads the
shards in order, so a run sees the same rows whatever the number of workers. A row starts with a document and is cut where it is full.
"""

import multiprocessing
import os
import random
import time

import numpy

from generate_text import document, load_books

CONTEXT, ROWS = 1024, 2048
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
AHEAD = 150   # shards that may wait unread
SPACING = 12  # shards between two uses of the same shard


def pieces(doc):
    """The document as (special token or None, text) in reading order."""
    kind, body = doc
    if kind == "text":
        return [("<|begin|>", body), ("<|end|>", "")]
    out = [("<|begin|>", "")]
    for role, text in body:
        out += [(ROLES[role], text), ("<|end|>", "")]
    return out


def make_rows(tokenizer, rng, books, count, context=CONTEXT):
    """`count` rows, and how many characters went into them."""
    ids = {token: tokenizer.token_to_id(token) for token in ["<|begin|>", "<|end|>", *ROLES.values()]}
    rows, row, characters = numpy.empty((count, context + 1), numpy.uint16), [], 0
    filled = 0
    while filled < count:
        batch = [pieces(document(rng, books)) for _ in range(256)]
        encoded = iter(tokenizer.encode_batch([text for doc in batch for _, text in doc], add_special_tokens=False))
        for doc in batch:
            tokens = []
            for special, text in doc:
                characters += len(text)
                tokens.append(ids[special])
                tokens += next(encoded).ids
            row += tokens
            if len(row) > context and filled < count:
                rows[filled] = row[:context + 1]
                filled += 1
                row = []
    return rows, characters


def _work(worker, workers, seed, tokenizer_path, books_folder, folder, consumed):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer
    tokenizer, books = Tokenizer.from_file(tokenizer_path), load_books(books_folder) if books_folder else []
    index = worker
    while True:
        while index > consumed.value + AHEAD:
            time.sleep(0.05)
        rows, _ = make_rows(tokenizer, random.Random(f"{seed}/{index}"), books, ROWS)
        path = os.path.join(folder, f"{index}.npy")
        numpy.save(path + ".part.npy", rows)
        os.rename(path + ".part.npy", path)
        index += workers


class Shards:
    """Iterates over shards 0, 1, 2, ... as int64 arrays [ROWS, CONTEXT + 1]; each is given `passes` times, some way apart."""

    def __init__(self, seed, tokenizer_path, books_folder, folder, workers, passes=1):
        os.makedirs(folder, exist_ok=True)
        self.passes, self.kept = passes, {}
        self.folder, self.waited = folder, 0.0
        self.consumed = multiprocessing.Value("l", 0)
        self.processes = [multiprocessing.Process(target=_work, args=(w, workers, seed, tokenizer_path, books_folder, folder, self.consumed), daemon=True) for w in range(workers)]
        for process in self.processes:
            process.start()

    def __iter__(self):
        index = 0
        while True:
            path, start = os.path.join(self.folder, f"{index}.npy"), time.time()
            while not os.path.exists(path):
                time.sleep(0.01)
            self.waited += time.time() - start
            self.kept[index] = numpy.load(path)
            os.remove(path)
            for again in range(self.passes):           # this shard, then the ones that came SPACING, 2 * SPACING, ... before it
                rows = self.kept.get(index - again * SPACING)
                if rows is not None:
                    yield rows.astype(numpy.int64)
            self.kept.pop(index - (self.passes - 1) * SPACING, None)
            index += 1
            self.consumed.value = index

    def stop(self):
        for process in self.processes:
            process.terminate()
