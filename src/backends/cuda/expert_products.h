// Rows times the experts they chose. Rows that extend answers take the kernels for few rows, which read a
// chosen expert once for every eight of them; rows of prompts are sorted by expert and multiplied by all
// experts in one launch. Which: by class only, see matmul.h.
#pragma once

#include <span>
#include <vector>

#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/model_weights.h"
#include "program/program.h"

namespace cairn::cuda {

// Most programs put gate and up projection, what joins them and the down projection in a row. Then prompts'
// rows stay sorted from one product to the other, and gate and up are joined before they are written.
struct ExpertRole {
  enum Kind : uint8_t { alone, inputs, gated, outputs } kind = alone;
  program::Activation activation = program::Activation::identity;  // of inputs
};
// Per instruction; `alone` also for all that are no products of experts.
std::vector<ExpertRole> expert_roles(const program::Program&, const WeightForms&);

// What rows of prompts need between the products of a layer.
class ExpertRoom {
 public:
  struct Sizes {
    int64_t pairs = 0, experts = 0;
    int64_t in = 0, inner = 0;  // columns of the rows that are sorted, and between inputs and outputs
    uint64_t sorted_bytes() const, bytes() const;
  };
  static Sizes sizes(const program::Program&, const program::Bounds&);
  ExpertRoom() = default;
  ExpertRoom(const Device&, const Sizes&);
  uint64_t bytes() const { return memory_.size(); }

 private:
  friend void multiply_experts(KernelCache&, Stream&, std::span<const MatMulCall>, const ExpertChoice&,
                               int64_t tokens, int64_t decode_tokens, const ExpertRole&, ExpertRoom&,
                               ManyScratch&);
  Buffer memory_;
  SortedRows sorted_;  // of the last instruction with role inputs
  uint64_t sorted_bytes_ = 0;
};

// calls share x, which has rows for all tokens, or for all choices; y has a row per choice. The first
// decode_tokens are of class decode. Role inputs: the rows of prompts are written to the room instead, for
// the next call, whose role is outputs.
void multiply_experts(KernelCache&, Stream&, std::span<const MatMulCall>, const ExpertChoice&, int64_t tokens,
                      int64_t decode_tokens, const ExpertRole&, ExpertRoom&, ManyScratch&);

std::vector<Variant> expert_variants(const DeviceFacts&, std::span<const MatMulCall>, const ExpertRole&);

}  // namespace cairn::cuda
