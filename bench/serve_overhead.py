#!/usr/bin/env python3
"""What the server itself adds to a token: from the end of the step that computed it to when the socket has taken its event, as
/metrics counts it (http_delivery_seconds), under a closed loop of streaming clients. Standard library only. Exit code 1 when
more than one event in a hundred took over 2 ms, or a request failed.

usage: serve_overhead.py --cairn build/release/cairn [--model FILE] [--clients 1000] [--requests 4000] [--rounds 3] [-- SERVE-ARGS...]
"""

import argparse
import re
import subprocess
import sys
import urllib.request


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(cairn_\S+) (\S+)$", text, re.M)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cairn", required=True)
    parser.add_argument("--model", help="default: the model that ships with cairn")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=4000, help="of a round")
    parser.add_argument("--rounds", type=int, default=3, help="after one that warms up")
    parser.add_argument("serve", nargs="*", help="arguments of cairn serve")
    options = parser.parse_args()

    command = [options.cairn, "serve", *([options.model] if options.model else []), "--port", "0", "-q", "--no-profile"]
    server = subprocess.Popen([*command, *options.serve], stdout=subprocess.PIPE, text=True)
    good = True
    try:
        line = server.stdout.readline()
        if " at http" not in line:
            sys.exit(f"serve_overhead: the server said {line!r}")
        port = int(line.rsplit(":", 1)[1])
        for i in range(options.rounds + 1):
            before = metrics(port)
            done = subprocess.run([options.cairn, "bench", "serve", f"http://127.0.0.1:{port}", "-c", str(options.clients), "-n",
                                   str(options.requests), "-p", "20", "-a", "20", "--ignore-end", "--seed", str(i + 1)],
                                  capture_output=True, text=True)
            after = metrics(port)
            if i == 0:
                continue
            more = lambda name: after[name] - before[name]
            events = more("cairn_http_delivery_seconds_count")
            within = lambda bound: 100 * more(f'cairn_http_delivery_seconds_bucket{{le="{bound}"}}') / events
            late = more("cairn_http_delivery_late_total") / events
            rate = re.search(r"output tokens/s\s+(\S+)", done.stdout)
            good &= done.returncode == 0 and late <= 0.01
            print(f"{events:.0f} events, mean {1e3 * more('cairn_http_delivery_seconds_sum') / events:.2f} ms, "
                  f"{within('0.0005'):.1f} % within 0.5 ms, {within('0.001'):.1f} % within 1 ms, {100 * late:.3f} % over 2 ms, "
                  f"{within('0.005'):.2f} % within 5 ms; {rate[1] if rate else '?'} answer tokens/s"
                  f"{'' if done.returncode == 0 else '; REQUESTS FAILED'}", flush=True)
    finally:
        server.terminate()
        server.wait()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
