// Any bytes as a GGUF file: parsed, every value read in every way, every tensor's ends touched.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/fuzzing.h"
#include "formats/gguf.h"
#include "formats/testing.h"

namespace {

using namespace cairn;
using namespace cairn::formats;
using formats::testing::GgufParts;

template <typename Read>
void tolerate(Read&& read) {
  try {
    read();
  } catch (const Error&) {
  }
}

void use(const Gguf& gguf) {
  for (const auto& entry : gguf.metadata) {
    const std::string& key = entry.first;
    tolerate([&] { gguf.integer(key); });
    tolerate([&] { gguf.number(key); });
    tolerate([&] { gguf.boolean(key); });
    tolerate([&] { gguf.string(key); });
    tolerate([&] { gguf.strings(key); });
    tolerate([&] {
      const GgufArray* array = gguf.numbers(key);
      for (uint64_t i = 0; array && i < array->count; ++i) array->number(i);
    });
    tolerate([&] {
      const GgufArray* array = gguf.integers(key);
      for (uint64_t i = 0; array && i < array->count; ++i) array->integer(i);
    });
  }
  gguf_config(gguf).dump();  // throws for text that is not UTF-8: a finding
  unsigned sum = 0;
  for (const Tensor& tensor : gguf.tensors)
    if (!tensor.bytes.empty()) sum += unsigned(tensor.bytes.front()) + unsigned(tensor.bytes.back());
  if (sum == ~0u) __builtin_trap();  // never: keeps the reads alive
}

std::vector<std::string> seeds() {
  GgufParts rich = formats::testing::small_gguf();
  rich.pairs.push_back(GgufParts::pair("general.alignment", GgufType::u32, uint32_t{64}));
  rich.alignment = 64;
  for (uint32_t type = 0; type <= uint32_t(GgufType::f64); ++type)
    if (type != uint32_t(GgufType::string) && type != uint32_t(GgufType::array))
      rich.pairs.push_back(GgufParts::key("n" + std::to_string(type), GgufType(type)) + std::string(8, '\0'));
  GgufParts arrays;
  arrays.pairs = {GgufParts::array("a", GgufType::u64, std::vector<uint64_t>{1, ~0ull}),
                  GgufParts::array("b", GgufType::boolean, std::vector<uint8_t>{0, 1}),
                  GgufParts::array("c", {"x", "", "yy"})};
  return {formats::testing::small_gguf().bytes(), rich.bytes(), arrays.bytes()};
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned random) {
  static const auto kSeeds = seeds();
  return mutate_from(kSeeds, data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tolerate([&] { use(parse_gguf(std::as_bytes(std::span(data, size)), "fuzz.gguf")); });
  return 0;
}
