#include "backends/cuda/products.h"

#include <algorithm>

#include "backends/cuda/matmul_few.h"

namespace cairn::cuda {
namespace {

constexpr size_t kFewTogether = 4;

int64_t element_bytes(const MatMulCall& call) { return call.y_f32 ? 4 : 2; }
int64_t stride(const MatMulCall& call) { return call.y_stride != 0 ? call.y_stride : call.w->rows; }

// The same products for the rows from `first` on.
MatMulCall rows_from(MatMulCall call, int64_t first, int64_t count) {
  call.x += Address(first * call.w->cols * 2);
  call.y += Address(first * stride(call) * element_bytes(call));
  if (call.add) call.add += Address(first * stride(call) * 4);
  call.m = count;
  return call;
}

}  // namespace

void multiply(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls, int64_t decode_rows,
              ManyScratch& scratch) {
  const int64_t m = calls.front().m;
  if (decode_rows > 0) {
    // Neighbours in the same form go together.
    for (size_t begin = 0; begin < calls.size();) {
      std::vector<MatMulCall> together;
      size_t end = begin;
      for (; end < calls.size() && together.size() < kFewTogether; ++end) {
        if (calls[end].w->form != calls[begin].w->form) break;
        together.push_back(rows_from(calls[end], 0, decode_rows));
      }
      matmul_few(kernels, stream, together);
      begin = end;
    }
  }
  if (decode_rows < m) {
    std::vector<MatMulCall> prompt;
    for (const auto& call : calls) prompt.push_back(rows_from(call, decode_rows, m - decode_rows));
    matmul_many(kernels, stream, prompt, scratch);
  }
}

std::vector<Variant> product_variants(const DeviceFacts& device, std::span<const MatMulCall> calls,
                                      bool prompt) {
  std::vector<Variant> variants;
  for (const auto& c : calls)
    for (auto& v : matmul_few_variants(*c.w->form, c.w->rows, c.w->cols, c.up != nullptr, device))
      variants.push_back(std::move(v));
  if (prompt)
    for (auto& v : matmul_many_variants(device.capability, calls)) variants.push_back(std::move(v));
  return variants;
}

}  // namespace cairn::cuda
