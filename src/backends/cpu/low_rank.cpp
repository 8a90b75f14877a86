#include "backends/cpu/low_rank.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/checked.h"

namespace cairn::cpu {
namespace {

using program::Activation;

// Wide rows of a tile, prepared and not: half of a second-level cache of 2 MB, so that factors pass through
// the other half.
constexpr int64_t kTileBytes = int64_t{1} << 20;
constexpr int64_t kLeastTileRows = 16, kMostTileRows = 64;
constexpr int64_t kExpandedRows = 64;

size_t aligned(size_t bytes) { return size_t(round_up(int64_t(bytes), 64)); }

// The same for planning and running: it depends on the weights alone.
int64_t tile_rows(int64_t hidden, bool gated) {
  const int64_t row = hidden * int64_t(sizeof(float)) * (gated ? 3 : 2);
  return std::clamp(kTileBytes / row / 16 * 16, kLeastTileRows, kMostTileRows);
}

void add_bias(const RowKernels& rows, const float* bias, float* y, int64_t ld, int64_t m, int64_t n) {
  if (bias)
    for (int64_t r = 0; r < m; ++r) rows.add(y + r * ld, bias, 1, n, y + r * ld);
}

// f(thread, begin, count) for tiles of rows, as threads get free.
template <typename F>
void by_tiles(ThreadPool& pool, int64_t rows, int64_t tile, F&& f) {
  std::atomic<int64_t> next{0};
  pool.run([&](int thread) {
    for (int64_t at; (at = next.fetch_add(tile, std::memory_order_relaxed)) < rows;)
      f(thread, at, std::min(tile, rows - at));
  });
}

// The parts of a thread's tile, or of the memory that all threads share for few rows.
struct WideRows {
  std::byte* act;    // prepared narrow rows, then prepared wide ones
  float *up, *gate;  // [rows, hidden]
};
size_t act_bytes(const LowRankShape& s, int64_t rows) {
  return s.kernel ? aligned(s.kernel->act_bytes(rows, s.rank)) : 0;
}
size_t prepared_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down,
                      int64_t rows) {
  return std::max({act_bytes(up, rows), act_bytes(gate, rows), act_bytes(down, rows)});
}
size_t wide_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down, int64_t rows) {
  return prepared_bytes(up, gate, down, rows) +
         (gate.kernel ? 2 : 1) * aligned(size_t(rows * up.out) * sizeof(float));
}
WideRows wide_rows(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down, int64_t rows,
                   std::byte* memory) {
  auto* const wide = reinterpret_cast<float*>(memory + prepared_bytes(up, gate, down, rows));
  return {memory, wide, wide + aligned(size_t(rows * up.out) * sizeof(float)) / sizeof(float)};
}

LowRankShape shape_of(const PackedMatrix* w) {
  return w ? LowRankShape{w->kernel, w->rows, w->cols} : LowRankShape{};
}

MatMulArgs arguments(const PackedMatrix& w, const std::byte* act, int64_t m, Range panels, float* y,
                     int64_t ld, std::byte* scratch) {
  return {w.piece(0), w.cols, act, m, panels, y, ld, w.rows, scratch};
}

}  // namespace

int64_t low_rank_few_rows(int threads) { return threads == 1 ? 0 : kLeastTileRows * threads; }

size_t low_rank_mlp_tile_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down) {
  return wide_bytes(up, gate, down, tile_rows(up.out, gate.kernel != nullptr));
}

size_t low_rank_mlp_shared_bytes(const LowRankShape& up, const LowRankShape& gate, const LowRankShape& down,
                                 int64_t rows, int threads) {
  return wide_bytes(up, gate, down, std::min(rows, low_rank_few_rows(threads)));
}

