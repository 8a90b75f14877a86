#include "backends/cuda/row_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

std::string type_name(Element e) { return e == Element::f32 ? "float" : "bf16"; }

Variant rows_variant(Element x, Element y) { return {"rows.cu", {"X=" + type_name(x), "Y=" + type_name(y)}}; }
Variant matmul_variant(Element x, Element w, Element y) {
  return {"matmul_plain.cu", {"X=" + type_name(x), "W=" + type_name(w), "Y=" + type_name(y)}};
}
Variant attention_variant(Element x, Element cache) {
  return {"attention_plain.cu", {"X=" + type_name(x), "C=" + type_name(cache)}};
}

constexpr Element kElements[] = {Element::f32, Element::bf16};
// Blocks of the element-wise kernels: their threads stride over the rest.
constexpr int64_t kMostBlocks = 4096;

}  // namespace

std::vector<Variant> row_kernel_variants(int) {
  std::vector<Variant> variants;
  for (const auto x : kElements)
    for (const auto y : kElements) variants.push_back(rows_variant(x, y));
  return variants;
}
std::vector<Variant> matmul_plain_variants(int) {
  std::vector<Variant> variants;
  for (const auto x : kElements)
    for (const auto w : kElements)
      for (const auto y : kElements) variants.push_back(matmul_variant(x, w, y));
  return variants;
}
std::vector<Variant> attention_plain_variants(int) {
  std::vector<Variant> variants;
  for (const auto x : kElements)
    for (const auto c : kElements) variants.push_back(attention_variant(x, c));
  return variants;
}

Kernel RowLauncher::rows_kernel(const char* entry, Element x, Element y) {
  return cache_.get(rows_variant(x, y), entry);
}

LaunchShape RowLauncher::lines(int64_t blocks, unsigned block) const {
  LaunchShape shape;
  shape.grid[0] = unsigned(blocks);
  shape.block = block;
  shape.overlap_previous = overlap;
  return shape;
}
LaunchShape RowLauncher::flat(int64_t count) const {
  return lines(std::min(kMostBlocks, ceil_div(count, 256)), 256);
}

void RowLauncher::embed(Address ids, Address table, TableKind kind, Operand y, int64_t rows, int64_t dim,
                        float scale, int64_t offset) {
  stream_.launch(rows_kernel("embed", Element::f32, y.element), lines(rows, 256), ids, table, int(kind),
                 y.address, int(dim), scale, offset);
}
void RowLauncher::gather_rows(Operand x, Address rows_from, Operand y, int64_t rows, int64_t dim) {
  stream_.launch(rows_kernel("gather_rows", x.element, y.element), lines(rows, 256), x.address, rows_from,
                 y.address, int(dim));
}
void RowLauncher::convert(Operand x, Operand y, int64_t count) {
  stream_.launch(rows_kernel("convert", x.element, y.element), flat(count), x.address, y.address, count);
}
// Of the kernels that hold a row in registers: elements per thread in fours, 0 when the row is too long or
// odd.
int RowLauncher::wide_norm(int64_t n, LaunchShape& shape) const {
  if (n % 4 != 0 || n > 16384) return 0;
  const int per = n <= 4096 ? 1 : n <= 8192 ? 2 : 4;
  shape.block = unsigned(round_up(ceil_div(n, 4 * per), 32));
  return per;
}

