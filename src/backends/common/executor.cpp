#include "backends/common/executor.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace cairn::backends {

void Executor::enqueue(std::span<const SequenceStep> given) {
  assert(under_way_.size() < 2);
  if (!under_way_.empty()) {  // its scores lie where those of this step will
    UnderWay& b = under_way_.back();
    StepResult& r = b.result;
    if (r.logits) b.logits.assign(r.logits, r.logits + r.rows * r.vocabulary), r.logits = b.logits.data();
    if (r.hidden) b.hidden.assign(r.hidden, r.hidden + r.rows * r.dim), r.hidden = b.hidden.data();
  }
  std::vector<SequenceStep> steps(given.begin(), given.end());
  std::vector<int32_t> tokens(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].drawn_row < 0) continue;
    // What could not be drawn is dropped when its step is finished; any token will do.
    tokens[i] = std::max(drawn_[size_t(steps[i].drawn_row)], 0);
    steps[i].tokens = {&tokens[i], 1};
  }
  UnderWay b;
  b.result = run(steps);
  const StepResult& r = b.result;
  b.tokens.resize(size_t(r.rows));
  int64_t row = 0;
  for (const auto& s : steps) {
    if (s.draw)
      b.tokens[size_t(row)] =
          drawer_.draw(*s.draw, s.tokens.back(), {r.logits + row * r.vocabulary, size_t(r.vocabulary)});
    row += s.logit_rows;
  }
  drawn_ = b.tokens;
  b.result.tokens = b.tokens.data();
  under_way_.push_back(std::move(b));
}

StepResult Executor::finish() {
  assert(!under_way_.empty());
  finished_ = std::move(under_way_.front());
  under_way_.erase(under_way_.begin());
  return finished_.result;
}

}  // namespace cairn::backends
