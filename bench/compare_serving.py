#!/usr/bin/env python3
"""Servers under the same load on the same file, one after the other: cairn serve and, if given, a llama.cpp server.

usage: bench/compare_serving.py --model MODEL.gguf --out FILE.json [--cairn PROGRAM] [--peer PATH/llama-server]
           [--only cairn|peer] [--rounds 1] [--load "-c 8 -n 8 ..."] [--cairn-args "..."] [--peer-args "..."]

Each run starts its server anew, waits for /health, plays the load with `cairn bench serve` and ends the server; a round
has one seed for both, so both get the same words. Runs are added to FILE.json, which also gets the medians of all runs
with the same load and arguments, and cairn's ratio to the peer. The peer's program is yours: its version is recorded, nothing of it is
part of cairn. Standard library only.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

LOAD = "-c 8 -n 8 --turns 2 -p 200 -a 64 --ignore-end"
PEER_ARGS = "-np 8 -c 8192 -fa on -cb -t 2 -b 2048 -ub 512"


def wait_for(url, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode} before it served; see its log")
        try:
            with urllib.request.urlopen(url + "/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server did not become healthy")


def resident_megabytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def one_run(server, command, options, seed):
    port = free_port()  # another each time: a server that did not end must not answer for the next
    url = f"http://127.0.0.1:{port}"
    command = [*command, "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log"), "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(url, process)
            out = os.path.join(folder, "result.json")
            plot = ["--plot", options.plot] if options.plot else []
            bench = [options.cairn, "bench", "serve", url, *shlex.split(options.load), "--seed", str(seed), "--json", out]
            subprocess.run(bench + plot, check=True, stdout=subprocess.DEVNULL)
            peak = resident_megabytes(process.pid)
            with open(out) as file:
                result = json.load(file)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    results = result["results"]
    return {
        "server": server,
        "arguments": options.cairn_args if server == "cairn" else options.peer_args,
        "load": options.load,
        "seed": seed,
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": result["machine"],
        "seconds": results["seconds"],
        "failed": results["requests"]["failed"],
        "tokens": results["tokens"],
        "total_tokens_per_second": results["per_second"]["total_tokens"],
        "output_tokens_per_second": results["per_second"]["output_tokens"],
        "milliseconds": {
            name: {p: round(values[p], 3) for p in ("p50", "p90", "p95", "p99", "max")}
            for name, values in results["milliseconds"].items()
        },
        "peak_resident_megabytes": round(peak),
    }


def version_of(program):
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    return " ".join((done.stdout + done.stderr).split())


def summary(runs):
    groups = {}
    for run in runs:
        groups.setdefault((run["load"], run["server"], run["arguments"]), []).append(run)
    rows = []
    for (load, server, arguments), same in groups.items():
        median = lambda value: round(statistics.median(value(run) for run in same), 2)
        rows.append({
            "load": load, "server": server, "arguments": arguments, "runs": len(same),
            "total_tokens_per_second": median(lambda run: run["total_tokens_per_second"]),
            "output_tokens_per_second": median(lambda run: run["output_tokens_per_second"]),
            "ttft_p50_ms": median(lambda run: run["milliseconds"]["ttft"]["p50"]),
            "itl_p50_ms": median(lambda run: run["milliseconds"]["itl"]["p50"]),
            "itl_p99_ms": median(lambda run: run["milliseconds"]["itl"]["p99"]),
        })
    for row in rows:
        best = max((other["total_tokens_per_second"] for other in rows
                    if other["server"] == "peer" and other["load"] == row["load"]), default=0)
        if row["server"] == "cairn" and best > 0:
            row["ratio_to_best_peer"] = round(row["total_tokens_per_second"] / best, 2)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--cairn", default="build/release/cairn")
    parser.add_argument("--peer", help="path of a llama-server")
    parser.add_argument("--peer-note", default="", help="how the peer was built")
    parser.add_argument("--only", choices=["cairn", "peer"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, help="of the first round (default: from the clock)")
    parser.add_argument("--load", default=LOAD, help="arguments of `cairn bench serve`")
    parser.add_argument("--cairn-args", default="")
    parser.add_argument("--peer-args", default=PEER_ARGS)
    parser.add_argument("--plot", help="SVG of the last run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # through the finally that ends the server

    record = {"versions": {}, "model": os.path.basename(options.model), "runs": []}
    if os.path.exists(options.out):
        with open(options.out) as file:
            record = json.load(file)
    commands = {"cairn": [options.cairn, "serve", options.model, "--quiet", *shlex.split(options.cairn_args)]}
    record["versions"]["cairn"] = version_of(options.cairn)
    if options.peer:
        commands["peer"] = [options.peer, "-m", options.model, *shlex.split(options.peer_args)]
        record["versions"]["peer"] = version_of(options.peer) + (f" ({options.peer_note})" if options.peer_note else "")
    first = options.seed if options.seed is not None else int(time.time())
    for seed in range(first, first + options.rounds):
        for server in ("peer", "cairn"):
            if server in commands and options.only in (None, server):
                run = one_run(server, commands[server], options, seed)
                record["runs"].append(run)
                print(f"{server}: {run['total_tokens_per_second']:.1f} total tokens/s, "
                      f"{run['output_tokens_per_second']:.1f} output tokens/s, {run['seconds']:.1f} s, "
                      f"TTFT p50 {run['milliseconds']['ttft']['p50']:.0f} ms, "
                      f"ITL p50 {run['milliseconds']['itl']['p50']:.1f} ms, {run['failed']} failed", flush=True)
                record["summary"] = summary(record["runs"])
                with open(options.out, "w") as file:
                    json.dump(record, file, indent=1)
                    file.write("\n")


main()
