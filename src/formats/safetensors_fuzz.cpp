// Any bytes as a safetensors file: parsed, and the invariants that its readers rely on checked.
#include "formats/safetensors.h"

#include "base/error.h"
#include "formats/fuzzing.h"
#include "formats/testing.h"

namespace {

using namespace cairn;
using namespace cairn::formats;
using formats::testing::kSmallHeader;
using formats::testing::safetensors_bytes;

std::vector<std::string> seeds() {
  return {safetensors_bytes(kSmallHeader, 32), safetensors_bytes("{}", 0),
          safetensors_bytes(R"({"x":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]},)"
                            R"("y":{"dtype":"BF16","shape":[0,3],"data_offsets":[1,1]}}  )",
                            1)};
}

}  // namespace

// The first eight bytes are the header's length: half of the time it is made to fit, or nothing else would be
// found.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned random) {
  static const auto kSeeds = seeds();
  size = mutate_from(kSeeds, data, size, max_size, random);
  if (random % 2 == 0 && size > 8) {
    const std::string_view text(reinterpret_cast<const char*>(data) + 8, size - 8);
    const uint64_t header = text.rfind('}') == std::string_view::npos ? text.size() : text.rfind('}') + 1;
    std::memcpy(data, &header, 8);
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Safetensors file = parse_safetensors(std::as_bytes(std::span(data, size)), "fuzz.safetensors");
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    for (const Tensor& tensor : file.tensors) {
      if (tensor.bytes.data() < begin || tensor.bytes.data() + tensor.bytes.size() > begin + size)
        __builtin_trap();
      const auto& codec = codecs::codec(tensor.codec);
      if (uint64_t(tensor.elements()) * uint64_t(codec.block_bytes) != tensor.bytes.size()) __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
