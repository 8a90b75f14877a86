#!/usr/bin/env python3
"""Writes the text that the shipped model is trained on: stories, conversations, and a little of old books.

Everything but the books comes from the grammar in this folder, so the same seed gives the same text. Documents come as
    ("text", str)                        a story, a poem, or a passage of a book
    ("chat", [(role, str), ...])         a conversation; roles are system, user, assistant

Try it:   python3 tools/shipped_model/generate_text.py --show 5 --seed 1
Measure:  python3 tools/shipped_model/generate_text.py --measure 2000
"""

import argparse
import os
import random
import re
import time

from chat import conversation
from grammar import chance, pick
from plots_home import HOME_PLOTS
from plots_more import MORE_PLOTS
from plots_tale import OWN_OPENING_PLOTS, TALE_PLOTS
from story import Story, opening, prepare
from verse import poem
from world import new_world

STORY_SHARE, POEM_SHARE, BOOK_SHARE = 0.40, 0.01, 0.006   # of documents; the rest are conversations
ALL_PLOTS = HOME_PLOTS + TALE_PLOTS + MORE_PLOTS
BOOKS = ("frankenstein.txt", "botchan.txt", "shakespeare.txt")


def tell(rng, want=None):
    """One story. `want` may fix kind, name, gender, classic (its first words), own_opening (False forbids plots about someone else)."""
    want = want or {}
    env = new_world(rng, want)
    story = Story(rng, env)
    prepare(story)
    plain = "kind" not in want and "classic" not in want and want.get("own_opening", True)
    if plain and chance(rng, 0.08):
        pick(rng, OWN_OPENING_PLOTS)(story)
        story.own_opening = True
        return story
    classic = want.get("classic")
    opening(story, True if classic else None)
    if classic:
        story.out[0] = re.sub(r"^(Once upon a time|Long ago|Once|A long time ago|Many years ago)", classic, story.out[0])
    pick(rng, ALL_PLOTS)(story)
    return story


def load_books(folder):
    """Passages of 1,500 to 4,000 characters, cut at paragraph ends; the e-text headers are left out."""
    passages = []
    for name in BOOKS:
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8-sig") as file:
            text = file.read().replace("\r\n", "\n")
        start = re.search(r"\*\*\* ?START OF TH.*?\*\*\*", text, re.S)
        end = re.search(r"\*\*\* ?END OF TH", text)
        text = text[start.end() if start else 0:end.start() if end else len(text)]
        text = re.sub(r"\n{3,}", "\n\n", text.replace("\u2019", "'").replace("\u201c", '"').replace("\u201d", '"'))
        here, size = [], 0
        for paragraph in text.split("\n\n"):
            here.append(paragraph if name == "shakespeare.txt" else " ".join(paragraph.split()))
            size += len(paragraph)
            if size > 2500:
                passages.append("\n\n".join(here))
                here, size = [], 0
    return passages


def document(rng, books=()):
    draw = rng.random()
    if books and draw < BOOK_SHARE:
        return "text", pick(rng, books)
    if draw < BOOK_SHARE + POEM_SHARE:
        return "text", poem(rng)[1]
    if draw < BOOK_SHARE + POEM_SHARE + STORY_SHARE:
        return "text", tell(rng).text()
    return "chat", conversation(rng, tell)


def documents(seed, count, books=()):
    rng = random.Random(seed)
    for _ in range(count):
        yield document(rng, books)


def plain(doc):
    kind, body = doc
    return body if kind == "text" else "\n".join(f"{role}: {text}" for role, text in body)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--books", default="", help="folder with the public-domain books, if they are to be mixed in")
    parser.add_argument("--show", type=int, default=0, help="print this many documents")
    parser.add_argument("--measure", type=int, default=0, help="generate this many documents and print speed and repetition")
    options = parser.parse_args()
    books = load_books(options.books) if options.books else ()
    for doc in documents(options.seed, options.show, books):
        print(plain(doc), "\n" + "-" * 78)
    if options.measure:
        start, texts = time.time(), [plain(doc) for doc in documents(options.seed, options.measure, books)]
        seconds, size = time.time() - start, sum(map(len, texts))
        sentences = [s for text in texts for s in re.split(r"(?<=[.!?])\s+", text)]
        print(f"{len(texts)} documents, {size / 1e6:.2f} MB, {size / 1e6 / seconds:.2f} MB/s, {size / len(texts):.0f} characters each; "
              f"{len(set(texts)) / len(texts):.3f} of documents and {len(set(sentences)) / len(sentences):.3f} of sentences are distinct")


if __name__ == "__main__":
    main()
