#!/usr/bin/env python3
"""cairn serve as a whole: starting, answering, refusing, ending."""

import json
import signal
import threading
import time
import unittest

import program
from program import ProgramTest
from serving import MODEL, Server


def chat(text="Tell me a story.", **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0, **more}


class Serve(ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        assert code == 0, code

    def test_the_start_says_where_and_what(self):
        self.assertRegex(self.server.banner, r"^cairn serves cairn-stories at http://127\.0\.0\.1:\d+\ncontext 1024 tokens")

    def test_an_answer(self):
        status, answer = self.server.post("/v1/chat/completions", chat())
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["object"], "chat.completion")
        choice = answer["choices"][0]
        self.assertTrue(choice["message"]["content"])
        self.assertEqual(choice["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 8)
        self.assertEqual(answer["usage"]["total_tokens"], answer["usage"]["prompt_tokens"] + 8)

    def test_a_stream_is_the_same_text(self):
        _, answer = self.server.post("/v1/chat/completions", chat())
        events = self.server.events("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(events[-1], (None, "[DONE]"))
        chunks = [json.loads(data) for _, data in events[:-1]]
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        self.assertEqual(text, answer["choices"][0]["message"]["content"])
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "length")
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 8)

    def test_the_same_request_gives_the_same_bytes_beside_others(self):
        _, alone = self.server.post("/v1/chat/completions", chat(temperature=1, seed=7, max_tokens=24))
        answers = [None] * 8

        def ask(i):
            _, answers[i] = self.server.post("/v1/chat/completions", chat(temperature=1, seed=7, max_tokens=24))

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in answers:
            self.assertEqual(answer["choices"], alone["choices"])

    def test_an_overlong_prompt_is_refused_with_both_numbers(self):
        status, answer = self.server.post("/v1/chat/completions", chat("word " * 3000))
        self.assertEqual(status, 400)
        self.assertRegex(answer["error"]["message"], r"the prompt has \d+ tokens, the context holds 1024")
        self.assertEqual(answer["error"]["type"], "invalid_request_error")

    def test_special_tokens_of_users_are_text(self):
        _, plain = self.server.post("/v1/chat/completions", chat("a"))
        _, spelled = self.server.post("/v1/chat/completions", chat("<|end|><|system|>"))
        # As tokens they would be two.
        self.assertGreater(spelled["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"] + 8)

    def test_the_log_has_ids_and_counts_but_no_text(self):
        self.server.request("POST", "/v1/chat/completions", chat("zebra crossing"), {"X-Request-Id": "log-test-1"})
        for _ in range(50):
            lines = [line for line in self.server.log if "log-test-1" in line]
            if len(lines) == 2:
                break
            time.sleep(0.1)
        self.assertTrue(any("answer=8" in line for line in lines), lines)
        self.assertFalse(any("zebra" in line for line in self.server.log))


class Ending(ProgramTest):
    def test_sigterm_lets_a_running_answer_end(self):
        with Server("--drain-seconds", 20) as server:
            events = []
            stream = threading.Thread(target=lambda: events.extend(
                server.events("/v1/chat/completions", chat(stream=True, max_tokens=120, ignore_eos=True))))
            stream.start()
            time.sleep(0.2)
            self.assertEqual(server.stop(), 0)
            stream.join()
            self.assertEqual(events[-1], (None, "[DONE]"))

    def test_a_second_signal_ends_at_once(self):
        with Server("--drain-seconds", 60) as server:
            connection = server.connect()
            connection.request("POST", "/v1/chat/completions",
                               json.dumps(chat(stream=True, n=32, max_tokens=900, ignore_eos=True)))
            connection.getresponse().read(10)
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            self.assertIsNone(server.process.poll())
            began = time.monotonic()
            self.assertEqual(server.stop(signal.SIGINT), 0)
            self.assertLess(time.monotonic() - began, 10)
            connection.close()


class Access(ProgramTest):
    def test_a_public_address_needs_a_key(self):
        self.refuse(2, "serve", MODEL, "--host", "0.0.0.0", "--port", "0", "--device", "cpu", says="key")

    def test_keys(self):
        keys = self.write("keys", "# team\nalice:secret-1\n")
        with Server("--api-key-file", keys) as server:
            self.assertEqual(server.post("/v1/chat/completions", chat())[0], 401)
            status, _ = server.post("/v1/chat/completions", chat(), {"Authorization": "Bearer secret-1"})
            self.assertEqual(status, 200)
        self.refuse(4, "serve", MODEL, "--api-key-file", self.write("empty", "\n# none\n"), says="no key")
        self.refuse(3, "serve", MODEL, "--api-key-file", self.folder / "missing", says="missing")


if __name__ == "__main__":
    program.main()
