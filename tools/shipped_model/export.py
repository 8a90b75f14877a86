#!/usr/bin/env python3
"""Turns what train.py wrote into the folder that ships: Hugging Face files, a Q8_0 GGUF, the loss curve, and expected greedy output.

Usage: export.py --weights NAME.safetensors --config NAME_config.json --loss NAME_loss.csv --tokenizer FOLDER --out models/NAME --name NAME [--expected]
Every claim is checked here: transformers loads the folder, the GGUF's dequantised tensors equal the weights to Q8_0's rounding, and its
permuted q and k rows undo to the Hugging Face order.
"""

import argparse
import csv
import json
import math
import os
import shutil

import gguf
import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT, THETA, EPS = 1024, 10000.0, 1e-5
LICENSE = "apache-2.0"


def write_folder(o, c, weights, tokenizer):
    ids = {token: tokenizer["model"]["vocab"][token] for token in ("<|begin|>", "<|end|>", "<|pad|>")}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": c["vocabulary"], "hidden_size": c["hidden"], "intermediate_size": c["ffn"],
              "num_hidden_layers": c["layers"], "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"], "head_dim": c["head_size"], "hidden_act": "silu",
              "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
              "bos_token_id": ids["<|begin|>"], "eos_token_id": ids["<|end|>"], "pad_token_id": ids["<|pad|>"], "torch_dtype": "bfloat16"}
    generation = {"bos_token_id": ids["<|begin|>"], "eos_token_id": ids["<|end|>"], "pad_token_id": ids["<|pad|>"], "do_sample": True, "temperature": 0.7, "top_p": 0.95}
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        with open(os.path.join(o.out, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(os.path.join(o.tokenizer, name), os.path.join(o.out, name))
    save_file(weights, os.path.join(o.out, "model.safetensors"), metadata={"format": "pt"})
    return ids


def permute(matrix, heads):
    """Rows from the half-split order of Hugging Face to the adjacent-pair order of GGUF's llama."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def gguf_tensors(c, weights):
    yield "token_embd.weight", weights["model.embed_tokens.weight"]
    yield "output_norm.weight", weights["model.norm.weight"]
    names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for layer in range(c["layers"]):
        for theirs, ours in names.items():
            tensor = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                tensor = permute(tensor, c["heads"] if ours == "attn_q" else c["kv_heads"])
            yield f"blk.{layer}.{ours}.weight", tensor


def write_gguf(o, c, weights, tokenizer, ids, path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(o.name)
    writer.add_license(LICENSE)
    writer.add_description("A small story and chat model, trained from scratch for cairn")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(c["hidden"])
    writer.add_feed_forward_length(c["ffn"])
    writer.add_block_count(c["layers"])
    writer.add_head_count(c["heads"])
    writer.add_head_count_kv(c["kv_heads"])
    writer.add_key_length(c["head_size"])
    writer.add_value_length(c["head_size"])
    writer.add_rope_dimension_count(c["head_size"])
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(c["vocabulary"])
    tokens = [None] * c["vocabulary"]
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index] = token
    special = {t["id"] for t in tokenizer["added_tokens"] if t["special"]}
    for t in tokenizer["added_tokens"]:
        tokens[t["id"]] = t["content"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([int(gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL) for i in range(len(tokens))])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(ids["<|begin|>"])
    writer.add_eos_token_id(ids["<|end|>"])
    writer.add_pad_token_id(ids["<|pad|>"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    with open(os.path.join(o.tokenizer, "tokenizer_config.json"), encoding="utf-8") as file:
        writer.add_chat_template(json.load(file)["chat_template"])
    for name, tensor in gguf_tensors(c, weights):
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor.astype(numpy.float32))
        else:
            writer.add_tensor(name, gguf.quants.quantize(numpy.ascontiguousarray(tensor, numpy.float32), gguf.GGMLQuantizationType.Q8_0), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_gguf(path, c, weights):
    reader, worst = gguf.GGUFReader(path), 0.0
    expected = dict(gguf_tensors(c, weights))
    assert {t.name for t in reader.tensors} == set(expected)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected[tensor.name].shape)
        reference = expected[tensor.name]
        if reference.ndim == 1:
            assert (values == reference).all(), tensor.name
            continue
        block = numpy.abs(reference).reshape(-1, 32).max(axis=1) / 127     # one step of Q8_0 in each block of 32
        error = (numpy.abs(values - reference).reshape(-1, 32).max(axis=1) / numpy.maximum(block, 1e-12)).max()
        worst = max(worst, error)
    assert worst < 0.57, worst   # half a step, and up to 127 * 2^-11 of one from rounding the scale to f16
    print(f"{path}: {len(expected)} tensors, largest Q8_0 error {worst:.3f} steps")


def expected_greedy(o, model, tokenizer):
    cases = [("raw", "Once upon a time"), ("raw", "One day, a little fox named Kim"), ("chat", [{"role": "user", "content": "Tell me a story about a cat named Zorro."}]),
             ("chat", [{"role": "system", "content": "You are Sparky, a friendly dragon."}, {"role": "user", "content": "Who are you?"}])]
    out = []
    for kind, prompt in cases:
        text = prompt if kind == "raw" else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=kind == "raw")["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
            answer = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=64, do_sample=False, temperature=None, top_p=None)[0, len(ids):].tolist()
        top = torch.topk(logits, 10)
        out.append({"kind": kind, "prompt": prompt, "rendered": text, "prompt_ids": ids, "greedy_ids": answer, "greedy_text": tokenizer.decode(answer, skip_special_tokens=True),
                    "first_top10": [{"id": i, "logit": round(v, 5)} for v, i in zip(top.values.tolist(), top.indices.tolist())]})
    with open(os.path.join(o.out, "expected_greedy.json"), "w", encoding="utf-8") as file:
        json.dump({"made_by": "transformers in fp32 from the bf16 safetensors, greedy, up to 64 tokens or <|end|>", "cases": out}, file, indent=1, ensure_ascii=False)
        file.write("\n")


def loss_curve(o, c):
    """An SVG of training loss (smoothed over 20 logged points) and validation loss against tokens, both axes linear.
    The first moments, when the loss falls from 8, are cut off at the top; loss.csv has them."""
    with open(o.loss, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shutil.copyfile(o.loss, os.path.join(o.out, "loss.csv"))
    tokens = [int(r["tokens"]) / 1e6 for r in rows]
    train = [float(r["train_loss"]) for r in rows]
    smooth = [sum(train[max(0, i - 19):i + 1]) / len(train[max(0, i - 19):i + 1]) for i in range(len(train))]
    held = [(x, float(r["validation_loss"])) for x, r in zip(tokens, rows) if r["validation_loss"]]
    width, height, left, bottom, top = 760, 400, 60, 50, 40
    low = math.floor(min(min(smooth), min(y for _, y in held)) * 20) / 20
    high, lines = low + 0.3, 6

    def point(x, y):
        return f"{left + (width - left - 20) * x / tokens[-1]:.1f},{top + (height - top - bottom) * (high - min(y, high)) / (high - low):.1f}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">', f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{width / 2}" y="22" text-anchor="middle" font-size="14">{o.name}: loss over {tokens[-1]:.0f} M tokens ({c["parameters"] / 1e6:.2f} M parameters)</text>']
    for i in range(lines + 1):
        y = low + (high - low) * i / lines
        py = point(0, y).split(",")[1]
        parts.append(f'<line x1="{left}" y1="{py}" x2="{width - 20}" y2="{py}" stroke="#ddd"/><text x="{left - 6}" y="{float(py) + 4}" text-anchor="end">{y:.2f}</text>')
    for x in range(0, int(tokens[-1]) + 1, 250):
        parts.append(f'<text x="{point(x, low).split(",")[0]}" y="{height - bottom + 18}" text-anchor="middle">{x}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">million tokens</text>')
    parts.append(f'<polyline fill="none" stroke="#3366aa" stroke-width="1.2" points="{" ".join(point(x, y) for x, y in zip(tokens, smooth))}"/>')
    parts.append(f'<polyline fill="none" stroke="#cc5533" stroke-width="1.8" points="{" ".join(point(x, y) for x, y in held)}"/>')
    parts.append(f'<text x="{width - 30}" y="60" text-anchor="end" fill="#3366aa">training (books included), mean of 200 steps, last {smooth[-1]:.3f}</text>')
    parts.append(f'<text x="{width - 30}" y="78" text-anchor="end" fill="#cc5533">validation (generated text), last {held[-1][1]:.3f}</text></svg>')
    with open(os.path.join(o.out, "loss.svg"), "w", encoding="utf-8") as file:
        file.write("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "config", "loss", "tokenizer", "out", "name"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--expected", action="store_true", help="also write expected_greedy.json")
    o = parser.parse_args()
    os.makedirs(o.out, exist_ok=True)
    with open(o.config, encoding="utf-8") as file:
        c = json.load(file)
    with open(os.path.join(o.tokenizer, "tokenizer.json"), encoding="utf-8") as file:
        tokenizer = json.load(file)
    weights = load_file(o.weights)
    assert sum(t.numel() for t in weights.values()) == c["parameters"]
    ids = write_folder(o, c, weights, tokenizer)
    floats = {name: tensor.float().numpy() for name, tensor in weights.items()}
    path = os.path.join(o.out, f"{o.name}-q8_0.gguf")
    write_gguf(o, c, floats, tokenizer, ids, path)
    check_gguf(path, c, floats)
    loss_curve(o, c)
    reloaded = AutoTokenizer.from_pretrained(o.out)
    model = AutoModelForCausalLM.from_pretrained(o.out, dtype=torch.float32).eval()
    assert sum(p.numel() for p in model.parameters()) == c["parameters"]
    if o.expected:
        expected_greedy(o, model, reloaded)
    torch.manual_seed(1)
    for messages in ([{"role": "user", "content": "Hello! Who are you?"}], [{"role": "user", "content": "Once upon a time"}]):
        encoded = reloaded(reloaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), return_tensors="pt", add_special_tokens=False)
        answer = model.generate(**encoded, max_new_tokens=250)
        print(messages[-1]["content"], "->", reloaded.decode(answer[0, encoded["input_ids"].shape[1]:], skip_special_tokens=True), "\n")


if __name__ == "__main__":
    main()
