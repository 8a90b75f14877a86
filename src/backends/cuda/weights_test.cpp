// Every codec's device form holds exactly what its decoder says, for odd rows and cut chunks.
#include "backends/cuda/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

using codecs::Codec;

// Any bytes are a valid block, but infinite scales compare as NaN; keep f16 fields finite by trying again.
std::vector<std::byte> random_rows(const Codec& codec, int64_t rows, int64_t cols, unsigned seed) {
  std::mt19937 random(seed);
  const auto row_bytes = *codecs::row_bytes(codec, uint64_t(cols));
  std::vector<std::byte> bytes(size_t(rows) * row_bytes);
  std::vector<float> values(size_t(codec.block_elements));
  for (size_t at = 0; at < bytes.size(); at += size_t(codec.block_bytes)) {
    bool finite = false;
    while (!finite) {
      for (int i = 0; i < codec.block_bytes; ++i) bytes[at + size_t(i)] = std::byte(random());
      codec.decode(bytes.data() + at, values.data(), codec.block_elements);
      finite = true;
      for (const float v : values)
        finite = finite && std::abs(v) < 1e37f;  // bf16 rounds larger ones to infinity
    }
    if (codec.id >= codecs::CodecId::int2_g32 && codec.id <= codecs::CodecId::int8_g128) {
      const float scale = float(random() % 2048) * 0x1p-12f;  // held as f16
      std::memcpy(bytes.data() + at, &scale, sizeof scale);
      if (codec.id < codecs::CodecId::int8_g32) bytes[at + sizeof scale] = std::byte(random() % 17);
    }
  }
  return bytes;
}

class DeviceForms : public ::testing::TestWithParam<codecs::CodecId> {};

TEST_P(DeviceForms, HoldTheDecodersValues) {
  const Codec& codec = codecs::codec(GetParam());
  const Form* f = form_of(codec.id);
  ASSERT_NE(f, nullptr);
  for (const int64_t rows : {1, 8, 13})
    for (const int64_t blocks : {1, 3}) {
      const int64_t cols = std::max<int64_t>(8, codec.block_elements) * blocks;
      const auto file = random_rows(codec, rows, cols, unsigned(rows * 7 + blocks));
      std::vector<float> wanted(size_t(rows * cols));
      codec.decode(file.data(), wanted.data(), rows * cols);
      std::vector<std::byte> packed(packed_bytes(*f, rows, cols), std::byte{0xff});
      pack_row_groups(*f, codec.id, file.data(), rows, cols, 0, ceil_div(rows, 8), packed.data());
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c) {
          const float w = wanted[size_t(r * cols + c)];
          const float got = packed_value(*f, packed.data(), rows, cols, r, c);
          const float tolerance = codec.id == codecs::CodecId::f32 ? std::abs(w) / 256 : 0;
          // one rounding of the product of the scales, where the file's decoder multiplies in another order
          ASSERT_NEAR(got, w, tolerance + 4e-7f * std::abs(w) + 1e-40f)
              << codec.name << " row " << r << " col " << c;
        }
    }
}

TEST_P(DeviceForms, StayNearTheFilesSize) {
  const Codec& codec = codecs::codec(GetParam());
  const double file = double(*codecs::row_bytes(codec, 4096)) * 4096;
  const double held = double(device_matrix_bytes(codec.id, 4096, 4096, 1));
  EXPECT_LE(held, file * (codec.id == codecs::CodecId::tq1_0 ? 1.25 : 1.05)) << codec.name;
}

std::vector<codecs::CodecId> multiplied() {
  std::vector<codecs::CodecId> ids;
  for (const auto& codec : codecs::all_codecs())
    if (form_of(codec.id)) ids.push_back(codec.id);
  return ids;
}
INSTANTIATE_TEST_SUITE_P(All, DeviceForms, ::testing::ValuesIn(multiplied()),
                         [](const auto& p) { return std::string(codecs::codec(p.param).name); });

TEST(DeviceForms, CoverEveryCodecThatDecodesToWeights) {
  for (const auto& codec : codecs::all_codecs()) {
    const bool integers = codec.id >= codecs::CodecId::f64 && codec.id <= codecs::CodecId::i64;
    const bool scaled_elsewhere = codec.id == codecs::CodecId::e4m3;
    EXPECT_EQ(form_of(codec.id) != nullptr, codec.decode != nullptr && !integers && !scaled_elsewhere)
        << codec.name;
  }
}

TEST(DeviceForms, BlocksAreWholeCopies) {
  for (const auto& f : forms()) EXPECT_EQ(f.block_bytes() % 16, 0) << f.name;
}

TEST(DeviceForms, RefuseColumnsThatCannotBeCopied) {
  EXPECT_THROW(device_matrix_bytes(codecs::CodecId::bf16, 4, 12, 1), Error);
  EXPECT_THROW(device_matrix_bytes(codecs::CodecId::iq1_s, 4, 256, 1), Error);
}

// Each of up to three roundings is half of 2^-7 of scale q, min or their sum, none of which passes twice the
// row's largest.
TEST(PackedWeights, OfFewRowsAreRoundedAFewTimes) {
  std::mt19937 random(1);
  for (const auto& f : forms()) {
    const int64_t rows = 8, cols = 512;
    std::vector<std::byte> packed(packed_bytes(f, rows, cols));
    for (auto& b : packed) b = std::byte(random() & 0x3f);
    for (int64_t r = 0; r < rows; ++r) {
      double largest = 0, worst = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const double exact = packed_value(f, packed.data(), rows, cols, r, c);
        largest = std::max(largest, std::abs(exact));
        worst = std::max(worst, std::abs(few_value(f, packed.data(), rows, cols, r, c) - exact));
      }
      EXPECT_LE(worst, 2 * 3 * largest / 256) << f.name << " row " << r;
      EXPECT_GT(largest, 0) << f.name;
    }
  }
}

}  // namespace
}  // namespace cairn::cuda
