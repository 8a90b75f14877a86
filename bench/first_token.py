#!/usr/bin/env python3
"""Seconds from starting `cairn run` to the first byte of its answer, and its peak memory, against the bars of the trunk:
1.0 s at a first start (nothing kept from before), 0.4 s at later ones, memory at most the file + the KV cache + 10 %.

    bench/first_token.py --cairn build/release/cairn MODEL.gguf [--rounds 5] [--keep FOLDER]

The model's file is read once before, so that it is in the page cache. Peak memory is the kernel's high-water mark of
resident pages (ru_maxrss, VmHWM), which counts mapped pages of files as long as they are mapped: the packed weights
count once, as memory of the process at a first start and as pages of the kept file at later ones; pages of the model's
file leave the process as they are packed. What of it was memory of its own (RssAnon) is read when the first byte comes.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

FIRST_BAR, LATER_BAR, MEMORY_BAR = 1.0, 0.4, 1.1


def status_kib(pid, field):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def start(cairn, model, context, cache):
    command = [cairn, "run", model, "--raw", "-p", "Once upon a time", "-n", "4", "--temp", "0", "-c", str(context), "-v"]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "CAIRN_CACHE": cache})
    first = os.read(process.stdout.fileno(), 1)
    seconds = time.monotonic() - begin
    own = status_kib(process.pid, "RssAnon")
    text, notes = first + process.stdout.read(), process.stderr.read().decode()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = code
    if code != 0 or not first:
        raise SystemExit(f"cairn failed ({code}): {notes}")
    loaded = next(line for line in notes.splitlines() if line.startswith("loaded in"))
    return {"seconds": seconds, "total": time.monotonic() - begin, "load": float(loaded.split()[2]), "peak": usage.ru_maxrss * 1024,
            "own": own * 1024, "text": text, "mapped": "mapped from" in loaded}


def kv_bytes(cairn, model, context):
    config = json.loads(subprocess.run([cairn, "inspect", model, "--json"], stdout=subprocess.PIPE, check=True).stdout)["config"]
    name = config["general.architecture"]
    heads = config[f"{name}.attention.head_count"]
    dim = config.get(f"{name}.attention.key_length", config[f"{name}.embedding_length"] // heads)
    return config[f"{name}.block_count"] * context * config.get(f"{name}.attention.head_count_kv", heads) * dim * 2 * 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cairn", default="build/release/cairn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--keep", help="folder for the kept weights (default: a temporary one beside the model)")
    options = parser.parse_args()
    with open(options.model, "rb") as file:
        while file.read(1 << 24):
            pass
    cache = options.keep or tempfile.mkdtemp(prefix="first-token-", dir=os.path.dirname(os.path.abspath(options.model)))
    rounds = {"first": [], "later": []}
    try:
        for _ in range(options.rounds):
            shutil.rmtree(cache, ignore_errors=True)
            rounds["first"].append(start(options.cairn, options.model, options.context, cache))
            rounds["later"].append(start(options.cairn, options.model, options.context, cache))
    finally:
        if not options.keep:
            shutil.rmtree(cache, ignore_errors=True)
    if any(r["mapped"] for r in rounds["first"]) or not all(r["mapped"] for r in rounds["later"]):
        raise SystemExit("a first start used kept weights or a later one did not")
    if len({r["text"] for kind in rounds.values() for r in kind}) != 1:
        raise SystemExit("the answers differ")
    size = os.path.getsize(options.model)
    kv = kv_bytes(options.cairn, options.model, options.context)
    print(f"{os.path.basename(options.model)}: {size / 1e6:.0f} MB, KV cache of {options.context} tokens {kv / 1e6:.0f} MB")
    for kind, bar in (("first", FIRST_BAR), ("later", LATER_BAR)):
        runs = rounds[kind]
        middle = lambda field: statistics.median(r[field] for r in runs)
        worst = max(r["seconds"] for r in runs)
        peak = max(r["peak"] for r in runs)
        limit = (size + kv) * MEMORY_BAR
        print(f"{kind} start: {middle('seconds'):.3f} s to the first token ({min(r['seconds'] for r in runs):.3f} to {worst:.3f}; bar {bar}: "
              f"{'met' if middle('seconds') <= bar else 'NOT met'}), of it loading {middle('load'):.3f} s, whole command {middle('total'):.3f} s; "
              f"peak {peak / 1e6:.0f} MB (bar {limit / 1e6:.0f}: {'met' if peak <= limit else 'NOT met'}), of its own {middle('own') / 1e6:.0f} MB")


main()
