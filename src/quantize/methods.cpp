#include "codecs/codec.h"
#include "quantize/bcq.h"
#include "quantize/df11.h"
#include "quantize/gptq.h"
#include "quantize/low_rank.h"
#include "quantize/method.h"

namespace cairn::quantize {
namespace {

constexpr const Method* kMethods[] = {&kGptq, &kBcq, &kLowRank, &kDf11};

}  // namespace

std::span<const Method* const> methods() { return kMethods; }

const Method* find_method(std::string_view name) {
  for (const auto* method : kMethods)
    if (method->name == name) return method;
  return nullptr;
}

std::string Matrix::module() const { return name.substr(0, name.rfind(".weight")); }

std::vector<float> Matrix::values() const {
  std::vector<float> result(size_t(rows * cols));
  codecs::codec(stored->codec).decode(stored->bytes.data(), result.data(), rows * cols);
  if (file) file->drop(stored->bytes);
  return result;
}

}  // namespace cairn::quantize
