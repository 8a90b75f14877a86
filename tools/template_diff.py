#!/usr/bin/env python3
"""Renders random small templates with cairn and with jinja2 and reports where they differ.

    ninja -C build/release template_pipe
    tools/template_diff.py build/release/template_pipe --count 20000 --seed 1

Same: the same text, or an error on both sides. cairn's "unsupported" (memory addresses in the output, random, complex
numbers, integers past 128 bits ...) is counted apart and shown by reason."""
import argparse
import collections
import json
import random
import re
import subprocess
import sys

import template_reference as reference

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be kind.", "n": 1},
        {"role": "user", "content": "  Hello <b>Wörld</b> & 'all'\n", "n": 2, "parts": [{"type": "text", "text": "a"}, {"type": "image"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5]}}}]},
        {"role": "user", "content": "日本語 🦊 Straße ŉ İ ΑΣ", "n": -3},
    ],
    "tools": [{"type": "function", "function": {"name": "get", "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": ["null", "integer"]}}, "required": ["a"]}}}],
    "d": {"b": 1, "a": "two", "C": None, "items": [1, 2], "n": {"x": {"y": 5}}, "Ab": 2.5},
    "e": {}, "l": [3, 1, 2, 1], "m": ["b", "A", "c", "a", "B"], "nested": [[1, [2, 3]], [], [4]],
    "mixed": [1, "a", None, 2.5, True, [1], {"k": "v"}],
    "s": "hello world", "t": "  a-b_c  d\te\n", "u": "ÀÉß ŉ ǆ İI ﬁ Σας ΑΣ", "w": "", "z": "🦊x\u0301日本",
    "i": 7, "j": -3, "k": 0, "big": 9007199254740993, "f": 2.5, "g": -0.1, "h": 1e20, "q": 1e-7,
    "yes": True, "no": False, "nil": None, "add_generation_prompt": True, "bos_token": "<s>",
}
NAMES = list(VARIABLES) + ["undef", "x", "y", "loop", "ns"]


