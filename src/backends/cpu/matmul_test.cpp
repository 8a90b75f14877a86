#include "backends/cpu/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "backends/cpu/matmul_reference.h"
#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "codecs/codec.h"

namespace cairn::cpu {
namespace {

using codecs::Codec;
using codecs::CodecId;

// Random blocks of a format: random bytes wherever any value is legal, and sane floats in the scale fields.
void random_rows(const Codec& codec, int64_t rows, int64_t cols, std::mt19937& rng,
                 std::vector<std::byte>& out) {
  const int64_t blocks = rows * (cols / codec.block_elements);
  out.resize(size_t(blocks * codec.block_bytes));
  std::normal_distribution<float> normal;
  for (auto& b : out) b = std::byte(rng());
  const auto put_f16 = [&](std::byte* at, float value) {
    const uint16_t h = float_to_f16(value);
    std::memcpy(at, &h, 2);
  };
  for (int64_t b = 0; b < blocks; b++) {
    std::byte* const at = out.data() + b * codec.block_bytes;
    const float scale = 0.01f * (1.0f + std::abs(normal(rng))) * ((rng() & 1) ? 1.0f : -1.0f);
    switch (codec.id) {
      case CodecId::f32: {
        const float v = normal(rng);
        std::memcpy(at, &v, 4);
        break;
      }
      case CodecId::f64: {
        const double v = double{normal(rng)};
        std::memcpy(at, &v, 8);
        break;
      }
      case CodecId::f16: put_f16(at, normal(rng)); break;
      case CodecId::bf16: {
        const uint16_t h = float_to_bf16(normal(rng));
        std::memcpy(at, &h, 2);
        break;
      }
      case CodecId::i16:
      case CodecId::i32:
      case CodecId::i64: std::memset(at + 1, 0, size_t(codec.block_bytes - 1)); break;
      case CodecId::q8_0:
      case CodecId::q4_0:
      case CodecId::q5_0:
      case CodecId::iq4_nl:
      case CodecId::iq4_xs: put_f16(at, scale); break;
      case CodecId::q4_1:
      case CodecId::q5_1:
      case CodecId::q4_k:
      case CodecId::q5_k:
        put_f16(at, scale);
        put_f16(at + 2, 0.05f * normal(rng));
        break;
      case CodecId::q2_k:
        put_f16(at + 80, scale);
        put_f16(at + 82, 0.05f * normal(rng));
        break;
      case CodecId::q3_k: put_f16(at + 108, scale); break;
      case CodecId::q6_k: put_f16(at + 208, scale); break;
      case CodecId::tq1_0: put_f16(at + 52, scale); break;
      case CodecId::tq2_0: put_f16(at + 64, scale); break;
      case CodecId::mxfp4: at[0] = std::byte(120 + rng() % 8); break;
      case CodecId::nvfp4:
        for (int i = 0; i < 4; i++) at[i] = std::byte(rng() % 0x7f);
        break;
      case CodecId::e4m3:
      case CodecId::e4m3_g128:
        if (codec.id != CodecId::e4m3) std::memcpy(at, &scale, 4);
        for (int i = codec.id == CodecId::e4m3 ? 0 : 4; i < codec.block_bytes; i++)
          if ((uint8_t(at[i]) & 127) == 127) at[i] = std::byte{1};  // NaN is refused before it is packed
        break;
      case CodecId::int2_g32:
      case CodecId::int2_g128:
      case CodecId::int3_g32:
      case CodecId::int3_g128:
      case CodecId::int4_g32:
      case CodecId::int4_g128:
      case CodecId::int8_g32:
      case CodecId::int8_g128:
        std::memcpy(at, &scale, 4);
        if (codec.id < CodecId::int8_g32)
          at[4] = std::byte(rng() % (1u << (codec.id < CodecId::int3_g32 ? 2 : 3)));
        break;
      case CodecId::bcq1_g128:
      case CodecId::bcq2_g128:
      case CodecId::bcq3_g128:
      case CodecId::bcq4_g128: {
        const int q = int(codec.id) - int(CodecId::bcq1_g128) + 1;
        for (int i = 0; i < q; i++) put_f16(at + 2 * i, scale / float(1 << i));
        const float bias = 0.3f * scale * normal(rng);
        std::memcpy(at + 2 * q, &bias, 4);
        break;
      }
      default: break;
    }
  }
}

struct Product {
  std::vector<float> y;
  Product(const MatMulKernel& kernel, const std::vector<std::byte>& rows, int64_t n, int64_t k,
          const float* x, int64_t m, int64_t prepare_split = 1, int64_t panel_split = 1) {
    AlignedBuffer packed(kernel.packed_bytes(n, k)), act(kernel.act_bytes(m, k));
    AlignedBuffer scratch(std::max<size_t>(kernel.scratch_bytes, 64));
    std::memset(packed.data(), 0x7f, packed.size());
    std::memset(act.data(), 0x7f, act.size());
    std::memset(scratch.data(), 0x7f, scratch.size());
    kernel.pack(rows.data(), n, k, {0, panels_of(n)}, packed.data());
    for (int part = 0; part < prepare_split; part++)
      kernel.prepare(x, k, split_range(m, part, int(prepare_split)), k, act.data());
    // Columns and rows around y must stay as they are.
    const int64_t ldy = n + 5;
    const float poison = 12345.0f;
    std::vector<float> padded(size_t((m + 1) * ldy), poison);
    for (int part = 0; part < panel_split; part++) {
      MatMulArgs args;
      args.packed = packed.data();
      args.cols = k;
      args.act = act.data();
      args.m = m;
      args.panels = split_range(panels_of(n), part, int(panel_split));
      args.y = padded.data();
      args.ldy = ldy;
      args.n_valid = n;
      args.scratch = scratch.data();
      if (!args.panels.empty()) kernel.multiply(args);
    }
    y.resize(size_t(m * n));
    for (int64_t i = 0; i <= m; i++)
      for (int64_t j = 0; j < ldy; j++) {
        const float value = padded[size_t(i * ldy + j)];
        if (i < m && j < n)
          y[size_t(i * n + j)] = value;
        else
          EXPECT_EQ(value, poison) << "written outside y at row " << i << " column " << j;
      }
  }
};

// Relative to sum |x w|: rounding of the left side (bf16, eight significant bits: 2^-8; int8: half a step of
// the block's largest magnitude, which may be several times the typical element: 1/254 x 4) and of k
// additions in f32, which drift like sqrt(k).
double tolerance(const MatMulKernel& kernel, int64_t k) {
  const double sums = 0x1p-24 * (4 + 4 * std::sqrt(double(k)));
  switch (kernel.act) {
    case ActForm::f32: return sums;
    case ActForm::bf16: return sums + 0x1p-8;
    case ActForm::signed_sums: return 1e-5;  // the bar of LUT-GEMM's brief: signs cancel, weights hide it
    case ActForm::q8_block32:
    case ActForm::q8_block256: return sums + 4.0 / 254;
  }
  return 0;
}

std::vector<Isa> levels() {
  std::vector<Isa> found;
  for (int i = 0; i <= int(detect_isa()); i++) found.push_back(Isa(i));
  return found;
}

struct Shape {
  int64_t n, k;
};

std::vector<Shape> shapes(const Codec& codec) {
  if (codec.block_elements == 256) return {{16, 256}, {5, 768}, {53, 512}, {100, 1280}};
  if (codec.block_elements > 1) {
    const int64_t b = codec.block_elements;
    return {{16, b}, {5, 3 * b}, {53, 9 * b}, {100, 21 * b}};
  }
  return {{16, 32}, {1, 1}, {5, 7}, {53, 172}, {100, 1031}};
}

class MatMul : public ::testing::TestWithParam<CodecId> {};

TEST_P(MatMul, AgreesWithReferenceAtEveryLevel) {
  const Codec& codec = codecs::codec(GetParam());
  for (const Shape& shape : shapes(codec)) {
    std::mt19937 rng(unsigned(shape.n * 1000 + shape.k));
    std::normal_distribution<float> normal;
    std::vector<std::byte> rows;
    random_rows(codec, shape.n, shape.k, rng, rows);
    const int64_t m = 19;
    std::vector<float> x(size_t(m * shape.k));
    for (float& v : x) v = normal(rng);
    const MatMulReference reference = matmul_reference(codec.id, rows.data(), shape.n, shape.k, x.data(), m);
    const MatMulKernel* last = nullptr;
    for (const Isa isa : levels()) {
      const MatMulKernel* kernel = matmul_kernel(codec.id, isa, shape.k);
      ASSERT_NE(kernel, nullptr);
      if (kernel == last) continue;
      last = kernel;
      const Product product(*kernel, rows, shape.n, shape.k, x.data(), m);
      const double bound = tolerance(*kernel, shape.k);
      for (size_t i = 0; i < product.y.size(); i++)
        ASSERT_NEAR(product.y[i], reference.y[i], bound * reference.magnitude[i] + 1e-30)
            << codec.name << " at " << to_string(isa) << " n " << shape.n << " k " << shape.k << " row "
            << i / size_t(shape.n) << " column " << i % size_t(shape.n);
    }
  }
}

// The promise of matmul.h: a row's result does not depend on its company or on the split of the work.
TEST_P(MatMul, EveryRowIsTheSameBitsInEveryBatchAndSplit) {
  const Codec& codec = codecs::codec(GetParam());
  const int64_t n = 75, k = codec.block_elements == 256 ? 1280
                            : codec.block_elements > 1  ? codec.block_elements * 37
                                                        : 1199;
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<std::byte> rows;
  random_rows(codec, n, k, rng, rows);
  const int64_t most = 300;
  std::vector<float> x(size_t(most * k));
  for (float& v : x) v = normal(rng);
  const MatMulKernel* last = nullptr;
  for (const Isa isa : levels()) {
    const MatMulKernel* kernel = matmul_kernel(codec.id, isa, k);
    if (kernel == last) continue;
    last = kernel;
    const int64_t rows_here = isa == Isa::scalar ? 40 : most;
    const Product whole(*kernel, rows, n, k, x.data(), rows_here);
    std::vector<int64_t> counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 23, 31, 32, 33, 40};
    if (isa == Isa::scalar) counts = {1, 3, 6};
    if (rows_here > 100) counts.push_back(100);
    int64_t first = 0;
    for (const int64_t m : counts) {
      if (first + m > rows_here) first = 0;
      const Product part(*kernel, rows, n, k, x.data() + first * k, m, 1 + m % 3, 1 + m % 4);
      ASSERT_EQ(std::memcmp(part.y.data(), whole.y.data() + first * n, size_t(m * n) * 4), 0)
          << codec.name << " at " << to_string(isa) << " rows " << first << ".." << first + m;
      first += m;
    }
  }
}

std::vector<CodecId> decodable() {
  std::vector<CodecId> ids;
  for (const Codec& codec : codecs::all_codecs())
    if (codec.decode) ids.push_back(codec.id);
  return ids;
}

INSTANTIATE_TEST_SUITE_P(Codecs, MatMul, ::testing::ValuesIn(decodable()), [](const auto& param_info) {
  return std::string(codecs::codec(param_info.param).name);
});

TEST(MatMulKernels, PackedWeightsTakeNoMoreThanTheFile) {
  for (const Codec& codec : codecs::all_codecs()) {
    if (!codec.decode) continue;
    const int64_t n = 4096, k = 2048;
    const MatMulKernel* kernel = matmul_kernel(codec.id, active_isa(), k);
    const auto file = size_t(n * k / codec.block_elements * codec.block_bytes);
    EXPECT_LE(kernel->packed_bytes(n, k), file + size_t(panels_of(n)) * 64) << codec.name;
  }
}

TEST(MatMulKernels, RefusesColumnsThatAreNotWholeBlocks) {
  EXPECT_EQ(matmul_kernel(CodecId::q4_k, active_isa(), 128), nullptr);
  EXPECT_EQ(matmul_kernel(CodecId::q8_0, active_isa(), 33), nullptr);
  EXPECT_EQ(matmul_kernel(CodecId::iq1_s, active_isa(), 256), nullptr);
}

TEST(MatMulKernels, NonFiniteInputsAreNotHidden) {
  for (const CodecId id : {CodecId::f32, CodecId::bf16, CodecId::q8_0, CodecId::q4_k, CodecId::bcq3_g128}) {
    std::mt19937 rng(3);
    std::vector<std::byte> rows;
    random_rows(codecs::codec(id), 16, 512, rng, rows);
    for (const float bad : {INFINITY, NAN}) {
      std::vector<float> x(512, 1.0f);
      x[77] = bad;
      for (const Isa isa : levels()) {
        const Product product(*matmul_kernel(id, isa, 512), rows, 16, 512, x.data(), 1);
        EXPECT_FALSE(std::isfinite(product.y[3])) << codecs::codec(id).name << " at " << to_string(isa);
      }
    }
  }
}

}  // namespace
}  // namespace cairn::cpu