void RowLauncher::rms_norm(Operand x, Address weight, Operand y, int64_t groups, int64_t n, float eps,
                           float offset) {
  auto shape = lines(groups, 512);
  if (n <= 512) {
    stream_.launch(rows_kernel("rms_norm_heads", x.element, y.element), lines(ceil_div(groups, 4), 128),
                   x.address, weight, y.address, int(n), eps, offset, groups);
  } else if (const int per = wide_norm(n, shape)) {
    stream_.launch(rows_kernel(fmt::format("rms_norm_{}", per).c_str(), x.element, y.element), shape,
                   x.address, weight, y.address, int(n), eps, offset);
  } else {
    stream_.launch(rows_kernel("rms_norm", x.element, y.element), shape, x.address, weight, y.address, int(n),
                   eps, offset);
  }
}
void RowLauncher::layer_norm(Operand x, Address weight, Address bias, Operand y, int64_t rows, int64_t n,
                             float eps) {
  stream_.launch(rows_kernel("layer_norm", x.element, y.element), lines(rows, 512), x.address, weight, bias,
                 y.address, int(n), eps);
}
void RowLauncher::add_rms_norm(Operand a, Operand b, Operand sum, Address weight, Operand y, int64_t rows,
                               int64_t n, float eps, float offset) {
  assert(a.element == Element::f32 && sum.element == Element::f32);
  auto shape = lines(rows, 512);
  if (const int per = wide_norm(n, shape)) {
    stream_.launch(rows_kernel(fmt::format("add_rms_norm_{}", per).c_str(), b.element, y.element), shape,
                   a.address, b.address, sum.address, weight, y.address, int(n), eps, offset);
    return;
  }
  shape.shared_bytes = unsigned(n * 4);
  stream_.launch(rows_kernel("add_rms_norm", b.element, y.element), shape, a.address, b.address, sum.address,
                 weight, y.address, int(n), eps, offset);
}
void RowLauncher::add(Operand a, Operand b, float b_scale, Operand y, int64_t count) {
  assert(a.element == Element::f32);
  stream_.launch(rows_kernel("add", b.element, y.element), flat(count), a.address, b.address, b_scale,
                 y.address, count);
}
void RowLauncher::clamp(Operand x, float limit, Operand y, int64_t count) {
  stream_.launch(rows_kernel("clamp", x.element, y.element), flat(count), x.address, limit, y.address, count);
}
void RowLauncher::soft_cap(Operand x, float scale, float cap, Operand y, int64_t count) {
  stream_.launch(rows_kernel("soft_cap", x.element, y.element), flat(count), x.address, scale, cap, y.address,
                 count);
}
void RowLauncher::activate(Operand x, program::Activation kind, Operand y, int64_t count) {
  stream_.launch(rows_kernel("activate", x.element, y.element), flat(count), x.address, int(kind), y.address,
                 count);
}
void RowLauncher::gated(Operand gate, Operand up, program::Activation kind, Operand y, int64_t count) {
  assert(gate.element == up.element);
  stream_.launch(rows_kernel("gated", gate.element, y.element), flat(count), gate.address, up.address,
                 int(kind), y.address, count);
}
void RowLauncher::gate_rows(Operand x, Operand gate, Operand y, int64_t rows, int64_t n) {
  assert(gate.element == Element::f32);
  stream_.launch(rows_kernel("gate_rows", x.element, y.element), flat(rows * n), x.address, gate.address,
                 y.address, int(n), rows * n);
}
void RowLauncher::rope_table(Address positions, Address sequence_of, Address frequencies, Address table,
                             int64_t rows, int64_t half) {
  stream_.launch(rows_kernel("rope_table", Element::f32, Element::f32), flat(rows * half), positions,
                 sequence_of, frequencies, table, int(half), rows * half);
}
void RowLauncher::rope(Operand x, Address table, Operand y, int64_t rows, int64_t heads, int64_t head_dim,
                       int64_t rotary, program::RopePairing pairing) {
  const int64_t count = rows * heads * (head_dim - rotary / 2);
  stream_.launch(rows_kernel("rope", x.element, y.element), flat(count), x.address, table, y.address,
                 int(heads), int(head_dim), int(rotary), int(pairing == program::RopePairing::adjacent),
                 count);
}
void RowLauncher::route(Operand scores, int64_t experts, int64_t top_k, bool renormalise, Address chosen,
                        Address weights, int64_t rows) {
  assert(scores.element == Element::f32);
  stream_.launch(rows_kernel("route", Element::f32, Element::f32), lines(ceil_div(rows, 4), 128),
                 scores.address, int(experts), int(top_k), int(renormalise), chosen, weights, rows);
}
void RowLauncher::expert_combine(Operand x, Address weights, Operand y, int64_t rows, int64_t n,
                                 int64_t top_k) {
  stream_.launch(rows_kernel("expert_combine", x.element, y.element), flat(rows * n), x.address, weights,
                 y.address, int(n), int(top_k), rows * n);
}

void RowLauncher::matmul_plain(Operand x, const PlainMatrix& w, Address bias, Operand y, int64_t m,
                               Address chosen, int64_t x_share) {
  LaunchShape shape = lines(ceil_div(w.rows, 32), 256);
  shape.grid[1] = unsigned(chosen ? m : ceil_div(m, 32));
  stream_.launch(cache_.get(matmul_variant(x.element, w.element, y.element), "matmul_plain"), shape,
                 x.address, w.data, bias, y.address, int(m), int(w.rows), int(w.cols), chosen,
                 w.rows * w.cols, int(x_share));
}

void RowLauncher::append_plain(Operand k, Operand v, const PlainCache& cache, Address tables,
                               Address sequence_starts, Address sequence_of, Address positions,
                               int64_t rows) {
  assert(k.element == v.element);
  stream_.launch(cache_.get(attention_variant(k.element, cache.element), "append_plain"), lines(rows, 128),
                 k.address, v.address, cache.k, cache.v, tables, sequence_starts, sequence_of, positions,
                 cache.kv_heads, cache.dim_k, cache.dim_v, cache.page_tokens);
}
void RowLauncher::attention_plain(Operand q, Operand y, const PlainCache& cache, const PlainAttention& a,
                                  Address tables, Address sequence_starts, Address lengths,
                                  Address sequence_of, Address positions, int64_t rows) {
  assert(q.element == y.element && cache.dim_k <= 256 && cache.dim_v <= 256);
  LaunchShape shape = lines(rows, 32);
  shape.grid[1] = unsigned(a.heads);
  stream_.launch(cache_.get(attention_variant(q.element, cache.element), "attention_plain"), shape, q.address,
                 y.address, cache.k, cache.v, tables, sequence_starts, lengths, sequence_of, positions,
                 a.heads, cache.kv_heads, cache.dim_k, cache.dim_v, cache.page_tokens, a.scale, a.window,
                 int(a.causal), a.softcap, a.sinks, a.slopes);
}

}  // namespace cairn::cuda
