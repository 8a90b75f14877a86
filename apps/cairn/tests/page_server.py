"""A server for the page's test: its files from the source tree, and an API that says what a script tells it to.

The last user message picks what comes (see SCRIPTS). By hand: python3 page_server.py 8000, then open the address.
"""

import http.server
import json
import math
import pathlib
import re
import socket
import sys
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "src" / "serve"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# The policy that the real server sends, from the one place where it is written down.
POLICY = "".join(re.findall(r'"([^"]*)"', re.search(r"kPolicy =(.*?);\n\n", (SOURCE / "page.cpp").read_text(), re.DOTALL)[1]))

MARKDOWN = """Here is how a **ring buffer** works, with *one* slot kept free so that `head == tail` means empty.

## Why a power of two

1. The index wraps with a mask, `i & (n - 1)`, instead of a division.
2. Overflow of the counters is harmless:
   - they only ever grow
   - their difference is the fill
3. Both fit one cache line each.

| Operation | Reads | Writes | Cost (ns) |
|:----------|:-----:|:------:|----------:|
| push      | 1     | 2      | 4.1       |
| pop       | 1     | 2      | 3.9       |
| peek      | 1     | 0      | 1.2       |

```cpp
// One producer, one consumer; no lock.
bool push(Ring& ring, uint32_t value) {
  const auto head = ring.head.load(std::memory_order_relaxed);
  if (head - ring.tail.load(std::memory_order_acquire) == ring.slots.size()) return false;
  ring.slots[head & (ring.slots.size() - 1)] = value;
  ring.head.store(head + 1, std::memory_order_release);
  return true;
}
```

> The release store is what makes the value visible before the index.

See [the C++ reference](https://en.cppreference.com/w/cpp/atomic/memory_order) for the orders.
"""

HOSTILE = """<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> <svg onload="window.hacked = 3">

[click](javascript:window.hacked=4) [data](data:text/html,<script>window.hacked=5</script>) [ok](https://example.org/a?b=c&d=e)
[sneaky](java\tscript:alert(1)) [relative](/v1/models) <javascript:alert(1)> ![pixel](https://evil.example/track.png?secret=1)
[two](https://a.example/"onmouseover="window.hacked=6)

<iframe srcdoc="<script>window.hacked=7</script>"></iframe> **bold <b onclick=alert(1)>tag</b>**

""" + "verylongword" * 60 + """

Before \u202egnp.exe txet desrever\u202c after.

```html
<script>window.hacked = 8</script>
access = "user\u202e \u2066// check\u2069 \u2066"
```

| <img src=x onerror=window.hacked=9> | b |
|---|---|
| <script>window.hacked=10</script> | `<b>` |

# <img src=x onerror=window.hacked=11>

&lt;script&gt; &amp; "quotes"
"""

RTL = "مرحبا! هذه فقرة قصيرة باللغة العربية مع كلمة `code` في وسطها.\n\n- البند الأول\n- البند الثاني\n\nAnd an English line.\n"

TOOL = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": "Ber'}}, {"index": 0, "function": {"arguments": 'lin", "days": 3}'}}]


def words(text):
    return re.findall(r"\s*\S+\s*?|\s+", text)


def long_answer(tokens):
    """About this many tokens of everything: paragraphs, lists, code."""
    parts = []
    while sum(len(words(p)) for p in parts) < tokens:
        n = len(parts)
        parts.append(f"Paragraph {n} says **something** about `item_{n}` and goes on for a while so that it fills a line or two, "
                     "with [a link](https://example.org) at its end.\n\n")
        parts.append("".join(f"- point {i} of {n}, *briefly*\n" for i in range(6)) + "\n")
        parts.append("```python\n" + "".join(f"def f_{n}_{i}(x):\n    return x + {i}\n" for i in range(8)) + "```\n\n")
    return words("".join(parts))[:tokens]


