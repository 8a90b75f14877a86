#!/usr/bin/env python3
"""Whole models on the GPU against transformers: cairn's bf16 error beside transformers' own.

For each family a model of random weights (a few layers, real widths) is saved in bf16. The reference is transformers in
float32 on the same (bf16-valued) weights. Both transformers in bf16 and cairn are compared with it:
    error = ||scores - reference|| / ||reference||, over all positions
cairn must stay within 1.5 times transformers' error, for a prompt in one piece and for tokens one by one. With --kv the
errors of other forms of the KV cache are shown besides; the bar is for the default one.
Needs a GPU, torch and transformers.

usage: tools/gpu_model_check.py DUMP_LOGITS [--out results.json] [--families llama,qwen3,...] [--kv q8_0,e4m3]
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers

COMMON = dict(vocab_size=4096, max_position_embeddings=4096, torch_dtype="bfloat16", tie_word_embeddings=False)


def llama_like(cls, **more):
    return lambda: cls(hidden_size=1024, intermediate_size=2816, num_hidden_layers=6, num_attention_heads=8,
                       num_key_value_heads=2, head_dim=128, initializer_range=0.04, **COMMON, **more)


FAMILIES = {
    "llama": llama_like(transformers.LlamaConfig, rope_theta=500000.0),
    "mistral": llama_like(transformers.MistralConfig, sliding_window=256),
    "qwen2": llama_like(transformers.Qwen2Config),
    "qwen3": llama_like(transformers.Qwen3Config),
    "gemma2": llama_like(transformers.Gemma2Config, sliding_window=256, query_pre_attn_scalar=128),
    "phi3": llama_like(transformers.Phi3Config, pad_token_id=0),
}


def error(scores, reference):
    return float(np.linalg.norm(scores - reference) / np.linalg.norm(reference))


def check(name, dump, folder, tokens, forms):
    torch.manual_seed(7)
    config = FAMILIES[name]()
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16,
                                                          attn_implementation="eager" if name == "gemma2" else "sdpa")  # sdpa ignores soft caps
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key:
                value.copy_(1 + 0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    ids = torch.randint(0, config.vocab_size, (1, tokens))
    model = model.cuda().eval()
    with torch.no_grad():
        own = model(ids.cuda()).logits[0].float().cpu().numpy()
        reference = model.float()(ids.cuda()).logits[0].float().cpu().numpy()
    del model
    (folder / "ids.txt").write_text(" ".join(str(i) for i in ids[0].tolist()))
    result = {"family": name, "tokens": tokens, "transformers_bf16_error": error(own, reference)}
    for form in ["", *forms]:
        for label, prompt in (("prompt", tokens), ("one_by_one", 1)):
            subprocess.run([dump, folder, folder / "ids.txt", folder / "out.f32", "cuda", str(prompt), *([form] if form else [])], check=True)
            scores = np.fromfile(folder / "out.f32", np.float32).reshape(tokens, -1)
            result[f"cairn_{form + '_' if form else ''}{label}_error"] = error(scores, reference)
    result["ratio"] = max(result["cairn_prompt_error"], result["cairn_one_by_one_error"]) / result["transformers_bf16_error"]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump_logits")
    parser.add_argument("--out")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--kv", default="", help="forms of the KV cache besides the default: f16,q8_0,e4m3")
    parser.add_argument("--tokens", type=int, default=600)
    a = parser.parse_args()
    results, failed = [], False
    for name in a.families.split(","):
        with tempfile.TemporaryDirectory() as folder:
            try:
                r = check(name, a.dump_logits, pathlib.Path(folder), a.tokens, [f for f in a.kv.split(',') if f])
            except Exception as e:  # one family must not hide the others
                r = {"family": name, "failure": str(e)[:300], "ratio": float("inf")}
        results.append(r)
        failed |= r["ratio"] > 1.5
        print({k: (f"{v:.3g}" if isinstance(v, float) else v) for k, v in r.items()}, flush=True)
    if a.out:
        json.dump({"gpu": torch.cuda.get_device_name(), "transformers": transformers.__version__, "results": results},
                  open(a.out, "w"), indent=1)
    sys.exit(failed)


if __name__ == "__main__":
    main()
