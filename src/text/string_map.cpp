#include "text/string_map.h"

#include <bit>
#include <cassert>
#include <cstring>
#include <random>

namespace cairn::text {
namespace {

uint64_t process_seed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return uint64_t{device()} << 32 | device() | 1;
  }();
  return seed;
}

const uint64_t kSeed = process_seed();

uint64_t load(const char* p, size_t bytes) {
  uint64_t value = 0;
  std::memcpy(&value, p, bytes);
  return value;
}

uint64_t load8(const char* p) {
  uint64_t value = 0;
  std::memcpy(&value, p, 8);
  return value;
}

uint64_t load4(const char* p) {
  uint32_t value = 0;
  std::memcpy(&value, p, 4);
  return value;
}

// Both halves of the 128-bit product, folded: every input bit reaches every output bit.
uint64_t mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
}

}  // namespace

uint64_t hash_bytes(std::string_view key) {
  const char* p = key.data();
  const size_t n = key.size();
  uint64_t hash = kSeed ^ (n * 0x9e3779b97f4a7c15u), a = 0, b = 0;
  if (n >= 8) {
    for (size_t i = 0; i + 16 < n; i += 16)
      hash = mix(load8(p + i) ^ 0xa0761d6478bd642fu ^ hash, load8(p + i + 8) ^ 0xe7037ed1a0b428dbu);
    a = n >= 16 ? load8(p + n - 16) : load8(p);
    b = load8(p + n - 8);
  } else if (n >= 4) {
    a = load4(p);
    b = load4(p + n - 4);
  } else if (n > 0) {
    a = load(p, 1) | load(p + n / 2, 1) << 8 | load(p + n - 1, 1) << 16;
  }
  return mix(hash ^ a ^ 0x8ebc6af09c88c6e3u, b ^ 0x589965cc75374cc3u ^ kSeed);
}

void StringMap::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.value < 0) continue;
    const uint64_t h = hash_bytes({arena_.data() + slot.offset, slot.length});
    size_t i = h & (slots_.size() - 1);
    while (slots_[i].value >= 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = slot;
  }
}

void StringMap::reserve(size_t keys) {
  const size_t slots = std::bit_ceil(keys * 2 + 16);
  if (slots > slots_.size()) grow(slots);
}

bool StringMap::insert(std::string_view key, int32_t value) {
  assert(value >= 0 && arena_.size() + key.size() < (uint64_t{1} << 32));
  const uint64_t h = hash_bytes(key);
  if (find(key, h) >= 0) return false;
  if ((size_ + 1) * 2 > slots_.size()) grow(slots_.size() * 2);
  size_t i = h & (slots_.size() - 1);
  while (slots_[i].value >= 0) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {uint32_t(h >> 32), uint32_t(key.size()), uint32_t(arena_.size()), value};
  arena_ += key;
  ++size_;
  return true;
}

int32_t StringMap::find(std::string_view key, uint64_t h) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = h & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.value < 0) return -1;
    if (slot.tag == uint32_t(h >> 32) && slot.length == key.size() &&
        std::memcmp(arena_.data() + slot.offset, key.data(), key.size()) == 0)
      return slot.value;
  }
}

uint64_t PairMap::hash(int32_t left, int32_t right) {
  return mix((uint64_t(uint32_t(left)) << 32 | uint32_t(right)) ^ kSeed, 0x9e3779b97f4a7c15u);
}

void PairMap::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  mask_ = slots - 1;
  shift_ = 64 - std::countr_zero(slots);
  for (const Slot& slot : old) {
    if (slot.entry.rank < 0) continue;
    size_t i = hash(slot.left, slot.right) >> shift_;
    while (slots_[i].entry.rank >= 0) i = (i + 1) & mask_;
    slots_[i] = slot;
  }
}

void PairMap::reserve(size_t keys) {
  const size_t slots = std::bit_ceil(keys * 2 + 16);
  if (slots > slots_.size()) grow(slots);
}

void PairMap::insert(int32_t left, int32_t right, Entry entry) {
  assert(entry.rank >= 0);
  if (find(left, right).rank >= 0) return;
  if ((size_ + 1) * 2 > slots_.size()) grow(slots_.size() * 2);
  size_t i = hash(left, right) >> shift_;
  while (slots_[i].entry.rank >= 0) i = (i + 1) & mask_;
  slots_[i] = {left, right, entry};
  ++size_;
}

}  // namespace cairn::text
