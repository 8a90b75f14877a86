// A model's files after reading: tensors by name, mapped and not copied, and the key-value facts beside them.
// safetensors.h, gguf.h and llama2c.h each produce one; nothing after this header knows which.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/mapped_file.h"
#include "codecs/codec.h"

namespace cairn::formats {

struct Tensor {
  std::string name;
  codecs::CodecId codec = codecs::CodecId::f32;
  std::vector<int64_t> shape;        // outermost first: a linear layer is [out, in] in every format
  std::span<const std::byte> bytes;  // in Checkpoint::files or ::owned, which keep it alive; any alignment
  int file = 0;                      // index into Checkpoint::files

  int64_t elements() const;
};

enum class Format { safetensors, gguf, llama2c };
const char* to_string(Format);

struct Checkpoint {
  Format format = Format::safetensors;
  std::filesystem::path path;  // the folder or file that was opened
  std::vector<MappedFile> files;
  std::vector<std::shared_ptr<const AlignedBuffer>> owned;  // tensors that had to be decoded to be read
  std::vector<Tensor> tensors;                              // in file order
  std::map<std::string, size_t, std::less<>> index;         // name -> position in tensors
  // Tensors that are well-formed but stored in a type that no codec reads: name -> the type's name in the
  // file. Harmless while nobody asks for them (old GPT-2 files carry their causal mask as BOOL).
  std::map<std::string, std::string, std::less<>> unreadable;

  // config.json of a folder, with generation_config.json (when there is one) under "generation_config"; for
  // GGUF every metadata key except the vocabulary arrays ("llama.block_count": 16, ...); for llama2.c the
  // header as config.json keys of a Llama. Never null.
  std::shared_ptr<const nlohmann::json> config;
  std::string config_name;  // the file that config came from, for errors

  // Null when absent. Throws Error(unsupported) for a name in `unreadable`.
  const Tensor* find(std::string_view name) const;
  // Throws Error(invalid_file) naming the checkpoint and the tensor when absent.
  const Tensor& require(std::string_view name) const;
};

// Opens a folder with config.json and *.safetensors (or with one GGUF model), a .gguf file (any shard of a
// split one), a .safetensors file beside a config.json, or a llama2.c .bin. Throws Error naming file, field
// and what is wrong.
Checkpoint open_checkpoint(const std::filesystem::path&);

}  // namespace cairn::formats