void low_rank_mlp(ThreadPool& pool, const RowKernels& kernels, const LowRankFactor& up,
                  const LowRankFactor& gate, const PackedMatrix& down, Activation activation, int64_t rows,
                  float* y, const ThreadMemory& memory, std::span<std::byte> shared) {
  const auto up_shape = shape_of(up.up), gate_shape = shape_of(gate.up), down_shape = shape_of(&down);
  const int64_t hidden = up.up->rows;
  const auto activate = [&](float* gate_row, float* up_row, int64_t n) {
    if (gate.up)
      kernels.gated(activation, gate_row, up_row, n, up_row);
    else
      kernels.activate(activation, up_row, n, up_row);
  };
  if (rows <= low_rank_few_rows(pool.size())) {
    const WideRows wide = wide_rows(up_shape, gate_shape, down_shape, rows, shared.data());
    const auto by_panels = [&](const PackedMatrix& w, const float* x, const float* bias, float* to,
                               int64_t ld) {
      w.kernel->prepare(x, w.cols, {0, rows}, w.cols, wide.act);
      const int64_t share = ceil_div(panels_of(w.rows), pool.size());
      pool.run([&](int thread) {
        const Range panels{thread * share, std::min((thread + 1) * share, panels_of(w.rows))};
        if (panels.empty()) return;
        w.kernel->multiply(arguments(w, wide.act, rows, panels, to, ld, memory.kernel(thread)));
        const int64_t first = panels.begin * kPanelRows, end = std::min(panels.end * kPanelRows, w.rows);
        add_bias(kernels, bias ? bias + first : nullptr, to + first, ld, rows, end - first);
      });
    };
    by_panels(*up.up, up.p, up.bias, wide.up, hidden);
    if (gate.up) by_panels(*gate.up, gate.p, gate.bias, wide.gate, hidden);
    pool.split(rows * hidden, 64, [&](Range part) {
      if (!part.empty()) activate(wide.gate + part.begin, wide.up + part.begin, part.size());
    });
    by_panels(down, wide.up, nullptr, y, down.rows);
    return;
  }
  by_tiles(pool, rows, tile_rows(hidden, gate.up != nullptr), [&](int thread, int64_t begin, int64_t m) {
    const WideRows wide = wide_rows(up_shape, gate_shape, down_shape, tile_rows(hidden, gate.up != nullptr),
                                    memory.tile(thread));
    const auto multiply = [&](const PackedMatrix& w, const float* x, const float* bias, float* to) {
      w.kernel->prepare(x, w.cols, {0, m}, w.cols, wide.act);
      w.kernel->multiply(
          arguments(w, wide.act, m, {0, panels_of(w.rows)}, to, w.rows, memory.kernel(thread)));
      add_bias(kernels, bias, to, w.rows, m, w.rows);
    };
    multiply(*up.up, up.p + begin * up.up->cols, up.bias, wide.up);
    if (gate.up) multiply(*gate.up, gate.p + begin * gate.up->cols, gate.bias, wide.gate);
    activate(wide.gate, wide.up, m * hidden);
    multiply(down, wide.up, nullptr, y + begin * down.rows);
  });
}

size_t low_rank_rows_tile_bytes(const LowRankShape& s, int64_t columns) {
  return act_bytes(s, kExpandedRows) +
         aligned(size_t(kExpandedRows * (columns + 2 * kPanelRows)) * sizeof(float));
}

void expand_columns(ThreadPool& pool, const RowKernels& kernels, std::span<const LowRankColumns> parts,
                    int64_t rows, const ThreadMemory& memory) {
  by_tiles(pool, rows, kExpandedRows, [&](int thread, int64_t begin, int64_t m) {
    for (const auto& part : parts) {
      const PackedMatrix& w = *part.factor.up;
      const int64_t n = part.columns.size();
      const Range panels{part.columns.begin / kPanelRows, ceil_div(part.columns.end, kPanelRows)};
      std::byte* const act = memory.tile(thread);
      auto* const tile = reinterpret_cast<float*>(act + act_bytes(shape_of(&w), kExpandedRows));
      const int64_t ld = n + 2 * kPanelRows, skipped = part.columns.begin - panels.begin * kPanelRows;
      w.kernel->prepare(part.factor.p + begin * w.cols, w.cols, {0, m}, w.cols, act);
      // The kernel writes column c of the weight to y[c].
      w.kernel->multiply(
          arguments(w, act, m, panels, tile - panels.begin * kPanelRows, ld, memory.kernel(thread)));
      add_bias(kernels, part.factor.bias ? part.factor.bias + part.columns.begin : nullptr, tile + skipped,
               ld, m, n);
      for (int64_t r = 0; r < m; ++r)
        std::memcpy(part.to + (begin + r) * n, tile + r * ld + skipped, size_t(n) * sizeof(float));
    }
  });
}

}  // namespace cairn::cpu
