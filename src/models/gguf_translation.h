// GGUF metadata and tensor names in Hugging Face's terms, so that a family reads one kind of config.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "formats/checkpoint.h"

namespace cairn::models {

// {"architectures": ["LlamaForCausalLM"], "hidden_size": ...} from {"general.architecture": "llama", ...}.
// Throws Error(unsupported) for an architecture that no family reads, naming it.
nlohmann::json config_of_gguf(const formats::Checkpoint&);

// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; nullopt when GGUF has no such tensor.
// architecture: general.architecture, because Gemma's four norms share names with Llama's two.
std::optional<std::string> gguf_tensor_name(std::string_view hugging_face_name,
                                            std::string_view architecture);

}  // namespace cairn::models
