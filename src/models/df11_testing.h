// For tests only: a model folder of one bf16 safetensors file again as DFloat11.
#pragma once

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "codecs/df11.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"

namespace cairn::models::testing {

struct Df11Folder {
  uint64_t before = 0, after = 0;  // bytes of what is in groups
  double entropy_bytes = 0;        // what no code of single exponents could go below
};

// Each block's projections are a group; with embedding, so is that. The group `plain` stays as it is.
inline Df11Folder write_df11_folder(const std::filesystem::path& from, const std::filesystem::path& to,
                                    bool embedding, const std::string& plain = "") {
  const auto source = formats::read_safetensors(from / "model.safetensors");
  std::map<std::string, std::vector<const formats::Tensor*>> groups;
  std::map<std::string, std::vector<std::byte>> tensors;
  std::map<std::string, std::pair<std::string, std::vector<int64_t>>> types;
  const auto put = [&](const std::string& name, const char* type, std::vector<int64_t> shape, auto bytes) {
    const auto view = std::as_bytes(std::span(bytes));
    tensors[name].assign(view.begin(), view.end());
    types[name] = {type, std::move(shape)};
  };
  nlohmann::json patterns = nlohmann::json::object();
  for (const auto& tensor : source.tensors) {
    const auto at = tensor.name.find("_proj.weight");
    std::string block;
    if (at != std::string::npos) {
      block = tensor.name.substr(0, tensor.name.find('.', std::string("model.layers.").size()));
      auto& modules = patterns["model\\.layers\\.\\d+"];
      const std::string module = tensor.name.substr(block.size() + 1, at + 5 - block.size() - 1);
      if (std::find(modules.begin(), modules.end(), module) == modules.end()) modules.push_back(module);
    } else if (embedding && tensor.name == "model.embed_tokens.weight") {
      block = "model.embed_tokens";
      patterns["model\\.embed_tokens"] = nlohmann::json::array();
    }
    if (!block.empty() && block != plain)
      groups[block].push_back(&tensor);
    else
      put(tensor.name, "BF16", tensor.shape, tensor.bytes);
  }
  Df11Folder result;
  for (const auto& [block, members] : groups) {
    std::vector<std::span<const std::byte>> matrices;
    for (const auto* tensor : members) matrices.push_back(tensor->bytes);
    const auto encoded = codecs::encode_df11(matrices);
    if (!encoded.encoded) throw std::runtime_error(encoded.why_not);
    const auto& e = *encoded.encoded;
    put(block + ".sign_mantissa", "U8", {int64_t(e.sign_mantissa.size())}, std::span(e.sign_mantissa));
    put(block + ".encoded_exponent", "U8", {int64_t(e.encoded_exponent.size())},
        std::span(e.encoded_exponent));
    put(block + ".gaps", "U8", {int64_t(e.gaps.size())}, std::span(e.gaps));
    put(block + ".output_positions", "U8", {int64_t(e.output_positions.size())},
        std::span(e.output_positions));
    put(block + ".luts", "U8", {int64_t(e.luts.size() / 256), 256}, std::span(e.luts));
    put(block + ".split_positions", "I64", {int64_t(e.split_positions.size())}, std::span(e.split_positions));
    result.before += 2 * e.sign_mantissa.size();
    result.after += e.bytes();
    result.entropy_bytes += double(e.sign_mantissa.size()) * (8 + e.entropy) / 8;
  }
  std::filesystem::create_directories(to);
  formats::SafetensorsWriter writer(to / "model.safetensors");
  for (const auto& [name, type] : types) writer.add_tensor(name, type.first, type.second);
  for (const auto& [name, bytes] : tensors) writer.write(bytes);
  writer.finish();
  auto config = nlohmann::json::parse(read_text_file(from / "config.json"));
  config["dfloat11_config"] = {{"version", "0.5.0"},
                               {"threads_per_block", {512}},
                               {"bytes_per_thread", 8},
                               {"pattern_dict", patterns}};
  std::ofstream(to / "config.json") << config.dump(2);
  return result;
}

}  // namespace cairn::models::testing
