#!/usr/bin/env python3
"""cairn template: variables from a JSON file, templates from files and models."""

import json
import unittest

import program
from program import ProgramTest, gguf


class Template(ProgramTest):
    def setUp(self):
        super().setUp()
        self.messages = self.write("messages.json", json.dumps({
            "messages": [{"role": "user", "content": "Größe <b> 漢字"}], "add_generation_prompt": True,
            "zulu": 1, "alpha": {"z": 1, "a": 2}}))

    def render(self, source, messages=None):
        path = self.write("template.jinja", source)
        return self.succeed("template", path, "--messages", messages or self.messages).decode()

    def test_renders_what_the_file_says(self):
        self.assertEqual(self.render("{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}"
                                     "{% if add_generation_prompt %}>{% endif %}"), "[user] Größe <b> 漢字\n>")

    def test_extra_variables_keep_their_order(self):
        self.assertEqual(self.render("{{ zulu }}{{ alpha | tojson }}{{ absent is defined }}"), '1{"z": 1, "a": 2}False')

    def test_no_line_break_is_added(self):
        self.assertEqual(self.render("x"), "x")
        self.assertEqual(self.render(""), "")

    def test_a_list_is_the_messages(self):
        path = self.write("list.json", '[{"role": "user", "content": "hi"}]')
        self.assertEqual(self.render("{{ messages[0].content }}", path), "hi")

    def test_standard_input(self):
        path = self.write("template.jinja", "{{ a }}")
        self.assertEqual(self.succeed("template", path, "--messages", "-", stdin='{"a": 5}'), b"5")

    def test_refusals(self):
        path = self.write("template.jinja", "a\n{{ messages[0].content | frobnicate }}")
        self.refuse(4, "template", path, "--messages", self.messages, says=["template.jinja", "line 2", "frobnicate"])
        path = self.write("open.jinja", "\n\n{% if x %}")
        self.refuse(4, "template", path, "--messages", self.messages, says="open.jinja")
        path = self.write("raise.jinja", "{{ raise_exception('roles must alternate') }}")
        self.refuse(2, "template", path, "--messages", self.messages, says="roles must alternate")
        path = self.write("good.jinja", "x")
        self.refuse(3, "template", path, "--messages", self.folder / "absent.json", says="absent.json")
        self.refuse(4, "template", path, "--messages", self.write("broken.json", '{"messages": ['), says="broken.json")
        self.refuse(4, "template", path, "--messages", self.write("number.json", "7"), says=["number.json", "number"])
        self.refuse(2, "template", path, says="--messages")
        self.refuse(3, "template", self.folder / "absent.jinja", "--messages", self.messages, says="absent.jinja")

    def test_endless_work_is_refused(self):
        path = self.write("endless.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}")
        code, out, err = program.run("template", path, "--messages", self.messages, timeout=60)
        self.assertNotEqual(code, 0)
        self.assertTrue(err.startswith(b"error: "), err)


if __name__ == "__main__":
    program.main()
