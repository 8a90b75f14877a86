#!/usr/bin/env python3
"""The most memory that cairn quantize takes: at most three times the bytes of a block, as the files store it."""

import json
import os
import random
import shutil
import struct
import subprocess
import unittest
from pathlib import Path

import program
from program import ProgramTest

MODEL = Path(__file__).resolve().parents[3] / "models/cairn-stories"
HIDDEN, INNER, LAYERS, VOCABULARY = 2048, 7168, 2, 4096  # an eighth of an 8B model's block: what is fixed counts more here


class QuantizeMemory(ProgramTest):
    def make_model(self, codec):
        """A folder with random weights of two sizes; returns it and the bytes of a block."""
        source = random.Random(1)
        small = bytes(0x3c if code % 2 else 0xbc for code in range(256))  # +-0.0078 to 0.0312
        size = {"BF16": 2, "F32": 4}[codec]

        def values(count):
            words = bytearray(size * count)
            words[size - 2::size] = source.randbytes(count)
            words[size - 1::size] = source.randbytes(count).translate(small)
            return words

        kv = HIDDEN // 4
        shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
        block = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (kv, HIDDEN), "self_attn.v_proj": (kv, HIDDEN),
                 "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
                 "mlp.down_proj": (HIDDEN, INNER), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,)}
        for layer in range(LAYERS):
            shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}

        def count(shape):
            return shape[0] * (shape[1] if len(shape) > 1 else 1)

        folder = self.folder / codec
        folder.mkdir()
        header, at = {}, 0
        for name, shape in shapes.items():
            header[name] = {"dtype": codec, "shape": shape, "data_offsets": [at, at + size * count(shape)]}
            at += size * count(shape)
        text = json.dumps(header).encode()
        with open(folder / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for shape in shapes.values():
                file.write(values(count(shape)))
        config = json.loads((MODEL / "config.json").read_text())
        config |= {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
                   "num_attention_heads": HIDDEN // 64, "num_key_value_heads": kv // 64, "head_dim": 64}
        (folder / "config.json").write_text(json.dumps(config))
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(MODEL / name, folder)
        return folder, size * sum(count(shape) for shape in block.values())

    def peak(self, *arguments):
        """The most resident bytes of `cairn ARGUMENTS`, pages of mapped files among them."""
        with subprocess.Popen([program.CAIRN, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            said = child.stderr.read()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(child.returncode, 0, said)
        return usage.ru_maxrss * 1024

    def test_three_blocks(self):
        for codec in ("BF16", "F32"):
            folder, block = self.make_model(codec)
            ways = {"gptq": ["--codec", "gptq", "--samples", "4", "--seq", "256"],
                    "bcq": ["--codec", "bcq", "--rounds", "1"]}
            if codec == "BF16":
                ways["at once"] = [*ways["gptq"], "--true-sequential", "off", "--act-order"]
                ways["df11"] = ["--codec", "df11"]
            for name, way in ways.items():
                out = self.folder / "out"
                times = self.peak("quantize", folder, "-o", out, *way) / block
                print(f"{codec} {name}: {times:.2f} blocks", flush=True)
                with self.subTest(codec=codec, way=name):
                    self.assertLess(times, 3)
                shutil.rmtree(out)
            shutil.rmtree(folder)


if __name__ == "__main__":
    program.main()