class Grammar:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *options):
        return self.r.choice(options)

    def string(self):
        return self.pick("'a'", "'b'", "''", "'hello'", "'%s|%d'", "'{} {0}'", "'{:>5}|{:.2f}'", "'l'", "' '", "'é'", "'A b'",
                         "'\\n'", "'it\\'s'", "'role'", "'content'", "'a.b'", "'%5.1f%%'", "'%(a)s'", "'{a}-{b!r}'", "'<&>'",
                         "'\\u00e9\\x41'", "'1,2'", "'0x1F'", "'12'", "' 3.5 '", "'user'", "'aXbXc'", "'\\\\'", "'ß'", "'\\t x'", "'🦊'")

    def number(self):
        return self.pick("0", "1", "2", "3", "-1", "5", "10", "2.5", "0.1", "1e3", "1_000", "-2", "100", "7", "1.0", "0x1f", "3.14159", "1e16", "-0.0")

    def atom(self):
        c = self.r.random()
        if c < 0.45:
            return self.pick(*NAMES)
        if c < 0.65:
            return self.string()
        if c < 0.85:
            return self.number()
        return self.pick("true", "false", "none", "[]", "{}", "()", "True", "None")

    def args(self, depth, low, high):
        return ", ".join(self.expr(depth - 1) for _ in range(self.r.randint(low, high)))

    def expr(self, depth=3):
        if depth <= 0 or self.r.random() < 0.12:
            return self.atom()
        e = lambda: self.expr(depth - 1)
        c = self.r.randint(0, 23)
        if c <= 1:
            return f"({e()} {self.pick('+', '-', '*', '/', '//', '%', '**', '+', '+')} {e()})"
        if c == 2:
            return f"{self.atom()} {self.pick('+', '-', '*', '~', '//', '%')} {self.atom()} {self.pick('+', '~', '*')} {self.atom()}"
        if c == 3:
            return f"({e()} {self.pick('==', '!=', '<', '>', '<=', '>=', 'in', 'not in')} {e()})"
        if c == 4:
            return f"({self.atom()} {self.pick('<', '<=', '==')} {self.atom()} {self.pick('<', '>', '!=')} {self.atom()})"
        if c == 5:
            return f"({e()} {self.pick('and', 'or')} {e()})"
        if c == 6:
            return f"({self.pick('not ', '-', '+')}{e()})"
        if c == 7:
            return f"({e()} if {e()} else {e()})" if self.r.random() < 0.8 else f"({e()} if {e()})"
        if c == 8:
            return "[" + self.args(depth, 0, 4) + "]"
        if c == 9:
            return "{" + ", ".join(f"{self.atom()}: {e()}" for _ in range(self.r.randint(0, 3))) + "}"
        if c == 10:
            return "(" + self.args(depth, 2, 3) + ("," if self.r.random() < 0.2 else "") + ")"
        if c == 11:
            return f"{self.base(depth)}.{self.pick('role', 'content', 'n', 'x', 'items', 'a', '0', 'real', 'foo', 'keys', 'upper', 'append')}"
        if c == 12:
            return f"{self.base(depth)}[{e()}]"
        if c == 13:
            part = lambda: self.pick("", "", self.pick("0", "1", "-1", "2", "-2", "10", "none", "k", "i"))
            return f"{self.base(depth)}[{part()}:{part()}{self.pick('', ':' + self.pick('1', '-1', '2', '-2', '', '0'))}]"
        if c <= 15:
            return f"{self.base(depth)}.{self.method(depth)}"
        if c <= 20:
            return f"{self.base(depth)}{self.pick('|', ' | ')}{self.filter(depth)}"
        if c == 21:
            return f"({self.base(depth)} is {self.pick('', 'not ')}{self.test(depth)})"
        if c == 22:
            return self.pick(f"range({self.args(1, 1, 3)})|list", f"dict({self.pick('a=1', 'd, b=2', 'l', '[(1, 2)]')})", "range(3)", "namespace(a=1).a", "strftime_now('%d %b %Y %H:%M:%S %j %A')")
        return f"{self.base(depth)} ~ {e()}"

    def base(self, depth):
        return self.pick(*NAMES, self.string(), "messages[0]", "messages[1]", "d", "l", "m", "s", "u", f"({self.expr(depth - 1)})")

    def method(self, depth):
        a = lambda: self.expr(0)
        n = self.pick("0", "1", "2", "3", "8", "20", "-1")
        return self.pick(
            "upper()", "lower()", "title()", "capitalize()", "swapcase()", "casefold()", "strip()", "lstrip()", "rstrip()", f"strip({self.string()})",
            f"lstrip({a()})", f"rstrip({self.string()})", "split()", f"split({self.string()})", f"split({self.string()}, {n})", f"rsplit(none, {n})", f"rsplit({self.string()}, {n})",
            f"split(none, {n})", f"split(maxsplit={n})", "splitlines()", "splitlines(true)", f"startswith({a()})", f"endswith({self.string()})", f"startswith(({self.string()}, {self.string()}))",
            f"find({self.string()})", f"rfind({self.string()}, {n})", f"index({self.string()})", f"count({self.string()})", f"count({a()})", f"replace({self.string()}, {self.string()})",
            f"replace({self.string()}, {self.string()}, {n})", f"join({a()})", f"join(m)", f"center({n})", f"center({n}, '*')", f"ljust({n})", f"rjust({n}, '.')", f"zfill({n})",
            "isdigit()", "isalpha()", "isalnum()", "isspace()", "islower()", "isupper()", "istitle()", "isdecimal()", "isnumeric()", "isascii()", "isprintable()", "isidentifier()",
            f"partition({self.string()})", f"rpartition({self.string()})", f"removeprefix({self.string()})", f"removesuffix({self.string()})", f"expandtabs({n})",
            f"format({self.args(1, 0, 3)})", f"format(a=1, b={a()})", f"format_map(d)", "items()", "keys()", "values()", f"get({a()})", f"get({self.string()}, {a()})", "items()|list", "copy()",
            f"index({a()})", "pop()", "append(1)", "update({})", "conjugate()", "is_integer()", "bit_length()", "encode()|list", "__class__", "__len__()", "_private")

    def filter(self, depth):
        a = lambda: self.expr(0)
        n = self.pick("0", "1", "2", "3", "5", "10", "-1", "20")
        attribute = self.pick("'role'", "'content'", "'n'", "'0'", "0", "'n.x'", "'parts.0.text'")
        return self.pick(
            "upper", "lower", "title", "capitalize", "trim", f"trim({self.string()})", "length", "count", "first", "last", "list", "string", "safe", "e", "escape", "forceescape",
            f"default({a()})", f"d({a()}, true)", f"default({a()}, boolean=true)", "int", f"int({n})", "int(base=16)", "int(0, 2)", "float", f"float({a()})", "abs", "round", f"round({n})", f"round({n}, 'floor')", "round(1, 'ceil')",
            f"replace({self.string()}, {self.string()})", f"replace({self.string()}, {self.string()}, {n})", "join", f"join({self.string()})", f"join(', ', attribute={attribute})", "reverse", "reverse|list",
            "sort", "sort(reverse=true)", "sort(case_sensitive=true)", f"sort(attribute={attribute})", "unique|list", "unique(case_sensitive=true)|list", "min", "max", f"max(attribute={attribute})", "sum", f"sum(attribute={attribute})", f"sum(start={a()})",
            f"map('upper')|list", f"map(attribute={attribute})|list", f"map(attribute={attribute}, default={a()})|list", f"map('default', {a()})|list", "map('string')|join('|')", "map('nosuch')|list", "map('tojson')|list",
            "select|list", "reject|list", "select('string')|list", "select('odd')|list", "reject('none')|list", f"selectattr({attribute})|list", f"selectattr({attribute}, 'equalto', {a()})|list", f"rejectattr({attribute}, 'defined')|list", "select('in', l)|list",
            f"batch({n})|list", f"batch({n}, 'x')|list", f"slice({n})|list", f"slice({n}, 0)|list", f"groupby({attribute})", f"groupby({attribute}, default='z')|list", "items|list", "dictsort", "dictsort(true)", "dictsort(by='value')", "dictsort(reverse=true)",
            "tojson", f"tojson(indent={n})", "tojson(ensure_ascii=true)", "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "tojson(indent='--')", "indent", f"indent({n})", f"indent({n}, true)", f"indent({n}, first=true, blank=true)", "indent('> ', true)",
            f"center({n})", f"truncate({n})", f"truncate({n}, true)", f"truncate({n}, false, '…', 0)", "wordcount", f"wordwrap({n})", f"wordwrap({n}, false)", f"wordwrap({n}, true, '|', false)", "urlencode", "striptags", "xmlattr", "xmlattr(false)",
            f"format({self.args(1, 0, 3)})", "format(a=1)", "filesizeformat", "filesizeformat(true)", f"attr({attribute})", "attr('upper')", "nosuch", "pprint", "length|string", "list|length", "tojson|length", "e|upper", "safe|replace('<', '>')", "safe|lower")

    def test(self, depth):
        a = lambda: self.expr(0)
        return self.pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "odd", "even", "lower", "upper", "escaped",
                         f"divisibleby({self.number()})", f"divisibleby {self.number()}", f"eq({a()})", f"equalto {self.atom()}", f"ne({a()})", f"lt({a()})", f"gt({a()})", f"le({a()})", f"ge({a()})", f"in({a()})", f"sameas({self.pick('true', 'false', 'none')})", "filter", "test", "nosuch")

    def tag(self, body):
        return "{%" + self.pick("", "", "-", "-", "+") + " " + body + " " + self.pick("", "", "-", "+") + "%}"

    def text(self):
        return self.pick("", "", " ", "\n", "text", "  \n  ", "a\nb", "\n\n", " x ", "\t", "{ ", "%}", "}}", "é🦊", "\r\n", "{{ '' }}", "\n  ")

    def target(self):
        return self.pick("x", "y", "x", "y", "s", "ns.a", "x, y", "(x, y)", "ns.b", "i")

    def statement(self, depth):
        e = lambda: self.expr(self.r.randint(0, 2))
        b = lambda: self.body(depth - 1)
        c = self.r.randint(0, 17)
        if depth <= 0 or c <= 4:
            return "{{" + self.pick("", "-", " ") + " " + e() + " " + self.pick("", "-") + "}}"
        if c <= 6:
            return self.tag(f"set {self.target()} = {e()}")
        if c == 7:
            return self.tag("set ns = namespace(" + self.pick("", "a=1", "d", "a=[], b=2") + ")")
        if c <= 9:
            other = self.pick("", self.tag("else") + b(), self.tag(f"elif {e()}") + b(), self.tag(f"elif {e()}") + b() + self.tag("else") + b())
            return self.tag(f"if {e()}") + b() + other + self.tag("endif")
        if c <= 12:
            target = self.pick("x", "x", "y", "x, y", "i")
            source = self.pick("messages", "l", "m", "d", "d.items()", "nested", "mixed", "s", "range(3)", "undef", "tools", "[]", "l|map('string')", "m|batch(2)", e())
            condition = self.pick("", "", "", f" if {self.expr(1)}", " if x is string", " if loop.index", " if x")
            head = self.tag(f"for {target} in {source}{condition}{self.pick('', '', '', '', ' recursive')}")
            inside = self.pick("", "", "{{ loop.index }}/{{ loop.length }}", "{{ loop.first }}{{ loop.last }}", "{{ loop.previtem }}-{{ loop.nextitem }}", "{{ loop.cycle('a', 'b') }}", "{{ loop.changed(x) }}",
                               "{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.index0 }}", "{% if loop.index == 2 %}{% break %}{% endif %}", "{% if x %}{% continue %}{% endif %}", "{{ loop(x) if x is iterable and x is not string }}", "{{ loop }}")
            return head + inside + b() + self.pick("", "", self.tag("else") + b()) + self.tag("endfor")
        if c == 13:
            name = self.pick("mac", "mac2")
            return self.tag(f"macro {name}({self.pick('', 'x', 'x, y=1', 'x=i, y=x', 'caller=none')})") + b() + self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}", "{{ caller('c') if caller }}", "{{ x }}|{{ y }}") + self.tag("endmacro") + \
                "{{ " + self.pick(name, "mac", "mac2") + "(" + self.pick("", "1", "1, 2", "1, 2, 3", "y=2", "x=1, z=2", "*l", "**d", "caller=1") + ") }}"
        if c == 14:
            return self.tag(f"call{self.pick('', '(x)', '(x, y=2)')} {self.pick('mac', 'mac2', 'range')}({self.pick('', '1', 'x=2')})") + b() + self.tag("endcall")
        if c == 15:
            return self.tag("filter " + self.pick("upper", "trim", "replace('a', 'b')", "indent(2, true)|upper", "length", "default('x')", "join('-')")) + b() + self.tag("endfilter")
        if c == 16:
            return self.tag(f"with {self.pick('x = 1', 'x = i, y = x', 'a = d', '')}") + b() + "{{ x }}" + self.tag("endwith")
        return self.pick(self.tag("set " + self.pick("x", "y", "ns.a") + self.pick("", " | upper", " | trim | length")) + b() + self.tag("endset"), "{#" + self.pick("", "-", "+") + " note " + self.pick("", "-", "+") + "#}",
                         self.tag("raw") + "{{ x }}" + self.text() + self.tag("endraw"), self.tag("block " + self.pick("one", "two") + self.pick("", " scoped")) + b() + self.tag("endblock"),
                         self.tag("generation") + b() + self.tag("endgeneration"), self.tag("print " + e()), self.tag("autoescape false") + b() + self.tag("endautoescape"), self.tag("break"), self.tag("include 'x'"))

    def body(self, depth):
        return "".join(self.text() + self.statement(depth) for _ in range(self.r.randint(1, 3))) + self.text()

    def template(self):
        kind = self.r.random()
        if kind < 0.5:
            return "{{ " + self.expr(self.r.randint(1, 3)) + " }}"
        return self.body(self.r.randint(1, 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipe")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20)
    options = parser.parse_args()
    grammar = Grammar(options.seed)
    templates = [grammar.template() for _ in range(options.count)]
    lines = "".join(json.dumps({"template": t, "variables": VARIABLES}, ensure_ascii=False) + "\n" for t in templates)
    answers = subprocess.run([options.pipe], input=lines.encode(), stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    assert len(answers) == len(templates), f"{len(answers)} answers to {len(templates)} templates"
    env = reference.environment()
    counts, reasons, shown = collections.Counter(), collections.Counter(), 0
    for template, line in zip(templates, answers):
        got = json.loads(line)
        status, want = reference.render(env, template, json.loads(json.dumps(VARIABLES)))
        if got.get("kind") == "unsupported":
            counts["unsupported here, " + status + " there"] += 1
            reasons[re.sub(r"^t, line \d+: ", "", got["error"])[:70]] += 1
            if status == "ok" and " at 0x" not in want and shown < options.show:
                print("UNSUPPORTED", repr(template), got["error"], "\n  python", repr(want)[:200])
                shown += 1
            continue
        same = got.get("ok") == want if status == "ok" else "error" in got
        counts["same " + status if same else "DIFFERENT"] += 1
        if not same and shown < options.show:
            shown += 1
            print("DIFFERENT", repr(template), "\n  python", status, repr(want)[:300], "\n  cairn ", repr(got)[:300])
    print(dict(counts))
    print("unsupported:", reasons.most_common(30))
    sys.exit(1 if counts["DIFFERENT"] else 0)


if __name__ == "__main__":
    main()
