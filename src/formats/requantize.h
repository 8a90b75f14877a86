// A GGUF file again, with its matrices in other block formats: what `cairn quantize` does where a block at a
// time is enough.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "formats/gguf.h"

namespace cairn::formats {

// Which codec each matrix gets. The mixes give the tensors that lose most (the scores', values' and down
// projections of some layers) more bits, as files of that name do elsewhere.
struct Recipe {
  std::string_view name;  // "q8_0", "q4_k_m"
  codecs::CodecId codec;  // of most matrices
  codecs::CodecId more;   // of the scores' matrix and, in some layers, of attn_v and ffn_down
  uint32_t file_type;     // general.file_type (llama_ftype in the GGUF world)
};
std::span<const Recipe> recipes();
const Recipe* find_recipe(std::string_view name);  // null when unknown

struct PlannedTensor {
  size_t source = 0;  // in Gguf::tensors
  codecs::CodecId codec{};
  // Empty where the recipe's codec is taken or nobody would expect it (vectors); else why not: "64 columns
  // are no whole blocks of q4_k".
  std::string note;
  uint64_t bytes = 0;
};

// Every tensor in file order. Vectors, routers and tensors that are no weights of products keep their form;
// a matrix whose rows are no whole blocks takes a codec with smaller blocks and at least as many bits.
// Throws Error(invalid_argument) for tensors that are quantized already, unless `again`.
std::vector<PlannedTensor> plan_requantize(const Gguf&, const Recipe&, bool again = false);

// What columns count, by tensor name: [cols], or [experts, cols] (codecs::Codec::encode). Tensors that are
// not in it count all columns alike.
using Importance = std::map<std::string, std::vector<float>, std::less<>>;

// Writes `out` (appears when complete). on_progress: bytes of the source that are done, of all. Throws
// Error(invalid_file) naming tensor and row where a value is not finite.
void requantize(const Gguf&, const Recipe&, std::span<const PlannedTensor>, const std::filesystem::path& out,
                ThreadPool&, const std::function<void(uint64_t done, uint64_t total)>& on_progress = {},
                const Importance& = {});

}  // namespace cairn::formats
