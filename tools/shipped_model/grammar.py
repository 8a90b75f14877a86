"""A small text grammar: templates with choices, variables and English agreement.

Template syntax
    [a|b|c]   one of the alternatives, chosen at random; alternatives may nest and may be empty
    {key}     the value of `key` in the environment. A list value means one of its entries.
              {Key} (first letter upper case) is the same value with its first letter raised.

`tidy` runs once over finished text and repairs what templates cannot know: "a apple" becomes "an apple",
and doubled blanks left by empty alternatives go away.
"""

import re

_CACHE = {}
_BLANKS = re.compile(r" {2,}")
_BLANK_BEFORE = re.compile(r" ([.,!?;:])")
_ARTICLE = re.compile(r"\b([Aa]) (?=(?:[aeioAEIO]|u(?!ni[cqtvf]|s[eu]|k)|U(?!ni[cqtvf]|s[eu]|k)|hour|honest)(?!ne\b|nce\b))")
_START = re.compile(r'(^|[.!?]\s+|\n)("?)([a-z])')


def _parse(text, at, depth):
    """Parses until the end or, inside a choice, until '|' or ']'. Returns (parts, next position)."""
    parts, literal = [], []
    size = len(text)
    while at < size:
        letter = text[at]
        if letter == "[":
            if literal:
                parts.append("".join(literal))
                literal = []
            choices = []
            at += 1
            while True:
                inner, at = _parse(text, at, depth + 1)
                choices.append(inner)
                if at >= size:
                    raise ValueError(f"unclosed choice in template: {text!r}")
                if text[at] == "]":
                    at += 1
                    break
                at += 1
            parts.append(tuple(choices))
        elif letter == "{":
            if literal:
                parts.append("".join(literal))
                literal = []
            close = text.index("}", at)
            parts.append((text[at + 1:close],))
            at = close + 1
        elif depth and letter in "|]":
            break
        else:
            literal.append(letter)
            at += 1
    if literal:
        parts.append("".join(literal))
    return parts, at


def _expand(parts, env, rng, out):
    for part in parts:
        if part.__class__ is str:
            out.append(part)
        elif part[0].__class__ is str:
            key = part[0]
            value = env.get(key)
            raise_first = False
            if value is None:
                value = env[key[0].lower() + key[1:]]
                raise_first = True
            if value.__class__ is list:
                value = value[int(rng.random() * len(value))]
            if "[" in value or "{" in value:
                value = expand(value, env, rng)
            out.append(value[0].upper() + value[1:] if raise_first and value else value)
        else:
            _expand(part[int(rng.random() * len(part))], env, rng, out)


def expand(template, env, rng):
    """Text of `template` under `env` (str -> str or list of str)."""
    parts = _CACHE.get(template)
    if parts is None:
        parts, at = _parse(template, 0, 0)
        if at != len(template):
            raise ValueError(f"stray bracket at {at} in template: {template!r}")
        if len(_CACHE) < 200000:
            _CACHE[template] = parts
    out = []
    _expand(parts, env, rng, out)
    return "".join(out)


def tidy(text):
    """Repairs articles, blanks and sentence starts of expanded text."""
    text = _BLANKS.sub(" ", text)
    text = _BLANK_BEFORE.sub(r"\1", text)
    text = _ARTICLE.sub(r"\1n ", text)
    text = _START.sub(lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)
    return text.strip()


def pick(rng, items):
    return items[int(rng.random() * len(items))]


def pick_front(rng, items):
    """One of `items`, the earlier ones more often: the density falls as 1 / position."""
    return items[int((len(items) + 1) ** rng.random()) - 1]


def chance(rng, probability):
    return rng.random() < probability
