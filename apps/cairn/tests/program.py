"""Runs the cairn binary for the whole-program tests, which are given its path as their first argument."""

import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

CAIRN = os.environ.get("CAIRN_BINARY", "")


def run(*arguments, stdin=b"", timeout=60, env=None):
    """(exit code, stdout, stderr) of `cairn ARGUMENTS`; both as bytes."""
    if isinstance(stdin, str):
        stdin = stdin.encode()
    done = subprocess.run([CAIRN, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout, done.stderr


class ProgramTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cairn-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def succeed(self, *arguments, **options):
        code, out, err = run(*arguments, **options)
        self.assertEqual(code, 0, (arguments, err))
        return out

    def refuse(self, code, *arguments, says=(), **options):
        """The program ends with this code and one sentence, which holds each of `says`; stdout stays empty."""
        got, out, err = run(*arguments, **options)
        text = err.decode()
        self.assertEqual(got, code, (arguments, text))
        self.assertEqual(out, b"", arguments)
        lines = text.splitlines()
        self.assertTrue(lines and lines[0].startswith("error: "), (arguments, text))
        self.assertTrue(len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), (arguments, text))
        self.assertTrue(text.endswith("\n"))
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, text)
        return text


# A small valid GGUF file, in parts that a test can spoil.

def gguf_text(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf_pair(key, value):
    if isinstance(value, str):
        return gguf_text(key) + struct.pack("<I", 8) + gguf_text(value)
    if isinstance(value, float):
        return gguf_text(key) + struct.pack("<If", 6, value)
    if isinstance(value, list):
        body = struct.pack("<IQ", 8, len(value)) + b"".join(gguf_text(v) for v in value)
        return gguf_text(key) + struct.pack("<I", 9) + body
    return gguf_text(key) + struct.pack("<II", 4, value)


def gguf_tensor(name, dims, kind, offset):
    return gguf_text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(pairs=(("general.architecture", "llama"), ("llama.block_count", 1)),
         tensors=(("token_embd.weight", (8, 4), 0, 0),), data=bytes(128), tensor_count=None):
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors) if tensor_count is None else tensor_count, len(pairs))
    header += b"".join(gguf_pair(*pair) for pair in pairs) + b"".join(gguf_tensor(*t) for t in tensors)
    return header + bytes(-len(header) % 32) + data


def main():
    global CAIRN
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        CAIRN = sys.argv.pop(1)
        os.environ["CAIRN_BINARY"] = CAIRN
    sys.modules["program"].CAIRN = CAIRN
    unittest.main(module="__main__")
