"""Starts `cairn serve` for whole-program tests and talks HTTP to it with the standard library."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import program

MODEL = Path(__file__).resolve().parents[3] / "models" / "cairn-stories"


class Server:
    """A running server; a context manager that ends it with SIGTERM."""

    def __init__(self, *flags, env=None):
        self.process = subprocess.Popen(
            [program.CAIRN, "serve", str(MODEL), "--device", "cpu", "--port", "0", "--no-weight-cache", *map(str, flags)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.banner = self.process.stdout.readline().decode() + self.process.stdout.readline().decode()
        match = re.search(r"at (https?)://\[?([^\]\s]*?)\]?:(\d+)\n", self.banner)
        if not match:
            raise AssertionError(f"the server did not start: {self.banner!r} {self.process.stderr.read()!r}")
        self.host, self.port = match[2], int(match[3])
        self.url = f"{match[1]}://{match[2]}:{match[3]}"
        self.log = []
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line.decode())

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body bytes)"""
        connection = self.connect()
        try:
            if body is not None and not isinstance(body, (bytes, str)):
                body = json.dumps(body)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path, body, headers=None):
        """(status, parsed JSON)"""
        status, _, answer = self.request("POST", path, body, headers)
        return status, json.loads(answer)

    def get(self, path, headers=None):
        status, _, answer = self.request("GET", path, None, headers)
        return status, json.loads(answer)

    def events(self, path, body, headers=None):
        """The events of a stream: (event name or None, data as text), comments left out."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise AssertionError(f"{answer.status}: {text}")
        finally:
            connection.close()
        events = []
        for block in text.split("\n\n"):
            name, data = None, []
            for line in block.split("\n"):
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data.append(line[6:])
            if data:
                events.append((name, "\n".join(data)))
        return events

    def stop(self, number=signal.SIGTERM, timeout=30):
        """Sends the signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout)
        self.reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
