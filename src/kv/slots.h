// Whole sequences side by side in a KV pool: one run of consecutive pages each, reserved at admission, so
// that attention over a sequence reads one long block. And how to make the slots in use adjoin again with the
// fewest copies (Flover, 2023, arXiv 2305.13484: the memory shuffle).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kv/pool.h"

namespace cairn::kv {

// Not thread-safe, and while it is used by several threads under a lock, nobody else may take pages from the
// pool or give any back. Sequences grow inside their slot without touching the pool.
class SlotPool {
 public:
  // Takes slots x pages_of(slot_tokens) pages. Throws Error(out_of_memory) when there are not as many, and
  // Error(invalid_argument) when they do not lie side by side: the pool must be fresh.
  SlotPool(KvPool&, int slots, int64_t slot_tokens);
  ~SlotPool();
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;

  int slots() const { return slots_; }
  int64_t slot_tokens() const { return slot_tokens_; }
  int64_t slot_bytes() const;  // of all layers, keys and values
  int32_t first_page(int slot) const { return first_ + slot * pages_per_slot_; }

  Sequence open(int slot);          // empty, with room for slot_tokens
  void close(int slot, Sequence&);  // the sequence is empty afterwards
  // Copies what the sequence in slot `from` holds, every layer of it, and makes it the sequence of slot `to`,
  // which nobody has. Returns the bytes copied.
  int64_t move(int from, int to, Sequence&);

 private:
  KvPool& pool_;
  int slots_;
  int64_t slot_tokens_;
  int32_t pages_per_slot_ = 0, first_ = 0;
  std::vector<bool> open_;
};

// The least moves after which the live slots adjoin: the window of as many slots as live that has the most
// live ones inside is found in one pass; each live slot outside goes to a free one inside. O(slots).
struct Shuffle {
  int low = 0, high = -1;                  // the live range afterwards; empty when nothing lives
  std::vector<std::pair<int, int>> moves;  // from, to
};
Shuffle plan_shuffle(std::span<const uint8_t> live);

}  // namespace cairn::kv