class Api(http.server.ThreadingHTTPServer):
    """requests: the bodies of /v1/chat/completions so far. key: asked for when set. gone: streams whose client left."""

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, port=0):
        self.connections = []
        super().__init__(("127.0.0.1", port), Handler)
        self.requests, self.key, self.gone, self.busy, self.engine, self.started = [], "", 0, 0, True, time.monotonic()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def process_request(self, request, client_address):
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        pass

    def close(self):
        """Ends every connection too, as a killed server's would."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message, code, headers=()):
        self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}},
                    headers=[("X-Request-Id", "req-7f3a"), *headers])

    def refused(self):
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.error(401, "no API key was given" if not self.headers.get("Authorization") else "this API key is not known",
                       "invalid_api_key")
            return True
        return False

    def do_GET(self):
        path = self.path.split("?")[0]
        name = "index.html" if path == "/" else path.removeprefix("/page/")
        file = SOURCE / "page" / name
        if path.startswith("/page/") or path == "/":
            if "/" in name or not file.is_file():
                self.error(404, "no such file", "not_found")
                return
            self.answer(200, file.read_bytes(), f"{TYPES[file.suffix]}; charset=utf-8",
                        [("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")])
        elif self.refused():
            pass
        elif path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": "llama-3.2-1b-instruct-q4_k_m", "object": "model"}, {"id": "cairn-stories", "object": "model"}]})
        elif path == "/engine" and self.server.engine:
            self.answer(200, self.facts())
        else:
            self.error(404, f"there is nothing at {path}", "not_found")

    def facts(self):
        if self.server.engine == "sparse":
            return {"running": 1, "pages": {}, "requests": [{}], "step_ms": None}
        now = time.monotonic() - self.server.started

        def load(t):
            return 0.5 + 0.35 * math.sin(t / 9) + 0.15 * math.sin(t / 2.3)

        def second(t):
            return {"running": round(8 * load(t)), "waiting": max(0, round(6 * load(t) - 4)), "pages_used": round(2600 * load(t + 2)),
                    "prompt_per_s": max(0, 900 * math.sin(t / 4)), "answer_per_s": 140 * load(t), "step_ms": 18 + 9 * load(t - 1)}

        at = second(now)
        used = at["pages_used"]
        requests = [{"id": f"req-{i:04x}", "client": ["desk", "phone", "ci"][i % 3], "state": ["decode", "prefill", "waiting"][min(i // 3, 2)],
                     "prompt_tokens": 420 + 391 * i, "answer_tokens": 0 if i > 2 else 57 * (i + 1), "age_s": 1.4 + 2.1 * i} for i in range(7)]
        return {"model": "llama-3.2-1b-instruct-q4_k_m", "device": "cpu, 16 threads, AMX", "running": at["running"], "waiting": at["waiting"],
                "pages": {"total": 4096, "free": 4096 - used - 700, "cached": 700, "disk": 1536},
                "tokens": {"prompt_per_s": at["prompt_per_s"], "answer_per_s": at["answer_per_s"]},
                "step_ms": {"real": at["step_ms"], "predicted": at["step_ms"] * 0.94}, "requests": requests,
                "history": [second(now - 120 + i) for i in range(120)]}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        self.server.requests.append(body)
        last = body["messages"][-1]
        text = last["content"] if last["role"] == "user" else "tool result"
        script = next((made for word, made in SCRIPTS.items() if word in text.lower()), Handler.plain)
        try:
            script(self, body, text)
        except (BrokenPipeError, ConnectionResetError):
            self.server.gone += 1
            self.close_connection = True

    # --- streams

    def start(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        data = data if isinstance(data, bytes) else data.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, delta, finish=None, usage=None):
        event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m",
                 "choices": [] if usage else [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if usage:
            event["usage"] = usage
        self.chunk(f"data: {json.dumps(event, ensure_ascii=False)}\n\n")

    def end(self, finish="stop", tokens=100, done=True):
        self.event({}, finish)
        self.event({}, usage={"prompt_tokens": 512, "completion_tokens": tokens, "total_tokens": 512 + tokens,
                              "prompt_tokens_details": {"cached_tokens": 480}})
        if done:
            self.chunk("data: [DONE]\n\n")
            self.chunk("")

    def stream(self, pieces, gap=0.0, **ending):
        self.start()
        self.event({"role": "assistant", "content": ""})
        for piece in pieces:
            self.event({"content": piece})
            if gap:
                time.sleep(gap)
        self.end(tokens=len(pieces), **ending)

    def plain(self, body, text):
        self.stream(words(f"You said: {text}"), gap=0.005)

    def markdown(self, body, text):
        self.stream(words(MARKDOWN), gap=0.004)

    def slow(self, body, text):
        self.stream(words("One word at a time, " * 400), gap=0.03)

    def hostile(self, body, text):
        self.stream(words(HOSTILE))

    def arabic(self, body, text):
        self.stream(words(RTL), gap=0.005)

    def long(self, body, text):
        self.stream(long_answer(int(re.search(r"\d+", text)[0])))

    def thinking(self, body, text):
        self.start()
        for piece in words("The user wants a number. Seven is prime, and so is eleven; eleven is larger."):
            self.event({"reasoning_content": piece})
            time.sleep(0.01)
        for piece in words("Take **eleven**."):
            self.event({"content": piece})
        self.end(tokens=20)

    def tools(self, body, text):
        self.start()
        for call in TOOL:
            self.event({"tool_calls": [call]})
        self.end("tool_calls", tokens=12)

    def tool_result(self, body, text):
        self.stream(words(f"The tool said: {body['messages'][-1]['content']}"))

    def malformed(self, body, text):
        """Comments, broken JSON, odd fields, CRLF, a character cut in two: what can be read is."""
        self.start()
        self.chunk(": keep-alive\n\n")
        self.event({"content": "Still "})
        self.chunk("data: {not json\n\n")
        self.chunk("data: null\n\nid: 4\nretry: 10\nevent: x\n\n")
        self.chunk('data: {"choices": "none"}\r\n\r\ndata: {"choices": [{"delta": null}]}\r\n\r')
        self.chunk('\ndata: {"choices": [{"delta":\ndata: {"content": "gr')
        data = "ün\"}}]}\n\n".encode()
        self.chunk(data[:1])
        time.sleep(0.05)
        self.chunk(data[1:])
        self.end(tokens=2)

    def broken(self, body, text):
        self.start()
        self.event({"content": "It begins and"})
        time.sleep(0.2)
        self.close_connection = True

    def failing(self, body, text):
        self.start()
        self.event({"content": "Half an "})
        self.chunk('data: {"error": {"message": "step 17 failed: out of memory", "type": "server_error", "code": 500}}\n\n')
        self.chunk("")

    def busy(self, body, text):
        self.server.busy += 1
        if self.server.busy % 2:
            self.error(429, "64 requests are waiting; the queue holds 64", "overloaded", [("Retry-After", "2")])
        else:
            self.stream(["There ", "was ", "room."])

    def overflow(self, body, text):
        self.error(400, "the prompt has 9,314 tokens and the answer may take 512, together 9,826; this model's context is 8,192 tokens",
                   "context_length_exceeded")

    def fault(self, body, text):
        self.error(500, "internal error", "server_error")

    def cut(self, body, text):
        self.stream(words("This answer goes on and"), finish="length")

    def empty(self, body, text):
        self.stream([])


SCRIPTS = {"tool result": Handler.tool_result, "ring buffer": Handler.markdown, "slow": Handler.slow, "hostile": Handler.hostile,
           "arabic": Handler.arabic, "tokens please": Handler.long, "think": Handler.thinking, "weather": Handler.tools,
           "malformed": Handler.malformed, "broken": Handler.broken, "failing": Handler.failing, "busy": Handler.busy,
           "overflow": Handler.overflow, "fault": Handler.fault, "cut": Handler.cut, "empty": Handler.empty}

if __name__ == "__main__":
    server = Api(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    print(server.url)
    threading.Event().wait()
