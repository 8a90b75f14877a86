#!/usr/bin/env python3
"""PyTorch's attention kernels (cuDNN, FlashAttention) on the shapes of cuda_attention_bench, and the machine's ceilings.

    python3 cuda_attention_peer.py [--json FILE]

Needs a GPU and torch. Times are medians of CUDA event timings; inputs rotate through more memory than the cache holds.
"""
import json
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

results = []


def report(case, value, unit):
    print(f"{case:64} {value:9.3f} {unit}", flush=True)
    results.append({"case": case, "value": value, "unit": unit})


def seconds(calls, times=7):
    """Median seconds of one call; calls are run in turn."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    measured = []
    for _ in range(times):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for call in calls:
            call()
        stop.record()
        stop.synchronize()
        measured.append(start.elapsed_time(stop) / 1e3 / len(calls))
    return sorted(measured)[len(measured) // 2]


def random(*shape):
    return torch.randn(*shape, dtype=torch.bfloat16, device="cuda")


def attention(batch, queries, keys, backend, causal, copies, heads=32, kv_heads=8, dim=128):
    sets = [(random(batch, heads, queries, dim), random(batch, kv_heads, keys, dim), random(batch, kv_heads, keys, dim)) for _ in range(copies)]
    with sdpa_kernel(backend):
        return seconds([lambda s=s: torch.nn.functional.scaled_dot_product_attention(*s, is_causal=causal, enable_gqa=True) for s in sets])


def main():
    a, b = random(8192, 8192), random(8192, 8192)
    report("matmul 8192 bf16", 2 * 8192**3 / seconds([lambda: a @ b] * 4) / 1e12, "TFLOP/s")
    x, y = torch.empty(2 << 30, dtype=torch.uint8, device="cuda").random_(), torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    report("copy on the device, read and written", 2 * (2 << 30) / seconds([lambda: y.copy_(x)]) / 1e12, "TB/s")
    del x, y
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("FlashAttention", SDPBackend.FLASH_ATTENTION)):
        for n in (512, 2048, 8192, 16384, 32768):
            try:
                s = attention(1, n, n, backend, True, 2)
                report(f"prompt {n} causal, {name}", 2 * n * (n + 1) * 32 * 128 / s / 1e12, "TFLOP/s")
            except RuntimeError as e:
                print(f"prompt {n} causal, {name}: {str(e).splitlines()[0]}")
        for batch, keys, copies in ((64, 4096, 4), (1, 131072, 4), (256, 1024, 4)):
            try:
                s = attention(batch, 1, keys, backend, False, copies)
                report(f"decode {batch} x {keys}, {name}", batch * keys * 8 * 128 * 4 / s / 1e12, "TB/s")
            except RuntimeError as e:
                print(f"decode {batch} x {keys}, {name}: {str(e).splitlines()[0]}")
    if "--json" in sys.argv:
        with open(sys.argv[sys.argv.index("--json") + 1], "w") as f:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}, f, indent=1)


main()
