// What one setting of the server gives under a load, measured on this machine with the model's own steps.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/serving/service.h"
#include "plan/search.h"

namespace cairn::plan {

// What can be tuned. Each has a flag of `cairn serve`.
struct ServerSettings {
  int threads = 0;             // 0: one per core
  int64_t max_sequences = 0;   // answers that run at once
  int64_t step_tokens = 0;     // the most tokens of a step
  double max_token_gap = 0.1;  // seconds
  int page_tokens = 32;
  std::string kv;  // empty: the device's own
};

// Clients that each send the next request as soon as the last one is answered. Prompts are random tokens, the
// first `shared_tokens` of them the same for all; answers have exactly answer_tokens.
struct Load {
  int clients = 8;
  int64_t prompt_tokens = 128, answer_tokens = 64, shared_tokens = 0;
  double seconds = 4;  // measured, after every client's first token
  int parts = 4;       // the median over so many parts of the time is reported, with their quartiles
};

struct Measured {
  std::string refused;  // not empty: it cannot run, and why
  double answer_tokens_per_second = 0, quartile_low = 0, quartile_high = 0;
  double prompt_tokens_per_second = 0;
  double first_token_p95 = 0, between_tokens_p50 = 0, between_tokens_p95 = 0;  // seconds
  double mean_rows = 0;  // sequences that extended an answer per step
  uint64_t planned_bytes = 0;
};

// Loads the model with the settings, applies the load and takes it away again. A setting that does not fit
// (memory, a flag's range) gives `refused`; other errors are thrown.
Measured measure(const std::filesystem::path& model, const ServerSettings&, const Load&,
                 const engine::EngineOptions& base);

// Settings by the names of their dimensions: threads, sequences, step, gap, page, kv. Throws
// Error(invalid_argument) for an unknown name or a value that is none.
void set(ServerSettings&, const std::string& dimension, const std::string& value);
ServerSettings settings_at(const Search&, const Point&);

}  // namespace cairn::plan
