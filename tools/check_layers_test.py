#!/usr/bin/env python3
"""Tests of check_layers.py on small trees made for the purpose."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import check_layers

CMAKE = "cairn_folder(base LIBS fmt)\ncairn_folder(text)\ncairn_folder(backends/cpu)\ncairn_folder(engine)\n"


class CheckLayers(unittest.TestCase):
    def check(self, files):
        """Exit code and output for a tree of {path: text}."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            base = {"CMakeLists.txt": CMAKE, "src/base/error.h": "", "src/text/t.h": "", "src/engine/e.h": "",
                    "src/backends/cpu/k.h": "", "include/cairn/model.h": "", "src/base/testing.h": ""}
            for name, text in {**base, **files}.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                code = check_layers.main(["check_layers", folder])
            return code, output.getvalue()

    def refused(self, files, reason):
        code, output = self.check(files)
        self.assertEqual(code, 1, output)
        self.assertIn(reason, output)

    def test_uses_of_earlier_layers_pass(self):
        code, output = self.check({
            "src/engine/e.cpp": '#include "engine/e.h"\n#include "backends/cpu/k.h"\n#include "text/t.h"\n'
                                '#include <vector>\n#include "e.h"\n',
            "src/api/model.cpp": '#include "cairn/model.h"\n#include "engine/e.h"\n',
            "apps/cairn/main.cpp": '#include "command.h"\n#include "engine/e.h"\n#include "cairn/model.h"\n',
            "apps/cairn/command.h": "",
            "src/text/t_test.cpp": '#include "base/testing.h"\n',
        })
        self.assertEqual(code, 0, output)

    def test_later_layer_is_refused_with_place(self):
        self.refused({"src/text/t.cpp": '\n#include "engine/e.h"\n'}, "src/text/t.cpp:2: text must not use engine")

    def test_nested_layer_counts_as_itself(self):
        self.refused({"src/backends/cpu/k.cpp": '#include "engine/e.h"\n'}, "backends/cpu must not use engine")
        self.refused({"src/text/t.cpp": '#include "backends/cpu/k.h"\n'}, "text must not use backends/cpu")

    def test_angle_brackets_and_spaces_do_not_hide_it(self):
        self.refused({"src/text/t.cpp": "#  include <engine/e.h>\n"}, "text must not use engine")

    def test_tests_are_bound_too(self):
        self.refused({"src/text/t_test.cpp": '#include "engine/e.h"\n'}, "text must not use engine")

    def test_public_headers_stand_alone(self):
        self.refused({"include/cairn/model.h": '#include "base/error.h"\n'}, "a public header must not need")
        self.refused({"src/engine/e.cpp": '#include "cairn/model.h"\n'}, "engine must not use the public")

    def test_src_does_not_use_apps_or_climb(self):
        self.refused({"src/text/t.cpp": '#include "../engine/e.h"\n'}, "climbs with ..")
        self.refused({"src/text/t.cpp": '#include "command.h"\n', "apps/cairn/command.h": ""}, "is neither beside")

    def test_testing_header_stays_in_tests(self):
        self.refused({"src/text/t.cpp": '#include "base/testing.h"\n'}, "is for tests only")

    def test_folder_without_a_line_is_refused(self):
        self.refused({"src/extra/x.cpp": ""}, "no cairn_folder")

    def test_empty_tree_is_not_a_pass(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "CMakeLists.txt").write_text(CMAKE)
            with contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(check_layers.main(["check_layers", folder]), 1)


if __name__ == "__main__":
    unittest.main()
