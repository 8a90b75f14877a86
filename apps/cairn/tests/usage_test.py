#!/usr/bin/env python3
"""The frame of the program: help, version, completion, misspelt names, exit codes, closed pipes, full disks."""

import json
import re
import shutil
import signal
import subprocess
import unittest

import program
from program import ProgramTest, run


def command_names():
    code, out, _ = run("--help")
    assert code == 0
    return re.findall(r"^  ([a-z]+)  +\S", out.decode().split("Commands:")[1].split("Options:")[0], re.MULTILINE)


class Usage(ProgramTest):
    def test_help_lists_commands_and_each_explains_itself(self):
        names = command_names()
        self.assertGreaterEqual(len(names), 4, names)
        for name in names:
            out = self.succeed(name, "--help").decode()
            self.assertIn(f"cairn {name}", out)
            self.assertIn("--help", out)
            self.assertEqual(self.succeed("help", name).decode(), out)

    def test_version(self):
        self.assertRegex(self.succeed("--version").decode(), r"^cairn \d+\.\d+\.\d+\n$")

    def test_no_command_shows_the_usage(self):
        code, out, err = run()
        self.assertEqual((code, out), (2, b""))
        self.assertIn(b"Commands:", err)

    def test_misspelt_names_get_the_nearest(self):
        self.refuse(2, "inspekt", "x", says=["'inspekt'", "cairn inspect"])
        self.refuse(2, "devices", "--measrue", says=["--measrue", "did you mean --measure?"])
        self.refuse(2, "xyzzy", says="cairn --help")
        self.refuse(2, "--frobnicate", says="--frobnicate")

    def test_missing_and_surplus_arguments(self):
        self.refuse(2, "tokenize", says="model")
        self.refuse(2, "devices", "extra", says="'extra'")
        self.refuse(2, "devices", "-t", "many", says="many")
        self.refuse(2, "devices", "-t", "-3", says="-3")
        self.refuse(2, "completion", "tcsh", says="tcsh")

    def test_a_closed_pipe_is_no_error(self):
        done = subprocess.run(f"{program.CAIRN} completion zsh | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
                              shell=True, executable="/bin/bash", capture_output=True, timeout=60)
        self.assertEqual((done.stdout.strip(), done.stderr), (b"0", b""))

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program.CAIRN, "completion", "zsh"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 7)
        self.assertRegex(done.stderr.decode(), r"^error: cannot write to standard output: .+\n$")

    def test_ctrl_c_ends_a_command_that_waits(self):
        waiting = subprocess.Popen([program.CAIRN, "tokenize", self.write("t.bin", b"")], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=20)
        self.assertNotEqual(waiting.returncode, 0)


class Completion(ProgramTest):
    def shell_accepts(self, shell, script):
        if not shutil.which(shell):
            self.skipTest(f"{shell} is not installed")
        done = subprocess.run([shell, "-n", self.write("completion", script)], capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_scripts_parse(self):
        for shell in ("bash", "zsh", "fish"):
            with self.subTest(shell):
                self.shell_accepts(shell, self.succeed("completion", shell))

    def complete(self, *words):
        """What bash offers when the last of these words is being typed."""
        script = self.write("completion.bash", self.succeed("completion", "bash"))
        line = " ".join(f"'{word}'" for word in words)
        code = (f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _cairn; "
                'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash_completes_commands_flags_and_files(self):
        self.assertEqual(self.complete("cairn", "insp"), ["inspect"])
        self.assertIn("--json", self.complete("cairn", "inspect", "--"))
        self.assertEqual(self.complete("cairn", "completion", "z"), ["zsh"])
        self.write("model.gguf", b"")
        self.assertIn("model.gguf", self.complete("cairn", "inspect", "mod"))


class Devices(ProgramTest):
    def test_text_and_json_agree(self):
        facts = json.loads(self.succeed("devices", "--json"))
        self.assertGreaterEqual(facts["cpu"]["logical_cores"], 1)
        self.assertGreater(facts["memory"]["total_bytes"], 0)
        self.assertIn(f"{facts['cpu']['logical_cores']} usable".encode(), self.succeed("devices"))

    def test_isa_can_be_lowered_but_not_misspelt(self):
        facts = json.loads(self.succeed("devices", "--json", env={"CAIRN_ISA": "scalar"}))
        self.assertEqual(facts["cpu"]["instructions"], "scalar")
        self.refuse(2, "devices", env={"CAIRN_ISA": "sse9"}, says=["sse9", "avx2"])


if __name__ == "__main__":
    program.main()
