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

    def test_a_folder_runs_and_what_was_finished_is_kept(self):
        out = self.folder / "small"
        command = ("quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--round-to-nearest")
        says = self.succeed(*command).decode()
        self.assertIn("28 matrices", says)
        self.assertIn("model.embed_tokens.weight: stays", says)
        self.assertFalse((self.folder / "small.partial").exists())
        text = self.write("text.txt", "Once upon a time there was a little girl who had a red ball. " * 8)
        found = json.loads(self.succeed("compare", MODEL.parent, out, text, "--json", "--window", "64"))
        self.assertGreater(found["kl_mean"], 0)
        self.assertLess(found["kl_mean"], 0.5)
        self.refuse(2, *command, says="exists already")
        # As if a run had been killed within the third of five shards.
        first = {path.name: path.read_bytes() for path in out.iterdir()}
        partial = out.rename(self.folder / "small.partial")
        kept = partial / "model-00002-of-00005.safetensors"
        stamp = kept.stat().st_mtime_ns
        for name in ("config.json", "model.safetensors.index.json", "model-00004-of-00005.safetensors"):
            (partial / name).unlink()
        cut = partial / "model-00003-of-00005.safetensors"
        cut.write_bytes(cut.read_bytes()[:-1])
        self.assertIn("3 shards were there", self.succeed(*command).decode())
        self.assertEqual((out / kept.name).stat().st_mtime_ns, stamp)
        self.assertEqual(first, {path.name: path.read_bytes() for path in out.iterdir()})
        # Other settings begin anew.
        out.rename(self.folder / "small.partial")
        self.assertNotIn("shards were there", self.succeed(*command, "--asymmetric").decode())

    def test_what_is_refused(self):
        out = self.folder / "small.gguf"
        self.refuse(2, "quantize", MODEL, "-o", out, says=["q8_0 already", "--again"])
        self.refuse(2, "quantize", MODEL, "-o", out, "--codec", "q9", says=["'q9'", "q4_k_m"])
        self.refuse(5, "quantize", MODEL.parent, "-o", out, says="no GGUF file")
        self.refuse(5, "quantize", MODEL, "-o", out, "--codec", "gptq", says="GGUF file")
        self.refuse(2, "quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--bits", "5", says="2, 3, 4 or 8")
        self.refuse(2, "quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--group", "x", says="'x'")
        self.refuse(2, "quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--group", "96",
                    says=["no multiple of the group of 96", "no matrix"])
        self.refuse(2, "quantize", MODEL, "-o", out, "--again", "--bits", "4", says="--bits says nothing")
        self.assertFalse(out.exists())
        out.write_bytes(b"keep")
        self.refuse(2, "quantize", MODEL, "-o", out, "--again", says="--overwrite")
        self.refuse(2, "quantize", MODEL, "-o", MODEL, "--again", "--overwrite", says="read and written at once")
        self.assertEqual(out.read_bytes(), b"keep")


if __name__ == "__main__":
    program.main()
