#include "backends/cpu/experts.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace cairn::cpu {

void route_row(program::Routing routing, std::span<const float> scores, std::span<int32_t> chosen,
               std::span<float> weights) {
  const size_t top_k = chosen.size();
  // Insertion into a short sorted list: top_k is 1 to 8, and softmax keeps the order of the scores.
  size_t filled = 0;
  for (size_t e = 0; e < scores.size(); ++e) {
    size_t at = filled;
    while (at > 0 && scores[e] > scores[size_t(chosen[at - 1])]) --at;
    if (at == top_k) continue;
    filled = std::min(filled + 1, top_k);
    for (size_t i = filled - 1; i > at; --i) chosen[i] = chosen[i - 1];
    chosen[at] = int32_t(e);
  }
  const float largest = scores[size_t(chosen[0])];
  double all = 0, kept = 0;
  for (const float score : scores) all += std::exp(double(score) - largest);
  for (size_t i = 0; i < top_k; ++i) kept += std::exp(double(scores[size_t(chosen[i])]) - largest);
  const double total = routing == program::Routing::softmax_topk_renorm ? kept : all;
  for (size_t i = 0; i < top_k; ++i)
    weights[i] = float(std::exp(double(scores[size_t(chosen[i])]) - largest) / total);
}

void ExpertGroups::assign(std::span<const int32_t> chosen, int64_t experts) {
  begin.assign(size_t(experts) + 1, 0);
  pairs.resize(chosen.size());
  for (const int32_t e : chosen) {
    assert(e >= 0 && e < experts);
    ++begin[size_t(e) + 1];
  }
  for (size_t e = 0; e < size_t(experts); ++e) begin[e + 1] += begin[e];
  for (size_t pair = 0; pair < chosen.size(); ++pair)
    pairs[size_t(begin[size_t(chosen[pair])]++)] = int32_t(pair);
  // Placing moved each start to its end, which is the next one's start.
  for (size_t e = size_t(experts); e > 0; --e) begin[e] = begin[e - 1];
  begin[0] = 0;
}

}  // namespace cairn::cpu
