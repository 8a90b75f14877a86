#include "base/float16.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cairn {
namespace {

TEST(Float16, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float f = f16_to_float(uint16_t(h));
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(f))));
    } else {
      ASSERT_EQ(float_to_f16(f), h);
    }
  }
}

TEST(Float16, RoundsToNearestEvenBetweenNeighbours) {
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = f16_to_float(uint16_t(h)), high = f16_to_float(uint16_t(h + 1));
    const float middle = low + (high - low) / 2;  // exact: halves have 11 bits, floats 24
    ASSERT_EQ(float_to_f16(middle), h + (h & 1)) << h;
    ASSERT_EQ(float_to_f16(std::nextafter(middle, high)), h + 1) << h;
    ASSERT_EQ(float_to_f16(std::nextafter(middle, low)), h) << h;
  }
  EXPECT_EQ(float_to_f16(65519.f), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.f), 0x7c00);
}

TEST(Bfloat16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::nanf("")))));
}

}  // namespace
}  // namespace cairn
