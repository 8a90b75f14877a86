#!/usr/bin/env python3
"""Writes src/text/jinja/unicode_tables.cpp: what Python's str methods know beyond utf8proc's categories and simple
case mappings. Run with any Python 3; the output says which Unicode version it came from."""
import pathlib
import unicodedata

category = unicodedata.category
SURROGATES = range(0xD800, 0xE000)


def ranges(holds):
    found, start = [], None
    for point in range(0x110001):
        inside = point < 0x110000 and point not in SURROGATES and holds(chr(point))
        if inside and start is None:
            start = point
        if not inside and start is not None:
            found.append((start, point - 1))
            start = None
    return found


def wrapped(items):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 108:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    return "\n".join(lines + [line])


def range_table(name, holds):
    rows = wrapped([f"{{0x{a:x}, 0x{b:x}}}" for a, b in ranges(holds)])
    return f"const std::vector<PointRange> {name} = {{\n{rows}}};\n"


def map_table(name, mapping, points=range(0x110000)):
    rows = []
    for point in points:
        if point in SURROGATES:
            continue
        to = mapping(chr(point))
        if len(to) > 1:
            rows.append(f"{{0x{point:x}, U\"" + "".join(f"\\U{ord(c):08x}" for c in to) + "\"}")
    return f"const std::vector<PointMapping> {name} = {{\n{wrapped(rows)}}};\n"


def main():
    out = [
        f"// Made by tools/make_unicode_tables.py from Unicode {unicodedata.unidata_version}: do not edit.",
        '#include "text/jinja/unicode_tables.h"\n\nnamespace cairn::text::jinja {\n',
        "// clang-format off",
        range_table("kOtherLower", lambda c: c.islower() and category(c) != "Ll"),
        range_table("kOtherUpper", lambda c: c.isupper() and category(c) != "Lu"),
        range_table("kOtherDigit", lambda c: c.isdigit() and category(c) != "Nd"),
        range_table("kOtherNumeric", lambda c: c.isnumeric() and category(c)[0] != "N"),
        range_table("kCaseIgnorable", lambda c: ("a" + c + "\u03a3").lower().endswith("\u03c2")
                    and ("1" + c + "\u03a3").lower().endswith("\u03c3")),
        map_table("kUpper", str.upper),
        map_table("kTitle", str.title),
        map_table("kFold", str.casefold),
        "// clang-format on\n\n}  // namespace cairn::text::jinja\n",
    ]
    path = pathlib.Path(__file__).parent.parent / "src/text/jinja/unicode_tables.cpp"
    path.write_text("\n".join(out))


main()
