#!/usr/bin/env python3
"""What each way of writing weights with fewer bits loses on the models at hand: perplexity on held-out text.

    bench/quantize_loss.py [--cairn build/release/cairn] [--stories260k FOLDER] [--only MODEL] [--json FILE]

cairn-stories is calibrated and scored on documents of the grammar that it was trained on (different seeds); a llama2.c model on stories that it
tells itself. The bar of issue 5: the increase with GPTQ, 4 bits, is at most half of that with rounding to nearest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools", "shipped_model"))
from generate_text import documents  # noqa: E402

ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}


def written(document):
    """A document with its special tokens spelt out, as the model was trained on it."""
    kind, body = document
    if kind == "text":
        return f"<|begin|>{body}<|end|>"
    return "<|begin|>" + "".join(f"{ROLES[role]}{text}<|end|>" for role, text in body)


def grammar_text(path, seed, count):
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join(written(document) for document in documents(seed, count)))


def own_stories(cairn, model, path, seeds):
    with open(path, "w", encoding="utf-8") as file:
        for seed in seeds:
            done = subprocess.run([cairn, "run", model, "--raw", "-p", "", "-n", "250", "--temp", "1", "--seed", str(seed)], capture_output=True,
                                  text=True, check=True)
            file.write(done.stdout.strip() + "\n")


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path) if name.endswith(".safetensors"))


def perplexity(cairn, model, text, options):
    done = subprocess.run([cairn, "perplexity", model, text, "--json", "--device", "cpu", *options], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def study(cairn, model, name, calibration, held_out, settings, score_options, quantize_options, folder):
    base = perplexity(cairn, model, held_out, score_options)
    rows = [{"model": name, "what": "as it is", "bytes": size_of(model), **base}]
    for number, (what, options) in enumerate(settings):
        out = os.path.join(folder, f"{name}-{number}")
        calibrated = [] if "--round-to-nearest" in options or "--plain" in options else ["--calib", calibration]
        begin = time.time()
        subprocess.run([cairn, "quantize", model, "-o", out, *options, *calibrated, *quantize_options], capture_output=True, text=True, check=True)
        rows.append({"model": name, "what": what, "options": options, "seconds": time.time() - begin, "bytes": size_of(out),
                     **perplexity(cairn, out, held_out, score_options)})
        print(f"{name}: {what}: {rows[-1]['perplexity']:.4f}", file=sys.stderr, flush=True)
    increase = {row["what"]: row["perplexity"] - base["perplexity"] for row in rows}
    print(f"\n**{name}**: {base['perplexity']:.4f} on {base['tokens']} tokens of held-out text\n")
    print("| written as | bytes | of the original | perplexity | increase | of rounding's | seconds to write |\n|---|---|---|---|---|---|---|")
    for row in rows[1:]:
        nearest = increase.get(" ".join(["nearest", *row["what"].split(",")[0].split()[1:3]]))
        share = f"{100 * increase[row['what']] / nearest:.0f} %" if nearest and not row["what"].startswith("nearest") else ""
        print(f"| {row['what']} | {row['bytes']:,} | {100 * row['bytes'] / rows[0]['bytes']:.1f} % | {row['perplexity']:.4f} | "
              f"{increase[row['what']]:.4f} | {share} | {row['seconds']:.1f} |")
    return rows


def gptq_settings(bits, group):
    settings = []
    for number in bits:
        common = ["--codec", "gptq", "--bits", str(number), "--group", str(group)] + (["--asymmetric"] if number < 4 else [])
        settings += [(f"nearest {number} bits", common + ["--round-to-nearest"]), (f"gptq {number} bits", common),
                     (f"gptq {number} bits, act-order", common + ["--act-order"])]
    return settings


def shipped_settings():
    settings = gptq_settings((4, 3, 2), 128)
    settings += [(f"planes of signs, {planes}", ["--codec", "bcq", "--bits", str(planes)]) for planes in (4, 3, 2)]
    return settings + [("DFloat11", ["--codec", "df11"]), ("low rank, 0.8, plain", ["--codec", "lowrank", "--keep", "0.8", "--plain"]),
                       ("low rank, 0.8, whitened", ["--codec", "lowrank", "--keep", "0.8"])]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", default=os.path.join(ROOT, "build/release/cairn"))
    parser.add_argument("--stories260k", default=os.path.join(ROOT, "../shared/data/weights/stories260k"), help="folder of the llama2.c model")
    parser.add_argument("--only", choices=["cairn-stories", "stories260K"])
    parser.add_argument("--json", help="write all figures here")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        calibration, held_out = os.path.join(folder, "calibration.txt"), os.path.join(folder, "held_out.txt")
        if options.only != "stories260K":
            grammar_text(calibration, 1, 400)
            grammar_text(held_out, 2, 300)
            rows += study(options.cairn, os.path.join(ROOT, "models/cairn-stories"), "cairn-stories", calibration, held_out, shipped_settings(),
                          ["--window", "1024", "--special"], ["--special", "--samples", "64", "--seq", "1024"], folder)
        model = os.path.join(options.stories260k, "checkpoint_v1.bin")
        if options.only == "cairn-stories":
            pass
        elif not os.path.exists(model):
            print(f"NOT MEASURED: stories260K, because {model} is missing", file=sys.stderr)
        else:
            own_stories(options.cairn, model, calibration, range(100, 400))
            own_stories(options.cairn, model, held_out, range(1000, 1300))
            rows += study(options.cairn, model, "stories260K", calibration, held_out, gptq_settings((4, 3), 64), ["--window", "256"],
                          ["--seq", "256"], folder)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
