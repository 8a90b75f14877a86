#include "base/content_hash.h"

#include <bit>
#include <cstring>

namespace cairn {
namespace {

constexpr uint64_t kPrime = 0x9e3779b97f4a7c15;
constexpr int kLanes = 4;  // hide the latency of the product
constexpr size_t kBlock = kLanes * 2 * sizeof(uint64_t);

// Both halves of the product: every bit of the operands reaches most of the result. (A product cut to 64
// bits, after or before a rotation, was tried: the next word could undo the change of some single bits.)
inline uint64_t fold(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
}

inline uint64_t finish(uint64_t x) {
  x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93;
  x = (x ^ (x >> 29)) * kPrime;
  return x ^ (x >> 32);
}

struct Lanes {
  uint64_t state[kLanes], key[kLanes];

  explicit Lanes(uint64_t seed) {
    for (int i = 0; i < kLanes; ++i) {
      state[i] = finish(seed + uint64_t(2 * i) * kPrime + 1);
      key[i] = finish(seed + uint64_t(2 * i + 1) * kPrime + 1) | 1;
    }
  }
  void add(const std::byte* block) {
    uint64_t words[2 * kLanes];
    std::memcpy(words, block, kBlock);
    for (int i = 0; i < kLanes; ++i) state[i] = fold(state[i] ^ words[2 * i], key[i] ^ words[2 * i + 1]);
  }
};

}  // namespace

uint64_t combine_hashes(uint64_t so_far, uint64_t next) {
  return finish(std::rotl(so_far, 17) * kPrime + finish(next ^ kPrime));
}

uint64_t content_hash(std::span<const std::byte> bytes, uint64_t seed) {
  Lanes lanes(seed);
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= kBlock; at += kBlock, left -= kBlock) lanes.add(at);
  if (left > 0) {
    std::byte block[kBlock] = {};
    std::memcpy(block, at, left);
    lanes.add(block);
  }
  uint64_t hash = finish(bytes.size() ^ seed);
  for (const uint64_t state : lanes.state) hash = combine_hashes(hash, state);
  return hash;
}

}  // namespace cairn
