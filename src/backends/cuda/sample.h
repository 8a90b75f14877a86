// Tokens drawn from scores on the device (kernels/sample.cu): what text::Drawer draws from the same scores,
// bit for bit, for everything a Draw describes but typical_p.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cuda/registry.h"
#include "text/draw.h"

namespace cairn::cuda {

std::vector<Variant> sample_stock(int capability);

// As the kernel reads them.
struct RowDraw {
  uint64_t random = 0, top_p = 0;
  float scale = 0, min_p = 0, repetition = 1, presence = 0, frequency = 0;
  int32_t top_k = 0;
  int32_t edits = 0, edit_count = 0;
  int32_t mask = -1;
  int32_t flags = 0;  // 1: drawn, 2: the row's input counts
  int32_t padding[2] = {};
};
static_assert(sizeof(RowDraw) == 64);
static_assert(sizeof(text::Edit) == 16, "copied as it is");

// Whether the kernel draws so at all, however long its list of edits.
inline bool draws(const text::Draw& how) { return how.typical_p == text::kWhole; }
// edits, mask: where this row's begin in the step's lists.
RowDraw row_draw(const text::Draw&, int32_t edits, int32_t mask);

struct SampleCall {
  Address scores = 0;  // f32 [rows, vocabulary]; drawn rows are overwritten
  int64_t rows = 0, vocabulary = 0;
  Address draws = 0, edits = 0, masks = 0;  // RowDraw [rows], text::Edit, words
  Address ids = 0, logit_rows = 0;          // i32: the step's tokens; of which of them a row's scores are
  Address tokens = 0;  // i32 [rows], written for drawn rows: the token or text::kNotNumbers...
  bool overlap_previous = false;
};

class SampleLauncher {
 public:
  explicit SampleLauncher(KernelCache& cache) : cache_(cache) {}
  void sample(Stream&, const SampleCall&);
  // ids[row] = drawn[from[row]] where from[row] >= 0.
  void take_drawn(Stream&, Address ids, Address from, Address drawn, int64_t rows, bool overlap_previous);
  void note_time(Stream&, Address to);  // u64, nanoseconds

 private:
  KernelCache& cache_;
};

}  // namespace cairn::cuda
