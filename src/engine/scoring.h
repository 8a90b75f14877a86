// How well a model predicts a text, and how far two models' predictions lie apart: the sums behind `cairn
// perplexity` and `cairn compare`.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace cairn::engine {

// Mean of values that arrive one by one, with the standard error of the mean. Values are taken as
// independent, which makes the error a lower bound where they are a text's tokens.
class RunningMean {
 public:
  void add(double value);
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  double standard_error() const;  // 0 below two values

 private:
  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;  // squares of differences from the mean (Welford 1962)
};

// The text cut into windows of at most `window` tokens, each scored by itself. first: put before every
// window, given and not scored (<s>). In a window, row i predicts token i + 1; a rest of one token is left
// out.
std::vector<std::vector<int32_t>> text_windows(std::span<const int32_t> tokens, int64_t window,
                                               std::optional<int32_t> first);

// -log softmax(scores)[token] in nats, summed in double.
double surprise(std::span<const float> scores, int32_t token);

// Two models' scores of one row.
struct RowDifference {
  double surprise[2] = {};   // of the token that follows
  double divergence = 0;     // KL(first || second) in nats
  bool same_choice = false;  // both rank the same token first; ties go to the lower id
};
RowDifference compare_rows(std::span<const float> first, std::span<const float> second, int32_t token);

}  // namespace cairn::engine
