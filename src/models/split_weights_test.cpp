// Folders of quantisers with one thing changed: what a person reads when the tensors do not fit together.
// That they answer as transformers does is in families_test.cpp.
#include "models/split_weights.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "formats/testing.h"
#include "models/family_goldens.h"
#include "models/fingerprint.h"
#include "models/model.h"

namespace cairn::models {
namespace {

using formats::testing::Bytes;
using formats::testing::message_of;
using formats::testing::TemporaryFolder;
using nlohmann::json;

std::string read(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

using Edit = std::function<void(json&)>;

// Opens a golden folder whose quantization_config and safetensors header went through the edits: the error
// with the folder's path as "MODEL", or "opened".
std::string edited(const std::string& name, const Edit& config, const Edit& header = {}) {
  const auto source = testing::goldens_folder() / name;
  const TemporaryFolder folder;
  json fields = json::parse(read(source / "config.json"));
  if (config) config(fields["quantization_config"]);
  folder.write("config.json", fields.dump());
  const std::string weights = read(source / "model.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), sizeof header_bytes);
  json tensors = json::parse(weights.substr(8, header_bytes));
  if (header) header(tensors);
  const std::string text = tensors.dump();
  folder.write("model.safetensors",
               Bytes().put(uint64_t{text.size()}).raw(text).string() + weights.substr(8 + header_bytes));
  std::string message = message_of([&] { open_model(folder.path()); });
  if (message.empty()) return "opened";
  for (size_t at; (at = message.find(folder.path().string())) != std::string::npos;)
    message.replace(at, folder.path().string().size(), "MODEL");
  return message.substr(0, message.find('\n'));
}
std::string with(const std::string& name, const char* field, const json& value) {
  return edited(name, [&](json& config) { config[field] = value; });
}
// The tensor of layer 0's q_proj under another shape, or gone.
std::string reshaped(const std::string& name, const std::string& suffix, const json& shape) {
  return edited(name, {}, [&](json& tensors) {
    const std::string tensor = "model.layers.0.self_attn.q_proj." + suffix;
    if (shape.is_null()) {
      tensors["other"] = tensors.at(tensor);
      tensors.erase(tensor);
    } else {
      tensors.at(tensor)["shape"] = shape;
    }
  });
}

const std::string kQ = "tensor model.layers.0.self_attn.q_proj.";

TEST(SplitWeights, RefuseVariantsThatCairnDoesNotRead) {
  const auto refused = [](const std::string& method, const std::string& why) {
    return "MODEL/config.json: the weights are quantized with " + method + " (quantization_config), " + why;
  };
  EXPECT_EQ(edited("llama-gptq", {}), "opened");
  EXPECT_EQ(with("llama-gptq", "quant_method", "hqq"), refused("hqq", "which cairn does not read"));
  EXPECT_EQ(with("llama-gptq", "quant_method", nullptr),
            refused("an unnamed method", "which cairn does not read"));
  EXPECT_EQ(with("llama-gptq", "bits", 5), refused("gptq", "with bits 5, which cairn does not read"));
  EXPECT_EQ(with("llama-bcq", "bits", 8), refused("bcq", "with bits 8, which cairn does not read"));
  EXPECT_EQ(with("llama-gptq", "checkpoint_format", "marlin"),
            refused("gptq", "with checkpoint_format 'marlin', which cairn does not read"));
  EXPECT_EQ(with("llama-awq", "version", "gemv"),
            refused("awq", "with version 'gemv', which cairn does not read"));
  EXPECT_EQ(with("llama-awq", "zero_point", false),
            refused("awq", "without zero_point, which cairn does not read"));
  EXPECT_EQ(with("qwen3-fp8-block", "fmt", "e5m2"),
            refused("fp8", "with fmt 'e5m2', which cairn does not read"));
  EXPECT_EQ(with("llama-packed", "format", "int-quantized"),
            refused("compressed-tensors", "in the format 'int-quantized', which cairn does not read"));
  EXPECT_EQ(edited("llama-packed",
                   [](json& config) { config["config_groups"]["group_0"]["weights"]["num_bits"] = 8; }),
            refused("compressed-tensors", "with num_bits 8, which cairn does not read"));
  const std::string hint = message_of([] {
    formats::Checkpoint checkpoint;
    checkpoint.config = std::make_shared<json>(json{{"quantization_config", {{"quant_method", "hqq"}}}});
    open_model(std::move(checkpoint));
  });
  EXPECT_NE(hint.find("\nhint: cairn runs fp8 "), std::string::npos) << hint;
}

TEST(SplitWeights, RefuseConfigsThatMakeNoSense) {
  EXPECT_EQ(
      with("qwen3-fp8-block", "weight_block_size", {128}),
      "MODEL/config.json: quantization_config.weight_block_size has 1 numbers; it must be rows and columns");
  EXPECT_NE(with("qwen3-fp8-block", "weight_block_size", {128, 0}).find("weight_block_size"),
            std::string::npos);
  EXPECT_NE(with("llama-gptq", "group_size", "128").find("'group_size' is \"128\""), std::string::npos);
  EXPECT_EQ(with("llama-packed", "config_groups", json::object()),
            "MODEL/config.json: quantization_config.config_groups is missing or empty");
  EXPECT_NE(with("llama-packed", "config_groups", {{"group_0", 7}}), "opened");
}

TEST(SplitWeights, SayWhichTensorIsMissingOrMisshapen) {
  EXPECT_EQ(reshaped("llama-gptq", "scales", nullptr),
            "MODEL: " + kQ +
                "scales is missing; weights quantized with gptq have it beside "
                "model.layers.0.self_attn.q_proj.qweight");
  EXPECT_EQ(reshaped("llama-gptq", "qzeros", nullptr),
            "MODEL: " + kQ +
                "qzeros is missing; weights quantized with gptq have it beside "
                "model.layers.0.self_attn.q_proj.qweight");
  EXPECT_EQ(reshaped("llama-gptq", "qweight", {128, 16}),
            "MODEL: " + kQ + "qweight has shape [128, 16]; a weight of [128, 128] needs [16, 128]");
  EXPECT_EQ(with("llama-gptq", "bits", 3),
            "MODEL: " + kQ + "qweight has shape [16, 128]; a weight of [128, 128] needs [12, 128]");
  EXPECT_EQ(reshaped("llama-bcq", "bW", {3, 4, 128}),
            "MODEL: " + kQ + "bW has shape [3, 4, 128]; a weight of [128, 128] needs [4, 3, 128]");
  EXPECT_EQ(with("llama-bcq", "bits", 2),
            "MODEL: " + kQ + "bW has shape [4, 3, 128]; a weight of [128, 128] needs [4, 2, 128]");
  EXPECT_EQ(reshaped("llama-bcq", "alpha", nullptr),
            "MODEL: " + kQ +
                "alpha is missing; weights quantized with bcq have it beside "
                "model.layers.0.self_attn.q_proj.bW");
  EXPECT_EQ(reshaped("llama-bcq", "alpha", {3, 1, 128}),
            "MODEL: " + kQ + "alpha has shape [3, 1, 128]; a weight of [128, 128] needs [1, 3, 128]");
  EXPECT_EQ(reshaped("llama-bcq", "q_bias", {2, 64}),
            "MODEL: " + kQ + "q_bias has shape [2, 64]; a weight of [128, 128] needs [1, 128]");
  EXPECT_EQ(with("llama-bcq", "group_size", 32),
            "MODEL: " + kQ + "alpha has 1 scales for 128 columns; quantization_config has group_size 32");
  EXPECT_EQ(reshaped("llama-awq", "qweight", {16, 128}),
            "MODEL: " + kQ + "qweight has shape [16, 128]; a weight of [128, 128] needs [128, 16]");
  EXPECT_EQ(reshaped("llama-awq", "scales", {2, 64}),
            "MODEL: " + kQ + "scales has shape [2, 64]; a weight of [128, 128] needs [1, 128]");
  EXPECT_EQ(reshaped("llama-packed", "weight_packed", {64, 32}),
            "MODEL: " + kQ + "weight_packed has shape [64, 32]; a weight of [128, 128] needs [128, 16]");
  EXPECT_EQ(reshaped("llama-fp8-channel", "weight_scale", {2, 64}),
            "MODEL: " + kQ + "weight_scale has shape [2, 64]; the scales of [128, 128] may be [1], [128, 1]");
  EXPECT_EQ(reshaped("llama-fp8-tensor", "weight_scale", nullptr),
            "MODEL: " + kQ +
                "weight_scale is missing; weights quantized with fp8 have it beside "
                "model.layers.0.self_attn.q_proj.weight");
  // Without its codes a module counts as left alone, and then its plain tensor is what is missing.
  EXPECT_EQ(reshaped("llama-awq", "qweight", nullptr),
            "MODEL: " + kQ + "weight is missing; a llama model needs it (is a file or a shard incomplete?)");
  EXPECT_EQ(
      with("llama-packed", "config_groups",
           {{"group_0", {{"weights", {{"num_bits", 4}, {"group_size", 32}}}}}}),
      "MODEL: " + kQ + "weight_scale has 1 scales for 128 columns; quantization_config has group_size 32");
  EXPECT_EQ(edited("llama-gptq", {},
                   [](json& tensors) {
                     auto& q = tensors["model.layers.0.self_attn.q_proj.scales"];
                     q["dtype"] = "I16";
                   }),
            "MODEL: " + kQ + "scales is stored as i16; it must be f32 or f16 or bf16");
  EXPECT_EQ(edited("llama-fp8-tensor", [](json& config) { config = nullptr; }),
            "MODEL: " + kQ + "weight is stored as e4m3, and no quantization_config says how it is scaled");
}

TEST(SplitWeights, ColumnGroupsStayInsideTheScales) {
  const auto source = testing::goldens_folder() / "qwen3-gptq-act-order";
  const TemporaryFolder folder;
  folder.write("config.json", read(source / "config.json"));
  std::string weights = read(source / "model.safetensors");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), sizeof header_bytes);
  const json tensors = json::parse(weights.substr(8, header_bytes));
  const uint64_t at = tensors["model.layers.0.self_attn.q_proj.g_idx"]["data_offsets"][0];
  const int32_t group = 4;
  std::memcpy(weights.data() + 8 + header_bytes + at + 4 * 9, &group, sizeof group);
  folder.write("model.safetensors", weights);
  const std::string message = message_of([&] { open_model(folder.path()); });
  EXPECT_NE(message.find(kQ + "g_idx puts column 9 in group 4; there are 4"), std::string::npos) << message;
}

// Equal bytes under another reading are other weights: what was packed from them must not be taken for these.
TEST(SplitWeights, TheConfigIsPartOfWhatTheWeightsAre) {
  const auto first = open_model(testing::goldens_folder() / "llama-gptq");
  const TemporaryFolder folder;
  json fields = json::parse(read(first.checkpoint.path / "config.json"));
  fields["quantization_config"]["checkpoint_format"] = "gptq_v2";
  folder.write("config.json", fields.dump());
  folder.write("model.safetensors", read(first.checkpoint.path / "model.safetensors"));
  const auto second = open_model(folder.path());
  size_t compared = 0;
  for (size_t i = 0; i < first.weights.size(); ++i) {
    if (!first.weights[i].split) continue;
    EXPECT_NE(codecs::hash_of(*first.weights[i].split), codecs::hash_of(*second.weights[i].split));
    ++compared;
  }
  EXPECT_EQ(compared, 7u);
  EXPECT_NE(fingerprint(first), fingerprint(second));
}

}  // namespace
}  // namespace cairn::models
