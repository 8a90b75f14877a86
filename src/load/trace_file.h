// Recorded loads. The format is found by looking into the file:
//
//   mooncake        JSON lines: timestamp (ms), input_length, output_length, hash_ids (one per 512 tokens;
//   equal
//                   ids are equal blocks after equal prefixes). github.com/kvcache-ai/Mooncake
//   llmservingsim   JSON lines: arrival_time_ns, input_toks, output_toks.
//   github.com/casys-kaist/LLMServingSim csv             a header line with a column for the prompt's and one
//   for the answer's length, and mostly one
//                   for the time: Azure's 2023 and 2024 traces, Vidur's, BurstGPT's
//   servegen        a folder with chunk-N-trace.csv and chunk-N-dataset.json, or one such csv: rates, gap and
//                   length distributions of one client each, from which arrivals are drawn.
//                   github.com/alibaba/ServeGen
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "load/session.h"

namespace cairn::load {

struct TraceRow {
  double at = 0;  // seconds
  int64_t prompt_tokens = 0, answer_tokens = 0;
  std::vector<uint64_t> blocks;  // empty: nothing is known about what the prompt shares
};

struct Trace {
  std::string format;
  int64_t block_tokens = 0;    // 0: no blocks
  std::vector<TraceRow> rows;  // by growing `at`, the first at 0
};

// For the formats whose rows are requests. Throws Error(invalid_file) that names the line.
Trace read_trace(const std::filesystem::path&);

struct TraceOptions {
  double start = 0;         // seconds of the recording that are passed over
  double time_scale = 1;    // gaps between requests times this: 0.1 plays ten times as fast
  double length_scale = 1;  // lengths and blocks times this, at least one token each
  int64_t longest = 0;      // leaves requests of more tokens out (prompt and answer, after scaling); 0: none
  int64_t sessions = -1;    // at most so many; -1: all
  uint64_t seed = 0;
};

struct TraceLoad {
  std::string format;
  int64_t block_tokens = 0;  // after scaling
  int64_t left_out = 0;      // by `longest`; grows while the sessions are read
  std::unique_ptr<SessionSource> sessions;
};

std::shared_ptr<TraceLoad> open_trace(const std::filesystem::path&, const TraceOptions&);

}  // namespace cairn::load
