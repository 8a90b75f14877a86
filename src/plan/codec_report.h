// What measured times of codecs say: a table, JSON, a picture, and in words where fewer bits are slower.
#pragma once

#include <string>
#include <vector>

#include "plan/codec_times.h"

namespace cairn::plan {

// All shapes of one codec and one number of rows together, beside bf16's. A codec that lacks a shape is not
// compared.
struct CodecSum {
  std::string codec;
  int64_t rows = 0;
  double bits = 0, seconds = 0, joules = 0;
  double of_bf16 = 0;  // seconds; 0 where bf16 was not measured
  // The fastest codec of at least kMoreBits times as many bits, where that takes at most kFaster of the time:
  // this one is smaller and slower. Empty: none.
  std::string beaten_by;
  double beaten_times = 0;  // how many times as long as that one it takes
};
inline constexpr double kMoreBits = 1.05, kFaster = 0.95;

// By rows, then by bits, ascending.
std::vector<CodecSum> sum_codecs(const CodecTimes&);

// One line for each number of rows: the fastest, what is slower than bf16, what is slower than a larger one.
std::vector<std::string> findings(const CodecTimes&);

std::string codec_table(const CodecTimes&);
std::string codec_json(const CodecTimes&);
// A panel for each number of rows, a bar for each codec: its time over bf16's; a mark where its bytes alone
// would put it; red where a codec of more bits is faster.
std::string codec_plot(const CodecTimes&);

}  // namespace cairn::plan
