#include "quantize/dense.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "backends/cpu/matmul.h"
#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "base/float16.h"

namespace cairn::quantize {
namespace {

using cpu::kPanelRows;

// A thread's tile of the result stays in the second-level cache until it is added.
constexpr int64_t kTileRows = 64, kTilePanels = 64;

// b as the kernel wants it; rows of the file's layout lie one behind another.
AlignedBuffer packed(const cpu::MatMulKernel& kernel, const std::byte* rows, int64_t count, int64_t cols,
                     ThreadPool& pool) {
  AlignedBuffer result(kernel.packed_bytes(count, cols));
  pool.split(cpu::panels_of(count), 1,
             [&](Range panels) { kernel.pack(rows, count, cols, panels, result.data()); });
  return result;
}

struct Product {
  const cpu::MatMulKernel& kernel;
  MatrixView a;
  const std::byte* packed;
  int64_t n;
  float factor;
  float* c;
  int64_t stride;
  Triangle triangle;

  bool wanted(Range rows, Range columns) const {
    return triangle == Triangle::all ||
           (triangle == Triangle::lower ? columns.begin < rows.end : columns.end > rows.begin);
  }

  void run(ThreadPool& pool) const {
    AlignedBuffer act(kernel.act_bytes(a.rows, a.cols));
    pool.split(a.rows, kTileRows,
               [&](Range rows) { kernel.prepare(a.data, a.stride, rows, a.cols, act.data()); });
    const size_t row_bytes = cpu::act_row_bytes(kernel.act, a.cols);
    const int64_t panels = cpu::panels_of(n);
    const int64_t row_tiles = ceil_div(a.rows, kTileRows), panel_tiles = ceil_div(panels, kTilePanels);
    std::atomic<int64_t> next{0};
    pool.run([&](int) {
      AlignedBuffer scratch(std::max<size_t>(kernel.scratch_bytes, 64));
      std::vector<float> tile(size_t(kTileRows * kTilePanels * kPanelRows));
      for (int64_t at = next++; at < row_tiles * panel_tiles; at = next++) {
        const int64_t row = at / panel_tiles * kTileRows, panel = at % panel_tiles * kTilePanels;
        const Range rows{row, std::min(row + kTileRows, a.rows)};
        const Range some{panel, std::min(panel + kTilePanels, panels)};
        const Range columns{some.begin * kPanelRows, std::min(some.end * kPanelRows, n)};
        if (!wanted(rows, columns)) continue;
        constexpr int64_t kLd = kTilePanels * kPanelRows;
        kernel.multiply({packed, a.cols, act.data() + size_t(row) * row_bytes, rows.size(), some,
                         tile.data() - columns.begin, kLd, n, scratch.data()});
        for (int64_t r = 0; r < rows.size(); ++r) {
          float* to = c + (row + r) * stride + columns.begin;
          const float* from = tile.data() + r * kLd;
          const int64_t diagonal = std::clamp(row + r - columns.begin, int64_t{0}, columns.size());
          const int64_t begin = triangle == Triangle::upper ? diagonal : 0;
          const int64_t end =
              triangle == Triangle::lower ? std::min(diagonal + 1, columns.size()) : columns.size();
          for (int64_t i = begin; i < end; ++i) to[i] += factor * from[i];
        }
      }
    });
  }
};

}  // namespace

void add_product(const MatrixView& a, const MatrixView& b, float factor, float* c, int64_t stride,
                 ThreadPool& pool, Triangle triangle) {
  if (a.rows == 0 || b.rows == 0 || a.cols == 0) return;
  const auto& kernel = *cpu::matmul_kernel(codecs::CodecId::f32, active_isa(), a.cols);
  const float* rows = b.data;
  std::vector<float> dense;
  if (b.stride != b.cols) {
    dense.resize(size_t(b.rows * b.cols));
    pool.split(b.rows, 1, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r)
        std::memcpy(&dense[size_t(r * b.cols)], b.data + r * b.stride, size_t(b.cols) * sizeof(float));
    });
    rows = dense.data();
  }
  const auto right = packed(kernel, reinterpret_cast<const std::byte*>(rows), b.rows, b.cols, pool);
  Product{kernel, a, right.data(), b.rows, factor, c, stride, triangle}.run(pool);
}

std::vector<float> transposed(const MatrixView& from, ThreadPool& pool) {
  std::vector<float> to(size_t(from.rows * from.cols));
  constexpr int64_t kTile = 32;
  pool.split(from.cols, kTile, [&](Range cols) {
    for (int64_t r0 = 0; r0 < from.rows; r0 += kTile)
      for (int64_t c0 = cols.begin; c0 < cols.end; c0 += kTile)
        for (int64_t c = c0; c < std::min(c0 + kTile, cols.end); ++c)
          for (int64_t r = r0; r < std::min(r0 + kTile, from.rows); ++r)
            to[size_t(c * from.rows + r)] = from.data[r * from.stride + c];
  });
  return to;
}

void add_squares(const MatrixView& x, float* sums, ThreadPool& pool) {
  if (x.rows == 0) return;
  const auto turned = transposed(x, pool);  // [cols, rows]
  const MatrixView a{turned.data(), x.cols, x.rows, x.rows};
  const auto* kernel = cpu::matmul_kernel(codecs::CodecId::bf16, active_isa(), x.rows);
  if (!kernel || kernel->act != cpu::ActForm::bf16)
    return add_product(a, a, 1, sums, x.cols, pool, Triangle::lower);
  std::vector<uint16_t> rounded(turned.size());
  pool.split(int64_t(turned.size()), 64, [&](Range part) {
    for (auto i = size_t(part.begin); i < size_t(part.end); ++i) rounded[i] = float_to_bf16(turned[i]);
  });
  const auto right =
      packed(*kernel, reinterpret_cast<const std::byte*>(rounded.data()), a.rows, a.cols, pool);
  Product{*kernel, a, right.data(), a.rows, 1, sums, x.cols, Triangle::lower}.run(pool);
}

}  // namespace cairn::quantize
