// Weights as fp8 checkpoints store them, packed by MatrixPacker, times rows of prompts and rows that extend
// answers, against double on the CPU; int4 checkpoints' forms against their CPU codec.
#include "backends/cuda/matmul_e4m3.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "backends/cpu/row_kernels.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/testing.h"
#include "codecs/scaled_blocks.h"
#include "codecs/split_weight.h"

namespace cairn::cuda {
namespace {

using codecs::SplitCodes;
using codecs::SplitPart;
using testing::as_bf16;
using testing::as_float;
using testing::Gpu;
using testing::normal;

unsigned fresh_seed() {
  static unsigned seed = std::random_device{}();
  return seed++;
}

ThreadPool& pool() {
  static ThreadPool threads(2);
  return threads;
}

enum class ScaleKind { tensor, row, block };
const char* name(ScaleKind kind) {
  return kind == ScaleKind::tensor ? "tensor" : kind == ScaleKind::row ? "row" : "block";
}

// A weight [n, k] of random e4m3 codes, its values, and it on the device.
struct E4M3Sample {
  std::vector<uint8_t> codes;
  std::vector<float> scales, values;
  codecs::StoredWeight stored;
  DeviceMatrix matrix;

  E4M3Sample(Gpu& gpu, int64_t n, int64_t k, ScaleKind kind) {
    std::mt19937 random(fresh_seed());
    for (int64_t i = 0; i < n * k; ++i) {
      const auto code = uint8_t(random());
      codes.push_back((code & 0x7f) == 0x7f ? 0 : code);
    }
    auto layout = std::make_shared<codecs::SplitLayout>();
    layout->name = "w", layout->stored_rows = n, layout->group = k;
    if (kind == ScaleKind::tensor) layout->rows_per_scale = n;
    if (kind == ScaleKind::block) {
      layout->rows_per_scale = 128, layout->group = 128, layout->groups = k / 128;
      layout->row_stride = k / 128, layout->group_stride = 1;
    }
    const int64_t down = (n + layout->rows_per_scale - 1) / layout->rows_per_scale;
    for (int64_t i = 0; i < down * layout->groups; ++i)
      scales.push_back(0.001f * float(1 + random() % 1000) * (random() % 2 ? 1.f : -1.f));
    stored = {codecs::CodecId::e4m3_g128, n, k, false, 0, 0, {}, layout};
    stored.pieces.push_back({reinterpret_cast<const std::byte*>(codes.data()), codes.size(), -1, {}});
    stored.pieces[0].beside[size_t(SplitPart::scales)] = {reinterpret_cast<const std::byte*>(scales.data()),
                                                          scales.size() * 4, -1};
    std::vector<std::byte> room;
    values.resize(size_t(n * k));
    codecs::decode_e4m3_g128(codecs::stored_rows(stored, 0, 0, n, room), values.data(), n * k);
    MatrixPacker packer(gpu.device, gpu.stream, pool(), size_t{1} << 20);
    matrix = packer.pack(stored);
    packer.finish();
  }
};

// Rows of x as the products see them: e4m3 codes times the row's scale.
std::vector<float> quantized(Gpu& gpu, const Buffer& x, int64_t m, int64_t k) {
  const auto codes = gpu.poisoned(size_t(m * k)), scales = gpu.poisoned(size_t(m) * 4);
  quantize_rows(gpu.kernels, gpu.stream, x.address(), m, k, codes.address(), scales.address());
  const auto code = gpu.download<uint8_t>(codes);
  const auto scale = gpu.download<float>(scales);
  std::vector<float> values;
  for (int64_t i = 0; i < m * k; ++i)
    values.push_back(codecs::e4m3_to_float(code[size_t(i)]) * scale[size_t(i / k)]);
  return values;
}

// lost: what the matrix units may cut off. They add 32 products at a time and keep 13 bits below the largest
// of these and of the sum so far, which block scales begin anew every 128 columns.
struct Sum {
  double value = 0, size = 0, lost = 0;
};
Sum dot(const std::vector<float>& x, const std::vector<float>& w, int64_t r, int64_t c, int64_t k,
        bool block_scales) {
  Sum s;
  double largest = 0, part = 0;
  for (int64_t j = 0; j < k; ++j) {
    const double p = double(x[size_t(r * k + j)]) * w[size_t(c * k + j)];
    s.value += p, s.size += std::abs(p);
    part += p, largest = std::max({largest, std::abs(p), std::abs(part)});
    if (j % 32 == 31) s.lost += 33 * 0x1p-13 * largest, largest = std::abs(part);
    if (block_scales && j % 128 == 127) part = largest = 0;
  }
  s.lost += s.size * 0x1p-22;
  return s;
}

TEST(MatMulE4M3OnGpu, AgreesWithDoubleForRowsOfPrompts) {
  CAIRN_NEED_GPU(gpu);
  if (many_tiles(gpu.device.facts().capability, DenseRows::Element::e4m3).empty())
    GTEST_SKIP() << "not tested: this GPU has no kernel for e4m3";
  struct Shape {
    int64_t n, k;
  };
  for (const auto kind : {ScaleKind::tensor, ScaleKind::row, ScaleKind::block})
    for (const auto& [n, k] : {Shape{8, 128}, Shape{136, 384}, Shape{520, 1024}, Shape{260, 2048}}) {
      const E4M3Sample w(gpu, n, k, kind), up(gpu, n, k, kind);
      ASSERT_NE(w.matrix.scales, 0u);
      EXPECT_EQ(w.matrix.block_scales, kind == ScaleKind::block && k > 128);
      const int64_t most = 300;
      const auto x = gpu.upload(as_bf16(normal(size_t(most * k), fresh_seed(), 3)));
      const auto seen = quantized(gpu, x, most, k);
      const auto room = gpu.poisoned(quantized_bytes(most, k));
      for (const bool gated : {false, true}) {
        std::vector<float> first;
        for (const int64_t m : {300, 1, 7, 64, 130, 257}) {
          SCOPED_TRACE(fmt::format("{} scales, n {} k {} m {} gated {}", name(kind), n, k, m, gated));
          MatMulCall call;
          const auto y = gpu.poisoned(size_t(m * n) * 4);
          call.w = &w.matrix, call.x = x.address(), call.m = m, call.y = y.address(), call.y_f32 = true;
          if (gated) call.up = &up.matrix, call.activation = program::Activation::identity;
          ASSERT_TRUE(multiplies_e4m3(gpu.device.facts(), call));
          matmul_e4m3(gpu.kernels, gpu.stream, {&call, 1}, {room.address()});
          const auto got = gpu.download<float>(y);
          if (first.empty()) {
            first = got;
            for (int64_t r = 0; r < m; r += 3)
              for (int64_t c = 0; c < n; c += 5) {
                const Sum sum = dot(seen, w.values, r, c, k, w.matrix.block_scales);
                double want = sum.value, allowed = sum.lost;
                if (gated) {
                  const Sum other = dot(seen, up.values, r, c, k, up.matrix.block_scales);
                  allowed =
                      allowed * std::abs(other.value) + std::abs(want) * other.lost + sum.lost * other.lost;
                  want *= other.value;
                }
                ASSERT_NEAR(got[size_t(r * n + c)], want, allowed + std::abs(want) * 1e-6 + 1e-6)
                    << "row " << r << " column " << c;
              }
          }
          // Bit for bit what it is among 300 rows.
          ASSERT_TRUE(std::equal(got.begin(), got.end(), first.begin()));
        }
      }
    }
}

// Three products of one x, as q, k and v are; results with bias and added to the residual stream.
TEST(MatMulE4M3OnGpu, SharesQuantizedRowsAndAdds) {
  CAIRN_NEED_GPU(gpu);
  if (many_tiles(gpu.device.facts().capability, DenseRows::Element::e4m3).empty())
    GTEST_SKIP() << "not tested: this GPU has no kernel for e4m3";
  const int64_t m = 70, k = 512;
  const E4M3Sample q(gpu, 256, k, ScaleKind::block), v(gpu, 72, k, ScaleKind::row);
  const auto x = gpu.upload(as_bf16(normal(size_t(m * k), fresh_seed())));
  const auto seen = quantized(gpu, x, m, k);
  const auto room = gpu.poisoned(quantized_bytes(m, k));
  const auto bias = normal(256, fresh_seed()), residual = normal(size_t(m * 256), fresh_seed());
  const auto bias_data = gpu.upload(bias), y = gpu.upload(residual), other = gpu.poisoned(size_t(m * 72) * 2);
  MatMulCall calls[2];
  calls[0].w = &q.matrix, calls[0].y = calls[0].add = y.address(), calls[0].y_f32 = true;
  calls[0].bias = bias_data.address();
  calls[1].w = &v.matrix, calls[1].y = other.address();
  for (auto& call : calls) call.x = x.address(), call.m = m;
  matmul_e4m3(gpu.kernels, gpu.stream, calls, {room.address()});
  const auto sums = gpu.download<float>(y);
  const auto plain = as_float(gpu.download<uint16_t>(other));
  for (int64_t r = 0; r < m; ++r) {
    for (int64_t c = 0; c < 256; c += 3) {
      const Sum s = dot(seen, q.values, r, c, k, true);
      const auto at = size_t(r * 256 + c);
      ASSERT_NEAR(sums[at], s.value + bias[size_t(c)] + residual[at], s.lost + 1e-5) << r << ' ' << c;
    }
    for (int64_t c = 0; c < 72; c += 3) {
      const Sum s = dot(seen, v.values, r, c, k, false);
      ASSERT_NEAR(plain[size_t(r * 72 + c)], s.value, s.lost + std::abs(s.value) * 0x1p-8) << r << ' ' << c;
    }
  }
}

// Few rows: x stays bf16. And the unpacked weights are the codec's, rounded to bf16.
TEST(MatMulE4M3OnGpu, FewRowsAndUnpackingReadTheSameWeights) {
  CAIRN_NEED_GPU(gpu);
  const int64_t n = 136, k = 768;
  for (const auto kind : {ScaleKind::row, ScaleKind::block}) {
    const E4M3Sample w(gpu, n, k, kind);
    const auto rows = gpu.poisoned(size_t(n * k) * 2);
    unpack_rows(gpu.kernels, gpu.stream, w.matrix, 0, 0, n, rows.address());
    const auto unpacked = gpu.download<uint16_t>(rows);
    for (size_t i = 0; i < unpacked.size(); ++i)
      ASSERT_EQ(unpacked[i], testing::bf16_of(w.values[i])) << name(kind) << " element " << i;
    for (const int64_t m : {1, 3, 8, 21, 64}) {
      const auto bits = as_bf16(normal(size_t(m * k), fresh_seed()));
      const auto seen = as_float(bits);
      const auto x = gpu.upload(bits), y = gpu.poisoned(size_t(m * n) * 4);
      MatMulCall call;
      call.w = &w.matrix, call.x = x.address(), call.m = m, call.y = y.address(), call.y_f32 = true;
      matmul_few(gpu.kernels, gpu.stream, call);
      const auto got = gpu.download<float>(y);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t c = 0; c < n; ++c) {
          const Sum s = dot(seen, w.values, r, c, k, w.matrix.block_scales);
          // Weights may be rounded to bf16 on their way, scale and all: 2^-8 each.
          ASSERT_NEAR(got[size_t(r * n + c)], s.value, s.size * 0x1p-8 + 1e-6)
              << name(kind) << " m " << m << " row " << r << " column " << c;
        }
    }
  }
}

TEST(Int4OnGpu, UnpacksTheCodecsValues) {
  CAIRN_NEED_GPU(gpu);
  for (const auto id : {codecs::CodecId::int4_g32, codecs::CodecId::int4_g128}) {
    const auto& codec = codecs::codec(id);
    const int64_t n = 40, k = 640;
    std::mt19937 random(fresh_seed());
    std::vector<std::byte> file(size_t(n * k / codec.block_elements * codec.block_bytes));
    for (auto& byte : file) byte = std::byte(random());
    for (size_t at = 0; at < file.size(); at += size_t(codec.block_bytes)) {
      const float scale = float(1 + random() % 2047) * 0x1p-14f;
      std::memcpy(file.data() + at, &scale, sizeof scale);
      file[at + sizeof scale] = std::byte(random() % 17);
    }
    std::vector<float> values(size_t(n * k));
    codec.decode(file.data(), values.data(), n * k);
    MatrixPacker packer(gpu.device, gpu.stream, pool(), size_t{1} << 20);
    codecs::StoredWeight stored{id, n, k, false, 0, 0, {}, {}};
    stored.pieces.push_back({file.data(), file.size(), -1, {}});
    const auto matrix = packer.pack(stored);
    const auto rows = gpu.poisoned(size_t(n * k) * 2);
    unpack_rows(gpu.kernels, gpu.stream, matrix, 0, 0, n, rows.address());
    const auto unpacked = gpu.download<uint16_t>(rows);
    for (size_t i = 0; i < unpacked.size(); ++i)
      ASSERT_EQ(unpacked[i], testing::bf16_of(values[i])) << codec.name << " element " << i;
  }
}

}  // namespace
}  // namespace cairn::cuda
