// What the steps of a program need of GPU memory beside weights and cache. The memory plan counts it and the
// executor allocates it from the same functions.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cuda/attention.h"
#include "backends/cuda/element_types.h"
#include "backends/cuda/expert_products.h"
#include "backends/cuda/model_weights.h"
#include "kv/pool.h"
#include "program/arena.h"
#include "program/program.h"

namespace cairn::cuda {

struct ExecutorOptions {
  // f32 everywhere with the plain kernels: for tests against an exact reference.
  bool exact = false;
  // How many answers a step is to extend. With many, their rows are multiplied by the kernels of prompts:
  // those add in another order, so that the choice is made once, for every step.
  int64_t sequences = 1;
  // Whether answers' rows times a weight in this form are multiplied as prompts' rows are.
  bool is_wide(const Form&) const;
  // Whether rows that are alone go to matmul_row: it reads the weights once for every four of them, which
  // does not suit steps that want the scores of whole prompts.
  bool is_alone(const program::Bounds& bounds) const { return sequences == 1 && bounds.logits <= 8; }
};

// What a step tells the device, in one block of 32-bit words that is uploaded at once: offsets of its parts.
struct InputLayout {
  InputLayout(const program::Program&, const program::Bounds&, int64_t pages);

  int64_t ids, from, positions, sequence_of, starts, lengths, logit_rows, draws, edits, tables, words;
  std::vector<int64_t> rope_frequencies;  // per rope table: offset of per-sequence lists, or -1
  int64_t table_words;
};
// Tokens whose scores a row may change before it is drawn: longer lists are the host's.
int64_t most_edits(const program::Bounds&);

AttentionKind kind_of(const program::Attention&);
// Of the program's instructions, each once.
std::vector<AttentionKind> attention_kinds(const program::Program&);
// Whether rows see what comes after them, as an encoder's do: then all are of class prompt.
bool sees_ahead(const program::Program&);
// The most that steps ask of the attention engine.
AttentionLimits attention_limits(const program::Program&, const kv::KvConfig&, const program::Bounds&,
                                 const InputLayout&);
// Of one of the program's tables of angles, for all rows of a step.
int64_t rope_table_bytes(const program::RopeTable&, const program::Bounds&);

// When a step began and ended, on the device.
inline constexpr uint64_t kClockBytes = 16;

struct WorkSpace {
  uint64_t values = 0;  // the arena
  uint64_t gated = 0;   // gate and up of the widest gated product, before they are joined
  uint64_t ropes = 0, inputs = 0, constants = 0;
  uint64_t hidden = 0, drawn = 0;  // rows of the scores' left side in f32; tokens, and the clock
  ExpertRoom::Sizes experts;
  uint64_t unpacked_half = 0;  // of the room for a product's unpacked weights, which has two
  uint64_t converted = 0;      // a left side in bf16
  uint64_t quantized = 0;      // one in e4m3
  uint64_t attention = 0;      // of its engine, if the GPU was described
  uint64_t bytes() const;
};
// facts: null where there is no GPU to ask; attention's part is then left out.
WorkSpace work_space(const program::Program&, const WeightForms&, const kv::KvConfig&, const program::Bounds&,
                     const ExecutorOptions&, const DeviceFacts* facts);

}  // namespace cairn::cuda
