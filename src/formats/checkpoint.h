// A model's files after reading: tensors by name, mapped and not copied, and the key-value facts beside them.
// safetensors.h, gguf.h and llama2c.h each produce one; nothing after this header knows which.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "codecs/codec.h"

namespace cairn::formats {

struct Tensor {
  std::string name;
  codecs::CodecId codec = codecs::CodecId::f32;
  std::vector<int64_t> shape;        // outermost first: a linear layer is [out, in] in every format
  std::span<const std::byte> bytes;  // inside a mapped file that the checkpoint keeps alive; any alignment
  int file = 0;                      // index into Checkpoint::files
};

enum class Format { safetensors, gguf, llama2c };

struct Checkpoint {
  Format format = Format::safetensors;
  std::filesystem::path path;  // the folder or file that was opened
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;          // in file order
  std::map<std::string, size_t, std::less<>> index;  // name -> position in tensors

  // config.json of a folder; for GGUF every metadata key except the vocabulary arrays ("llama.block_count": 16,
  // ...); for llama2.c the header as config.json keys of a Llama. Never null.
  std::shared_ptr<const nlohmann::json> config;

  const Tensor* find(std::string_view name) const;  // null when absent
};

// Opens a folder with config.json and *.safetensors, a .gguf file (any shard of a split one), a .safetensors file
// beside a config.json, or a llama2.c .bin. Throws Error naming file, field and what is wrong.
Checkpoint open_checkpoint(const std::filesystem::path&);

}  // namespace cairn::formats
