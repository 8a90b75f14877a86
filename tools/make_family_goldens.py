#!/usr/bin/env python3
"""Writes src/models/testdata: tiny random models of every family with what Hugging Face transformers answers.

Needs torch, transformers, safetensors and gguf: python tools/make_family_goldens.py [CASE ...]

Per case a folder with config.json and model.safetensors as they lie on the hub, golden.json (prompts, greedy tokens)
and logits.f32 (rows of vocabulary size, little endian); with "gguf" also CASE.gguf with the same weights the way
llama.cpp's converter lays them out (tools/family_gguf.py). transformers computes in fp32 with eager attention and no
KV cache: every step is a whole forward pass. The first seed whose greedy choices and expert choices are no near ties
is taken.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import family_gguf
import quantized_weights

ROOT = pathlib.Path(__file__).parent.parent / "src/models/testdata"
VOCABULARY = 64
GREEDY = 64  # tokens after each prompt
LAST = 4  # positions at the prompt's end whose logits are kept
MARGIN = 5e-3  # between the two best logits at every step
ROUTER_MARGIN = 1e-4  # between the last expert chosen and the first left out, as probabilities

DIMS = {"hidden_size": 32, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": VOCABULARY, "max_position_embeddings": 256, "torch_dtype": "float32"}
LLAMA = {**DIMS, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2,
         "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
         "bos_token_id": 1, "eos_token_id": 2}
QWEN2 = {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6,
         "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 128, "max_window_layers": 2}
QWEN3 = {**QWEN2, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16,
         "attention_bias": False}
GEMMA2 = {**DIMS, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "num_key_value_heads": 2,
          "head_dim": 16, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
          "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "query_pre_attn_scalar": 16, "sliding_window": 12,
          "attn_logit_softcapping": 4.0, "final_logit_softcapping": 12.0, "num_hidden_layers": 3,
          "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
GEMMA3 = {**DIMS, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "num_attention_heads": 2,
          "num_key_value_heads": 1, "intermediate_size": 32, "head_dim": 16,
          "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
          "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 16, "sliding_window": 12,
          "num_hidden_layers": 6, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
PHI3 = {**LLAMA, "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "num_key_value_heads": 4,
        "original_max_position_embeddings": 256, "sliding_window": 16, "pad_token_id": 0, "rope_scaling": None}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 32, "n_layer": 2, "n_head": 4,
        "n_positions": 112, "n_ctx": 112, "vocab_size": VOCABULARY, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "bos_token_id": 63, "eos_token_id": 63}
OPT = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": 32, "ffn_dim": 48,
       "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 112, "vocab_size": VOCABULARY,
       "word_embed_proj_dim": 32, "do_layer_norm_before": True, "activation_function": "relu",
       "torch_dtype": "float32", "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "intermediate_size": 12,
           "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None, "rope_theta": 1000000.0}
QWEN3_MOE = {**QWEN3, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 6,
             "num_experts_per_tok": 3, "moe_intermediate_size": 16, "norm_topk_prob": True, "mlp_only_layers": [],
             "decoder_sparse_step": 1, "head_dim": 8}
QWEN2_MOE = {**QWEN2, "model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"], "num_experts": 4,
             "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24,
             "norm_topk_prob": False, "mlp_only_layers": [], "decoder_sparse_step": 1}
OLMOE = {**LLAMA, "model_type": "olmoe", "architectures": ["OlmoeForCausalLM"], "num_key_value_heads": 4,
         "intermediate_size": 12, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": False,
         "clip_qkv": None}

# As wide as a group of 128. The second has matrices that are no whole number of blocks either way.
LLAMA_128 = {**LLAMA, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
QWEN3_128 = {**QWEN3, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 1}
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.05, 1.2], "long_factor": [1.1, 2.5, 7.0]}

# name: (config.json, options). Options: gguf (also write that file), dtype (of the stored weights), prompts (lengths
# other than 9 and 40), rope_length (frequencies for this length at the last prompt, see golden()), rename (tensor
# names as the other kind of checkpoint has them), wrap (config.json nests the text model), quantize (a name in
# quantized_weights.CONFIGS: every linear layer but the head and routers is stored so, and transformers has the values
# that its codes stand for).
CASES = {
    "llama-mha": ({**LLAMA, "num_key_value_heads": 4}, {}),
    "llama-llama3-rope": ({**LLAMA, "tie_word_embeddings": True, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}}, {"gguf": True}),
    "llama-linear-bias": ({**LLAMA, "attention_bias": True, "mlp_bias": True,
                           "rope_scaling": {"type": "linear", "factor": 4.0}}, {"gguf": True}),
    "llama-dynamic": ({**LLAMA, "max_position_embeddings": 80, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
                      {"prompts": [9, 90], "rope_length": 154}),
    "llama-yarn-head-dim": ({**{k: v for k, v in LLAMA.items() if k != "rope_theta"}, "head_dim": 16,
                             "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                                 "original_max_position_embeddings": 64}}, {"gguf": True}),
    "llama-bf16": ({**LLAMA, "torch_dtype": "bfloat16", "num_key_value_heads": 1}, {"dtype": torch.bfloat16}),
    "llama-f16": ({**LLAMA, "torch_dtype": "float16", "hidden_act": "gelu"}, {"dtype": torch.float16}),
    "mistral-window": ({**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"],
                        "sliding_window": 16, "head_dim": None}, {}),
    "qwen2": ({**QWEN2, "tie_word_embeddings": True}, {"gguf": True}),
    "qwen2-window": ({**QWEN2, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 12,
                      "max_window_layers": 1}, {}),
    "qwen3": ({**QWEN3, "tie_word_embeddings": True}, {"gguf": True}),
    "gemma2": (GEMMA2, {"gguf": True}),
    "gemma2-scale": ({**GEMMA2, "num_hidden_layers": 2, "query_pre_attn_scalar": 10, "attn_logit_softcapping": None,
                      "final_logit_softcapping": None}, {}),
    "gemma3": ({**GEMMA3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, {"gguf": True}),
    "gemma3-multimodal": ({**GEMMA3, "num_hidden_layers": 2, "final_logit_softcapping": 12.0,
                           "layer_types": ["full_attention", "sliding_attention"],
                           "rope_parameters": {
                               "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50000.0},
                               "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}},
                          {"wrap": "gemma3", "rename": lambda n: "language_model." + n}),
    "phi3": (PHI3, {"gguf": True}),
    "phi3-longrope": ({**PHI3, "num_key_value_heads": 2, "sliding_window": None, "partial_rotary_factor": 0.75,
                       "original_max_position_embeddings": 96, "rope_scaling": LONGROPE,
                       "tie_word_embeddings": True}, {"gguf": True, "prompts": [9, 100]}),
    "gpt2": (GPT2, {"gguf": True, "rename": lambda n: n.removeprefix("transformer."), "buffers": True}),
    "gpt2-layer-scale": ({**GPT2, "n_inner": 48, "scale_attn_by_inverse_layer_idx": True,
                          "activation_function": "gelu", "tie_word_embeddings": False}, {}),
    "opt": (OPT, {}),
    "opt-post-norm": ({**OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 24},
                      {"rename": lambda n: n.removeprefix("model.")}),
    "opt-plain": ({**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False,
                   "activation_function": "gelu"}, {}),
    "mixtral": (MIXTRAL, {"gguf": True}),
    "mixtral-window": ({**MIXTRAL, "num_hidden_layers": 1, "num_local_experts": 4, "sliding_window": 16}, {}),
    "qwen3-moe": (QWEN3_MOE, {"gguf": True}),
    "qwen3-moe-mixed": ({**QWEN3_MOE, "num_hidden_layers": 4, "num_experts": 4, "norm_topk_prob": False,
                         "decoder_sparse_step": 2, "mlp_only_layers": [3], "intermediate_size": 24},
                        {}),
    "olmoe": (OLMOE, {"gguf": True}),
    "olmoe-clip": ({**OLMOE, "num_key_value_heads": 2, "num_hidden_layers": 1, "clip_qkv": 0.75,
                    "norm_topk_prob": True}, {}),
    "qwen2-moe": (QWEN2_MOE, {"gguf": True}),
    "llama-fp8-tensor": (LLAMA_128, {"quantize": "fp8-tensor"}),
    "llama-fp8-channel": (LLAMA_128, {"quantize": "fp8-channel"}),
    "llama-fbgemm": (LLAMA_128, {"quantize": "fbgemm"}),
    "llama-gptq": (LLAMA_128, {"quantize": "gptq"}),
    "llama-gptq-2bit": (LLAMA_128, {"quantize": "gptq-2bit"}),
    "llama-gptq-3bit": (LLAMA_128, {"quantize": "gptq-3bit"}),
    "llama-gptq-8bit": (LLAMA_128, {"quantize": "gptq-8bit"}),
    "llama-bcq": (LLAMA_128, {"quantize": "bcq"}),
    "llama-bcq-g64": (LLAMA_128, {"quantize": "bcq-g64"}),
    "llama-awq": (LLAMA_128, {"quantize": "awq"}),
    "llama-packed": (LLAMA_128, {"quantize": "packed"}),
    "phi3-awq": ({**PHI3, "intermediate_size": 64}, {"quantize": "awq-g32"}),
    "qwen3-fp8-block": (QWEN3_128, {"quantize": "fp8-block"}),
    "qwen3-gptq-act-order": ({**QWEN3_128, "intermediate_size": 128}, {"quantize": "gptq-act-order"}),
    "qwen3-packed-zeros": ({**QWEN3_128, "hidden_size": 192}, {"quantize": "packed-zeros"}),
    "qwen3-moe-fp8-block": ({**QWEN3_MOE, "hidden_size": 128, "num_hidden_layers": 1, "moe_intermediate_size": 128,
                             "num_experts": 4, "num_experts_per_tok": 2}, {"quantize": "fp8-block"}),
}


def randomize(model, seed):
    """Unit-variance activations, sharp enough attention and routing, logits with a spread of about 3."""
    gemma = "Gemma" in type(model).__name__
    tied = model.config.tie_word_embeddings
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name or ".ln_" in name or name.endswith("ln_f.weight") or name.endswith("ln_f.bias"):
            noise = noise * 0.2 + (1.0 if name.endswith("weight") and not gemma else 0.0)
            if gemma and "layers" in name and "post_" in name:
                noise += 4  # see the tied gain below
        elif name.endswith("bias"):
            noise *= 0.3
        elif "embed_positions" in name or "wpe" in name:
            noise *= 0.7
        elif "embed_tokens" in name or "wte" in name:
            noise *= 3 / p.shape[1] ** 0.5 if tied else 1.0
        else:
            conv1d = "c_" in name  # stored [in, out]
            gain = 3.0 if "lm_head" in name else 2.0 if name.endswith(".gate.weight") else 1.0
            if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "c_attn")):
                gain = 1.6
            if tied and any(part in name for part in ("o_proj", "out_proj", "down_proj", "c_proj", "fc2")):
                gain = 2.5  # or the token's own embedding decides, and every answer repeats one token
            noise *= gain / (p.shape[0] if conv1d else p.shape[-1]) ** 0.5
        p.data.copy_(noise)


class Routing:
    """Watches how close the expert choices are."""

    def __init__(self, model):
        self.margin = 1.0
        for module in model.modules():
            if type(module).__name__.endswith("TopKRouter"):
                module.register_forward_hook(self.watch)

    def watch(self, module, inputs, outputs):
        sorted_p = torch.softmax(outputs[0].float(), -1).sort(-1, descending=True).values
        k = module.top_k
        if k < sorted_p.shape[-1]:
            self.margin = min(self.margin, float((sorted_p[..., k - 1] - sorted_p[..., k]).min()))


def fix_rope_length(model, length):
    """All positions turn as in a sequence of this length, whatever the forward pass holds."""
    rope = model.model.rotary_emb
    inv_freq, attention = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[rope.rope_type](
        model.config, torch.device("cpu"), seq_len=length)
    rope.inv_freq, rope.attention_scaling, rope.rope_type = inv_freq, attention, "fixed"


def golden(model, prompts, rope_length):
    """rope_length: dynamic NTK has other frequencies at every length. Its last prompt is answered twice: as
    transformers does the prompt alone, and with the frequencies of the whole sequence from the first token on."""
    entries, rows, margin = [], [], float("inf")
    plan = [(p, None, GREEDY) for p in prompts]
    if rope_length:
        plan[-1] = (prompts[-1], None, 0)
        plan.append((prompts[-1], rope_length, GREEDY))
    for prompt, fixed, steps in plan:
        if fixed:
            fix_rope_length(model, fixed)
        tokens = list(prompt)
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
            kept = list(range(len(tokens) - LAST, len(tokens)))
            rows += [logits[i] for i in kept]
            for _ in range(steps):
                top = logits[-1].topk(2).values
                margin = min(margin, float(top[0] - top[1]))
                tokens.append(int(logits[-1].argmax()))
                logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        if steps:
            kept.append(len(tokens) - 1)
            rows.append(logits[-1])
        entries.append({"prompt": prompt, "rope_length": fixed or len(prompt) + steps, "greedy": tokens[len(prompt):],
                        "logit_positions": kept})
    return entries, torch.stack(rows), margin


def hub_views(model, options):
    """The model's tensors under the names that published checkpoints have: experts one by one."""
    state = {}
    for name, p in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj") or name.endswith("experts.down_proj"):
            base, part = name.rsplit(".", 1)
            mixtral = model.config.model_type == "mixtral"
            names = {"gate": "w1", "up": "w3", "down": "w2"} if mixtral else {
                "gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
            base = base.replace(".mlp.", ".block_sparse_moe.") if mixtral else base
            for e, matrix in enumerate(p):
                parts = zip(("gate", "up"), matrix.chunk(2)) if part == "gate_up_proj" else [("down", matrix)]
                for kind, weight in parts:
                    state[f"{base}.{e}.{names[kind]}.weight"] = weight
            continue
        if model.config.model_type == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        state[name] = p
    if options.get("buffers"):  # the first GPT-2 files carry their causal masks
        for layer in range(model.config.n_layer):
            state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 4, 4).tril()
    return state


