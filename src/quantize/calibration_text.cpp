#include "quantize/calibration_text.h"

#include <algorithm>
#include <random>

#include "base/embedded_file.h"
#include "base/error.h"

namespace cairn::quantize {

const std::vector<EmbeddedFile>& embedded_files();  // text/

namespace {

constexpr int64_t kUsualTokens = 2048, kFewestTokens = 32;

}  // namespace

std::string_view default_text() { return embedded_files().front().text; }

std::vector<std::vector<int32_t>> calibration_samples(std::span<const int32_t> tokens,
                                                      std::optional<int32_t> first,
                                                      const CalibrationShape& shape, std::string_view file) {
  const auto have = int64_t(tokens.size());
  const int64_t before = first ? 1 : 0;
  if (shape.seq.value_or(1) > shape.context)
    fail(ErrorKind::invalid_argument, "--seq is {}; the model's context has {} tokens", *shape.seq,
         shape.context);
  // Samples of a length that nobody asked for fit the text.
  const int64_t seq = shape.seq.value_or(std::clamp(have + before, std::min(kFewestTokens, shape.context),
                                                    std::min(kUsualTokens, shape.context)));
  const int64_t each = seq - before;  // of the text
  if (each < 1) fail(ErrorKind::invalid_argument, "--seq is {}; it must be at least {}", seq, before + 1);
  if (have < each)
    fail(
        ErrorKind::invalid_argument,
        "the calibration text {} has {} tokens, fewer than one sample of {}; give a longer text or a smaller "
        "--seq",
        file, have, each);
  std::vector<int64_t> begins;
  if (have / each <= shape.samples) {
    for (int64_t at = 0; at + each <= have; at += each) begins.push_back(at);
    // The rest, together with some of what came before.
    if (have % each != 0 && int64_t(begins.size()) < shape.samples) begins.push_back(have - each);
  } else {
    std::mt19937_64 random(0);
    for (int64_t s = 0; s < shape.samples; ++s)
      begins.push_back(int64_t(random() % uint64_t(have - each + 1)));
  }
  std::vector<std::vector<int32_t>> samples;
  for (const int64_t begin : begins) {
    auto& sample = samples.emplace_back();
    if (first) sample.push_back(*first);
    sample.insert(sample.end(), tokens.begin() + begin, tokens.begin() + begin + each);
  }
  return samples;
}

}  // namespace cairn::quantize
