#!/usr/bin/env python3
"""Trains a small Llama-architecture model on generated text, on one GPU.

Matrices inside the blocks are trained with Muon (orthogonalised momentum), embeddings and norms with AdamW, in bf16 autocast over fp32
weights. Rows come fresh from shards.py; --passes says how often each is used. The learning rate warms up, then falls linearly to zero.
--seconds fixes the training time: the number of steps follows from the measured step time; --steps fixes the steps instead.

Writes to --out: NAME.safetensors (bf16, Hugging Face names), NAME_config.json, NAME_loss.csv, NAME_samples.txt.
"""

import argparse
import csv
import json
import math
import os
import random
import tempfile
import time

import torch
import torch.nn.functional as F
from torch import nn

from shards import CONTEXT, Shards, make_rows

THETA, EPS = 10000.0, 1e-5


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
        return (y * self.weight).to(x.dtype)


def rotate(x, cos, sin):
    """RoPE, half-split pairing: dimension i turns with i + d/2."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv, self.size = c["heads"], c["kv_heads"], c["head_size"]
        self.q_proj = nn.Linear(c["hidden"], self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(c["hidden"], self.kv * self.size, bias=False)
        self.v_proj = nn.Linear(c["hidden"], self.kv * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, c["hidden"], bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv, self.size).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv, self.size).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.up_proj = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.down_proj = nn.Linear(c["ffn"], c["hidden"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), MLP(c)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(c["hidden"]), RMSNorm(c["hidden"])

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocabulary"], c["hidden"])
        self.layers = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = RMSNorm(c["hidden"])
        inverse = THETA ** (-torch.arange(0, c["head_size"], 2).float() / c["head_size"])
        angles = torch.outer(torch.arange(CONTEXT).float(), inverse)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 / math.sqrt(2 * c["layers"]) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(parameter, std=scale)

    def forward(self, ids, targets=None):
        with torch.autocast(ids.device.type, torch.bfloat16):
            x = self.embed_tokens(ids).bfloat16()
            cos, sin = self.cos[:ids.shape[1]], self.sin[:ids.shape[1]]
            for layer in self.layers:
                x = layer(x, cos, sin)
            logits = F.linear(self.norm(x), self.embed_tokens.weight)   # the embedding is tied to the output
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


@torch.no_grad()
def orthogonalise(g):
    """Newton-Schulz iteration of Muon (Jordan et al. 2024) for a stack of matrices [n, rows, columns]."""
    x = g.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class Muon:
    def __init__(self, parameters, momentum=0.95, decay=0.02):
        groups = {}
        for parameter in parameters:
            groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.groups = [(ps, torch.zeros(len(ps), *shape, device=ps[0].device)) for shape, ps in groups.items()]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, rate):
        for parameters, buffer in self.groups:
            grad = torch.stack([p.grad for p in parameters])
            buffer.lerp_(grad, 1 - self.momentum)
            update = orthogonalise(grad.lerp(buffer, self.momentum)).float()
            scale = max(1.0, update.size(-2) / update.size(-1)) ** 0.5
            for parameter, change in zip(parameters, update):
                parameter.mul_(1 - rate * self.decay).add_(change, alpha=-rate * scale)


@torch.no_grad()
def sample(model, tokenizer, prompt, count, temperature, seed):
    generator = torch.Generator("cuda").manual_seed(seed)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids], device="cuda")
    end = tokenizer.token_to_id("<|end|>")
    for _ in range(count):
        logits = model(ids[:, -CONTEXT:])[0, -1].float()
        nxt = logits.argmax() if temperature == 0 else torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[0]
        if nxt.item() == end:
            break
        ids = torch.cat((ids, nxt.view(1, 1)), dim=1)
    return tokenizer.decode(ids[0].tolist(), skip_special_tokens=False)


PROMPTS = ["<|begin|>Once upon a time", "<|begin|>Once upon a time, there was a little fox named Kim", "<|begin|>One day, a boy found a key",
           "<|begin|><|user|>Once upon a time<|end|><|assistant|>", "<|begin|><|user|>Hello!<|end|><|assistant|>", "<|begin|><|user|>Who are you?<|end|><|assistant|>",
           "<|begin|><|user|>Tell me a story about a cat named Zorro who loses a hat.<|end|><|assistant|>", "<|begin|><|user|>What is 7 + 5?<|end|><|assistant|>",
           "<|begin|><|user|>What is the opposite of hot?<|end|><|assistant|>", "<|begin|><|user|>What color is the sky?<|end|><|assistant|>",
           "<|begin|><|user|>My name is Barbara.<|end|><|assistant|>Nice to meet you, Barbara!<|end|><|user|>What is 3 times 4?<|end|><|assistant|>3 times 4 is 12.<|end|><|user|>What is my name?<|end|><|assistant|>",
           "<|begin|><|system|>You are Sparky, a friendly dragon.<|end|><|user|>Who are you?<|end|><|assistant|>", "<|begin|><|user|>Write a poem about the sea.<|end|><|assistant|>",
           "<|begin|><|user|>Why is the sky blue?<|end|><|assistant|>", "<|begin|><|user|>What is the capital of France?<|end|><|assistant|>", "<|begin|><|user|>Explain general relativity.<|end|><|assistant|>"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="cairn-stories")
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json")
    parser.add_argument("--books", default="")
    parser.add_argument("--scratch", default=os.path.join(tempfile.gettempdir(), "shards"))
    parser.add_argument("--resume", default="", help="start from these weights (safetensors) instead of from noise")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--ffn", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128, help="rows of 1,024 tokens")
    parser.add_argument("--muon-rate", type=float, default=0.02)
    parser.add_argument("--adam-rate", type=float, default=0.002)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=len(PROMPTS), help="how many prompts to try at the end")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--passes", type=int, default=1, help="how often each generated row is used")
    o = parser.parse_args()

    began = time.time()
    shards = Shards(o.seed, o.tokenizer, o.books, os.path.join(o.scratch, o.name), o.workers, o.passes)
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(o.tokenizer)
    torch.manual_seed(o.seed)
    torch.set_float32_matmul_precision("high")
    c = {"vocabulary": tokenizer.get_vocab_size(), "hidden": o.hidden, "layers": o.layers, "heads": o.heads, "kv_heads": o.kv_heads, "head_size": 64, "ffn": o.ffn}
    model = Llama(c).cuda()
    if o.resume:
        from safetensors.torch import load_file
        model.load_state_dict({name.removeprefix("model."): tensor.float() for name, tensor in load_file(o.resume).items()})
    count = sum(p.numel() for p in model.parameters())
    print(f"{o.name}: {count / 1e6:.2f} M parameters, {c}, {torch.cuda.get_device_name()}", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    muon, adam = Muon(matrices), torch.optim.AdamW(others, lr=o.adam_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    compiled = torch.compile(model)
    held, _ = make_rows(tokenizer, random.Random("validation"), [], 128)
    held = torch.from_numpy(held.astype("int64")).cuda()

    def batches():
        for rows in shards:
            rows = torch.from_numpy(rows)
            for at in range(0, len(rows) - o.batch + 1, o.batch):
                yield rows[at:at + o.batch].cuda(non_blocking=True)

    warmup, total, log = 50, o.steps or 10 ** 9, []
    stream = batches()
    step = 0
    while step < total:
        rows = next(stream)
        loss = compiled(rows[:, :-1], rows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        rate = min(1.0, (step + 1) / warmup) * (1.0 if step < warmup else (total - step) / (total - warmup))
        muon.step(o.muon_rate * rate)
        for group in adam.param_groups:
            group["lr"] = o.adam_rate * rate
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        if step == 10:
            torch.cuda.synchronize()
            start = time.time()
            print(f"first steps done after {start - began:.1f} s", flush=True)
        if step == 50 and not o.steps:
            torch.cuda.synchronize()
            per_step = (time.time() - start) / 40
            total = 50 + int((o.seconds - (time.time() - start)) / per_step)
            print(f"{per_step * 1e3:.1f} ms per step, {o.batch * CONTEXT / per_step / 1e6:.2f} M tokens/s, {total} steps", flush=True)
        value = ""
        if step % 100 == 0 or step == total:
            value = compiled(held[:, :-1], held[:, 1:]).item()   # with gradients on: a second graph would cost a compilation
        if step % 10 == 0 or step == total:
            log.append((step, step * o.batch * CONTEXT, round(loss.item(), 4), value and round(value, 4), round(o.muon_rate * rate, 6)))
            if value and (step % 500 == 0 or step == total):
                print(f"step {step} loss {loss.item():.4f} validation {value:.4f} at {time.time() - start:.0f} s, waited {shards.waited:.1f} s for data", flush=True)
    shards.stop()

    os.makedirs(o.out, exist_ok=True)
    from safetensors.torch import save_file
    weights = {("model." + name): tensor.detach().to(torch.bfloat16).cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, os.path.join(o.out, f"{o.name}.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(o.out, f"{o.name}_config.json"), "w") as file:
        json.dump({**c, "parameters": count, "steps": total, "tokens": total * o.batch * CONTEXT, "batch": o.batch, "device": torch.cuda.get_device_name(), "seconds": round(time.time() - start)}, file)
    with open(os.path.join(o.out, f"{o.name}_loss.csv"), "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "tokens", "train_loss", "validation_loss", "muon_rate"])
        writer.writerows(log)
    texts = []
    for prompt in PROMPTS[:o.samples]:
        texts.append(sample(model, tokenizer, prompt, 300, 0.7, 7))
    with open(os.path.join(o.out, f"{o.name}_samples.txt"), "w") as file:
        file.write("\n----\n".join(texts))
    print("\n----\n".join(texts), flush=True)
    print(f"{o.name}: all done after {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
