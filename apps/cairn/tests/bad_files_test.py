#!/usr/bin/env python3
"""What bad input gets: one sentence that names the file, an exit code by kind, nothing on stdout."""

import json
import struct
import unittest

import program
from program import ProgramTest, gguf


class BadModels(ProgramTest):
    def test_missing(self):
        path = self.folder / "model.gguf"
        self.refuse(3, "inspect", path, says=str(path))
        self.write("model-q8.gguf", gguf())
        self.refuse(3, "inspect", path, says=["did you mean", "model-q8.gguf"])
        self.refuse(3, "inspect", "some-org/some-model", says="cairn pull some-org/some-model")
        self.refuse(3, "inspect", "/dev/null/x", says="/dev/null/x")

    def test_not_a_model(self):
        self.refuse(4, "inspect", self.write("empty.gguf", b""), says="empty.gguf")
        self.refuse(4, "inspect", self.write("text.gguf", b"this is not a model at all\n" * 10), says="text.gguf")
        self.refuse(4, "inspect", self.write("magic.gguf", b"GGUF"), says="magic.gguf")
        self.refuse(5, "inspect", self.write("v9.gguf", b"GGUF" + struct.pack("<IQQ", 9, 0, 0)), says=["v9.gguf", "9"])

    def test_valid_file_is_taken(self):
        facts = json.loads(self.succeed("inspect", "--json", self.write("m.gguf", gguf())))
        self.assertEqual(facts["parameters"], 32)

    def test_truncated_at_every_byte(self):
        whole = gguf()
        for length in range(0, len(whole), 7):
            self.refuse(4, "inspect", self.write("short.gguf", whole[:length]), says="short.gguf")

    def test_tensor_past_the_end(self):
        for dims, offset in (((8, 4), 64), ((1 << 40, 1 << 40), 0), ((2**63, 2), 0), ((8, 4), 2**64 - 64)):
            self.refuse(4, "inspect", self.write("far.gguf", gguf(tensors=[("token_embd.weight", dims, 0, offset)])),
                        says=["far.gguf", "token_embd.weight"])

    def test_counts_that_lie(self):
        for count in (2, 2**31, 2**63, 2**64 - 1):
            self.refuse(4, "inspect", self.write("lie.gguf", gguf(tensor_count=count)), says="lie.gguf")

    def test_folder_without_a_model(self):
        self.write("empty/readme.txt", "nothing")
        self.refuse(3, "inspect", self.folder / "empty", says=["empty", "safetensors"])
        self.write("noweights/config.json", "{}")
        self.refuse(3, "inspect", self.folder / "noweights", says="safetensors")

    def test_broken_json(self):
        self.write("m/config.json", '{"a": ')
        self.write("m/model.safetensors", struct.pack("<Q", 2) + b"{}")
        self.refuse(4, "inspect", self.folder / "m", says="config.json")

    def test_safetensors_header(self):
        self.write("m/config.json", '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
        for header in (b"\xff" * 8, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 30) + b"{}",
                       struct.pack("<Q", 2) + b"[]"):
            self.write("m/model.safetensors", header)
            self.refuse(4, "inspect", self.folder / "m", says="model.safetensors")

    def test_a_hostile_name_does_not_reach_the_terminal(self):
        name = "evil\x1b[2J\x1b]0;title\x07"
        path = self.write("evil.gguf", gguf(tensors=[(name, (8, 4), 0, 0)], pairs=[("general.architecture", name)]))
        code, out, err = program.run("inspect", "--tensors", path)
        self.assertNotIn(b"\x1b", out + err)
        self.assertNotIn(b"\x07", out + err)

    def test_special_files(self):
        code, out, err = program.run("inspect", "/dev/zero", timeout=20)
        self.assertIn(code, (4, 5))
        self.assertTrue(err.startswith(b"error: "), err)


class BadTokenizers(ProgramTest):
    def test_missing_and_unknown(self):
        self.refuse(3, "tokenize", self.folder / "tokenizer.json", says="tokenizer.json")
        self.refuse(3, "tokenize", self.folder, says="tokenizer.json")
        self.refuse(5, "tokenize", self.write("tokenizer.xyz", "x"), says="tokenizer.xyz")

    def test_broken(self):
        for content in ("", "{", "[]", "{}", '{"model": {"type": "BPE"}}', '{"model": 7}'):
            code, out, err = program.run("tokenize", self.write("tokenizer.json", content), "--ids", stdin="text")
            self.assertIn(code, (4, 5), (content, err))
            self.assertTrue(err.startswith(b"error: ") and b"tokenizer.json" in err, (content, err))

    def test_ids_to_decode(self):
        path = self.write("tokenizer.bin", struct.pack("<I", 8) + b"".join(
            struct.pack("<fI", 0.0, len(piece)) + piece
            for piece in [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256)), b"a"]))
        self.refuse(2, "tokenize", "--decode", path, stdin="1 two", says="'two'")
        self.refuse(2, "tokenize", "--decode", path, stdin="99999999", says="99999999")
        self.refuse(2, "tokenize", "--decode", path, stdin="-1", says="-1")


if __name__ == "__main__":
    program.main()
