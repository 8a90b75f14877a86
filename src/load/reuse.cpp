#include "load/reuse.h"

#include <algorithm>
#include <unordered_map>

#include "base/checked.h"

namespace cairn::load {
namespace {

// The most tokens that were seen of a part after what came before it. Keys are 64-bit mixes of the whole way
// from the prompt's start: among 10^8 parts the chance of any collision is below a thousandth.
class Seen {
 public:
  // Walks the prompt, notes it, and returns how many of its tokens had been seen from the start on.
  int64_t walk(const std::vector<Part>& prompt, int64_t& whole_parts) {
    uint64_t way = 0;
    int64_t matched = 0;
    bool matching = true;
    for (const auto& part : prompt) {
      int64_t& most = longest_[mix(way, part.key)];
      if (matching) {
        const int64_t common = std::min(most, part.tokens);
        matched += common;
        matching = common == part.tokens;
        whole_parts += matching;
      }
      most = std::max(most, part.tokens);
      way = mix(mix(way, part.key), uint64_t(part.tokens));
    }
    return matched;
  }

 private:
  std::unordered_map<uint64_t, int64_t> longest_;
};

}  // namespace

Reuse ideal_reuse(SessionSource& source, int64_t page_tokens, int64_t most) {
  Reuse reuse;
  Seen seen;
  while (reuse.requests < most) {
    const auto session = source.next();
    if (!session) break;
    std::vector<Part> prompt = session->system;
    for (size_t t = 0; t < session->turns.size() && reuse.requests < most; ++t) {
      const auto& turn = session->turns[t];
      prompt.insert(prompt.end(), turn.prompt.begin(), turn.prompt.end());
      const int64_t tokens = total_tokens(prompt);
      const int64_t matched = std::min(seen.walk(prompt, reuse.reusable_parts), tokens - 1);
      ++reuse.requests;
      reuse.prompt_tokens += tokens;
      reuse.parts += int64_t(prompt.size());
      reuse.reusable_tokens += matched / page_tokens * page_tokens;
      prompt.push_back({mix(mix(session->key, t), 7), turn.answer_tokens});
      int64_t ignored = 0;
      seen.walk(prompt, ignored);  // what the answer left in the cache
    }
  }
  return reuse;
}

}  // namespace cairn::load
