#!/usr/bin/env python3
"""Everything that needs a GPU, in one go: tests, whole models against transformers, benches. Writes one JSON per part.

usage: bench/gpu_suite.py --build BUILD --out FOLDER [--models FOLDER] [--sanitize] [--only PART,...]

BUILD holds the programs (cairn, engine_gpu_test, backends_cuda_gpu_test, dump_logits, cuda_*_bench). MODELS holds
8b-bf16.gguf and 8b-q4_k_m.gguf of the Llama-3.1-8B shape; what is missing counts as failed. The table of
the bars is printed at the end. --sanitize runs compute-sanitizer over a part of the tests (minutes).
PARTS (--only): tests, models, device (cairn bench device, with its plot), starts (a first start with no compiled kernels,
a second one, and one from a pack without a compiler), trace (launches of a decode step), bench; sanitizer.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def run(command, timeout=300, **environment):
    start = time.time()
    try:
        p = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout,
                           env={**os.environ, **environment})
        return p.returncode, p.stdout, p.stderr, time.time() - start
    except (subprocess.TimeoutExpired, OSError) as e:
        return 124, "", str(e), time.time() - start


class Suite:
    def __init__(self, a):
        self.a, self.out, self.failed = a, pathlib.Path(a.out), []
        self.out.mkdir(parents=True, exist_ok=True)
        self.build = pathlib.Path(a.build)
        gpu = run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])[1].strip()
        self.header = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "gpu": gpu,
                       "command": " ".join(["bench/gpu_suite.py"] + sys.argv[1:])}

    def write(self, name, value):
        (self.out / f"{name}.json").write_text(json.dumps({**self.header, name: value}, indent=1) + "\n")

    def tests(self):
        rows = []
        for program in ("backends_cuda_gpu_test", "engine_gpu_test"):
            if not (self.build / program).exists():
                print(f"MISSING: {self.build / program}", flush=True)
                self.failed.append(f"{program} is missing")
                continue
            code, out, err, seconds = run([self.build / program, "--gtest_brief=1"], 500)  # GTEST_FILTER may narrow it
            last = [line for line in out.splitlines() if "PASSED" in line or "FAILED" in line or "tests ran" in line][-6:]
            rows.append({"program": program, "exit": code, "seconds": round(seconds, 1), "says": last})
            print(program, "exit", code, *last, sep="\n  ", flush=True)
            if code:
                self.failed.append(program)
        self.write("tests", rows)

    def sanitizer(self):
        """Errors of memory and races in kernels: small shapes of each family, and two models through the engine."""
        kernels = ("RowKernelsOnGpu.*:MatMulPlainOnGpu.*:MatMulFew.*:*MatMulFew.Agrees*/q4_k:*MatMulFew.Looks*/q4_k:"
                   "AttentionOnGpu.*:MatMulManyOnGpu.Sorts*:MatMulManyOnGpu.UnpacksPiece*:MatMulManyOnGpu.RunsInside*")
        models = sorted((HERE.parent / "models").glob("*/*.gguf"))[:2]
        rows = []
        for tool in ("memcheck", "racecheck"):
            checked = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
            commands = [("kernels", [self.build / "backends_cuda_gpu_test", f"--gtest_filter={kernels}"])]
            commands += [(m.name, [self.build / "cairn", "run", m, "--device", "cuda", "--prompt", "Once upon a time", "-n", "3"])
                         for m in models]
            for name, command in commands:
                run(command)  # its kernels are compiled outside of the tool
                code, out, err, seconds = run([*checked, *command], 280)
                says = [line for line in out.splitlines() if "SUMMARY" in line or "PASSED" in line or "FAILED" in line][-4:]
                rows.append({"tool": tool, "what": name, "exit": code, "seconds": round(seconds, 1), "says": says})
                print("compute-sanitizer", tool, name, "exit", code, f"{seconds:.1f} s", *says, flush=True)
                if code:
                    self.failed.append(f"compute-sanitizer {tool} {name}")
        self.write("sanitizer", rows)

    def device(self):
        code, out, err, _ = run([self.build / "cairn", "bench", "device", "--json", "--plot", self.out / "device.svg"])
        if code:
            print("cairn bench device failed:", err[-300:], flush=True)
            self.failed.append("bench device")
            return
        report = json.loads(out)
        self.write("device", report)
        for row in report["rows"]:
            value = row.get("skipped") or f"{row['value']:10.2f} {row['unit']:10} {row.get('note', '')}"
            print(f"{row['group']:10} {row['what']:46} {value}" + ("" if row.get("as_expected", True) else "  NOT AS EXPECTED"),
                  flush=True)

    def starts(self):
        """Compiling: at a first start beside the weights, at a second not at all, from a pack without a compiler neither."""
        model, rows = pathlib.Path(self.a.models or ".") / "8b-q4_k_m.gguf", []
        bench = [self.build / "cairn", "bench", model, "--device", "cuda", "-p", "64", "-n", "2", "-r", "1", "--json"]
        with tempfile.TemporaryDirectory() as folder:
            code, out, err, seconds = run([self.build / "cairn", "kernels", "--arch", "sm_90a", "--out", f"{folder}/pack"])
            print(f"pack: {out.strip()} in {seconds:.1f} s", flush=True)
            for name, environment in (("first start", {"CAIRN_CACHE": f"{folder}/cache", "CAIRN_KERNELS": f"{folder}/none"}),
                                      ("second start", {"CAIRN_CACHE": f"{folder}/cache", "CAIRN_KERNELS": f"{folder}/none"}),
                                      ("pack, no compiler", {"CAIRN_CACHE": f"{folder}/other", "CAIRN_KERNELS": f"{folder}/pack",
                                                             "CAIRN_NVRTC": f"{folder}/none"})):
                code, out, err, _ = run(bench, **environment)
                if code:
                    print(name, "failed:", err[-300:], flush=True)
                    self.failed.append(name)
                    continue
                r = json.loads(out)
                rows.append({"start": name, **{k: r[k] for k in ("load_seconds", "kernels_compiled", "kernel_seconds")}})
                print({k: (round(v, 2) if isinstance(v, float) else v) for k, v in rows[-1].items()}, flush=True)
                if r["kernels_compiled"] and name != "first start" or r["kernel_seconds"] > 15:
                    self.failed.append(f"{name}: {r['kernels_compiled']} kernels compiled in {r['kernel_seconds']:.1f} s")
        self.write("starts", rows)

    def trace(self):
        model = pathlib.Path(self.a.models or ".") / "8b-q4_k_m.gguf"
        code, out, err, _ = run([self.build / "cairn", "bench", model, "--device", "cuda", "-p", "0", "-n", "16", "-r", "1",
                                 "--trace", self.out / "decode-trace.json"])
        (self.out / "launches.txt").write_text(err)
        print(err, flush=True)
        if code:
            self.failed.append("trace")

    def models(self):
        code, out, err, _ = run([sys.executable, HERE.parent / "tools/gpu_model_check.py", self.build / "dump_logits", "--out",
                                 self.out / "model_check.json"], 300)
        print(out.strip(), flush=True)
        if code:
            self.failed.append("gpu_model_check")

    def bench(self):
        folder = pathlib.Path(self.a.models or ".")
        rows = {}
        cases = [("8b-bf16.gguf", ["-p", "512,2048,8192,32768", "-n", "128", "-r", "3"]),
                 ("8b-bf16.gguf", ["-p", "0", "-n", "32", "-d", "32768", "-r", "3"]),
                 ("8b-q4_k_m.gguf", ["-p", "512,2048", "-n", "128", "-r", "3"]),
                 ("8b-q4_k_m.gguf", ["-p", "0", "-n", "32", "-d", "32768", "-r", "3"])]
        for file in ("8b-bf16.gguf", "8b-q4_k_m.gguf"):
            cases += [(file, ["-p", "0", "-n", "32", "-b", batch, "-r", "3"]) for batch in ("8", "16", "64")]
        for file, flags in cases:
            if not (folder / file).exists():
                print(f"MISSING: {folder / file}", flush=True)
                if f"{file} is missing" not in self.failed:
                    self.failed.append(f"{file} is missing")
                continue
            code, out, err, _ = run([self.build / "cairn", "bench", folder / file, "--device", "cuda", "--json", *flags], 200)
            if code:
                print(file, *flags, "failed:", err[-300:], flush=True)
                self.failed.append(f"bench {file}")
                continue
            result = json.loads(out)
            rows.setdefault(file, {"read_gb_per_second": result["read_gb_per_second"], "results": []})["results"] += [
                {k: r[k] for k in ("test", "depth", "tokens_per_second", "gb_per_second", "gflop_per_second",
                                   "share_of_read_bandwidth", "host_us_per_step") if k in r} for r in result["results"]]
            for r in result["results"]:
                print(f"{file:16} {r['test']:10} depth {r['depth']:6}: {r['tokens_per_second']:10.1f} tok/s, "
                      f"{100 * r['share_of_read_bandwidth']:.1f} % of {result['read_gb_per_second']:.0f} GB/s, "
                      f"{r['gflop_per_second'] / 1000:.0f} TFLOP/s", flush=True)
        self.write("bench", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--models")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--only", default="tests,models,device,starts,trace,bench")
    a = parser.parse_args()
    suite = Suite(a)
    for part in a.only.split(","):
        getattr(suite, part)()
    if a.sanitize:
        suite.sanitizer()
    print("failed:", ", ".join(suite.failed) or "nothing")
    sys.exit(bool(suite.failed))


if __name__ == "__main__":
    main()
