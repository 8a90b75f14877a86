#!/usr/bin/env python3
"""cairn quantize on the shipped model: what it writes runs, and what it refuses."""

import json
import unittest
from pathlib import Path

import program
from program import ProgramTest

MODEL = Path(__file__).resolve().parents[3] / "models/cairn-stories/cairn-stories-q8_0.gguf"


class Quantize(ProgramTest):
    def test_the_file_runs_and_loses_little(self):
        out = self.folder / "small.gguf"
        says = self.succeed("quantize", MODEL, "-o", out, "--codec", "q6_k", "--again").decode()
        self.assertIn("bits per weight", says)
        self.assertLess(out.stat().st_size, 0.85 * MODEL.stat().st_size)
        text = self.write("text.txt", "Once upon a time there was a little girl who had a red ball. " * 8)
        found = json.loads(self.succeed("compare", MODEL, out, text, "--json", "--window", "64"))
        self.assertGreater(found["kl_mean"], 0)
        self.assertLess(found["kl_mean"], 0.05)

    def test_what_is_refused(self):
        out = self.folder / "small.gguf"
        self.refuse(2, "quantize", MODEL, "-o", out, says=["q8_0 already", "--again"])
        self.refuse(2, "quantize", MODEL, "-o", out, "--codec", "q9", says=["'q9'", "q4_k_m"])
        self.refuse(5, "quantize", MODEL.parent, "-o", out, says="no GGUF file")
        self.assertFalse(out.exists())
        out.write_bytes(b"keep")
        self.refuse(2, "quantize", MODEL, "-o", out, "--again", says="--overwrite")
        self.refuse(2, "quantize", MODEL, "-o", MODEL, "--again", "--overwrite", says="read and written at once")
        self.assertEqual(out.read_bytes(), b"keep")


if __name__ == "__main__":
    program.main()
