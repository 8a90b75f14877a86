// How much of a load's prompts a server could take from what it computed before.
#pragma once

#include <cstdint>

#include "load/session.h"

namespace cairn::load {

// Counts of a cache that never forgets and is filled the moment a request arrives.
struct Reuse {
  int64_t requests = 0, prompt_tokens = 0;
  int64_t reusable_tokens = 0;            // in whole pages from the prompt's start; never the last token
  int64_t parts = 0, reusable_parts = 0;  // parts of prompts: a Mooncake trace's blocks

  double token_rate() const {
    return prompt_tokens > 0 ? double(reusable_tokens) / double(prompt_tokens) : 0;
  }
  double part_rate() const { return parts > 0 ? double(reusable_parts) / double(parts) : 0; }
};

// Reads the source to its end, or for `most` requests. Turns of one session are counted one after the other;
// answers of earlier turns are as reusable as prompts. page_tokens 1 or more.
Reuse ideal_reuse(SessionSource&, int64_t page_tokens, int64_t most = INT64_MAX);

}  // namespace cairn::load
