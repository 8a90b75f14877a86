#!/usr/bin/env python3
"""cairn pull from a hub on loopback, and what was pulled used by its name."""

import hashlib
import http.server
import json
import threading
import unittest

import program
from program import ProgramTest, gguf

COMMIT = "c" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the Hugging Face hub's answers that small files need."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if self.server.refuse:
            return self.answer(self.server.refuse, b"no")
        if self.path.startswith("/api/models/org/name/revision/"):
            names = [{"rfilename": name} for name in self.server.files]
            return self.answer(200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": names}).encode())
        prefix = f"/org/name/resolve/{COMMIT}/"
        content = self.server.files.get(self.path[len(prefix):]) if self.path.startswith(prefix) else None
        if content is None:
            return self.answer(404, b"not here")
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if self.server.spoil:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self.answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, status, content, fields=()):
        self.send_response(status)
        for name, value in dict(fields).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class Pull(ProgramTest):
    def setUp(self):
        super().setUp()
        self.hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        self.hub.files = {"model-Q8_0.gguf": gguf(), "README.md": b"words"}
        self.hub.seen, self.hub.refuse, self.hub.spoil = [], 0, False
        threading.Thread(target=self.hub.serve_forever, daemon=True).start()
        self.addCleanup(self.hub.server_close)
        self.addCleanup(self.hub.shutdown)
        self.env = {"HF_ENDPOINT": f"http://127.0.0.1:{self.hub.server_port}", "HF_TOKEN": "hf_secret",
                    "HF_HUB_CACHE": str(self.folder / "hub"), "HF_HUB_OFFLINE": "", "no_proxy": "127.0.0.1"}

    def test_pulled_model_is_found_by_name(self):
        self.refuse(3, "inspect", "org/name", env=self.env, says="cairn pull org/name")
        path = self.succeed("pull", "org/name", env=self.env).decode().strip()
        self.assertTrue(path.startswith(str(self.folder / "hub/models--org--name/snapshots")), path)
        facts = json.loads(self.succeed("inspect", "--json", "org/name", env=self.env))
        self.assertEqual(facts["parameters"], 32)
        self.assertNotIn("README.md", [path.rsplit("/", 1)[-1] for path, _ in self.hub.seen])
        downloads = len(self.hub.seen)
        self.assertEqual(self.succeed("pull", "org/name", env=self.env).decode().strip(), path)
        self.assertLessEqual(len(self.hub.seen), 2 * downloads)

    def test_one_file(self):
        path = self.succeed("pull", "org/name:model-Q8_0.gguf", env=self.env).decode().strip()
        self.assertTrue(path.endswith("/model-Q8_0.gguf"), path)

    def test_refusals(self):
        self.refuse(3, "pull", "org/other", env=self.env, says="org/other")
        self.refuse(3, "pull", "org/name:absent.gguf", env=self.env, says="absent.gguf")
        self.refuse(2, "pull", "not a name", env=self.env, says="not a name")
        self.refuse(2, "pull", "../..", env=self.env)

    def test_wrong_contents_are_not_kept(self):
        self.hub.spoil = True
        text = self.refuse(8, "pull", "org/name", env=self.env)
        self.assertIn("model-Q8_0.gguf", text)
        self.refuse(3, "inspect", "org/name", env=self.env)

    def test_nobody_there(self):
        self.hub.shutdown()
        self.hub.server_close()
        text = self.refuse(8, "pull", "org/name", env={**self.env, "HF_ENDPOINT": "http://127.0.0.1:9"}, timeout=120)
        self.assertIn("127.0.0.1", text)
        self.assertNotIn("hf_secret", text)

    def test_offline(self):
        self.refuse(3, "pull", "org/name", env={**self.env, "HF_HUB_OFFLINE": "1"}, says="HF_HUB_OFFLINE")


if __name__ == "__main__":
    program.main()
