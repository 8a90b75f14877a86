#include "backends/cuda/matmul_e4m3.h"

#include <algorithm>
#include <cassert>

#include "backends/cuda/matmul_many.h"
#include "base/checked.h"

namespace cairn::cuda {
namespace {

DenseRows rows_of(const DeviceMatrix& w) {
  return {.data = w.data,
          .n = w.rows,
          .k = w.cols,
          .element = DenseRows::Element::e4m3,
          .scales = w.scales,
          .block_scales = w.block_scales,
          .blocks = true};
}

uint64_t code_bytes(int64_t rows, int64_t k) { return round_up(uint64_t(rows * k), 256); }

bool scaled(const DeviceMatrix& w) {
  return w.form->levels == Levels::e4m3 && w.scales != 0 && w.pieces == 1 && w.cols % 128 == 0;
}

std::optional<ManyTile> joined(const DeviceFacts& device, std::span<const MatMulCall> calls) {
  if (std::any_of(calls.begin(), calls.end(), [](const auto& c) { return c.w->block_scales; }))
    return std::nullopt;
  return joined_tile(device, calls, DenseRows::Element::e4m3);
}

}  // namespace

uint64_t quantized_bytes(int64_t rows, int64_t k) {
  return code_bytes(rows, k) + round_up(uint64_t(rows * 4), 256);
}

bool multiplies_e4m3(const DeviceFacts& device, const MatMulCall& call) {
  if (many_tiles(device.capability, DenseRows::Element::e4m3).empty() || !scaled(*call.w)) return false;
  return !call.up || (scaled(*call.up) && call.up->block_scales == call.w->block_scales);
}

void matmul_e4m3(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                 const QuantizedRows& room) {
  const MatMulCall& first = calls.front();
  if (first.m == 0) return;
  const int64_t k = first.w->cols;
  DenseOptions options;
  options.x_scales = room.data + code_bytes(first.m, k), options.early = true;
  quantize_rows(kernels, stream, first.x, first.m, k, room.data, options.x_scales, first.overlap_previous,
                true);
  std::vector<MatMulCall> quantized(calls.begin(), calls.end());
  std::vector<DenseRows> weights;
  for (auto& call : quantized) {
    assert(call.x == first.x && call.m == first.m && call.w->cols == k);
    call.x = room.data, call.overlap_previous = true;
    weights.push_back(rows_of(*call.w));
  }
  if (const auto tile = joined(stream.device().facts(), quantized))
    return matmul_dense_joined(kernels, stream, weights, quantized, *tile, options.x_scales);
  for (size_t i = 0; i < quantized.size(); ++i) {
    const DenseRows up = quantized[i].up ? rows_of(*quantized[i].up) : DenseRows();
    matmul_dense(kernels, stream, weights[i], quantized[i].up ? &up : nullptr, quantized[i], options);
  }
}

std::vector<Variant> matmul_e4m3_variants(const DeviceFacts& device, std::span<const MatMulCall> calls) {
  std::vector<Variant> variants = {quantize_rows_variant(true)};
  const auto add = [&](const std::vector<Variant>& more) {
    variants.insert(variants.end(), more.begin(), more.end());
  };
  if (joined(device, calls)) add(dense_joined_variants(device.capability, rows_of(*calls.front().w), calls));
  for (const auto& call : calls)
    add(dense_variants(device.capability, rows_of(*call.w), call.up != nullptr, call));
  return variants;
}

}  // namespace cairn::cuda