def quantize(model, options):
    """Stores the linear layers as options["quantize"] says and gives the model what they stand for."""
    stored = {}
    if options.get("quantize"):
        function, _ = quantized_weights.CONFIGS[options["quantize"]]
        for name, view in hub_views(model, options).items():
            if view.dim() != 2 or any(part in name for part in ("embed", "lm_head", "mlp.gate.")):
                continue
            tensors, value = function(view)
            view.copy_(value)
            stored |= {name.removesuffix("weight") + suffix: t for suffix, t in tensors.items()}
    return stored


def hub_state(model, options, quantized):
    rename = options.get("rename", lambda n: n)
    dtype = options.get("dtype", torch.float32)
    modules = {name.rsplit(".", 1)[0] for name in quantized}
    plain = {n: p.detach().to(dtype) for n, p in hub_views(model, options).items()
             if n.removesuffix(".weight") not in modules}
    return {rename(n): p.contiguous().clone() for n, p in {**plain, **quantized}.items()}


def build(config_json, seed, dtype, options):
    config = CONFIG_MAPPING[config_json["model_type"]].from_dict(json.loads(json.dumps(config_json)))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomize(model, seed)
    for p in model.parameters():
        p.data.copy_(p.data.to(dtype).float())
    return model, quantize(model, options)


