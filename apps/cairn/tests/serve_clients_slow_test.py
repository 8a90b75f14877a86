#!/usr/bin/env python3
"""cairn serve through the official clients: openai, anthropic, and schemathesis against /openapi.json.

They are no part of the build: install them anywhere (pip install openai anthropic schemathesis) and name the folder in
CAIRN_CLIENTS (a site-packages folder), or let this Python have them. What is missing is skipped and said.
"""

import importlib.util
import json
import os
import subprocess
import sys
import unittest

import program
from program import ProgramTest
from serving import Server

if os.environ.get("CAIRN_CLIENTS"):
    sys.path.append(os.environ["CAIRN_CLIENTS"])


def needs(module):
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"SKIPPED: the Python package {module} is not installed (see CAIRN_CLIENTS)", file=sys.stderr)
    return unittest.skipUnless(found, f"{module} is not installed")


class Clients(ProgramTest):
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--api-key", "test:sk-test", "--max-sequences", 16, *cls.flags)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()


@needs("openai")
class OpenAi(Clients):
    def client(self, **more):
        import openai
        return openai.OpenAI(base_url=self.server.url + "/v1", api_key="sk-test", max_retries=0, **more)

    def test_models(self):
        client = self.client()
        self.assertEqual([m.id for m in client.models.list()], ["cairn-stories"])
        self.assertEqual(client.models.retrieve("cairn-stories").id, "cairn-stories")

    def test_chat(self):
        import openai
        client = self.client()
        answer = client.chat.completions.create(
            model="cairn-stories", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=8, temperature=0,
            n=2, logprobs=True, top_logprobs=3, seed=1)
        self.assertEqual(len(answer.choices), 2)
        self.assertEqual(answer.choices[0].message.content, answer.choices[1].message.content)
        self.assertEqual(len(answer.choices[0].logprobs.content[0].top_logprobs), 3)
        joined = b"".join(bytes(t.bytes) for t in answer.choices[0].logprobs.content).decode()
        self.assertEqual(joined, answer.choices[0].message.content)
        self.assertEqual(answer.usage.completion_tokens, 16)
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="cairn-stories", messages=[], max_tokens=1)
        self.assertEqual(caught.exception.param, "messages")
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=[{"role": "user", "content": "Hi"}])
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(base_url=self.server.url + "/v1", api_key="wrong", max_retries=0).models.list()

    def test_chat_stream(self):
        client = self.client()
        request = dict(model="cairn-stories", messages=[{"role": "user", "content": "Hi"}], max_tokens=12, temperature=0)
        whole = client.chat.completions.create(**request)
        text, usage, finish = "", None, None
        for chunk in client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
            usage = chunk.usage or usage
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(finish, whole.choices[0].finish_reason)
        self.assertEqual(usage.total_tokens, whole.usage.total_tokens)

    def test_completions(self):
        client = self.client()
        answer = client.completions.create(model="cairn-stories", prompt=["Once", "The"], max_tokens=4, logprobs=2,
                                           echo=True, temperature=0)
        self.assertTrue(answer.choices[0].text.startswith("Once"))
        self.assertEqual(len(answer.choices[1].logprobs.tokens), 4)
        text = "".join(c.choices[0].text for c in client.completions.create(
            model="cairn-stories", prompt="Once", max_tokens=4, temperature=0, stream=True))
        self.assertEqual("Once" + text, answer.choices[0].text)

    def test_embeddings(self):
        client = self.client()
        # The client asks for base64 by itself when nothing is said.
        coded = client.embeddings.create(model="cairn-stories", input=["a cat", "a dog"])
        plain = client.embeddings.create(model="cairn-stories", input="a cat", encoding_format="float")
        self.assertEqual(len(coded.data), 2)
        for a, b in zip(coded.data[0].embedding, plain.data[0].embedding):
            self.assertAlmostEqual(a, b, places=6)
        self.assertAlmostEqual(sum(x * x for x in plain.data[0].embedding), 1, places=4)

    def test_responses(self):
        client = self.client()
        request = dict(model="cairn-stories", input="Hi", max_output_tokens=8, temperature=0)
        whole = client.responses.create(**request)
        self.assertEqual(whole.status, "incomplete")
        self.assertEqual(whole.incomplete_details.reason, "max_output_tokens")
        kinds, text, last = [], "", None
        for event in client.responses.create(**request, stream=True):
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
        self.assertEqual(text, whole.output_text)
        self.assertEqual(last.response.output_text, whole.output_text)
        self.assertEqual(kinds[:4], ["response.created", "response.in_progress", "response.output_item.added",
                                     "response.content_part.added"])
        self.assertEqual(kinds[-4:], ["response.output_text.done", "response.content_part.done",
                                      "response.output_item.done", "response.incomplete"])
        word = whole.output_text.split()[1]
        with client.responses.stream(**request, extra_body={"stop": word}) as stream:  # an answer that is complete
            final = stream.get_final_response()
        self.assertEqual((final.status, final.output_text), ("completed", whole.output_text.split(word)[0]))


@needs("anthropic")
class Anthropic(Clients):
    def client(self):
        import anthropic
        return anthropic.Anthropic(base_url=self.server.url, api_key="sk-test", max_retries=0)

    def test_messages(self):
        import anthropic
        client = self.client()
        # The newest client knows no temperature; servers do.
        request = dict(model="cairn-stories", max_tokens=8, system="You are brief.", extra_body={"temperature": 0, "ignore_eos": True},
                       messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}])
        whole = client.messages.create(**request)
        self.assertEqual(whole.stop_reason, "max_tokens")
        with client.messages.stream(**request) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.content[0].text, text)
        self.assertEqual(final.usage.output_tokens, 8)
        counted = client.messages.count_tokens(model="cairn-stories", system="You are brief.",
                                               messages=request["messages"])
        self.assertEqual(counted.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens)
        word = text.split()[1]
        # Two: which of them it was has to be found out.
        stopped = client.messages.create(**request, stop_sequences=["zzz", word])
        self.assertEqual((stopped.stop_reason, stopped.stop_sequence), ("stop_sequence", word))
        with self.assertRaises(anthropic.BadRequestError):
            client.messages.create(model="cairn-stories", max_tokens=8, messages=[])
        with self.assertRaises(anthropic.NotFoundError):
            client.messages.create(**{**request, "model": "claude"})


@needs("schemathesis")
class Schemathesis(Clients):
    flags = ("--ctx", 64)  # most generated requests say no length

    def test_the_server_keeps_its_own_description(self):
        examples = os.environ.get("CAIRN_SCHEMATHESIS_EXAMPLES", "10")
        # Unknown methods are 501, which the HTTP server's own tests hold.
        self.write("schemathesis.toml", "[phases.coverage]\nunexpected-methods = []\n")
        done = subprocess.run(
            [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run", self.server.url + "/openapi.json",
             "--header", "Authorization: Bearer sk-test", "--max-examples", examples, "--phases", os.environ.get("CAIRN_SCHEMATHESIS_PHASES", "fuzzing"),
             "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
                         "negative_data_rejection",
             "--request-timeout", "200", "--seed", "1", "--no-color"],
            cwd=self.folder, capture_output=True, timeout=550,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
        self.assertEqual(done.returncode, 0, done.stdout.decode()[-6000:] + done.stderr.decode()[-2000:])
        self.assertEqual(self.server.get("/health", {})[0], 200)


if __name__ == "__main__":
    program.main()
