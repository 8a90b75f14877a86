// How fast a processor encodes and decodes a block's worth of weights, beside a copy of as many bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "base/float16.h"
#include "base/steady_seconds.h"
#include "codecs/df11.h"

namespace cairn::codecs {
namespace {

TEST(Df11Rate, EncodesAndDecodes) {
  constexpr size_t kElements = size_t{32} << 20;
  std::vector<uint16_t> words(kElements), decoded(kElements);
  std::mt19937 random(1);
  std::normal_distribution<float> distribution(0, 0.02f);
  for (size_t i = 0; i < kElements; ++i)
    words[i] = i < (1 << 20) ? float_to_bf16(distribution(random)) : words[i - (1 << 20) + i % 7];
  const std::span<const std::byte> matrices[] = {std::as_bytes(std::span(words))};
  Df11Result result;
  const auto rate = [&](auto&& f) {
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
      const double begin = steady_seconds();
      f();
      best = std::min(best, steady_seconds() - begin);
    }
    return 2.0 * kElements / best / 1e6;
  };
  const double copy = rate([&] { std::memcpy(decoded.data(), words.data(), 2 * kElements); });
  std::fill(decoded.begin(), decoded.end(), uint16_t{0});
  const double encode = rate([&] { result = encode_df11(matrices); });
  ASSERT_TRUE(result.encoded);
  const Df11Group group(result.encoded->fields(), "here");
  const double decode = rate([&] { group.decode(0, group.elements(), decoded.data()); });
  const double verify = rate([&] { group.verify({0, group.blocks()}, false); });
  const double gaps = rate([&] { group.verify({0, group.blocks()}); });
  EXPECT_EQ(decoded, words);
  std::printf("one core, MB/s of bf16: encode %.0f, decode %.0f, memcpy %.0f, verify %.0f, with gaps %.0f\n",
              encode, decode, copy, verify, gaps);
  EXPECT_GT(encode, 50);
}

}  // namespace
}  // namespace cairn::codecs
