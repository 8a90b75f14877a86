#!/usr/bin/env python3
"""cairn against llama.cpp on the same GGUF files, in alternating runs of the same minutes.

usage: bench/compare_llama.py --peer PATH/llama-bench [--cairn PROGRAM] [--threads 1,2] [--rounds 3] [--out FILE] MODEL.gguf ...

The peer's program is yours: its version and build line are recorded, nothing of it is part of cairn. Each round runs
the peer, then cairn; a row holds the medians of both, their ratio, and the read bandwidth that cairn measured in its
own runs. Random-weight files of real shapes come from a script of the shared tools (make_gguf.py).
"""
import argparse, datetime, json, os, platform, statistics, subprocess, sys


def peer_run(program, model, threads, prompt, tokens):
    text = subprocess.run([program, "-m", model, "-p", str(prompt), "-n", str(tokens), "-t", str(threads), "-r", "1",
                           "-o", "json"], check=True, capture_output=True, text=True).stdout
    rows = json.loads(text)
    speed = {}
    for row in rows:
        speed["prefill" if row["n_prompt"] > 0 else "decode"] = row["avg_ts"]
    return speed, {"build_commit": rows[0].get("build_commit"), "build_number": rows[0].get("build_number")}


def cairn_run(program, model, threads, prompt, tokens):
    text = subprocess.run([program, "bench", model, "-p", str(prompt), "-n", str(tokens), "-t", str(threads), "-r", "1",
                           "--json"], check=True, capture_output=True, text=True).stdout
    found = json.loads(text)
    speed = {"load_seconds": found["load_seconds"], "read": found["read_gb_per_second"],
             "instructions": found["instructions"], "cpu": found["cpu"]}
    for row in found["results"]:
        kind = "prefill" if row["test"].startswith("pp") else "decode"
        speed[kind] = row["tokens_per_second"]
        speed[kind + "_gb"] = row["gb_per_second"]
        speed[kind + "_gflop"] = row["gflop_per_second"]
    return speed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="path of a llama-bench")
    parser.add_argument("--peer-note", default="", help="how the peer was built, recorded with the result")
    parser.add_argument("--cairn", default=os.path.join(os.path.dirname(__file__), "..", "cairn"))
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--tokens", type=int, default=64)
    parser.add_argument("--out", help="write the results here as JSON")
    parser.add_argument("models", nargs="+")
    args = parser.parse_args()

    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "command": " ".join(["bench/compare_llama.py"] + [os.path.basename(a) if os.sep in a else a for a in sys.argv[1:]]),
              "kernel": platform.release(), "peer_note": args.peer_note, "rows": []}
    print(f"{'model':<26}{'threads':>8}{'test':>9}{'peer tok/s':>12}{'cairn tok/s':>13}{'ratio':>8}{'GB/s':>8}{'of read':>9}{'GFLOP/s':>10}")
    for model in args.models:
        for threads in (int(t) for t in args.threads.split(",")):
            peers, ours = [], []
            for _ in range(args.rounds):
                speed, build = peer_run(args.peer, model, threads, args.prompt, args.tokens)
                result["peer"] = build
                peers.append(speed)
                ours.append(cairn_run(args.cairn, model, threads, args.prompt, args.tokens))
            result["cpu"], result["instructions"] = ours[0]["cpu"], ours[0]["instructions"]
            median = lambda runs, key: statistics.median(r[key] for r in runs)
            read = median(ours, "read")
            for test in ("prefill", "decode"):
                row = {"model": os.path.basename(model), "threads": threads, "test": test,
                       "peer_tokens_per_second": [r[test] for r in peers], "cairn_tokens_per_second": [r[test] for r in ours],
                       "ratio": median(ours, test) / median(peers, test), "gb_per_second": median(ours, test + "_gb"),
                       "gflop_per_second": median(ours, test + "_gflop"), "read_gb_per_second": read,
                       "load_seconds": [r["load_seconds"] for r in ours]}
                result["rows"].append(row)
                print(f"{row['model']:<26}{threads:>8}{test:>9}{median(peers, test):>12.2f}{median(ours, test):>13.2f}"
                      f"{row['ratio']:>8.2f}{row['gb_per_second']:>8.1f}{100 * row['gb_per_second'] / read:>8.0f}%"
                      f"{row['gflop_per_second']:>10.1f}", flush=True)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
