#!/usr/bin/env python3
"""Refuses an #include that points down the layer list.

The list is the order of cairn_folder(...) in CMakeLists.txt: a folder of src/ may use itself and those before it.
src/api is above all of them, apps/ above src/api; include/cairn is what other programs see and stands alone.
Prints one line per refused include, file:line: reason; exit code 1 when there is any.

Usage: tools/check_layers.py [ROOT]
"""

import re
import sys
from pathlib import Path

SUFFIXES = {".h", ".cpp", ".inc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def layer_list(cmake_text):
    layers = re.findall(r"^\s*cairn_folder\(\s*([\w/]+)", cmake_text, re.MULTILINE)
    return layers + ["api"]


def owner(path, layers):
    """The layer that a path relative to src/ belongs to, or None."""
    fitting = [layer for layer in layers if path.startswith(layer + "/")]
    return max(fitting, key=len, default=None)


def is_test(name):
    return name.endswith("_test.cpp") or name.endswith("_fuzz.cpp") or name.endswith("testing.h")


class Checker:
    def __init__(self, root):
        self.root = root
        self.layers = layer_list((root / "CMakeLists.txt").read_text())
        self.problems = []

    def refuse(self, place, reason):
        self.problems.append(f"{place}: {reason}")

    def check_include(self, place, file, quote, target):
        """One include of `file` (relative to the root); `place` is file:line for the message."""
        top = file.parts[0]
        if ".." in Path(target).parts:
            return self.refuse(place, f'"{target}" climbs with ..; name it from src/ on')
        beside = quote == '"' and (self.root / file.parent / target).is_file()
        public = (self.root / "include" / target).is_file()
        source = (self.root / "src" / target).is_file()
        if not (beside or public or source):
            if quote == '"':
                self.refuse(place, f'"{target}" is neither beside the file, nor in src/, nor in include/')
            return None
        if beside:
            target_path = (file.parent / target).as_posix()
        else:
            target_path = ("src/" if source else "include/") + target
        if target.endswith("testing.h") and not is_test(file.name):
            self.refuse(place, f'"{target}" is for tests only')
        if top == "apps":
            return None
        if target_path.startswith("apps/"):
            return self.refuse(place, f'{top}/ must not use the command line\'s "{target}"')
        if top == "include":
            if not target_path.startswith("include/"):
                self.refuse(place, f'a public header must not need "{target}" of src/')
            return None
        layer = owner(file.relative_to("src").as_posix(), self.layers)
        if target_path.startswith("include/"):
            if layer != "api":
                self.refuse(place, f'{layer} must not use the public "{target}": it stands above every folder of src/')
            return None
        used = owner(target_path[len("src/"):], self.layers)
        if used is None:
            return None  # that folder's own files are refused below
        if self.layers.index(used) > self.layers.index(layer):
            self.refuse(place, f'{layer} must not use {used} ("{target}"): it comes later in the list of CMakeLists.txt')
        return None

    def check_file(self, file):
        if file.parts[0] == "src" and owner(file.relative_to("src").as_posix(), self.layers) is None:
            return self.refuse(file, "its folder has no cairn_folder(...) line in CMakeLists.txt")
        text = (self.root / file).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            match = INCLUDE.match(line)
            if match:
                self.check_include(f"{file}:{number}", file, match[1], match[2])
        return None

    def run(self):
        count = 0
        for top in ("src", "include", "apps"):
            for path in sorted((self.root / top).rglob("*")):
                if path.suffix in SUFFIXES and path.is_file():
                    self.check_file(path.relative_to(self.root))
                    count += 1
        return count


def main(arguments):
    root = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).resolve().parent.parent
    checker = Checker(root)
    count = checker.run()
    for problem in checker.problems:
        print(problem)
    print(f"check_layers: {count} files, {len(checker.layers)} layers, {len(checker.problems)} refused")
    return 1 if checker.problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
