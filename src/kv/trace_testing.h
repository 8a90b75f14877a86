// For tests and benches: recorded conversations of which only the equality of prompts' beginnings is known.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cairn::kv {

// Mooncake's trace (Qin et al., 2024): a request per line; its prompt is given as one id per 512 tokens,
// equal where all tokens up to there are equal.
struct TraceRequest {
  double ms = 0;  // after the first
  int64_t prompt_tokens = 0, answer_tokens = 0;
  std::vector<int32_t> blocks;
};
constexpr int kTraceBlock = 512;

inline std::vector<TraceRequest> load_trace(const std::string& path) {
  std::vector<TraceRequest> trace;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    trace.push_back(
        {json.at("timestamp"), json.at("input_length"), json.at("output_length"), json.at("hash_ids")});
  }
  return trace;
}

}  // namespace cairn::kv
