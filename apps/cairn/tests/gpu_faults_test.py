#!/usr/bin/env python3
"""A GPU that is missing, too old, busy, full or lost, and kernels that do not compile: each gives one sentence and an
exit code with --device cuda, and an answer from the CPU with --device auto. The driver and the compiler are stand-ins
(fake_cuda/), which the program opens like the real ones; kernels that run on them compute nothing."""

import os
import re
import unittest
from pathlib import Path

import program
from program import ProgramTest, run
from shaped_gguf import write_llama

MODEL = Path(__file__).parents[3] / "models/cairn-stories/cairn-stories-q8_0.gguf"
PROMPT = ("--prompt", "Once", "-n", "4", "--threads", "1")


class GpuTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.fakes = Path(program.CAIRN).resolve().parent / "fake_cuda"
        if not (self.fakes / "libcuda.so.1").exists():
            self.skipTest(f"{self.fakes} is not built (targets fake_cuda and fake_nvrtc)")
        if os.environ.get("LD_PRELOAD", "").find("asan") >= 0:
            self.skipTest("another library is preloaded")

    def env(self, cuda="", nvrtc="", **more):
        return {"LD_LIBRARY_PATH": str(self.fakes), "CAIRN_NVRTC": str(self.fakes / "libnvrtc.so"), "FAKE_CUDA": cuda,
                "FAKE_NVRTC": nvrtc, "FAKE_NVRTC_LOG": str(self.folder / "compiled"),
                "CAIRN_CACHE": str(self.folder / "cache"), "CAIRN_KERNELS": str(self.folder / "no pack"), **more}

    def compiled(self):
        """What was compiled since the last call."""
        log = self.folder / "compiled"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


class Faults(GpuTest):
    def refuse_gpu(self, code, says, **settings):
        self.refuse(code, "run", MODEL, *PROMPT, "--device", "cuda", says=says, env=self.env(**settings))

    def fall_back(self, says, **settings):
        """auto answers from the CPU, and says why in one line; says None: without a word."""
        code, out, err = run("run", MODEL, *PROMPT, "--device", "auto", env=self.env(**settings))
        self.assertEqual(code, 0, err)
        self.assertTrue(out.strip())
        lines = [line for line in err.decode().splitlines() if line.startswith("cairn:")]
        self.assertEqual(len(lines), 0 if says is None else 1, err)
        for part in [says] if isinstance(says, str) else says or []:
            self.assertIn(part, lines[0])

    def test_no_driver(self):
        empty = {"LD_LIBRARY_PATH": str(self.folder)}
        self.refuse_gpu(5, ["no NVIDIA driver", "libcuda.so.1"], **empty)
        self.fall_back(None, **empty)

    def test_not_a_driver(self):
        self.write("libcuda.so.1", b"this is no library")
        self.refuse_gpu(5, ["no NVIDIA driver", "libcuda.so.1"], LD_LIBRARY_PATH=str(self.folder))
        (self.folder / "libcuda.so.1").unlink()
        (self.folder / "libcuda.so.1").symlink_to(self.fakes / "libnvrtc.so")  # a library, but another one
        self.refuse_gpu(5, ["lacks", "cuInit"], LD_LIBRARY_PATH=str(self.folder))
        self.fall_back("lacks cuInit", LD_LIBRARY_PATH=str(self.folder))

    def test_old_driver(self):
        self.refuse_gpu(5, ["CUDA 11.4", "12.0 or newer"], cuda="version=11040")
        self.fall_back("CUDA 11.4", cuda="version=11040")

    def test_no_device(self):
        self.refuse_gpu(5, "the NVIDIA driver sees no GPU", cuda="devices=0")
        self.fall_back(None, cuda="devices=0")

    def test_driver_does_not_start(self):
        self.refuse_gpu(5, ["does not start", "803"], cuda="init=803")
        self.fall_back("does not start", cuda="init=803")

    def test_capability(self):
        self.refuse_gpu(5, ["Fake GPU", "7.5", "8.0 or newer"], cuda="capability=75")
        self.fall_back("7.5", cuda="capability=75")

    def test_busy(self):
        self.refuse_gpu(7, ["opening GPU 0 (Fake GPU) failed", "busy"], cuda="retain=46")
        self.fall_back("busy", cuda="retain=46")

    def test_memory(self):
        self.refuse_gpu(6, ["of GPU memory", "1000000 are available"], cuda="free=1000000")
        self.fall_back("1000000 are available", cuda="free=1000000")

    def test_memory_is_counted_exactly(self):
        """What a refusal says that it needs is what loading allocates, but for the reserve."""
        reserve = 512 << 20
        for model, context in ((MODEL, 1024), (MODEL, 50), (MODEL.parent, 700)):
            ask = ("run", model, *PROMPT, "--ctx", str(context), "--gpu-layers", "4", "--device", "cuda")
            _, _, err = run(*ask, env=self.env(cuda="free=1000"))
            needs = int(re.search(r"needs (\d+) bytes of GPU memory", err.decode()).group(1)) - reserve
            log = self.folder / "log"
            self.succeed(*ask, env=self.env(FAKE_CUDA_LOG=str(log)))
            most = int(re.search(r"most bytes (\d+)", log.read_text()).group(1))
            log.unlink()
            self.assertEqual(most, needs, model)

    def test_no_compiler(self):
        missing = {"CAIRN_NVRTC": str(self.folder / "libnvrtc.so")}
        self.refuse_gpu(5, ["NVRTC", "was not found", "CAIRN_NVRTC"], **missing)
        self.fall_back("was not found", **missing)
        self.refuse_gpu(5, ["NVRTC", "12.0 or newer"], nvrtc="version=11")
        self.refuse_gpu(5, ["sm_90a", "newer CUDA toolkit"], nvrtc="newest=89")

    def test_kernel_does_not_compile(self):
        self.refuse_gpu(4, ["matmul_row.cu", "FORM_BITS=8", "does not compile for sm_90a", "what the fake does not like",
                            "failed.log"], nvrtc="fail=matmul_row.cu")
        log = (self.folder / "cache/kernels/failed.log").read_text()
        self.assertIn("matmul_row.cu FORM_LAYOUT", log)
        self.assertIn("what the fake does not like", log)
        self.fall_back(["matmul_row.cu", "does not compile for sm_90a"], nvrtc="fail=matmul_row.cu")

    def test_kernel_is_not_taken(self):
        self.refuse_gpu(7, ["loading", ".cu", "kernel image is invalid"], cuda="module=200")
        self.fall_back("kernel image is invalid", cuda="module=200")

    def test_lost_while_running(self):
        for number, error, says in ((60, 719, "unspecified launch failure"), (400, 214, "ECC"), (400, 999, "unknown")):
            code, _, err = run("run", MODEL, "--prompt", "Once", "-n", "20", "--device", "cuda",
                               env=self.env(cuda=f"fail_at={number},error={error}"))
            self.assertEqual(code, 7, err)
            line = err.decode().strip().splitlines()[-1]
            for part in ("error: ", "Fake GPU", "at or before", says):
                self.assertIn(part, line)


