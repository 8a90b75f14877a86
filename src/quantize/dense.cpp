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

// Where a product is added: a row-major matrix, or the upper triangle of a symmetric one.
struct Target {
  float* c = nullptr;
  int64_t stride = 0;
  SymmetricMatrix* upper = nullptr;

  bool wants(Range rows, Range columns) const { return !upper || columns.end > rows.begin; }

  void add(int64_t row, Range columns, const float* from, float factor) const {
    if (!upper) {
      float* to = c + row * stride + columns.begin;
      for (int64_t i = 0; i < columns.size(); ++i) to[i] += factor * from[i];
      return;
    }
    constexpr int64_t kStrip = SymmetricMatrix::kStrip;
    for (int64_t begin = std::max(columns.begin, row); begin < columns.end;) {
      const int64_t strip = begin / kStrip, end = std::min((strip + 1) * kStrip, columns.end);
      float* to = upper->strip(strip) + row * kStrip + begin % kStrip;
      const float* some = from + begin - columns.begin;
      for (int64_t i = 0; i < end - begin; ++i) to[i] += factor * some[i];
      begin = end;
    }
  }
};

struct Product {
  const cpu::MatMulKernel& kernel;
  const std::byte *left, *right;  // prepared, and packed
  int64_t m, n, k;

  void add_to(const Target& target, float factor, ThreadPool& pool) const {
    const size_t row_bytes = cpu::act_row_bytes(kernel.act, k);
    const int64_t panels = cpu::panels_of(n);
    const int64_t row_tiles = ceil_div(m, kTileRows), panel_tiles = ceil_div(panels, kTilePanels);
    std::atomic<int64_t> next{0};
    pool.run([&](int) {
      AlignedBuffer scratch(std::max<size_t>(kernel.scratch_bytes, 64));
      std::vector<float> tile(size_t(kTileRows * kTilePanels * kPanelRows));
      for (int64_t at = next++; at < row_tiles * panel_tiles; at = next++) {
        const int64_t row = at / panel_tiles * kTileRows, panel = at % panel_tiles * kTilePanels;
        const Range rows{row, std::min(row + kTileRows, m)};
        const Range some{panel, std::min(panel + kTilePanels, panels)};
        const Range columns{some.begin * kPanelRows, std::min(some.end * kPanelRows, n)};
        if (!target.wants(rows, columns)) continue;
        constexpr int64_t kLd = kTilePanels * kPanelRows;
        kernel.multiply({right, k, left + size_t(row) * row_bytes, rows.size(), some,
                         tile.data() - columns.begin, kLd, n, scratch.data()});
        for (int64_t r = 0; r < rows.size(); ++r)
          target.add(row + r, columns, &tile[size_t(r * kLd)], factor);
      }
    });
  }
};

void multiply(const MatrixView& a, const MatrixView& b, float factor, const Target& target,
              ThreadPool& pool) {
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
  AlignedBuffer left(kernel.act_bytes(a.rows, a.cols));
  pool.split(a.rows, kTileRows,
             [&](Range part) { kernel.prepare(a.data, a.stride, part, a.cols, left.data()); });
  Product{kernel, left.data(), right.data(), a.rows, b.rows, a.cols}.add_to(target, factor, pool);
}

}  // namespace

void add_product(const MatrixView& a, const MatrixView& b, float factor, float* c, int64_t stride,
                 ThreadPool& pool) {
  multiply(a, b, factor, {c, stride, nullptr}, pool);
}

void add_product(const MatrixView& a, const MatrixView& b, float factor, SymmetricMatrix& c,
                 ThreadPool& pool) {
  multiply(a, b, factor, {nullptr, 0, &c}, pool);
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

void add_squares(const MatrixView& x, SymmetricMatrix& sums, ThreadPool& pool) {
  if (x.rows == 0) return;
  const auto* kernel = cpu::matmul_kernel(codecs::CodecId::bf16, active_isa(), x.rows);
  const bool halves = kernel && kernel->act == cpu::ActForm::bf16;
  if (!halves) kernel = cpu::matmul_kernel(codecs::CodecId::f32, active_isa(), x.rows);
  // Both sides are the columns of x, which are turned a few at a time.
  const size_t left_bytes = cpu::act_row_bytes(kernel->act, x.rows),
               panel_bytes = kernel->panel_bytes(x.rows);
  AlignedBuffer left(kernel->act_bytes(x.cols, x.rows)), right(kernel->packed_bytes(x.cols, x.rows));
  pool.split(x.cols, kTileRows, [&](Range part) {
    std::vector<float> columns;
    std::vector<uint16_t> rounded;
    for (int64_t begin = part.begin; begin < part.end; begin += kTileRows) {
      const int64_t count = std::min(kTileRows, part.end - begin);
      columns.resize(size_t(count * x.rows));
      for (int64_t t = 0; t < x.rows; ++t)
        for (int64_t c = 0; c < count; ++c)
          columns[size_t(c * x.rows + t)] = x.data[t * x.stride + begin + c];
      kernel->prepare(columns.data(), x.rows, {0, count}, x.rows, left.data() + size_t(begin) * left_bytes);
      const void* rows = columns.data();
      if (halves) {
        rounded.resize(columns.size());
        std::transform(columns.begin(), columns.end(), rounded.begin(), float_to_bf16);
        rows = rounded.data();
      }
      kernel->pack(static_cast<const std::byte*>(rows), count, x.rows, {0, cpu::panels_of(count)},
                   right.data() + size_t(begin / kPanelRows) * panel_bytes);
    }
  });
  Product{*kernel, left.data(), right.data(), x.cols, x.cols, x.rows}.add_to({nullptr, 0, &sums}, 1, pool);
}

}  // namespace cairn::quantize
