#!/usr/bin/env python3
"""Writes src/models/testdata/encoders: tiny random encoders with what Hugging Face transformers computes.

Needs torch, transformers and safetensors: python tools/make_encoder_goldens.py [CASE ...]

Per case a folder with config.json and model.safetensors as they lie on the hub, golden.json (the texts' token ids) and,
as little-endian floats, hidden.f32 (the last hidden states of all texts, one row a token) and embeddings.f32 (one row a
text, pooled as the case says and scaled to length 1). transformers computes in fp32, all texts in one padded batch.
"""
import json
import pathlib
import shutil
import sys

import safetensors.torch
import torch
import transformers
from transformers import AutoModel, AutoModelForMaskedLM, BertTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ROOT = pathlib.Path(__file__).parent.parent / "src/models/testdata/encoders"
VOCABULARY = 96
LENGTHS = [5, 1, 64, 17, 80]  # 80 is all that there are positions for; 64 and 17 lie around the tiles of keys

BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": VOCABULARY, "max_position_embeddings": 80,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}
ROBERTA = {**BERT, "model_type": "roberta", "architectures": ["RobertaModel"], "max_position_embeddings": 82,
           "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
DISTILBERT = {"model_type": "distilbert", "architectures": ["DistilBertModel"], "dim": 32, "n_layers": 2,
              "n_heads": 4, "hidden_dim": 48, "vocab_size": VOCABULARY, "max_position_embeddings": 80,
              "activation": "gelu", "pad_token_id": 0, "sinusoidal_pos_embds": False}
MODERNBERT = {"model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_size": 32,
              "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": VOCABULARY,
              "max_position_embeddings": 80, "hidden_activation": "gelu", "norm_eps": 1e-5, "norm_bias": False,
              "global_attn_every_n_layers": 3, "local_attention": 16, "global_rope_theta": 160000.0,
              "local_rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "pad_token_id": 0}

# name: (config.json, options). Options: masked (saved with its head for masked words, as most are), gamma (norms'
# names of old files), pooling (1_Pooling/config.json), tokenizer (also tokenizer files, and texts).
CASES = {
    "bert": (BERT, {"pooling": "cls", "tokenizer": True}),
    "bert-masked": ({**BERT, "architectures": ["BertForMaskedLM"], "hidden_act": "relu"},
                    {"masked": True, "gamma": True}),
    "roberta": (ROBERTA, {}),
    "xlm-roberta-masked": ({**ROBERTA, "model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"]},
                           {"masked": True, "pooling": "mean"}),
    "distilbert": (DISTILBERT, {}),
    "modernbert": (MODERNBERT, {"pooling": "mean"}),
    "modernbert-biases": ({**MODERNBERT, "architectures": ["ModernBertForMaskedLM"], "norm_bias": True,
                           "attention_bias": True, "mlp_bias": True, "num_hidden_layers": 3, "local_attention": 6},
                          {"masked": True}),
}

SENTENCES = ["The cat sat on a mat.", "cats", "A dog runs; the cat does not run!", "Résumé 42 unknown"]


def randomize(model, seed):
    """Activations of about unit variance, attention that is sharp enough to tell keys apart."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name.lower():
            noise = noise * 0.2 + (1.0 if name.endswith("weight") else 0.0)
        elif name.endswith("bias"):
            noise *= 0.3
        elif "embeddings" in name:
            noise *= 0.7
        else:
            sharp = any(part in name for part in ("query", "key", "q_lin", "k_lin", "Wqkv"))
            noise *= (1.6 if sharp else 1.0) / p.shape[-1] ** 0.5
        p.data.copy_(noise)


def write_tokenizer(folder):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["the", "cat", "dog", "sat", "on", "mat", "run", "##s", "does", "not", ".", ";", "!", "42"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters,
                  *("##" + c for c in letters if c != "s")]
    assert len(vocabulary) <= VOCABULARY
    tokenizer = BertTokenizerFast(vocab={w: i for i, w in enumerate(vocabulary)}, do_lower_case=True)
    tokenizer.save_pretrained(folder)
    return [tokenizer(s)["input_ids"] for s in SENTENCES]


def pool(how, hidden):
    row = hidden[0] if how == "cls" else hidden.mean(0)
    return row / row.norm()


def make(name):
    config_json, options = CASES[name]
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = CONFIG_MAPPING[config_json["model_type"]].from_dict(json.loads(json.dumps(config_json)))
    kind = AutoModelForMaskedLM if options.get("masked") else AutoModel
    model = kind.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomize(model, seed=1)
    generator = torch.Generator().manual_seed(1001)
    texts = [torch.randint(5, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]
    if options.get("tokenizer"):
        texts += write_tokenizer(folder)
    longest = max(len(t) for t in texts)
    ids = torch.tensor([t + [config_json["pad_token_id"]] * (longest - len(t)) for t in texts])
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts])
    with torch.no_grad():
        hidden = model.base_model(ids, attention_mask=mask).last_hidden_state
    rows = [h[: len(t)] for h, t in zip(hidden, texts)]

    state = {}
    for n, p in model.state_dict().items():
        if options.get("gamma"):
            n = n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        if n != "lm_head.decoder.weight" and n != "cls.predictions.decoder.weight" and n != "decoder.weight":
            state[n] = p.contiguous().clone()
    (folder / "config.json").write_text(json.dumps(config_json, indent=1) + "\n")
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if options.get("pooling"):
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({
            "word_embedding_dimension": 32, "pooling_mode_cls_token": options["pooling"] == "cls",
            "pooling_mode_mean_tokens": options["pooling"] == "mean", "pooling_mode_max_tokens": False}, indent=1) + "\n")
        kinds = ["Transformer", "Pooling", "Normalize"]
        (folder / "modules.json").write_text(json.dumps([
            {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{k}",
             "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)], indent=1) + "\n")
    (folder / "golden.json").write_text(json.dumps({
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
        "sentences": SENTENCES if options.get("tokenizer") else [], "texts": texts}) + "\n")
    torch.cat(rows).numpy().astype("<f4").tofile(folder / "hidden.f32")
    embeddings = torch.stack([pool(options.get("pooling", "mean"), r) for r in rows])
    embeddings.numpy().astype("<f4").tofile(folder / "embeddings.f32")
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{name}: hidden std {float(torch.cat(rows).std()):.2f}, largest {float(torch.cat(rows).abs().max()):.2f}, "
          f"{size // 1024} KiB")


torch.set_num_threads(1)
for case in sys.argv[1:] or CASES:
    make(case)
