#include "kv/spill.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "base/error.h"

namespace cairn::kv {
namespace {

KvConfig config() {
  return {.layers = 3,
          .kv_heads = 2,
          .head_dim_k = 40,
          .head_dim_v = 24,
          .page_tokens = 4,
          .form = KvForm::f16,
          .pages = 10};
}

void fill(KvPool& pool, int32_t page, int value) {
  for (const Part part : {Part::K, Part::V})
    for (int layer = 0; layer < 3; ++layer)
      for (int h = 0; h < 2; ++h)
        std::memset(pool.head(part, layer, page, h), value + layer, size_t(4 * pool.row_bytes(part)));
}
bool holds(const KvPool& pool, int32_t page, int value) {
  for (const Part part : {Part::K, Part::V})
    for (int layer = 0; layer < 3; ++layer)
      for (int h = 0; h < 2; ++h)
        for (int64_t i = 0; i < 4 * pool.row_bytes(part); ++i)
          if (pool.head(part, layer, page, h)[i] != std::byte(value + layer)) return false;
  return true;
}

// Whether it is ready is another thread's doing.
Spill::Kept store(Spill& spill, const Sequence& sequence) {
  Spill::Kept kept;
  for (int i = 0; i < 1000 && !kept; ++i) {
    kept = spill.store(sequence);
    if (!kept) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return kept;
}

TEST(Spill, GivesBackWhatItTook) {
  KvPool pool(config());
  const auto page_bytes = uint64_t(host_page_bytes(pool)->size());
  Spill spill(pool, host_page_bytes(pool), 5 * page_bytes + 1);
  EXPECT_EQ(spill.pages(), 5);
  Sequence sequence(pool);
  sequence.append(10);
  for (size_t i = 0; i < 3; ++i) fill(pool, sequence.block_table()[i], int(10 * (i + 1)));
  auto kept = store(spill, sequence);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept.tokens(), 10);
  EXPECT_EQ(spill.used_pages(), 3);

  Sequence other(pool);
  other.append(12);
  EXPECT_FALSE(spill.store(other));  // 3 pages, 2 are free
  for (const int32_t page : other.block_table()) fill(pool, page, 77);
  other.release();
  const int32_t first = sequence.block_table()[0];
  pool.retain(first);
  sequence.release();
  for (int32_t page = 0; page < 10; ++page)
    if (page != first) fill(pool, page, 99);

  // The first page was found elsewhere, the others are copied.
  spill.restore(kept, std::span(&first, 1), sequence);
  EXPECT_EQ(sequence.length(), 10);
  EXPECT_EQ(sequence.block_table()[0], first);
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(holds(pool, sequence.block_table()[i], int(10 * (i + 1)))) << i;
  EXPECT_FALSE(kept);
  EXPECT_EQ(spill.used_pages(), 0);

  // What is not wanted back gives its room back.
  { const auto dropped = store(spill, sequence); }
  EXPECT_EQ(spill.used_pages(), 0);
  sequence.release();
  EXPECT_EQ(pool.free_pages(), 10);
}

TEST(Spill, LeavesAllAsItWasWhenThePoolIsFull) {
  KvPool pool(config());
  Spill spill(pool, host_page_bytes(pool), 1 << 20);
  Sequence sequence(pool), all(pool);
  sequence.append(8);
  fill(pool, sequence.block_table()[1], 5);
  auto kept = store(spill, sequence);
  sequence.release();
  all.append(36);
  EXPECT_THROW(spill.restore(kept, {}, sequence), Error);
  EXPECT_TRUE(kept);
  EXPECT_EQ(sequence.length(), 0);
  all.release();
  spill.restore(kept, {}, sequence);
  EXPECT_TRUE(holds(pool, sequence.block_table()[1], 5));
}

}  // namespace
}  // namespace cairn::kv
