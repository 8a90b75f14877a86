// Weight matrix products: y[m, n] = sum_k x[m, k] * w[n, k], x and y in f32, w in a codec's layout.
//
// At load the rows of w are packed into panels of 16 rows, so that a vector register holds consecutive
// elements of all 16 rows and every lane adds up its own output: no sums across lanes, and sequential reads.
// A panel takes the bytes of its 16 file rows (rounded up to 64). In a step the left side is prepared once
// per ActForm, shared by all weights that read it, and then multiplied with any panels by any thread.
//
// Promise: for one kernel, y[m, n] depends on row m of x and row n of w only, bit for bit; never on how many
// rows are multiplied together, on the split into panels or on the thread. Prefill in chunks, batching and
// speculation rest on it. Each kernel keeps one order of float operations for all row counts; integer sums
// are exact.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu_features.h"
#include "base/thread_pool.h"
#include "codecs/codec.h"

namespace cairn::cpu {

inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t panels_of(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

// How a kernel wants its left side.
enum class ActForm : uint8_t {
  f32,
  bf16,
  q8_block32,   // int8 with an f32 scale per 32 elements, as ggml's Q8_0
  q8_block256,  // int8 with an f32 scale per 256 elements and sums of 16, as ggml's Q8_K
  signed_sums,  // f32: the 16 sums +-x0 +-x1 +-x2 +-x3 of every 4 elements, and the sum of every 128
};

// Bytes of one prepared row; row r of a prepared left side begins at r times this. A multiple of 64.
size_t act_row_bytes(ActForm, int64_t cols);
// A prepared left side must be 64-byte aligned and followed by this much readable memory.
inline constexpr size_t kActSlack = 64;

struct MatMulArgs {
  const std::byte* packed =
      nullptr;       // the whole weight: panel p begins at p * panel_bytes(cols); 64-byte aligned
  int64_t cols = 0;  // k
  const std::byte* act = nullptr;  // m prepared rows
  int64_t m = 0;
  Range panels;                  // the ones to compute: columns [16 * begin, 16 * end) of y
  float* y = nullptr;            // y[0, 0]
  int64_t ldy = 0;               // floats between rows of y
  int64_t n_valid = 0;           // rows of the weight; columns from here on are not written
  std::byte* scratch = nullptr;  // the calling thread's own, scratch_bytes, 64-byte aligned
};

struct MatMulKernel {
  codecs::CodecId codec;
  Isa isa;  // the level it needs
  ActForm act;
  // Bytes of a packed panel; a weight of n rows takes panels_of(n) of them.
  size_t (*panel_bytes)(int64_t cols);
  // Packs panels [begin, end) of a weight of `rows` file rows into packed (panel 0's place); missing rows are
  // zero.
  void (*pack)(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed);
  // Prepares rows [begin, end) of x (ldx floats apart) into act (row 0's place).
  void (*prepare)(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act);
  void (*multiply)(const MatMulArgs&);
  size_t scratch_bytes;  // per thread

  size_t packed_bytes(int64_t rows, int64_t cols) const {
    return size_t(panels_of(rows)) * panel_bytes(cols);
  }
  size_t act_bytes(int64_t m, int64_t cols) const { return size_t(m) * act_row_bytes(act, cols) + kActSlack; }
};

// The fastest kernel of a level not above `isa` for weights of cols columns; null only when the codec cannot
// be decoded at all or cols is not a multiple of its block.
const MatMulKernel* matmul_kernel(codecs::CodecId, Isa isa, int64_t cols);

}  // namespace cairn::cpu
