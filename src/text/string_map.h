// Byte strings to ids: open addressing with linear probing, keys in one arena. Built once, then read from any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::text {

uint64_t hash_bytes(
    std::string_view);  // differs from process to process, so that no file can prepare collisions

class StringMap {
 public:
  void reserve(size_t keys);
  // The first id given to a key stays. Returns whether the key is new. Arena and key count stay below 2^32.
  bool insert(std::string_view key, int32_t value);
  int32_t find(std::string_view key) const { return find(key, hash_bytes(key)); }  // -1 when absent
  int32_t find(std::string_view key, uint64_t hash) const;
  size_t size() const { return size_; }

 private:
  struct Slot {
    uint32_t tag = 0;  // high half of the hash
    uint32_t length = 0;
    uint32_t offset = 0;
    int32_t value = -1;  // -1: empty
  };
  void grow(size_t slots);

  std::vector<Slot> slots_ = std::vector<Slot>(16);
  std::string arena_;
  size_t size_ = 0;
};

// Pairs of ids to a rank and an id, for merges.
class PairMap {
 public:
  struct Entry {
    int32_t rank = -1;  // -1: absent
    int32_t result = -1;
  };
  void reserve(size_t keys);
  void insert(int32_t left, int32_t right, Entry);  // the first entry of a pair stays
  Entry find(int32_t left, int32_t right) const {
    for (size_t i = hash(left, right) >> shift_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.entry.rank < 0) return {};
      if (slot.left == left && slot.right == right) return slot.entry;
    }
  }
  size_t size() const { return size_; }

 private:
  struct Slot {
    int32_t left = 0, right = 0;
    Entry entry;
  };
  static uint64_t hash(int32_t left, int32_t right);
  void grow(size_t slots);

  std::vector<Slot> slots_ = std::vector<Slot>(16);
  size_t mask_ = 15, size_ = 0;
  int shift_ = 60;
};

}  // namespace cairn::text
