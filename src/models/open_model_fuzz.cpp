// A real small model's config or GGUF metadata with some fields changed: it opens and then runs, or it is
// refused with an Error. The input's first byte picks the model; every three bytes after it change one field.
#include <memory>

#include "base/error.h"
#include "models/family_goldens.h"
#include "models/plain_executor.h"

namespace {

using namespace cairn;
using nlohmann::json;

// Fields that the models of testdata lack, besides those that they have.
const std::vector<std::string>& extra_fields() {
  static const std::vector<std::string> names = {"rope_scaling",
                                                 "rope_parameters",
                                                 "layer_types",
                                                 "sliding_window",
                                                 "use_sliding_window",
                                                 "head_dim",
                                                 "partial_rotary_factor",
                                                 "attention_bias",
                                                 "mlp_bias",
                                                 "num_local_experts",
                                                 "num_experts",
                                                 "quantization_config",
                                                 "text_config",
                                                 "tie_word_embeddings",
                                                 "hidden_activation",
                                                 "mlp_only_layers",
                                                 "clip_qkv",
                                                 "n_inner"};
  return names;
}

const std::vector<json>& values() {
  static const std::vector<json> list = {
      nullptr,
      true,
      false,
      0,
      1,
      -1,
      2,
      3,
      4,
      7,
      8,
      16,
      33,
      1 << 20,
      int64_t{1} << 40,
      uint64_t{1} << 63,
      0.5,
      -1.5,
      1e-30,
      1e300,
      "",
      "linear",
      "gelu",
      "GPT2LMHeadModel",
      "llama",
      json::array(),
      {1, 2, 3},
      {0.5, 1.5, 2.5},
      {"full_attention", "sliding_attention"},
      {"OPTForCausalLM"},
      json::object(),
      {{"rope_type", "linear"}, {"factor", 2}},
      {{"type", "dynamic"}, {"factor", 4.0}},
      {{"rope_type", "yarn"}, {"factor", nullptr}, {"beta_fast", 1}},
      {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}},
      {{"type", "su"}, {"short_factor", {1, 1, 1, 1}}, {"long_factor", {1, 2, 3, 4}}},
      {{"full_attention", {{"rope_type", "linear"}, {"factor", 3}}}, {"sliding_attention", json::object()}}};
  return list;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto models = models::testing::golden_models();
  if (size == 0) return 0;
  auto checkpoint = formats::open_checkpoint(models[data[0] % models.size()]);
  json config = *checkpoint.config;
  std::vector<std::string> fields = extra_fields();
  for (const auto& item : config.items()) fields.push_back(item.key());
  for (size_t i = 1; i + 2 < size && i < 24; i += 3) {
    json& value = config[fields[data[i] % fields.size()]];
    const json& next = values()[data[i + 1] % values().size()];
    // The third byte: replace the field, or one inside it.
    if (data[i + 2] % 4 != 0 || !value.is_object() || value.empty()) {
      value = next;
    } else {
      auto inside = value.begin();
      std::advance(inside, data[i + 2] / 4 % value.size());
      *inside = next;
    }
  }
  checkpoint.config = std::make_shared<json>(std::move(config));
  try {
    const auto model = models::open_model(std::move(checkpoint));
    const int32_t ids[] = {0, 0, 0};
    models::testing::plain_logits(model, ids, 300);
  } catch (const Error&) {
  }
  return 0;
}
