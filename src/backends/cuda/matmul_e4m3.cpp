#include "backends/cuda/matmul_e4m3.h"

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
  options.x_scales = room.data + code_bytes(first.m, k);
  quantize_rows(kernels, stream, first.x, first.m, k, room.data, options.x_scales, first.overlap_previous,
                true);
  for (const auto& call : calls) {
    assert(call.x == first.x && call.m == first.m && call.w->cols == k);
    MatMulCall quantized = call;
    quantized.x = room.data;
    quantized.overlap_previous = true;
    const DenseRows w = rows_of(*call.w), up = call.up ? rows_of(*call.up) : DenseRows();
    matmul_dense(kernels, stream, w, call.up ? &up : nullptr, quantized, options);
  }
}

std::vector<Variant> matmul_e4m3_variants(const DeviceFacts& device, const MatMulCall& call) {
  auto variants = dense_variants(device.capability, rows_of(*call.w), call.up != nullptr, call);
  variants.push_back(quantize_rows_variant(true));
  return variants;
}

}  // namespace cairn::cuda
