#include "kv/slots.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/error.h"

namespace cairn::kv {
namespace {

TEST(Shuffle, MovesAsFewAsAnyWindowNeeds) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20000; ++round) {
    const int slots = 1 + int(random() % 64);
    std::vector<uint8_t> live(static_cast<size_t>(slots));
    const uint64_t density = 1 + random() % 9;
    int count = 0;
    for (auto& c : live) count += c = random() % 10 < density;
    const Shuffle s = plan_shuffle(live);
    ASSERT_EQ(s.high - s.low + 1, count);
    if (count == 0) continue;
    // Every way to be adjoining, tried.
    int fewest = slots;
    for (int low = 0; low + count <= slots; ++low) {
      int outside = count;
      for (int i = low; i < low + count; ++i) outside -= live[size_t(i)];
      fewest = std::min(fewest, outside);
    }
    ASSERT_EQ(int(s.moves.size()), fewest);
    for (const auto& [from, to] : s.moves) {
      ASSERT_TRUE(live[size_t(from)] && !live[size_t(to)]);
      std::swap(live[size_t(from)], live[size_t(to)]);
    }
    for (int i = 0; i < slots; ++i) ASSERT_EQ(live[size_t(i)] != 0, i >= s.low && i <= s.high);
  }
}

// A byte that names layer, head, token and part: whatever is left behind or swapped shows.
struct Filled {
  KvPool pool{{.layers = 3,
               .kv_heads = 2,
               .head_dim_k = 8,
               .head_dim_v = 4,
               .page_tokens = 4,
               .form = KvForm::f32,
               .pages = 64 * 5}};

  static std::byte value(int tag, Part part, int layer, int head, int64_t token, int64_t byte) {
    return std::byte(
        uint8_t(tag * 131 + int(part) * 89 + layer * 53 + head * 29 + int(token) * 7 + int(byte)));
  }
  template <typename F>
  void each(const Sequence& s, F&& f) {
    for (const Part part : {Part::K, Part::V})
      for (int layer = 0; layer < 3; ++layer)
        for (int head = 0; head < 2; ++head)
          for (int64_t t = 0; t < s.length(); ++t)
            for (int64_t b = 0; b < pool.row_bytes(part); ++b)
              f(pool.head(part, layer, s.block_table()[size_t(t / 4)],
                          head)[t % 4 * pool.row_bytes(part) + b],
                part, layer, head, t, b);
  }
  void fill(const Sequence& s, int tag) {
    each(s, [&](std::byte& byte, Part part, int layer, int head, int64_t t, int64_t b) {
      byte = value(tag, part, layer, head, t, b);
    });
  }
  bool holds(const Sequence& s, int tag) {
    bool all = true;
    each(s, [&](std::byte& byte, Part part, int layer, int head, int64_t t, int64_t b) {
      all &= byte == value(tag, part, layer, head, t, b);
    });
    return all;
  }
};

TEST(SlotPool, MovesEveryLayerOfEverySlot) {
  std::mt19937_64 random(2);
  Filled f;
  {
    SlotPool slots(f.pool, 64, 18);
    EXPECT_EQ(f.pool.free_pages(), 0);
    EXPECT_EQ(slots.slot_bytes(), 3 * 2 * 20 * (32 + 16));
    std::vector<std::optional<Sequence>> live(64);
    std::vector<int> tag(64);
    int next_tag = 0;
    for (int round = 0; round < 300; ++round) {
      // Some end, some come, then all are made to adjoin.
      std::vector<uint8_t> occupied(64);
      for (int i = 0; i < 64; ++i) {
        auto& s = live[size_t(i)];
        if (s && random() % 3 == 0) {
          slots.close(i, *s);
          s.reset();
        } else if (!s && random() % 6 == 0) {
          s = slots.open(i);
          s->append(1 + int64_t(random() % 18));
          f.fill(*s, tag[size_t(i)] = ++next_tag);
        }
        occupied[size_t(i)] = s.has_value();
      }
      for (const auto& [from, to] : plan_shuffle(occupied).moves) {
        const int64_t tokens = live[size_t(from)]->length();
        EXPECT_EQ(slots.move(from, to, *live[size_t(from)]), tokens * 3 * 2 * (32 + 16));
        live[size_t(to)] = std::move(live[size_t(from)]);
        live[size_t(from)].reset();
        tag[size_t(to)] = tag[size_t(from)];
        EXPECT_EQ(live[size_t(to)]->length(), tokens);
      }
      for (int i = 0; i < 64; ++i)
        if (auto& s = live[size_t(i)]) {
          ASSERT_EQ(s->block_table().size(), 5u);
          for (size_t p = 0; p < 5; ++p) ASSERT_EQ(s->block_table()[p], slots.first_page(i) + int32_t(p));
          ASSERT_TRUE(f.holds(*s, tag[size_t(i)])) << round << " " << i;
          if (random() % 4 == 0 && s->length() < 18) s->append(1), f.fill(*s, tag[size_t(i)]);
        }
    }
    for (int i = 0; i < 64; ++i)
      if (live[size_t(i)]) slots.close(i, *live[size_t(i)]);
  }
  EXPECT_EQ(f.pool.free_pages(), 64 * 5);
}

TEST(SlotPool, RefusesAPoolThatIsTooSmallOrUsed) {
  Filled f;
  EXPECT_THROW(SlotPool(f.pool, 65, 20), Error);
  EXPECT_THROW(SlotPool(f.pool, 0, 20), Error);
  EXPECT_THROW(SlotPool(f.pool, 4, 0), Error);
  {
    Sequence a(f.pool), b(f.pool);
    a.append(4), b.append(4);
  }  // b's page, then a's: the free list is out of order
  std::vector<int32_t> pages;
  f.pool.allocate(1, pages);
  Sequence c(f.pool);
  c.append(4);
  f.pool.release(pages[0]);
  EXPECT_EQ(f.pool.free_pages(), 64 * 5 - 1);
  c.release();
  try {
    SlotPool slots(f.pool, 64, 20);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("side by side"), std::string::npos) << e.what();
  }
  EXPECT_EQ(f.pool.free_pages(), 64 * 5);  // and nothing was kept
}

}  // namespace
}  // namespace cairn::kv
