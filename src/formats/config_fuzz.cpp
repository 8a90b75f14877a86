// Any bytes as config.json: parsed, compared with the plain parser, and read through every typed getter.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/fuzzing.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"

namespace {

using namespace cairn;
using namespace cairn::formats;
using nlohmann::json;

const std::string kFile = "config.json";

template <typename Read>
void tolerate(Read&& read) {
  try {
    read();
  } catch (const Error&) {
  }
}

void use(const json& config) {
  if (!config.is_object()) return tolerate([&] { find_field(config, "x", kFile); });
  for (const auto& [name, value] : config.items()) {
    const std::string& field = name;
    tolerate([&] { require_int(config, field, 0, 1 << 20, kFile); });
    tolerate([&] { require_number(config, field, 0, 1e6, kFile); });
    tolerate([&] { require_bool(config, field, kFile); });
    tolerate([&] { require_string(config, field, kFile); });
    tolerate([&] { optional_ints(config, field, -5, 5, kFile); });
    tolerate([&] { optional_numbers(config, field, -5, 5, kFile); });
    tolerate([&] { optional_strings(config, field, kFile); });
    tolerate([&] { optional_object(config, field, kFile); });
  }
}

std::vector<std::string> seeds() {
  return {
      R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "rope_theta": 1e4, "tie_word_embeddings": true,
              "rope_scaling": {"type": "yarn", "factor": 4.0, "short_factor": [1.0, 1.5]}, "eos_token_id": [1, 2],
              "torch_dtype": "bfloat16", "sliding_window": null})",
      R"({"a":-1,"b":18446744073709551615,"c":1.5e300,"d":"\u00e9\ud83d\ude00","e":[[[{}]]]})"};
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned random) {
  static const auto kSeeds = seeds();
  return mutate_from(kSeeds, data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  tolerate([&] {
    const json config = parse_json(text, kFile);
    if (config != json::parse(text)) __builtin_trap();  // what is accepted means the same
    use(config);
    config.dump();
  });
  return 0;
}
