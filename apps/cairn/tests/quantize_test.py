#!/usr/bin/env python3
"""cairn quantize on the shipped model: what it writes runs, and what it refuses."""

import json
import shutil
import struct
import unittest
from pathlib import Path

import program
from program import ProgramTest

MODEL = Path(__file__).resolve().parents[3] / "models/cairn-stories/cairn-stories-q8_0.gguf"


def tensors_of(path):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8:8 + size])
    return {name: (e["dtype"], e["shape"], data[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]])
            for name, e in entries.items() if name != "__metadata__"}


def unpacked(words, bits, count):
    """`count` values of `bits` bits from 32-bit words, low bits first."""
    number = int.from_bytes(struct.pack(f"<{len(words)}I", *words), "little")
    return [number >> (bits * i) & ((1 << bits) - 1) for i in range(count)]


def read_gptq(tensors, module, bits):
    """The matrix [rows][columns] of a module as GPTQ checkpoints of the first format store it."""
    _, (height, rows), codes = tensors[module + ".qweight"]
    codes = struct.unpack(f"<{height * rows}I", codes)
    _, (groups, width), zeros = tensors[module + ".qzeros"]
    zeros = struct.unpack(f"<{groups * width}I", zeros)
    zeros = [unpacked(zeros[g * width:(g + 1) * width], bits, rows) for g in range(groups)]
    scales = struct.unpack(f"<{groups * rows}e", tensors[module + ".scales"][2])
    columns = height * 32 // bits
    group = struct.unpack(f"<{columns}i", tensors[module + ".g_idx"][2])
    result = []
    for row in range(rows):
        line = unpacked(codes[row::rows], bits, columns)
        result.append([scales[group[c] * rows + row] * (line[c] - ((zeros[group[c]][row] + 1) & ((1 << bits) - 1)))
                       for c in range(columns)])
    return result


