#include "quantize/gptq_layout.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/float16.h"

namespace cairn::quantize {
namespace {

// What the published description says, value by value.
uint32_t three_bits(const std::vector<uint32_t>& w, int i) {
  if (i < 10) return w[0] >> (3 * i) & 7;
  if (i == 10) return (w[0] >> 30 & 3) | (w[1] & 1) << 2;
  if (i < 21) return w[1] >> (3 * (i - 11) + 1) & 7;
  if (i == 21) return (w[1] >> 31 & 1) | (w[2] & 3) << 1;
  return w[2] >> (3 * (i - 22) + 2) & 7;
}

TEST(GptqLayout, ThreeBitsLieAsPublished) {
  std::mt19937 random(1);
  std::vector<uint8_t> values(32);
  for (auto& v : values) v = uint8_t(random() % 8);
  const auto words = pack_bits(values, 3);
  ASSERT_EQ(words.size(), 3u);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(three_bits(words, i), values[size_t(i)]) << i;
}

TEST(GptqLayout, EvenBitsFillWordsFromBelow) {
  EXPECT_EQ(pack_bits(std::vector<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8}, 4), (std::vector<uint32_t>{0x87654321}));
  EXPECT_EQ(pack_bits(std::vector<uint8_t>{0x12, 0x34, 0x56, 0xff}, 8), (std::vector<uint32_t>{0xff563412}));
}

TEST(GptqLayout, TensorsHoldCodesAlongInputsAndZerosLessOne) {
  GptqMatrix m{4, 8, 16, 2, {}, {}, {}};
  for (int64_t row = 0; row < 8; ++row)
    for (int64_t col = 0; col < 16; ++col) m.codes.push_back(uint8_t((row + col) % 16));
  for (int g = 0; g < 2; ++g)
    for (int row = 0; row < 8; ++row) m.grids.push_back({float(g + 1) * 0.5f, row + 1});
  for (int col = 0; col < 16; ++col) m.column_groups.push_back(col / 8);
  const auto tensors = gptq_tensors(m, "a.b");
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "a.b.qweight");
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 8}));
  uint32_t word = 0;
  std::memcpy(&word, tensors[0].bytes.data() + 4 * (8 + 3), 4);  // row 3, columns 8 to 15
  EXPECT_EQ(word, 0x21'0f'ed'cbu);
  EXPECT_EQ(tensors[1].shape, (std::vector<int64_t>{2, 1}));
  std::memcpy(&word, tensors[1].bytes.data(), 4);
  EXPECT_EQ(word, 0x76543210u);
  uint16_t scale = 0;
  std::memcpy(&scale, tensors[2].bytes.data() + 2 * 8, 2);
  EXPECT_EQ(f16_to_float(scale), 1.0f);
  EXPECT_EQ(tensors[3].dtype, "I32");
}

TEST(Grid, EveryWeightIsWithinHalfAStepAndZeroIsExact) {
  std::mt19937 random(2);
  for (const bool symmetric : {false, true})
    for (const int bits : {2, 3, 4, 8})
      for (int trial = 0; trial < 200; ++trial) {
        std::uniform_real_distribution<float> part(trial % 3 == 0 ? 0.1f : -1.f, trial % 5 == 0 ? 0.f : 1.f);
        std::vector<float> values(64);
        for (auto& v : values) v = part(random);
        const Grid grid = fit_grid(values, {bits, symmetric, false});
        ASSERT_GE(grid.zero, 1);
        ASSERT_LE(grid.zero, most_code(bits));
        EXPECT_EQ(value_of(code_of(0, grid, bits), grid), 0.f);
        // A symmetric grid lacks the code of its upper end; f16 rounds the scale by 2^-11.
        const float slack = symmetric ? 1.f : 0.5f;
        for (const float v : values)
          EXPECT_LE(std::abs(value_of(code_of(v, grid, bits), grid) - v),
                    grid.scale * (slack + float(1 << bits) * 0x1p-11f))
              << bits << " bits, symmetric " << symmetric;
      }
}

TEST(Grid, ZerosAndTinyNumbersHaveAGridToo) {
  for (const float v : {0.f, 1e-30f, 1e-7f}) {
    const Grid grid = fit_grid(std::vector<float>(8, v), {4, false, false});
    EXPECT_GT(grid.scale, 0);
    EXPECT_NEAR(value_of(code_of(v, grid, 4), grid), v, 1e-7);
  }
}

TEST(Grid, SearchingLosesNoMoreThanTheWholeRange) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto error = [](std::span<const float> values, const Grid& grid) {
    double sum = 0;
    for (const float v : values) sum += std::pow(std::abs(value_of(code_of(v, grid, 3), grid) - v), 2.4);
    return sum;
  };
  double whole = 0, searched = 0;
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> values(128);
    for (auto& v : values) v = normal(random);
    whole += error(values, fit_grid(values, {3, false, false}));
    searched += error(values, fit_grid(values, {3, false, true}));
  }
  EXPECT_LT(searched, 0.9 * whole);
}

}  // namespace
}  // namespace cairn::quantize
