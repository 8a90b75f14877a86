// Token sequences to calibrate with, from a text.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace cairn::quantize {

struct CalibrationShape {
  int64_t samples = 128;       // at most
  std::optional<int64_t> seq;  // tokens of a sample; absent: 2048, as far as context and text allow
  int64_t context = 2048;      // the model's
};

// A text of about 1,500 words that ships with cairn: prose, dialogue, numbers, code. It is better than
// nothing; text of the kind that the model is for is better than it.
std::string_view default_text();

// Samples of `seq` tokens, each with `first` (<s>) in front when there is one: one after another while they
// last, from random places (seed 0) when the text has more than is asked for. Throws Error(invalid_argument)
// naming `file` and both numbers when the text is shorter than one sample.
std::vector<std::vector<int32_t>> calibration_samples(std::span<const int32_t> tokens,
                                                      std::optional<int32_t> first, const CalibrationShape&,
                                                      std::string_view file);

}  // namespace cairn::quantize
