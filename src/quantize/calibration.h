// Runs calibration text through a model block by block: only one block's weights are packed at a time, and
// what lies between two blocks is kept for all tokens. The program is cut into the block and what lies before
// and behind it (program/parts.h), and the block into stages that end where a product begins: there its
// inputs are taken from the executor, which knows nothing of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "models/model.h"
#include "quantize/method.h"
#include "quantize/rows_file.h"

namespace cairn::quantize {

// What is wanted of the rows that products multiply.
struct Tap {
  program::Value x;     // of the products
  int32_t expert = -1;  // rows of x that chose it; -1: all
  Moments moments = Moments::products;
  InputMoments* to = nullptr;  // set by a pass
};

class Calibration {
 public:
  // Computes what goes into the first block. samples: token ids within the vocabulary, each a sequence of its
  // own from position 0. folder: for files without names. step_rows: the most that run together, 0: so many
  // that their values stay small beside the block's weights. The model and the pool must outlive the object.
  Calibration(const models::Model&, std::vector<std::vector<int32_t>> samples,
              const std::filesystem::path& folder, ThreadPool&, int64_t step_rows = 0);

  // All samples through a block, with the weights of `current` (the model itself or, in other codecs, its
  // twin). Fills the taps with means. advance: what comes out goes into the next block; else the pass ends
  // where the last tap has its rows. on_rows: rows of a step that is done.
  void pass(const models::Model& current, int32_t layer, std::span<const Tap>, bool advance,
            const std::function<void(int64_t rows)>& on_rows = {});

  int64_t rows() const { return rows_; }  // of all samples together

 private:
  struct Step;
  using Rows = std::map<int32_t, RowsFile>;  // by value
  void run(const models::Model&, const program::Program& part, std::span<const Tap>, Rows* out,
           const std::function<void(int64_t)>& on_rows);

  std::vector<std::vector<int32_t>> samples_;
  std::filesystem::path folder_;
  ThreadPool& pool_;
  const int64_t step_rows_;
  int64_t rows_ = 0;
  Rows between_;  // what goes into the next block, and what later ones read
};

}  // namespace cairn::quantize
