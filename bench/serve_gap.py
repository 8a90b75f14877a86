#!/usr/bin/env python3
"""What a client that is being answered feels while another one's long prompt is read. Starts `cairn serve`, streams one long
answer, sends a prompt of N tokens meanwhile, and prints the gaps between the answer's chunks before and during it. Standard library
only. Exit code 1 when the worst gap during the prompt is above 1.5 times the budget.

usage: serve_gap.py --cairn build/release/cairn --model MODEL.gguf [--prompt 16000] [--budget 100] [--json FILE]
"""

import argparse
import http.client
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"serve_gap: status {answer.status}: {answer.read(500)!r}")
    return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cairn", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=16000)
    parser.add_argument("--budget", type=float, default=100, help="--max-token-gap, milliseconds")
    parser.add_argument("--before", type=float, default=5, help="seconds of answering before the prompt arrives")
    parser.add_argument("--json")
    options = parser.parse_args()

    command = [options.cairn, "serve", options.model, "--port", "0", "-q", "--no-profile", "--max-sequences", "4",
               "-c", str(options.prompt + 2048), "--max-token-gap", str(options.budget)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if " at http" not in line:
            sys.exit(f"serve_gap: the server said {line!r}")
        port = int(line.rsplit(":", 1)[1])
        draw = random.Random(1)
        ids = lambda count: [draw.randrange(1000, 20000) for _ in range(count)]
        post(port, {"prompt": ids(32), "max_tokens": 4, "ignore_eos": True}).read()  # warm

        times, state = [], {"sent": None, "read": None}

        def stream():
            body = {"prompt": ids(64), "max_tokens": 2000, "ignore_eos": True, "stream": True, "temperature": 1, "seed": 1}
            for line in post(port, body):
                if line.startswith(b"data: {"):
                    times.append(time.monotonic())
                if state["read"] and time.monotonic() > state["read"] + 1:
                    return

        reader = threading.Thread(target=stream)
        reader.start()
        time.sleep(options.before)
        state["sent"] = time.monotonic()
        post(port, {"prompt": ids(options.prompt), "max_tokens": 1, "ignore_eos": True}).read()
        state["read"] = time.monotonic()
        reader.join()
    finally:
        server.terminate()
        server.wait()

    # Several chunks may come in one read; a gap counts where it ends.
    gaps = [(b, (b - a) * 1000) for a, b in zip(times, times[1:])]
    before = [g for t, g in gaps if t < state["sent"]]
    during = [g for t, g in gaps if state["sent"] <= t <= state["read"]]
    if len(during) < 20:
        sys.exit("serve_gap: the answer ended before the prompt was read; shorten --prompt")
    result = {
        "command": " ".join(os.path.basename(c) if os.sep in c else c for c in command),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "budget_ms": options.budget,
        "prompt_tokens": options.prompt, "prompt_seconds": round(state["read"] - state["sent"], 2),
        "before_ms": {"p50": round(percentile(before, 0.5), 1), "worst": round(max(before), 1)},
        "during_ms": {"p50": round(percentile(during, 0.5), 1), "p99": round(percentile(during, 0.99), 1), "worst": round(max(during), 1)},
        "gaps": len(during),
    }
    result["worst_against_budget"] = round(max(during) / options.budget, 2)
    print(json.dumps(result, indent=2))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    return 0 if max(during) <= 1.5 * options.budget else 1


if __name__ == "__main__":
    sys.exit(main())
