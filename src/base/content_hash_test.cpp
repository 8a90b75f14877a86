#include "base/content_hash.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <vector>

namespace cairn {
namespace {

std::vector<std::byte> counted(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = std::byte(i * 7 + i / 251);
  return bytes;
}

// Keys of caches on disk: a new value makes every user's cache a stranger.
TEST(ContentHash, ValuesStay) {
  EXPECT_EQ(content_hash({}), 0xf870423f67175ef3);
  EXPECT_EQ(content_hash(counted(1000)), 0x4a9a4c1f9c8aa81a);
}

TEST(ContentHash, EveryBitAndTheLengthCount) {
  for (const size_t size : {1, 7, 8, 63, 64, 65, 200}) {
    auto bytes = counted(size);
    std::set<uint64_t> seen = {content_hash(bytes), content_hash(bytes, 1)};
    double changed = 0;
    for (size_t bit = 0; bit < size * 8; ++bit) {
      bytes[bit / 8] ^= std::byte(1 << bit % 8);
      const uint64_t hash = content_hash(bytes);
      seen.insert(hash);
      bytes[bit / 8] ^= std::byte(1 << bit % 8);
      changed += std::popcount(hash ^ content_hash(bytes));
    }
    EXPECT_EQ(seen.size(), size * 8 + 2);
    // A flipped bit flips half of the hash: 32 of 64, with a standard deviation of 4 / sqrt(bits).
    EXPECT_NEAR(changed / double(size * 8), 32, 8);
    bytes.push_back(std::byte{0});
    EXPECT_FALSE(seen.contains(content_hash(bytes)));
  }
}

TEST(ContentHash, OrderCounts) { EXPECT_NE(combine_hashes(1, 2), combine_hashes(2, 1)); }

}  // namespace
}  // namespace cairn
