// Checkpoints of karpathy/llama2.c (export.py): the legacy file without a magic, version 1 (float) and
// version 2 (int8 groups). Tensors get Hugging Face Llama names; the header becomes config.json keys of
// LlamaForCausalLM. Rope rotates adjacent pairs there: the config says so with "cairn_rope_pairing":
// "adjacent".
#pragma once

#include <filesystem>

#include "formats/checkpoint.h"

namespace cairn::formats {

Checkpoint open_llama2c(const std::filesystem::path&);
Checkpoint parse_llama2c(MappedFile);  // the mapping stays in the checkpoint

}  // namespace cairn::formats
