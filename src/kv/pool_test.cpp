#include "kv/pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <set>
#include <string>

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

TEST(KvPool, BytesAreKnownBeforeAllocation) {
  KvConfig c = config();
  EXPECT_EQ(KvPool::bytes(c), 10 * 4 * 3 * 2 * (40 + 24) * 2);
  c.form = KvForm::q8_0;  // 40 and 24 elements are two and one blocks of 34 bytes
  EXPECT_EQ(KvPool::bytes(c), 10 * 4 * 3 * 2 * (2 + 1) * 34);
  c.form = KvForm::f32;
  EXPECT_EQ(KvPool::bytes(c), 10 * 4 * 3 * 2 * (40 + 24) * 4);
}

TEST(KvPool, RefusesConfigurationsThatMakeNoSense) {
  KvConfig c = config();
  c.page_tokens = 12;
  EXPECT_THROW(KvPool{c}, Error);
  c = config();
  c.kv_heads = 0;
  EXPECT_THROW(KvPool{c}, Error);
  c = config();
  c.pages = std::numeric_limits<int32_t>::max();
  c.layers = c.kv_heads = c.head_dim_k = 1 << 20;
  EXPECT_THROW(KvPool::bytes(c), Error);
}

TEST(KvPool, KeepsFormsOfGpusOutOfHostMemory) {
  KvConfig c = config();
  c.form = KvForm::e4m3;
  EXPECT_EQ(KvPool::bytes(c), 10 * 4 * 3 * 2 * (40 + 24));
  EXPECT_THROW(KvPool{c}, Error);
  EXPECT_EQ(KvPool(c, KvPool::Memory::elsewhere).free_pages(), 10);
}

TEST(KvPool, RowsOfDifferentOwnersDoNotOverlap) {
  KvPool pool(config());
  for (const Part part : {Part::K, Part::V}) {
    std::set<const std::byte*> seen;
    for (int layer = 0; layer < 3; ++layer)
      for (int32_t page = 0; page < 10; ++page)
        for (int head = 0; head < 2; ++head) {
          std::byte* rows = pool.head(part, layer, page, head);
          for (int token = 0; token < 4; ++token) {
            std::byte* row = rows + token * pool.row_bytes(part);
            std::memset(row, 0x5a,
                        size_t(pool.row_bytes(part)));  // inside the buffer: AddressSanitizer watches
            EXPECT_TRUE(seen.insert(row).second);
          }
        }
    auto next = seen.begin();
    for (auto it = next++; next != seen.end(); it = next++) EXPECT_GE(*next - *it, pool.row_bytes(part));
  }
}

TEST(KvPool, OutOfPagesNamesNeededAndFree) {
  KvPool pool(config());
  Sequence a(pool), b(pool);
  a.append(25);  // 7 pages
  EXPECT_EQ(pool.free_pages(), 3);
  b.append(4);
  try {
    b.append(12);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("needs 3 more pages of 4 tokens and has 2 free of 10"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(b.length(), 4);
  EXPECT_EQ(b.block_table().size(), 1u);
  EXPECT_EQ(pool.free_pages(), 2);
}

TEST(Sequence, TruncateKeepsThePagesStillUsed) {
  KvPool pool(config());
  Sequence s(pool);
  s.reserve(9);
  EXPECT_EQ(s.length(), 0);
  EXPECT_EQ(s.block_table().size(), 3u);
  s.append(9);
  EXPECT_EQ(s.block_table().size(), 3u);
  const int32_t first = s.block_table()[0];
  s.truncate(4);
  EXPECT_EQ(s.block_table().size(), 1u);
  EXPECT_EQ(s.block_table()[0], first);
  EXPECT_EQ(pool.free_pages(), 9);
  s.release();
  EXPECT_EQ(pool.free_pages(), 10);
}

TEST(Sequence, SharedPagesOutliveOneOwner) {
  KvPool pool(config());
  Sequence a(pool);
  a.append(4);
  const int32_t page = a.block_table()[0];
  pool.retain(page);
  a.release();
  EXPECT_EQ(pool.references(page), 1);
  EXPECT_EQ(pool.free_pages(), 9);
  pool.release(page);
  EXPECT_EQ(pool.free_pages(), 10);
}

TEST(Sequence, MovedFromOwnsNothing) {
  KvPool pool(config());
  Sequence a(pool);
  a.append(8);
  Sequence b(std::move(a));
  EXPECT_EQ(a.length(), 0);  // NOLINT(bugprone-use-after-move): what a moved-from sequence holds is the point
  EXPECT_EQ(b.length(), 8);
  a = std::move(b);
  EXPECT_EQ(pool.free_pages(), 8);
  a.release();
  EXPECT_EQ(pool.free_pages(), 10);
}

}  // namespace
}  // namespace cairn::kv
