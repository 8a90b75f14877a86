#include "backends/cuda/matmul_row.h"

#include <fmt/format.h>

#include <algorithm>

#include <algorithm>

#include "backends/cuda/few_arguments.h"
#include "base/checked.h"

namespace cairn::cuda {
namespace {

constexpr int kParts = 8;  // as in matmul_row.cu

// Of the 256 bytes of a section of x and what stands beside them, as in matmul_row.cu.
int section_bytes(const Form& f) {
  const bool halves = f.group == 16, integers = f.levels == Levels::none && f.bits < 8,
             sums = f.scales == Scales::half_min || f.scales == Scales::bytes_min ||
                    f.scales == Scales::nibbles_min || f.scales == Scales::half_zero,
             zeros = integers && !sums && f.zero != 0;
  return 256 + (sums ? (halves ? 48 : 32) : zeros ? (halves ? 80 : 48) : 16);
}

}  // namespace

size_t row_shared_bytes(const Form& f, const RowTiling& t, int64_t cols) {
  const int64_t ring = int64_t{kParts} * t.row_warps * t.stages * 2 * f.block_bytes(),
                partials = 2 * kParts * 16 * t.row_warps * 4 * t.tokens,
                x = ceil_div(cols, int64_t{f.chunk}) * (f.chunk / 128) * section_bytes(f) * t.tokens;
  return size_t(ring + partials + x);
}

bool has_matmul_row(const Form& f, int64_t cols, const DeviceFacts& device) {
  if (f.layout != Layout::blocks || f.levels == Levels::e4m3) return false;
  // Planes of one bit, and of two alone: written, but in this form no GPU has run them.
  if (f.bits == 2 || f.bits == 3 || f.bits == 5) return false;
  return row_shared_bytes(f, {1, 2, 1, 1}, cols) <= device.shared_per_block;
}

Variant row_variant(const Form& f, const RowTiling& t, bool gated) {
  Variant v{"matmul_row.cu", f.defines()};
  for (const auto& [name, value] : {std::pair{"ROW_WARPS", t.row_warps},
                                    {"STAGES", t.stages},
                                    {"MIN_BLOCKS", t.blocks_per_multiprocessor},
                                    {"TOKENS", t.tokens},
                                    {"GATED", int(gated)}})
    v.defines.push_back(fmt::format("{}={}", name, value));
  return v;
}

// Chosen by measurements on an H200 with the shapes of an 8B model (bench/cuda_matmul_bench).
RowTiling row_tiling(const Form& f, int64_t rows, int64_t cols, int64_t m, bool gated,
                     const DeviceFacts& device) {
  const size_t all = device.shared_per_block, half = std::min<size_t>(all, 113 * 1024);
  const auto fit = [&](RowTiling t, size_t room) {
    t.stages = 8;
    while (t.stages > 2 && row_shared_bytes(f, t, cols) > room) --t.stages;
    return t;
  };
  const auto fits = [&](const RowTiling& t, size_t room) { return row_shared_bytes(f, t, cols) <= room; };
  if (m > 1)  // rare: drafts that are verified
    for (const int tokens : {4, 2})
      if (const auto t = fit({1, 8, 1, tokens}, all); (m > 2 || tokens == 2) && fits(t, all)) return t;
  const int64_t share = rows * (gated ? 2 : 1) / device.multiprocessors;
  if (share >= 512)
    if (const auto t = fit({2, 8, 1}, all); fits(t, all) && device.capability >= 90) return t;
  // Many rows: two blocks on a multiprocessor take turns in adding their parts. Few: one block leaves room
  // for the next kernel's, whose weights are then on their way before this one ends.
  if (share >= 128)
    if (const auto t = fit({1, 8, 2}, half); fits(t, half)) return t;
  if (const auto t = fit({2, 8, 1}, half); fits(t, half)) return t;
  if (const auto t = fit({1, 8, 2}, half); fits(t, half)) return t;
  return fit({1, 8, 1}, all);
}

std::vector<Variant> matmul_row_variants(const Form& f, int64_t rows, int64_t cols, bool gated,
                                         const DeviceFacts& device) {
  std::vector<Variant> all;
  for (const int64_t m : {1, 2, 4}) {
    auto v = row_variant(f, row_tiling(f, rows, cols, m, gated, device), gated);
    if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
  }
  return all;
}

std::vector<Variant> matmul_row_stock(int capability) {
  DeviceFacts device;
  device.capability = capability;
  device.multiprocessors = 132;
  device.shared_per_block = capability == 80 ? 163 * 1024 : capability == 90 ? 227 * 1024 : 99 * 1024;
  std::vector<Variant> all;
  for (const auto& f : forms())
    for (const bool gated : {false, true})
      for (const auto& [rows, cols] :
           {std::pair<int64_t, int64_t>{4096, 4096}, {4096, 14336}, {28672, 4096}, {128256, 4096}}) {
        if (!has_matmul_row(f, cols, device)) continue;
        for (auto& v : matmul_row_variants(f, rows, cols, gated, device))
          if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
      }
  return all;
}

void matmul_row(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls) {
  int64_t rows = 0;
  for (const auto& call : calls) rows += call.w->rows;
  const auto& first = calls.front();
  matmul_row(
      kernels, stream, calls,
      row_tiling(*first.w->form, rows, first.w->cols, first.m, first.up != nullptr, stream.device().facts()));
}

void matmul_row(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                const RowTiling& tiling) {
  const auto& first = calls.front();
  const Form& f = *first.w->form;
  const bool gated = first.up != nullptr;
  if (first.m == 0) return;
  const FewArguments arguments = few_arguments(calls);
  const auto& facts = stream.device().facts();
  LaunchShape shape;
  shape.grid[0] = unsigned(std::min<int64_t>(
      arguments.groups / (gated ? 2 : 1), int64_t{facts.multiprocessors} * tiling.blocks_per_multiprocessor));
  shape.grid[1] = unsigned(ceil_div(first.m, int64_t{tiling.tokens}));
  shape.block = unsigned(32 * kParts * tiling.row_warps);
  shape.shared_bytes = unsigned(row_shared_bytes(f, tiling, first.w->cols));
  // As in matmul_few: blocks that start early must not crowd on some multiprocessors.
  if (first.overlap_previous && tiling.blocks_per_multiprocessor == 1)
    shape.shared_bytes = std::max(shape.shared_bytes, unsigned(facts.shared_per_block / 2 + 1024));
  shape.overlap_previous = first.overlap_previous;
  stream.launch(kernels.get(row_variant(f, tiling, gated), "matmul_row"), shape, arguments);
}

}  // namespace cairn::cuda
