#!/usr/bin/env python3
"""Times transformers' own continuous batching on a GPU on a Llama of random weights: the peer of `cairn bench serve`.

usage: bench/gpu_transformers_batching_peer.py [--requests 256] [--prompt 1024] [--answer 256] [--attention paged|sdpa,...]
                                               [--small] [--json FILE]

bf16, Llama-3.1-8B's shape, weights made on the device. All requests are there at the beginning and every one gets all of its
answer; the clock runs from the first request to the last token, after a warm-up of a few short ones. The attention
implementations are tried in order until one runs. --small: two thin layers on the CPU, to see whether the script works.
"""
import argparse
import json
import time

import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--answer", type=int, default=256)
    parser.add_argument("--attention", default="paged|flash_attention_2,paged|sdpa,paged|eager")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json")
    a = parser.parse_args()

    size = dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
                head_dim=128)
    if a.small:
        size = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                    head_dim=16)
    device = "cpu" if a.small else "cuda"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    generator = torch.Generator().manual_seed(5)

    def prompts(count, length):
        return [torch.randint(5, 128000, (length,), generator=generator).tolist() for _ in range(count)]

    def run(model, count, length, answer):
        generation = transformers.GenerationConfig(max_new_tokens=answer, do_sample=False, eos_token_id=-1, pad_token_id=0)
        inputs = prompts(count, length)
        if not a.small:
            torch.cuda.synchronize()
        start = time.perf_counter()
        outputs = model.generate_batch(inputs, generation_config=generation, progress_bar=False)
        seconds = time.perf_counter() - start
        answers = sum(len(o.generated_tokens) for o in outputs.values())
        if len(outputs) != count or answers != count * answer:
            raise RuntimeError(f"{len(outputs)} of {count} requests ended, with {answers} of {count * answer} tokens")
        return seconds

    for attention in a.attention.split(","):
        config = transformers.LlamaConfig(vocab_size=128256, max_position_embeddings=8192, rms_norm_eps=1e-5,
                                          rope_theta=500000.0, tie_word_embeddings=False, **size)
        config._attn_implementation = attention
        try:
            with torch.device(device):
                model = transformers.LlamaForCausalLM(config)
            model.eval()
            run(model, 4, 16, 4)
            seconds = run(model, a.requests, a.prompt, a.answer)
        except Exception as e:  # whatever an implementation lacks
            print(f"{attention}: {type(e).__name__}: {str(e)[:300]}", flush=True)
            model = None
            continue
        result = {"transformers": transformers.__version__, "torch": torch.__version__, "attention": attention,
                  "requests": a.requests, "prompt": a.prompt, "answer": a.answer, "seconds": seconds,
                  "answer_tokens_per_second": a.requests * a.answer / seconds,
                  "total_tokens_per_second": a.requests * (a.prompt + a.answer) / seconds}
        print(f"transformers {transformers.__version__} {attention}: {a.requests} requests of {a.prompt} + {a.answer} tokens in "
              f"{seconds:.2f} s, {result['answer_tokens_per_second']:.0f} answer and "
              f"{result['total_tokens_per_second']:.0f} tokens/s in all", flush=True)
        if a.json:
            with open(a.json, "w") as out:
                json.dump(result, out, indent=1)
        return
    raise SystemExit("no implementation of attention ran")


if __name__ == "__main__":
    main()
