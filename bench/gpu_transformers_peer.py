#!/usr/bin/env python3
"""Times transformers on a GPU on a Llama of random weights: the peer of `cairn bench`, in the same run as it.

usage: bench/gpu_transformers_peer.py [--prefill 512,2048,8192,32768] [--decode 1,64] [--depth 128] [--json FILE]

bf16, torch's scaled-dot-product attention with whatever backend it picks (cuDNN allowed), a preallocated static cache for
decoding, eager. Prefill asks for the last position's scores only, as cairn bench does. Weights are made on the GPU; the shape
is Llama-3.1-8B's. Each figure is the median of the repetitions, by the host's clock around synchronised calls.
"""
import argparse
import json
import statistics
import time

import torch
import transformers


def numbers(text):
    return [int(n) for n in text.split(",") if n]


def median_seconds(run, repetitions):
    run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefill", default="512,2048,8192,32768", help="prompt lengths")
    parser.add_argument("--decode", default="1,64", help="batches")
    parser.add_argument("--depth", type=int, default=128, help="tokens in the cache before those that are decoded")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to decode")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json")
    a = parser.parse_args()

    config = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=128256, max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
        attn_implementation="sdpa", tie_word_embeddings=False)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config)
    model.eval()
    rows = []

    def report(test, tokens, seconds):
        rows.append({"test": test, "tokens_per_second": tokens / seconds, "seconds": seconds})
        print(f"transformers {test:14} {tokens / seconds:10.1f} tok/s  {1e3 * seconds:9.2f} ms", flush=True)

    with torch.inference_mode():
        for length in numbers(a.prefill):
            ids = torch.randint(0, config.vocab_size, (1, length), device="cuda")

            def prefill():
                return model(input_ids=ids, use_cache=True, logits_to_keep=1).logits

            report(f"prefill {length}", length, median_seconds(prefill, a.repetitions if length < 32768 else 2))
        for batch in numbers(a.decode):
            cache = transformers.StaticCache(config=config, max_cache_len=a.depth + a.tokens + 8)
            ids = torch.randint(0, config.vocab_size, (batch, a.depth), device="cuda")
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1,
                  cache_position=torch.arange(a.depth, device="cuda"))
            token = ids[:, :1].contiguous()
            times = []
            for i in range(a.tokens):
                torch.cuda.synchronize()
                start = time.perf_counter()
                model(input_ids=token, past_key_values=cache, use_cache=True, logits_to_keep=1,
                      cache_position=torch.tensor([a.depth + i], device="cuda"))
                torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            report(f"decode b{batch}", batch, statistics.median(times[4:]))

    result = {"transformers": transformers.__version__, "torch": torch.__version__, "gpu": torch.cuda.get_device_name(),
              "results": rows}
    print(f"transformers {result['transformers']}, torch {result['torch']}, {result['gpu']}")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)


if __name__ == "__main__":
    main()
