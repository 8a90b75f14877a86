#include "backends/cuda/products.h"

#include <algorithm>

#include "backends/cuda/matmul_e4m3.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_lookup.h"
#include "backends/cuda/matmul_row.h"

namespace cairn::cuda {
namespace {

constexpr size_t kFewTogether = 4;

int64_t element_bytes(const MatMulCall& call) { return call.y_f32 ? 4 : 2; }
int64_t stride(const MatMulCall& call) { return call.y_stride != 0 ? call.y_stride : call.w->rows; }

bool multiplies_by_row(const MatMulCall& c, const DeviceFacts& device) {
  return c.alone && has_matmul_row(*c.w->form, c.w->cols, device);
}

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
    // Those in the same form go together; launches with the same x run beside each other.
    std::vector<std::vector<MatMulCall>> launches;
    for (const auto& call : calls) {
      const auto same = std::find_if(launches.begin(), launches.end(), [&](const auto& l) {
        return l.front().w->form == call.w->form && l.size() < kFewTogether && !call.add;
      });
      if (same != launches.end())
        same->push_back(rows_from(call, 0, decode_rows));
      else
        launches.push_back({rows_from(call, 0, decode_rows)});
    }
    const auto planes = [](const auto& l) { return l.front().w->form->layout == Layout::planes; };
    const bool any_planes =
        std::any_of(launches.begin(), launches.end(), planes);  // those wait, and are waited for
    // Few rows of groups of 16 copy x by way of the first-level cache: not beside others.
    const auto by_row = [&](const MatMulCall& c) { return multiplies_by_row(c, stream.device().facts()); };
    const auto leads = [&](const auto& l) { return l.front().w->form->group == 16 && !by_row(l.front()); };
    std::stable_partition(launches.begin(), launches.end(), leads);
    for (size_t i = 0; i < launches.size(); ++i) {
      auto& first = launches[i].front();
      first.beside_previous = i > 0 && !any_planes && !leads(launches[i]) && !first.add;
      first.next_beside = i + 1 < launches.size() && !any_planes;
      if (planes(launches[i]))
        matmul_planes(kernels, stream, launches[i]);
      else if (by_row(first))
        matmul_row(kernels, stream, launches[i]);
      else
        matmul_few(kernels, stream, launches[i]);
    }
  }
  if (decode_rows < m) {
    std::vector<MatMulCall> prompt, quantized;
    for (const auto& call : calls)
      (scratch.quantized && multiplies_e4m3(stream.device().facts(), call) ? quantized : prompt)
          .push_back(rows_from(call, decode_rows, m - decode_rows));
    if (!prompt.empty()) matmul_many(kernels, stream, prompt, scratch);
    if (!quantized.empty()) matmul_e4m3(kernels, stream, quantized, {scratch.quantized});
  }
}

std::vector<Variant> product_variants(const DeviceFacts& device, std::span<const MatMulCall> calls,
                                      bool decode, bool prompt) {
  std::vector<Variant> variants;
  for (const auto& c : calls) {
    if (!decode) break;
    for (auto& v : c.w->form->layout == Layout::planes
                       ? matmul_planes_variants(*c.w->form, c.up != nullptr, c.alone)
                   : multiplies_by_row(c, device)
                       ? matmul_row_variants(*c.w->form, c.w->rows, c.w->cols, c.up != nullptr, device)
                       : matmul_few_variants(*c.w->form, c.w->rows, c.w->cols, c.up != nullptr, device))
      variants.push_back(std::move(v));
  }
  if (!prompt) return variants;
  std::vector<MatMulCall> unpacked, quantized;
  for (const auto& c : calls) (multiplies_e4m3(device, c) ? quantized : unpacked).push_back(c);
  if (!quantized.empty())
    for (auto& v : matmul_e4m3_variants(device, quantized)) variants.push_back(std::move(v));
  if (!unpacked.empty())
    for (auto& v : matmul_many_variants(device.capability, unpacked)) variants.push_back(std::move(v));
  return variants;
}

}  // namespace cairn::cuda
