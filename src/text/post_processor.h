// Special tokens around a sequence: <s> in front, [CLS] ... [SEP], and the like.
#pragma once

#include <vector>

#include "text/json_view.h"
#include "text/tokenizer.h"

namespace cairn::text {

struct PostProcessor {
  std::vector<TokenId> before, after;
  std::vector<TokenId> apply(std::vector<TokenId> ids) const {
    ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
    return ids;
  }
};

// The "post_processor" of a tokenizer.json, for a single sequence.
PostProcessor parse_post_processor(const JsonView&);

}  // namespace cairn::text
