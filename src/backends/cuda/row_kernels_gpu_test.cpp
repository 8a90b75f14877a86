// rows.cu and the plain product against the CPU backend and double, f32 and bf16.
#include "backends/cuda/row_kernels.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>

#include "backends/cpu/experts.h"
#include "backends/cpu/row_kernels.h"
#include "backends/cuda/testing.h"

namespace cairn::cuda {
namespace {

using testing::normal;

constexpr double kF32 = 1e-5, kBf16 = 1.0 / 256;  // half an ulp of bf16 is 2^-9 of the value

struct Rows : ::testing::TestWithParam<int> {};

// x as f32 or bf16 on the device, with the values that the kernel will really see.
struct Input {
  Buffer buffer;
  std::vector<float> seen;
  Operand operand;
};
Input input(testing::Gpu& gpu, std::vector<float> values, Element e) {
  Input in;
  if (e == Element::f32) {
    in.buffer = gpu.upload(values);
    in.seen = std::move(values);
  } else {
    const auto bits = testing::as_bf16(values);
    in.buffer = gpu.upload(bits);
    in.seen = testing::as_float(bits);
  }
  in.operand = {in.buffer.address(), e};
  return in;
}
std::vector<float> read(testing::Gpu& gpu, const Buffer& b, Element e) {
  return e == Element::f32 ? gpu.download<float>(b) : testing::as_float(gpu.download<uint16_t>(b));
}
void expect_close(const std::vector<float>& got, const std::vector<float>& wanted, double relative,
                  double absolute) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], wanted[i], relative * std::abs(wanted[i]) + absolute) << "at " << i;
}

TEST(RowKernelsOnGpu, AgreeWithTheCpu) {
  CAIRN_NEED_GPU(gpu);
  RowLauncher launch(gpu.kernels, gpu.stream);
  const auto& cpu = cpu::row_kernels(active_isa());
  for (const Element ex : {Element::f32, Element::bf16})
    for (const Element ey : {Element::f32, Element::bf16})
      for (const int64_t n : {4, 64, 100, 1000, 1002, 4096, 5120, 14336})
        for (const int64_t rows : {1, 7}) {
          SCOPED_TRACE(fmt::format("x {} y {} n {} rows {}", int(ex), int(ey), n, rows));
          const auto count = size_t(rows * n);
          const double relative = ey == Element::f32 ? kF32 : kBf16;
          const auto x = input(gpu, normal(count, 1), ex), u = input(gpu, normal(count, 2), ex);
          const auto a = input(gpu, normal(count, 3), Element::f32),
                     w = input(gpu, normal(size_t(n), 4), Element::f32);
          const auto y = gpu.poisoned(count * size_t(bytes_of(ey)));
          const Operand out{y.address(), ey};
          std::vector<float> wanted(count);
          const auto check = [&](double absolute) {
            expect_close(read(gpu, y, ey), wanted, relative, absolute);
            gpu.stream.fill(y.address(), 0xff, y.size());
          };

          launch.rms_norm(x.operand, w.buffer.address(), out, rows, n, 1e-6f, 1);
          for (int64_t r = 0; r < rows; ++r)
            cpu.rms_norm(&x.seen[size_t(r * n)], w.seen.data(), 1e-6f, 1, n, &wanted[size_t(r * n)]);
          check(1e-5);
          launch.layer_norm(x.operand, w.buffer.address(), w.buffer.address(), out, rows, n, 1e-5f);
          for (int64_t r = 0; r < rows; ++r)
            cpu.layer_norm(&x.seen[size_t(r * n)], w.seen.data(), w.seen.data(), 1e-5f, n,
                           &wanted[size_t(r * n)]);
          check(2e-5);
          launch.add(a.operand, x.operand, 0.5f, out, rows * n);
          cpu.add(a.seen.data(), x.seen.data(), 0.5f, rows * n, wanted.data());
          check(1e-6);
          const auto sum = gpu.poisoned(count * 4);
          launch.add_rms_norm(a.operand, x.operand, {sum.address(), Element::f32}, w.buffer.address(), out,
                              rows, n, 1e-6f, 0);
          std::vector<float> sums(count);
          for (int64_t r = 0; r < rows; ++r) {
            cpu.add(&a.seen[size_t(r * n)], &x.seen[size_t(r * n)], 1, n, &sums[size_t(r * n)]);
            cpu.rms_norm(&sums[size_t(r * n)], w.seen.data(), 1e-6f, 0, n, &wanted[size_t(r * n)]);
          }
          check(1e-5);
          EXPECT_EQ(gpu.download<float>(sum), sums);
          for (int kind = 0; kind <= int(program::Activation::sigmoid); ++kind) {
            SCOPED_TRACE(kind);
            launch.activate(x.operand, program::Activation(kind), out, rows * n);
            cpu.activate(program::Activation(kind), x.seen.data(), rows * n, wanted.data());
            check(4e-6);
            launch.gated(x.operand, u.operand, program::Activation(kind), out, rows * n);
            cpu.gated(program::Activation(kind), x.seen.data(), u.seen.data(), rows * n, wanted.data());
            check(1e-5);
          }
          launch.soft_cap(x.operand, 3, 2, out, rows * n);
          cpu.soft_cap(x.seen.data(), 3, 2, rows * n, wanted.data());
          check(4e-6);
          launch.clamp(x.operand, 0.5f, out, rows * n);
          cpu.clamp(x.seen.data(), 0.5f, rows * n, wanted.data());
          check(0);
        }
}