class Kernels(GpuTest):
    def test_second_start_compiles_nothing(self):
        for expected in (True, False):
            self.succeed("run", MODEL, *PROMPT, "--device", "cuda", env=self.env())
            self.assertEqual(bool(self.compiled()), expected)

    def test_pack_leaves_nothing_to_compile(self):
        pack = self.folder / "pack"
        self.succeed("kernels", "--arch", "sm_90a", "--out", pack, env=self.env())
        self.compiled()
        models = [MODEL,
                  write_llama(self.folder / "bf16.gguf"),
                  write_llama(self.folder / "q4_k_m.gguf", "q4_k", mixed="q6_k"),
                  write_llama(self.folder / "q8_0.gguf", "q8_0"),
                  write_llama(self.folder / "1b.gguf", "q4_k", dim=2048, inner=8192, heads=32, mixed="q6_k")]
        for model in models:
            self.succeed("bench", model, "-p", "40", "-n", "3", "-r", "1", "--device", "cuda", env=self.env(CAIRN_KERNELS=str(pack)))
            self.assertEqual(self.compiled(), [], model)
        # Without any compiler, too.
        self.succeed("run", MODEL, *PROMPT, "--device", "cuda",
                     env=self.env(CAIRN_KERNELS=str(pack), CAIRN_NVRTC=str(self.folder / "none")))

    def test_probes_check_themselves(self):
        """A probe whose products are wrong has measured something else: here nothing computes."""
        code, _, err = run("bench", "device", "--only", "matrix", "-r", "1", env=self.env(cuda="free=4000000000"))
        self.assertEqual(code, 7)
        self.assertIn(b"its time means nothing", err)
        self.refuse(2, "bench", "device", "--only", "matirx", env=self.env(), says=["matirx", "latency, bandwidth, matrix"])
        code, out, _ = run("bench", "device", "--only", "cluster,bulk", "-r", "1", env=self.env(cuda="capability=80,free=4000000000"))
        self.assertEqual(code, 0)
        self.assertEqual(out.count(b"needs sm_90"), 2)


if __name__ == "__main__":
    program.main()
