"""Matrices the way quantisers publish them in safetensors folders: codes, scales and zeros in tensors of their own.

Each function takes w [rows, cols] in f32 and returns ({suffix of the module's name: tensor}, what they stand for in
f32). CONFIGS has the quantization_config of each. For make_family_goldens.py; rounding is to nearest, nothing is
calibrated.
"""
import torch

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # the row, of eight, in nibble i of a word


def to_e4m3(w, scale):
    codes = (w / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, codes.float() * scale.float()


def fp8_tensor(w):
    scale = w.abs().max() / 448
    codes, value = to_e4m3(w, scale)
    return {"weight": codes, "weight_scale": scale.clone(), "input_scale": torch.tensor(0.02)}, value


def fp8_channel(w):
    scale = (w.abs().amax(1, keepdim=True) / 448).to(torch.bfloat16)
    codes, value = to_e4m3(w, scale.float())
    return {"weight": codes, "weight_scale": scale}, value


def fbgemm(w):
    scale = w.abs().amax(1, keepdim=True) / 448
    codes, value = to_e4m3(w, scale)
    return {"weight": codes, "weight_scale": scale, "input_scale_ub": torch.tensor([1200.0])}, value


def fp8_block(w, size=128):
    rows, cols = w.shape
    down, across = -(-rows // size), -(-cols // size)
    padded = torch.zeros(down * size, across * size)
    padded[:rows, :cols] = w
    scale = padded.reshape(down, size, across, size).abs().amax((1, 3)) / 448
    whole = scale.repeat_interleave(size, 0)[:rows].repeat_interleave(size, 1)[:, :cols]
    codes, value = to_e4m3(w, whole)
    return {"weight": codes, "weight_scale_inv": scale}, value


def to_ints(w, group_of_column, groups, scale_type, symmetric, bits=4):
    """Codes 0..2^bits - 1 [rows, cols], scales and zeros [rows, groups], and the values."""
    scales, zeros = torch.zeros(w.shape[0], groups), torch.zeros(w.shape[0], groups, dtype=torch.int32)
    codes = torch.zeros(w.shape, dtype=torch.int32)
    for g in range(groups):
        part = w[:, group_of_column == g]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        top = 2**bits - 1
        scale = torch.maximum(high / (top // 2), -low / (top // 2 + 1)) if symmetric else (high - low) / top
        scale = scale.to(scale_type).float()
        zero = torch.full_like(scale, top // 2 + 1) if symmetric else (-low / scale).round().clamp(0, top)
        codes[:, group_of_column == g] = (part / scale[:, None] + zero[:, None]).round().clamp(0, top).int()
        scales[:, g], zeros[:, g] = scale, zero.int()
    value = scales[:, group_of_column] * (codes - zeros[:, group_of_column]).float()
    return codes, scales.to(scale_type), zeros, value


def words(codes, order=range(8)):
    """Eight neighbours of the last dimension in an int32, number order[i] in nibble i."""
    padding = -codes.shape[-1] % 8
    codes = torch.nn.functional.pad(codes, (0, padding)).to(torch.int64)
    eights = codes.reshape(*codes.shape[:-1], -1, 8)
    word = sum(eights[..., n] << (4 * i) for i, n in enumerate(order))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def bit_string(codes, bits):
    """The last dimension's codes one after another as a string of bits, low ones first, in words of 32."""
    places = (codes.to(torch.int64)[..., None] >> torch.arange(bits)) & 1
    places = places.reshape(*codes.shape[:-1], -1, 32)
    word = (places << torch.arange(32)).sum(-1)
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def gptq(w, group=128, act_order=False, bits=4):
    cols = w.shape[1]
    groups = -(-cols // group)
    g_idx = torch.arange(cols) // group
    if act_order:
        g_idx = g_idx[torch.randperm(cols, generator=torch.Generator().manual_seed(cols))]
    codes, scales, zeros, value = to_ints(w, g_idx, groups, torch.float16, symmetric=False, bits=bits)
    return {"qweight": bit_string(codes, bits).T.contiguous(),
            "qzeros": bit_string((zeros.T - 1) & (2**bits - 1), bits),
            "scales": scales.T.contiguous(), "g_idx": g_idx.to(torch.int32)}, value


def bcq(w, group=128, bits=3, with_bias=True):
    """Planes of signs by the greedy rule, around each group's mean if with_bias."""
    rows, cols = w.shape
    groups = cols // group
    rest = w.reshape(rows, groups, group)
    bias = rest.mean(-1) if with_bias else torch.zeros(rows, groups)
    value = bias[..., None].expand_as(rest).clone()
    planes, alphas = [], []
    for _ in range(bits):
        error = rest - value
        alpha = error.abs().mean(-1).to(torch.float16)
        signs = error >= 0
        value += torch.where(signs, 1.0, -1.0) * alpha.float()[..., None]
        planes.append(signs.reshape(rows, cols)), alphas.append(alpha)
    words = torch.stack([bit_string(p, 1) for p in planes])  # [bits, rows, cols / 32]
    tensors = {"bW": words.permute(2, 0, 1).contiguous(),
               "alpha": torch.stack(alphas).permute(2, 0, 1).contiguous()}
    if with_bias:
        tensors["q_bias"] = bias.T.contiguous()
    return tensors, value.reshape(rows, cols)


def awq(w, group=128):
    groups = w.shape[1] // group
    codes, scales, zeros, value = to_ints(w, torch.arange(w.shape[1]) // group, groups, torch.float16, symmetric=False)
    return {"qweight": words(codes.T, AWQ_ORDER), "qzeros": words(zeros.T, AWQ_ORDER),
            "scales": scales.T.contiguous()}, value


def packed(w, group=128, symmetric=True):
    groups = w.shape[1] // group
    codes, scales, zeros, value = to_ints(w, torch.arange(w.shape[1]) // group, groups, torch.bfloat16, symmetric)
    tensors = {"weight_packed": words(codes), "weight_scale": scales, "weight_shape": torch.tensor(w.shape)}
    if not symmetric:
        tensors["weight_zero_point"] = words(zeros.T).T.contiguous()
    return tensors, value


def compressed(format, **weights):
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "input_activations": None, "output_activations": None,
                                          "weights": {"dynamic": False, **weights}}}}


CONFIGS = {
    "fp8-tensor": (fp8_tensor, {"quant_method": "fp8", "activation_scheme": "static",
                                "ignored_layers": ["lm_head"]}),
    "fp8-channel": (fp8_channel, compressed("float-quantized", num_bits=8, type="float", strategy="channel",
                                            symmetric=True)),
    "fbgemm": (fbgemm, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0,
                        "modules_to_not_convert": ["lm_head"]}),
    "fp8-block": (fp8_block, {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                              "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": False}),
    "gptq-act-order": (lambda w: gptq(w, 32, True), {"quant_method": "gptq", "bits": 4, "group_size": 32,
                                                     "desc_act": True, "sym": False, "checkpoint_format": "gptq"}),
    **{f"gptq-{bits}bit": (lambda w, bits=bits: gptq(w, 64 if bits == 3 else 128, bits=bits),
                           {"quant_method": "gptq", "bits": bits, "group_size": 64 if bits == 3 else 128,
                            "desc_act": False, "sym": False}) for bits in (2, 3, 8)},
    "bcq": (bcq, {"quant_method": "bcq", "bits": 3, "group_size": 128}),
    "bcq-g64": (lambda w: bcq(w, 64, 2, False), {"quant_method": "bcq", "bits": 2, "group_size": 64}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}),
    "awq-g32": (lambda w: awq(w, 32), {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm",
                                       "zero_point": True}),
    "packed": (packed, compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=128,
                                  symmetric=True)),
    "packed-zeros": (lambda w: packed(w, 64, False), compressed("pack-quantized", num_bits=4, type="int",
                                                                strategy="group", group_size=64, symmetric=False)),
}