TEST(RowKernelsOnGpu, RotateAsTheCpuDoes) {
  CAIRN_NEED_GPU(gpu);
  RowLauncher launch(gpu.kernels, gpu.stream);
  const auto& cpu = cpu::row_kernels(active_isa());
  const std::vector<int32_t> positions = {0, 1, 77, 4095, 131071};
  const int64_t rows = int64_t(positions.size());
  for (const auto pairing : {program::RopePairing::half, program::RopePairing::adjacent})
    for (const int64_t rotary : {64, 48}) {
      const int64_t heads = 3, dim = 64, half = rotary / 2;
      std::vector<float> frequencies, cosine, sine;
      for (int64_t i = 0; i < half; ++i)
        frequencies.push_back(float(std::pow(500000., -double(2 * i) / double(rotary))));
      for (const int32_t p : positions)
        for (const float f : frequencies) {
          const float angle = float(p) * f;
          cosine.push_back(float(std::cos(double(angle))) * 1.5f),
              sine.push_back(float(std::sin(double(angle))) * 1.5f);
        }
      frequencies.push_back(1.5f);
      const auto position_buffer = gpu.upload(positions);
      const auto frequency_buffer = gpu.upload(frequencies);
      const auto table = gpu.poisoned(size_t(rows * half) * 8);
      launch.rope_table(position_buffer.address(), 0, frequency_buffer.address(), table.address(), rows,
                        half);
      const auto pairs = gpu.download<float>(table);
      for (size_t i = 0; i < cosine.size(); ++i) {
        ASSERT_NEAR(pairs[2 * i], cosine[i], 5e-7) << i;
        ASSERT_NEAR(pairs[2 * i + 1], sine[i], 5e-7) << i;
      }
      const auto x = input(gpu, normal(size_t(rows * heads * dim), 5), Element::f32);
      const auto y = gpu.poisoned(x.seen.size() * 4);
      launch.rope(x.operand, table.address(), {y.address(), Element::f32}, rows, heads, dim, rotary, pairing);
      std::vector<float> wanted(x.seen.size());
      for (int64_t r = 0; r < rows; ++r)
        cpu.rope(&x.seen[size_t(r * heads * dim)], &cosine[size_t(r * half)], &sine[size_t(r * half)], heads,
                 dim, rotary, pairing, &wanted[size_t(r * heads * dim)]);
      expect_close(gpu.download<float>(y), wanted, 1e-6, 4e-6);
    }
}

TEST(RowKernelsOnGpu, RouteAsTheCpuDoes) {
  CAIRN_NEED_GPU(gpu);
  RowLauncher launch(gpu.kernels, gpu.stream);
  for (const int64_t experts : {4, 60, 128})
    for (const bool renormalise : {false, true}) {
      const int64_t rows = 37, top_k = 4;
      auto scores = normal(size_t(rows * experts), unsigned(experts));
      for (size_t i = 0; i < scores.size(); i += 3) scores[i] = 0.25f;  // ties
      const auto s = input(gpu, scores, Element::f32);
      const auto chosen = gpu.poisoned(size_t(rows * top_k) * 4),
                 weights = gpu.poisoned(size_t(rows * top_k) * 4);
      launch.route(s.operand, experts, top_k, renormalise, chosen.address(), weights.address(), rows);
      std::vector<int32_t> wanted(size_t(rows * top_k));
      std::vector<float> wanted_weights(wanted.size());
      for (int64_t r = 0; r < rows; ++r)
        cpu::route_row(renormalise ? program::Routing::softmax_topk_renorm : program::Routing::softmax_topk,
                       {&scores[size_t(r * experts)], size_t(experts)},
                       {&wanted[size_t(r * top_k)], size_t(top_k)},
                       {&wanted_weights[size_t(r * top_k)], size_t(top_k)});
      EXPECT_EQ(gpu.download<int32_t>(chosen), wanted);
      expect_close(gpu.download<float>(weights), wanted_weights, 1e-5, 0);
    }
}

TEST(MatMulPlainOnGpu, AgreesWithDouble) {
  CAIRN_NEED_GPU(gpu);
  RowLauncher launch(gpu.kernels, gpu.stream);
  for (const Element e : {Element::f32, Element::bf16})
    for (const int64_t m : {1, 5, 33, 300})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{8, 96}, {100, 64}, {257, 320}}) {
        SCOPED_TRACE(fmt::format("m {} n {} k {}", m, n, k));
        const auto x = input(gpu, normal(size_t(m * k), 7), e),
                   w = input(gpu, normal(size_t(2 * n * k), 8, 0.1f), e);
        const auto bias = input(gpu, normal(size_t(n), 9), Element::f32);
        std::vector<int32_t> chosen;
        for (int64_t r = 0; r < m; ++r) chosen.push_back(int32_t(r % 2));
        const auto chosen_buffer = gpu.upload(chosen);
        for (const bool experts : {false, true}) {
          const auto y = gpu.poisoned(size_t(m * n) * 4);
          launch.matmul_plain(x.operand, {w.buffer.address(), e, n, k, 2}, bias.buffer.address(),
                              {y.address(), Element::f32}, m, experts ? chosen_buffer.address() : 0);
          const auto got = gpu.download<float>(y);
          for (int64_t r = 0; r < m; ++r)
            for (int64_t c = 0; c < n; ++c) {
              double sum = bias.seen[size_t(c)], size = 0;
              const int64_t piece = experts ? r % 2 : 0;
              for (int64_t j = 0; j < k; ++j) {
                const double p = double(x.seen[size_t(r * k + j)]) * w.seen[size_t((piece * n + c) * k + j)];
                sum += p, size += std::abs(p);
              }
              // One rounding of 2^-24 per addition at most, of partial sums no larger than `size`.
              ASSERT_NEAR(got[size_t(r * n + c)], sum, size * double(k) * 0x1p-24 + 1e-6) << r << ' ' << c;
            }
        }
      }
}

}  // namespace
}  // namespace cairn::cuda
