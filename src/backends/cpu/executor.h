// Executes a program on the CPU, step after step, for a ragged batch of sequences: the rows of all sequences
// of a step lie one after another. All memory is planned from the program at construction.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backends/common/part_executor.h"
#include "backends/cpu/attention.h"
#include "backends/cpu/experts.h"
#include "backends/cpu/row_kernels.h"
#include "backends/cpu/weights.h"
#include "kv/pool.h"
#include "program/arena.h"
#include "program/trace.h"

namespace cairn::cpu {

using backends::SequenceStep;
using backends::StepResult;

// Memory besides the weights and the KV pool, from the program alone.
struct ExecutorNeeds {
  size_t arena = 0;          // all values of the program
  size_t prepared = 0;       // the left side of a product
  size_t pair_prepared = 0;  // the same, rows sorted by expert
  // The second half of a gated product; expert results before they are put in order; one head's keys, values,
  // queries and results of low-rank attention.
  size_t temporary = 0;
  size_t per_thread = 0;  // product kernels
  size_t tile = 0;        // per thread: wide rows of low-rank products
  size_t rope = 0;        // cosines and sines of the step's positions
  size_t attention = 0;   // partial states of long sequences
  uint64_t bytes(int threads) const {
    return arena + prepared + pair_prepared + temporary + rope + attention +
           (per_thread + tile) * size_t(threads);
  }
};
// context: the most tokens a sequence may have.
ExecutorNeeds executor_needs(const program::Program&, std::span<const codecs::StoredWeight>,
                             const program::Bounds&, int64_t context, int threads);

class Executor final : public backends::PartExecutor {
 public:
  // bounds: the most rows a step may have. The program, pool and KV pool must outlive the executor.
  Executor(const program::Program&, std::span<const codecs::StoredWeight>, Weights, ThreadPool&, kv::KvPool&,
           const program::Bounds& bounds, int64_t context);
  ~Executor() override;

  // Preconditions: the step's rows are within bounds, token ids within the vocabulary, pages reserved.
  StepResult run(std::span<const SequenceStep>, program::Trace* trace = nullptr) override;

  void begin_stages(std::span<const SequenceStep>, program::Trace* trace) override;
  StepResult run_stage(size_t stage) override;
  void hand_in(program::Value, const std::byte* rows) override;
  const std::byte* hand_out(program::Value) override;

  const program::Bounds& bounds() const override { return bounds_; }
  uint64_t scratch_bytes() const override { return needs_.bytes(pool_.size()); }

 private:
  class Step;

  const program::Program& program_;
  Weights weights_;
  ThreadPool& pool_;
  kv::KvPool& kv_;
  program::Bounds bounds_;
  const RowKernels& rows_;
  program::ArenaPlan plan_;
  ExecutorNeeds needs_;
  AlignedBuffer arena_, prepared_, pair_prepared_, temporary_, thread_scratch_, rope_;
  AttentionScratch attention_;
  ExpertGroups groups_;
  std::unique_ptr<Step> step_;  // of a part, between its stages
};

}  // namespace cairn::cpu