def make(name):
    config_json, options = CASES[name]
    lengths = options.get("prompts", [9, 40])
    for seed in range(1, 60):
        model, quantized = build(config_json, seed, options.get("dtype", torch.float32), options)
        generator = torch.Generator().manual_seed(1000 + seed)
        prompts = [torch.randint(3, VOCABULARY - 1, (n,), generator=generator).tolist() for n in lengths]
        routing = Routing(model)
        entries, logits, margin = golden(model, prompts, options.get("rope_length"))
        distinct = min(len(set(e["greedy"])) for e in entries if e["greedy"])
        if margin >= MARGIN and routing.margin >= ROUTER_MARGIN and distinct >= 6:
            break
        print(f"  seed {seed}: margin {margin:.5f}, routing {routing.margin:.5f}, distinct {distinct}", file=sys.stderr)
    else:
        raise SystemExit(f"{name}: no seed gives clear choices")
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = config_json
    if options.get("quantize"):
        written = {**config_json, "quantization_config": quantized_weights.CONFIGS[options["quantize"]][1]}
    if options.get("wrap"):
        written = {"model_type": options["wrap"], "architectures": ["Gemma3ForConditionalGeneration"],
                   "text_config": {k: v for k, v in config_json.items() if k != "architectures"},
                   "vision_config": {"hidden_size": 8, "model_type": "siglip_vision_model"}}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    state = hub_state(model, options, quantized)
    if options.get("wrap"):
        state["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(8)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "golden.json").write_text(json.dumps({
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed,
        "smallest_margin": round(margin, 5), "runs": entries}) + "\n")
    logits.numpy().astype("<f4").tofile(folder / "logits.f32")
    if options.get("gguf"):
        family_gguf.write(ROOT / f"{name}.gguf", model.config.model_type, model.config.to_dict(), config_json,
                          {n: p.detach().numpy() for n, p in model.state_dict().items()})
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: seed {seed}, margin {margin:.4f}, routing {routing.margin:.5f}, distinct {distinct}, "
          f"logits std {float(logits.std()):.2f}, {size // 1024} KiB")


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        make(name)
    total = sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file())
    print(f"{total / 1e6:.2f} MB in {ROOT.name}")


main()
