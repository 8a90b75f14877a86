#include "backends/cuda/matmul_lookup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

constexpr int kMostSegments = 4;

// As in matmul_lookup.cu.
struct Segment {
  Address w = 0, up = 0, bias = 0, y = 0;
  int64_t y_stride = 0;
  int32_t rows = 0, first_tile = 0;
};
struct Arguments {
  Segment segments[kMostSegments];
  Address x = 0, add = 0;
  int64_t cols = 0;
  int32_t m = 0, segment_count = 0;
  int32_t y_f32 = 0, activation = 0;
  float scale = 1, softcap = 0;
};
static_assert(sizeof(Segment) == 48 && sizeof(Arguments) == 4 * 48 + 48);

// Rows of x in a pass of look-ups: as many as registers allow.
int lookup_tokens(const Form& f, int64_t m, bool gated) {
  const int most = gated && f.bits == 4 ? 2 : 4;
  return m == 1 ? 1 : m == 2 ? 2 : most;
}

void add_new(std::vector<Variant>& all, Variant v) {
  if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
}

// What both kernels take. shared_bytes: of a block.
void launch(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls, const Variant& variant,
            const char* entry, int sets, int parts, int tokens, size_t shared_bytes) {
  assert(!calls.empty() && calls.size() <= kMostSegments);
  const auto& first = calls.front();
  const DeviceMatrix& w = *first.w;
  const bool gated = first.up != nullptr;
  if (first.m == 0) return;
  const int64_t tile_rows = gated ? 32 : 32 * sets;
  Arguments arguments;
  int64_t tiles = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& call = calls[i];
    assert(call.x == first.x && call.m == first.m && call.w->cols == w.cols && call.w->form == w.form);
    assert((call.up != nullptr) == gated && (i == 0 || call.add == 0) && call.y_f32 == first.y_f32);
    Segment& s = arguments.segments[i];
    s.w = call.w->data, s.up = gated ? call.up->data : 0;
    s.bias = call.bias, s.y = call.y;
    s.y_stride = call.y_stride ? call.y_stride : call.w->rows;
    s.rows = int32_t(call.w->rows), s.first_tile = int32_t(tiles);
    tiles += ceil_div(call.w->rows, tile_rows);
  }
  arguments.x = first.x, arguments.add = first.add, arguments.cols = w.cols;
  arguments.m = int32_t(first.m), arguments.segment_count = int32_t(calls.size());
  arguments.y_f32 = first.y_f32, arguments.activation = int32_t(first.activation);
  arguments.scale = first.scale, arguments.softcap = first.softcap;
  LaunchShape shape;
  shape.grid[0] = unsigned(tiles);
  shape.grid[1] = unsigned(ceil_div(first.m, int64_t{tokens}));
  shape.block = unsigned(32 * parts);
  shape.shared_bytes = unsigned(shared_bytes);
  // Started early, two blocks would share a multiprocessor while another has none (matmul_few.cpp).
  const auto& facts = stream.device().facts();
  if (first.overlap_previous && tiles <= facts.multiprocessors)
    shape.shared_bytes = std::max(shape.shared_bytes, unsigned(facts.shared_per_block / 2 + 1024));
  shape.overlap_previous = first.overlap_previous;
  stream.launch(kernels.get(variant, entry), shape, arguments);
}

Variant variant_of(const char* source, const Form& f, int tokens, int sets, int parts, int min_blocks,
                   bool gated) {
  assert(f.layout == Layout::planes && (!gated || sets == 2));
  return {source,
          {fmt::format("PLANES={}", f.bits), fmt::format("TOKENS={}", tokens), fmt::format("SETS={}", sets),
           fmt::format("PARTS={}", parts), fmt::format("MIN_BLOCKS={}", min_blocks),
           fmt::format("GATED={}", int(gated))}};
}

}  // namespace

// Measured on an H200 (bench/cuda_lookup_bench --sweep).
LookupTiling lookup_tiling(bool gated, int64_t m) {
  LookupTiling t;
  t.sets = gated ? 2 : 1;
  t.min_blocks = m == 1 && !gated ? 2 : 1;
  return t;
}

SignsTiling signs_tiling(const Form& f, bool gated, int64_t m) {
  SignsTiling t;
  t.sets = gated ? 2 : 1;
  // What registers allow (KernelFamilies.CompileWithoutSpilling).
  t.tokens = m <= 8 ? 8 : m <= 16 || (gated && f.bits > 1) ? 16 : 32;
  const bool light = t.tokens == 8 ? !gated || f.bits <= 2 : t.tokens == 16 && !gated && f.bits < 4;
  t.min_blocks = light ? 2 : 1;
  return t;
}

Variant lookup_variant(const Form& f, const LookupTiling& t, int64_t m, bool gated) {
  return variant_of("matmul_lookup.cu", f, lookup_tokens(f, m, gated), t.sets, t.parts, t.min_blocks, gated);
}

Variant signs_variant(const Form& f, const SignsTiling& t, bool gated) {
  return variant_of("matmul_signs.cu", f, t.tokens, t.sets, t.parts, t.min_blocks, gated);
}

std::vector<Variant> matmul_planes_variants(const Form& f, bool gated, bool alone) {
  std::vector<Variant> all;
  if (alone) {
    for (const int64_t m : {1, 2, 4}) add_new(all, lookup_variant(f, lookup_tiling(gated, m), m, gated));
  } else {
    for (const int64_t m : {8, 16, 32}) add_new(all, signs_variant(f, signs_tiling(f, gated, m), gated));
  }
  return all;
}

namespace {

std::vector<Variant> stock(bool alone) {
  std::vector<Variant> all;
  for (const auto& f : forms())
    for (const bool gated : {false, true}) {
      if (f.layout != Layout::planes) continue;
      for (auto& v : matmul_planes_variants(f, gated, alone)) add_new(all, std::move(v));
    }
  return all;
}

}  // namespace

std::vector<Variant> matmul_lookup_stock(int) { return stock(true); }
std::vector<Variant> matmul_signs_stock(int) { return stock(false); }

void matmul_planes(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls) {
  const auto& first = calls.front();
  const bool gated = first.up != nullptr;
  if (first.alone)
    matmul_lookup(kernels, stream, calls, lookup_tiling(gated, first.m));
  else
    matmul_signs(kernels, stream, calls, signs_tiling(*first.w->form, gated, first.m));
}

void matmul_lookup(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                   const LookupTiling& t) {
  const auto& first = calls.front();
  const bool gated = first.up != nullptr;
  const int tokens = lookup_tokens(*first.w->form, first.m, gated),
            tables = tokens == 4 ? 8192 : tokens * 2048, sums = 32 * t.sets * tokens * 4;
  launch(kernels, stream, calls, lookup_variant(*first.w->form, t, first.m, gated), "matmul_lookup", t.sets,
         t.parts, tokens, size_t(t.parts * std::max(tables, sums)));
}

void matmul_signs(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                  const SignsTiling& t) {
  const auto& first = calls.front();
  launch(kernels, stream, calls, signs_variant(*first.w->form, t, first.up != nullptr), "matmul_signs",
         t.sets, t.parts, t.tokens, size_t(t.parts * t.tokens * t.sets * 32 * 4));
}

}  // namespace cairn::cuda
