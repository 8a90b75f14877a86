// What a run amounts to: percentiles, rates and goodput, as a table and as JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "load/load.h"
#include "load/samples.h"

namespace cairn::load {

// Limits that a request must keep to count as good; seconds, none where not given.
struct Slo {
  std::optional<double> ttft, tpot, latency;
  bool any() const { return ttft || tpot || latency; }
};

// "ttft=500ms,tpot=50,e2e=10s": a number without a unit is milliseconds. Throws Error(invalid_argument).
Slo parse_slo(const std::string& text);

struct Summary {
  // Of requests without fault, in seconds. ttft: due to first text. tpot: first to last text over the
  // answer's tokens but one, per request. itl: between two chunks with text. latency: due to end. late: due
  // to sent.
  Samples ttft, tpot, itl, latency, late;
  std::map<std::string, int64_t> faults;  // by kind: "timeout", "status_429"
  int64_t requests = 0, failed = 0, abandoned = 0;
  int64_t prompt_tokens = 0, answer_tokens = 0, cached_tokens = 0;
  bool counted_by_server = true;  // false: some answers' tokens are numbers of chunks
  bool cache_reported = false;    // some usage said cached_tokens
  int64_t short_answers = 0;      // ended before the asked length although told to ignore the end
  int64_t json_valid = 0, json_invalid = 0, json_cut = 0;
  int64_t good = 0;  // within the Slo
  double seconds = 0;
  double cpu_microseconds_per_event = 0, cpu_share = 0;  // of this client; share of one core

  double per_second(int64_t count) const { return seconds > 0 ? double(count) / seconds : 0; }
};

Summary summarise(const Run&, const Slo&, bool ignore_end);

std::string table(const Summary&, const Slo&);
nlohmann::ordered_json to_json(const Summary&, const Slo&);
// Two runs of the same load beside each other, for what the second had to bear.
std::string comparison(const Summary& before, const Summary& during);
// Every request and every tick, for those who compute their own figures.
nlohmann::ordered_json requests_json(const Run&);

}  // namespace cairn::load