class Quantize(ProgramTest):
    def test_another_reader_finds_the_weights(self):
        module = "model.layers.1.self_attn.k_proj"
        _, (rows, columns), original = tensors_of(MODEL.parent / "model.safetensors")[module + ".weight"]
        original = [struct.unpack("<f", b"\0\0" + original[2 * i:2 * i + 2])[0] for i in range(rows * columns)]
        size = sum(w * w for w in original)
        calibration = ("--samples", "4", "--seq", "128")
        # What is lost grows fourfold with a bit less; a code or zero in a wrong place costs more than all of it.
        for bits, share in ((8, 1e-4), (4, 0.03), (3, 0.12), (2, 0.6)):
            for way in (("--round-to-nearest",), ("--act-order", "--scattered-groups", *calibration)):
                out = self.folder / f"{bits}{way[0]}"
                self.succeed("quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--bits", bits, "--asymmetric", *way)
                shard = tensors_of(out / "model-00003-of-00005.safetensors")
                found = read_gptq(shard, module, bits)
                self.assertEqual((len(found), len(found[0])), (rows, columns))
                lost = sum((a - b) ** 2 for a, b in zip((w for line in found for w in line), original))
                self.assertLess(lost / size, share if len(way) == 1 else 3 * share, (bits, way))
                scattered = struct.unpack(f"<{columns}i", shard[module + ".g_idx"][2]) != tuple(c // 128 for c in range(columns))
                self.assertEqual(scattered, len(way) > 1)
                self.assertEqual(json.loads((out / "config.json").read_text())["quantization_config"]["desc_act"], scattered)
        text = self.write("text.txt", "Once upon a time there was a little girl who had a red ball. " * 8)
        for way in ("--round-to-nearest", "--act-order"):
            found = json.loads(self.succeed("compare", MODEL.parent, self.folder / f"8{way}", text, "--json", "--window", "64"))
            self.assertLess(found["kl_mean"], 2e-3)

    def test_importance_makes_another_file_of_the_same_size(self):
        plain, weighed = self.folder / "plain.gguf", self.folder / "weighed.gguf"
        self.succeed("quantize", MODEL, "-o", plain, "--codec", "q4_k_s", "--again")
        self.succeed("quantize", MODEL, "-o", weighed, "--codec", "q4_k_s", "--again", "--imatrix")
        self.assertEqual(plain.stat().st_size, weighed.stat().st_size)
        self.assertNotEqual(plain.read_bytes(), weighed.read_bytes())
        text = self.write("text.txt", "Once upon a time there was a little girl who had a red ball. " * 8)
        found = json.loads(self.succeed("compare", MODEL, weighed, text, "--json", "--window", "64"))
        self.assertLess(found["kl_mean"], 0.2)

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

    def test_calibration_saves_most_of_what_rounding_loses(self):
        """With the text that ships, which is not of the model's kind; measured 0.1 with three bits."""
        text = self.write("text.txt", ("Once upon a time there was a little girl named Emma. Emma loved to paint. One day all the colors "
                                       "in the paint box were dry and gray. \"Then we must find new colors,\" said Adam, a boy, and "
                                       "took three little pots. They found the plum tree, asked politely, and the plum tree dropped one "
                                       "ripe plum. ") * 3)
        kl = []
        for way in ("--round-to-nearest", "--act-order", "--damping=0.02"):
            out = self.folder / f"small{way}"
            self.succeed("quantize", MODEL.parent, "-o", out, "--codec", "gptq", "--bits", "3", "--asymmetric", way,
                         "--samples", "16", "--seq", "256")
            kl.append(json.loads(self.succeed("compare", MODEL.parent, out, text, "--json", "--window", "128"))["kl_mean"])
        self.assertLess(kl[1], 0.5 * kl[0])
        self.assertLess(kl[2], 0.5 * kl[0])

    def test_a_killed_calibration_goes_on_to_the_same_files(self):
        command = ("quantize", MODEL.parent, "--codec", "gptq", "--samples", "4", "--seq", "128", "-o")
        out, again = self.folder / "whole", self.folder / "again"
        self.succeed(*command, out)
        shutil.copytree(out, self.folder / "again.partial")
        for number in (4, 5):
            (self.folder / f"again.partial/model-0000{number}-of-00005.safetensors").unlink()
        self.assertIn("3 shards were there", self.succeed(*command, again).decode())
        for path in out.iterdir():
            self.assertEqual(path.read_bytes(), (again / path.name).read_bytes(), path.name)

    def test_bad_calibration_is_named(self):
        out = self.folder / "small"
        short = self.write("short.txt", "too short")
        command = ("quantize", MODEL.parent, "-o", out, "--codec", "gptq")
        self.refuse(2, *command, "--calib", short, says=["short.txt", "fewer than one sample"])
        self.refuse(2, *command, "--seq", "4096", says="context has 1024")
        self.refuse(2, *command, "--calib", self.folder / "none.txt", says="none.txt")
        self.refuse(2, *command, "--damping", "7", says="--damping is '7'")

    def test_df11_loses_nothing(self):
        out = self.folder / "df11"
        says = self.succeed("quantize", MODEL.parent, "-o", out, "--codec", "df11").decode()
        self.assertIn("entropy bound", says)
        size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        ratio = size / (MODEL.parent / "model.safetensors").stat().st_size
        self.assertGreater(ratio, 0.65)
        self.assertLess(ratio, 0.72)
        config = json.loads((out / "config.json").read_text())
        self.assertNotIn("quantization_config", config)
        patterns = config["dfloat11_config"]["pattern_dict"]
        self.assertEqual(patterns["model\\.embed_tokens"], [])
        self.assertEqual(len(patterns["model\\.layers\\.\\d+"]), 7)
        text = self.write("text.txt", "Once upon a time there was a little girl who had a red ball. " * 8)
        found = json.loads(self.succeed("compare", MODEL.parent, out, text, "--json", "--window", "64"))
        self.assertEqual(found["kl_mean"], 0)
        again = ("quantize", out, "-o", self.folder / "again", "--codec", "df11")
        self.refuse(5, *again, says="quantized already")
        half = MODEL.parents[2] / "src/models/testdata/llama-f16"
        self.refuse(2, "quantize", half, "-o", self.folder / "half", "--codec", "df11",
                    says=["stored as f16", "df11 stores bf16 only"])

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
