#include "kv/slots.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace cairn::kv {

SlotPool::SlotPool(KvPool& pool, int slots, int64_t slot_tokens)
    : pool_(pool), slots_(slots), slot_tokens_(slot_tokens) {
  if (slots < 1 || slot_tokens < 1)
    fail(ErrorKind::invalid_argument, "{} slots of {} tokens: both must be at least 1", slots, slot_tokens);
  const int64_t pages = pool.pages_of(slot_tokens), all = pages * slots;
  if (all > pool.free_pages())
    fail(ErrorKind::out_of_memory,
         "{} slots of {} tokens need {} pages of {} tokens, {} are free; take fewer or shorter slots", slots,
         slot_tokens, all, pool.config().page_tokens, pool.free_pages());
  pages_per_slot_ = int32_t(pages);
  std::vector<int32_t> taken;
  pool.allocate(all, taken);
  first_ = taken.front();
  for (size_t i = 0; i < taken.size(); ++i)
    if (taken[i] != first_ + int32_t(i)) {
      for (size_t j = taken.size(); j-- > 0;) pool.release(taken[j]);
      fail(ErrorKind::invalid_argument,
           "slots need pages that lie side by side, and others have used the pool");
    }
  open_.assign(size_t(slots), false);
}

SlotPool::~SlotPool() {
  for (int slot = slots_; slot-- > 0;) {
    assert(!open_[size_t(slot)]);
    for (int32_t p = pages_per_slot_; p-- > 0;) pool_.release(first_page(slot) + p);
  }
}

int64_t SlotPool::slot_bytes() const {
  const auto& c = pool_.config();
  return int64_t{c.layers} * c.kv_heads * pages_per_slot_ * c.page_tokens *
         (pool_.row_bytes(Part::K) + pool_.row_bytes(Part::V));
}

// The pool hands out what came back last, so that a run given back from its end is what the sequence gets.
Sequence SlotPool::open(int slot) {
  assert(slot >= 0 && slot < slots_ && !open_[size_t(slot)]);
  open_[size_t(slot)] = true;
  for (int32_t p = pages_per_slot_; p-- > 0;) pool_.release(first_page(slot) + p);
  Sequence sequence(pool_);
  sequence.reserve(slot_tokens_);
  assert(sequence.block_table().front() == first_page(slot));
  return sequence;
}

void SlotPool::close(int slot, Sequence& sequence) {
  assert(open_[size_t(slot)] && sequence.block_table().front() == first_page(slot));
  open_[size_t(slot)] = false;
  sequence.release();
  std::vector<int32_t> pages;
  pool_.allocate(pages_per_slot_, pages);
  assert(pages.front() == first_page(slot) && pages.back() == first_page(slot) + pages_per_slot_ - 1);
}

int64_t SlotPool::move(int from, int to, Sequence& sequence) {
  assert(from != to);
  const int64_t tokens = sequence.length(), page_tokens = pool_.config().page_tokens;
  Sequence moved = open(to);
  for (int64_t done = 0; done < tokens; done += page_tokens) {
    const auto page = int32_t(done / page_tokens);
    pool_.copy_page(first_page(from) + page, first_page(to) + page, std::min(page_tokens, tokens - done));
  }
  moved.append(tokens);
  close(from, sequence);
  sequence = std::move(moved);
  const auto& c = pool_.config();
  return tokens * c.layers * c.kv_heads * (pool_.row_bytes(Part::K) + pool_.row_bytes(Part::V));
}

Shuffle plan_shuffle(std::span<const uint8_t> live) {
  const int slots = int(live.size());
  const auto at = [&](int slot) { return live[size_t(slot)] != 0; };
  int width = 0;
  for (int i = 0; i < slots; ++i) width += at(i);
  Shuffle shuffle;
  if (width == 0) return shuffle;
  int inside = 0;
  for (int i = 0; i < width; ++i) inside += at(i);
  for (int low = 1, most = inside; low + width <= slots; ++low) {
    inside += int(at(low + width - 1)) - int(at(low - 1));
    if (inside > most) most = inside, shuffle.low = low;
  }
  shuffle.high = shuffle.low + width - 1;
  int hole = shuffle.low;
  for (int i = 0; i < slots; ++i) {
    if (!at(i) || (i >= shuffle.low && i <= shuffle.high)) continue;
    while (at(hole)) ++hole;
    shuffle.moves.emplace_back(i, hole++);
  }
  return shuffle;
}

}  // namespace cairn::kv
