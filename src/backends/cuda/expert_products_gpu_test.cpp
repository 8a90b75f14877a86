// Experts of a layer with rows of both classes, against double on the CPU; and that a prompt's row has the
// same bits among any others.
#include "backends/cuda/expert_products.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "backends/cuda/row_kernels.h"
#include "backends/cuda/testing.h"

namespace cairn::cuda {
namespace {

using testing::as_bf16;
using testing::as_float;
using testing::normal;

struct Experts {
  DeviceMatrix device;
  std::vector<float> values;  // [experts, rows, cols]

  Experts(testing::Gpu& gpu, const char* form_name, int64_t count, int64_t rows, int64_t cols) {
    device.form = &form(form_name);
    device.rows = rows, device.cols = cols, device.pieces = count;
    device.piece_bytes = packed_bytes(*device.form, rows, cols);
    std::vector<std::byte> bytes(device.piece_bytes * size_t(count));
    std::mt19937 random(std::random_device{}());
    // Bytes below 0x40 are finite as f16 and bf16.
    for (auto& b : bytes) b = std::byte(random() & 0x3f);
    if (device.form->layout == Layout::bf16_rows) {
      const auto bits = as_bf16(normal(bytes.size() / 2, random(), 0.05f));
      std::memcpy(bytes.data(), bits.data(), bytes.size());
    }
    for (int64_t e = 0; e < count; ++e)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c)
          values.push_back(testing::of_bf16(testing::bf16_of(
              packed_value(*device.form, bytes.data() + size_t(e) * device.piece_bytes, rows, cols, r, c))));
    device.own = gpu.upload(bytes);
    device.data = device.own.address();
  }
  const float* row(int64_t expert, int64_t r) const {
    return values.data() + (expert * device.rows + r) * device.cols;
  }
};

struct Sum {
  double value = 0, size = 0, largest = 0;  // of the products' absolute values
};
Sum dot(const float* x, const float* w, int64_t k) {
  Sum s;
  for (int64_t i = 0; i < k; ++i) {
    const double product = double(x[i]) * w[i];
    s.value += product, s.size += std::abs(product), s.largest = std::max(s.largest, std::abs(product));
  }
  return s;
}

class ExpertsOnGpu : public ::testing::TestWithParam<const char*> {};

TEST_P(ExpertsOnGpu, MultiplyRowsOfBothClasses) {
  CAIRN_NEED_GPU(gpu);
  const int64_t tokens = 150, decode = 7, top_k = 3, experts = 11, dim = 256, inner = 520,
                pairs = tokens * top_k;
  const Experts gate(gpu, GetParam(), experts, inner, dim), up(gpu, GetParam(), experts, inner, dim),
      down(gpu, GetParam(), experts, dim, inner);
  const auto bits = as_bf16(normal(size_t(tokens * dim), std::random_device{}()));
  const auto x_seen = as_float(bits);
  const auto x = gpu.upload(bits);
  std::mt19937 random(std::random_device{}());
  std::vector<int32_t> chosen;
  for (int64_t p = 0; p < pairs; ++p) chosen.push_back(int32_t(random() % 4 == 0 ? 2 : random() % experts));
  const auto chosen_data = gpu.upload(chosen);
  ManyScratch scratch;
  for (const auto& [w, gated] : {std::pair(&gate, true), std::pair(&down, false)})
    scratch.half_bytes = std::max(scratch.half_bytes, matmul_many_half(w->device, gated));
  const auto scratch_room = gpu.poisoned(2 * scratch.half_bytes + 256);
  scratch.data = scratch_room.address();

  ExpertRoom room(gpu.device, {pairs, experts, dim, inner});
  const ExpertChoice per_token{chosen_data.address(), top_k, false},
      per_choice{chosen_data.address(), top_k, true};
  const auto calls_of = [&](std::initializer_list<std::pair<const Experts*, Address>> products,
                            Address from) {
    std::vector<MatMulCall> calls;
    for (const auto& [w, y] : products) {
      calls.emplace_back();
      calls.back().w = &w->device, calls.back().x = from, calls.back().y = y, calls.back().m = pairs;
    }
    return calls;
  };
  const auto multiply = [&](std::span<const MatMulCall> calls, const ExpertChoice& choice,
                            int64_t decode_tokens, ExpertRole role) {
    multiply_experts(gpu.kernels, gpu.stream, calls, choice, tokens, decode_tokens, role, room, scratch);
  };

  // The whole layer: gate, up, what joins them, down.
  const auto layer = [&](int64_t decode_tokens) {
    const auto g = gpu.poisoned(size_t(pairs * inner) * 2), u = gpu.poisoned(g.size()),
               h = gpu.poisoned(g.size()), y = gpu.poisoned(size_t(pairs * dim) * 2);
    multiply(calls_of({{&gate, g.address()}, {&up, u.address()}}, x.address()), per_token, decode_tokens,
             {ExpertRole::inputs, program::Activation::silu});
    RowLauncher rows(gpu.kernels, gpu.stream);
    if (decode_tokens > 0)
      rows.gated({g.address(), Element::bf16}, {u.address(), Element::bf16}, program::Activation::silu,
                 {h.address(), Element::bf16}, decode_tokens * top_k * inner);
    multiply(calls_of({{&down, y.address()}}, h.address()), per_choice, decode_tokens,
             {ExpertRole::outputs, {}});
    return gpu.download<uint16_t>(y);
  };
  const auto got = layer(decode), other = layer(40);
  for (size_t i = size_t(40 * top_k * dim); i < got.size(); ++i)
    ASSERT_EQ(got[i], other[i]) << "row " << i / size_t(dim) << " depends on its company";
  for (int64_t p = 0; p < pairs; ++p) {
    std::vector<float> h;
    double inexact = 0;
    for (int64_t i = 0; i < inner; ++i) {
      const Sum g = dot(&x_seen[size_t(p / top_k * dim)], gate.row(chosen[size_t(p)], i), dim),
                u = dot(&x_seen[size_t(p / top_k * dim)], up.row(chosen[size_t(p)], i), dim);
      h.push_back(float(g.value / (1 + std::exp(-g.value)) * u.value));
      inexact = std::max(inexact, (g.size * std::abs(u.value) + u.size * std::abs(g.value)) * 0x1p-15);
    }
    for (int64_t c = 0; c < dim; ++c) {
      const Sum want = dot(h.data(), down.row(chosen[size_t(p)], c), inner);
      double sizes = 0;
      for (int64_t i = 0; i < inner; ++i) sizes += std::abs(down.row(chosen[size_t(p)], c)[i]);
      // Of class decode gate and up are rounded, too; weights not to bf16.
      const double share = p < decode * top_k ? 0x1p-5 : 0x1p-8;
      ASSERT_NEAR(testing::of_bf16(got[size_t(p * dim + c)]), want.value,
                  want.size * share + sizes * inexact + std::abs(want.value) * 0x1p-8)
          << "choice " << p << " (expert " << chosen[size_t(p)] << ") column " << c;
    }
  }

  // Products that stand alone, per token and per choice: the same bits as for rows in any other number.
  for (const bool by_choice : {false, true}) {
    const auto rows = gpu.upload(as_bf16(normal(size_t(pairs * dim), std::random_device{}())));
    const auto y = gpu.poisoned(size_t(pairs * inner) * 2), z = gpu.poisoned(y.size());
    const auto& choice = by_choice ? per_choice : per_token;
    multiply(calls_of({{&gate, y.address()}}, rows.address()), choice, 0, {});
    multiply(calls_of({{&gate, z.address()}}, rows.address()), choice, 0, {});
    const auto first = gpu.download<uint16_t>(y);
    EXPECT_EQ(first, gpu.download<uint16_t>(z));
    const auto seen = as_float(gpu.download<uint16_t>(rows));
    for (int64_t p = 0; p < pairs; ++p)
      for (int64_t c = 0; c < inner; ++c) {
        const Sum want =
            dot(&seen[size_t((by_choice ? p : p / top_k) * dim)], gate.row(chosen[size_t(p)], c), dim);
        // A weight has few bits, so that it may lie exactly in the middle of two bf16 numbers; the kernel's
        // f32 sum is off by 2^-17 of its scale and may take the other one, a step of 2^-7. Scales are spread
        // over decades here: one such weight can be most of a sum.
        ASSERT_NEAR(testing::of_bf16(first[size_t(p * inner + c)]), want.value,
                    want.largest * 0x1p-7 + want.size * 0x1p-14 + std::abs(want.value) * 0x1p-8 + 1e-6)
            << "choice " << p << " column " << c;
      }
  }
}
INSTANTIATE_TEST_SUITE_P(Forms, ExpertsOnGpu, ::testing::Values("bf16", "q4_k", "q6_k", "q8_0"),
                         [](const auto& p) { return std::string(p.param); });

}  // namespace
}  // namespace cairn::cuda
