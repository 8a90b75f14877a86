#include "backends/cuda/attention_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "base/error.h"

namespace cairn::cuda {
namespace {

using attention::AttentionPlan;

struct Batch {
  AttentionPlan plan;
  std::vector<RowClass> classes;
  std::vector<int32_t> tables;

  void add(int64_t length, int32_t rows, RowClass row_class) {
    const int64_t row = plan.rows();
    plan.sequences.push_back({.row_begin = row, .rows = rows, .position = length - rows, .kv_len = length});
    classes.push_back(row_class);
    tables.push_back(int32_t(1000 * tables.size()));
  }
};

std::vector<int64_t> zipf_lengths(int count, double mean, unsigned seed) {
  std::vector<double> shares;
  for (int i = 0; i < count; ++i) shares.push_back(1.0 / (i + 1));
  double sum = 0;
  for (const double s : shares) sum += s;
  std::vector<int64_t> lengths;
  for (const double s : shares) lengths.push_back(std::max<int64_t>(1, int64_t(s / sum * mean * count)));
  std::mt19937 random(seed);
  std::shuffle(lengths.begin(), lengths.end(), random);
  return lengths;
}

// Every (row, token) that a decode row sees is in exactly one item, in the chunk that its part says.
void expect_decode_coverage(const Batch& batch, const ScheduleShape& shape, const Schedule& s) {
  std::map<int, int> q_row_to_decode;
  for (size_t i = 0; i < s.decode_rows.size(); ++i)
    EXPECT_TRUE(q_row_to_decode.emplace(s.decode_rows[i].q_row, int(i)).second);
  std::vector<int64_t> seen(s.decode_rows.size());
  std::vector<std::vector<int>> chunks(s.decode_rows.size());
  std::map<int, int> states;  // state -> decode row
  for (const DecodeItem& item : s.decode_items) {
    ASSERT_GE(item.first_row, 0);
    ASSERT_LE(item.first_row + item.rows, int(s.decode_rows.size()));
    for (int r = item.first_row; r < item.first_row + item.rows; ++r) {
      const DecodeRow& row = s.decode_rows[size_t(r)];
      const int64_t begin = std::max(item.token_begin, row.begin),
                    end = std::min(item.token_end, row.position + 1);
      const bool counted = item.chunk >= row.first_chunk && item.chunk < row.first_chunk + row.parts;
      EXPECT_EQ(counted, begin < end);
      if (!counted) continue;
      seen[size_t(r)] += end - begin;
      chunks[size_t(r)].push_back(item.chunk);
      if (row.parts > 1) {
        const int state = row.state_base + item.chunk;
        EXPECT_GE(state, 0);
        EXPECT_LT(state, s.state_parts);
        EXPECT_TRUE(states.emplace(state, r).second) << "two chunks share state " << state;
      }
    }
  }
  for (size_t i = 0; i < batch.plan.sequences.size(); ++i) {
    if (batch.classes[i] != RowClass::decode) continue;
    const auto& q = batch.plan.sequences[i];
    for (int r = 0; r < q.rows; ++r) {
      const auto found = q_row_to_decode.find(int(q.row_begin + r));
      ASSERT_NE(found, q_row_to_decode.end());
      const auto d = size_t(found->second);
      const auto wanted = attention::visible(shape.mask, q.position + r, q.kv_len);
      EXPECT_EQ(s.decode_rows[d].position, q.position + r);
      EXPECT_EQ(s.decode_rows[d].begin, wanted.begin);
      EXPECT_EQ(seen[d], wanted.end - wanted.begin);
      std::sort(chunks[d].begin(), chunks[d].end());
      EXPECT_EQ(int(chunks[d].size()), s.decode_rows[d].parts);
      EXPECT_EQ(std::adjacent_find(chunks[d].begin(), chunks[d].end()), chunks[d].end());
    }
  }
}

void expect_prompt_coverage(const Batch& batch, const ScheduleShape& shape, const Schedule& s) {
  std::map<std::pair<int, int>, int> count;  // (q row, KV head)
  for (const PromptItem& item : s.prompt_items) {
    EXPECT_LE(item.rows * (shape.mask.heads / shape.mask.kv_heads), shape.prompt_vectors);
    for (int r = 0; r < item.rows; ++r) {
      ++count[{item.q_row + r, item.kv_head}];
      const auto wanted = attention::visible(shape.mask, item.position + r, item.kv_len);
      EXPECT_LE(item.token_begin, wanted.begin);
      EXPECT_GE(item.token_end, wanted.end);
    }
  }
  size_t rows = 0;
  for (size_t i = 0; i < batch.plan.sequences.size(); ++i)
    if (batch.classes[i] == RowClass::prompt) rows += size_t(batch.plan.sequences[i].rows);
  EXPECT_EQ(count.size(), rows * size_t(shape.mask.kv_heads));
  for (const auto& [key, n] : count) EXPECT_EQ(n, 1) << "row " << key.first << " head " << key.second;
}

TEST(AttentionSchedule, CoversEveryTokenOnce) {
  std::mt19937 random(3);
  for (const int group : {1, 4, 7, 8, 16})
    for (const int window : {0, 1, 100, 3000}) {
      SCOPED_TRACE(::testing::Message() << "group " << group << " window " << window);
      Batch batch;
      for (int i = 0; i < 40; ++i) {
        const int64_t length = 1 + int64_t(random() % (i % 4 == 0 ? 70000 : 6000));
        const auto row_class = i % 3 == 0 ? RowClass::prompt : RowClass::decode;
        const int64_t most = row_class == RowClass::prompt ? 700 : 9;
        batch.add(length, int32_t(1 + int64_t(random()) % std::min(length, most)), row_class);
      }
      batch.add(4110, 30, RowClass::decode);  // rows on both sides of a change of the chunk's size
      batch.add(513, 3, RowClass::decode);
      for (const int vectors : {8, 16}) {
        const ScheduleShape shape{.mask = {3 * group, 3, window, true}, .decode_vectors = vectors};
        Schedule s;
        make_schedule(batch.plan, batch.classes, batch.tables, shape, s);
        expect_decode_coverage(batch, shape, s);
        expect_prompt_coverage(batch, shape, s);
      }
    }
}

// Rows of sequences that begin with the same pages are read together; every (row, token) still once.
TEST(AttentionSchedule, GathersRowsThatReadTheSamePages) {
  std::mt19937 random(7);
  for (const int group : {1, 4, 8}) {
    Batch batch;
    std::vector<std::vector<int32_t>> tables;
    int32_t next = 0;
    for (int i = 0; i < 30; ++i) {
      const int64_t length = 100 + int64_t(random() % 9000);
      batch.add(length, int32_t(1 + random() % 3), RowClass::decode);
      std::vector<int32_t> pages(size_t(length / 32 + 1));
      for (int32_t& page : pages) page = next++;
      if (i % 3 != 0) {
        const auto& from = tables[random() % tables.size()];
        std::copy_n(from.begin(), random() % std::min(from.size(), pages.size()), pages.begin());
      }
      tables.push_back(pages);
    }
    for (size_t i = 0; i < tables.size(); ++i) batch.plan.sequences[i].block_table = tables[i];
    const ScheduleShape alone{.mask = {2 * group, 2, 0, true}};
    ScheduleShape gathered = alone;
    gathered.shared_vectors = 32, gathered.page_tokens = 32;
    Schedule a, b;
    make_schedule(batch.plan, batch.classes, batch.tables, alone, a);
    make_schedule(batch.plan, batch.classes, batch.tables, gathered, b);
    EXPECT_TRUE(a.shared_items.empty());
    EXPECT_FALSE(b.shared_items.empty());
    ASSERT_EQ(a.decode_rows.size(), b.decode_rows.size());
    const auto reads = [](const Schedule& s) {
      std::map<std::pair<int, int>, std::vector<std::pair<int, int>>> all;  // (row, chunk) -> tokens
      for (const DecodeItem& i : s.decode_items)
        for (int r = i.first_row; r < i.first_row + i.rows; ++r)
          if (s.decode_rows[size_t(r)].parts > i.chunk)
            all[{r, i.chunk}].push_back(
                {i.token_begin, std::min(i.token_end, s.decode_rows[size_t(r)].position + 1)});
      for (const DecodeItem& i : s.shared_items)
        for (int r = i.first_row; r < i.first_row + i.rows; ++r)
          all[{s.shared_rows[size_t(r)], i.chunk}].push_back({i.token_begin, i.token_end});
      return all;
    };
    EXPECT_EQ(reads(a), reads(b));
    for (const DecodeItem& i : b.shared_items) {
      EXPECT_LE(i.rows * group, 32);
      for (int r = i.first_row; r < i.first_row + i.rows; ++r) {
        const DecodeRow& row = b.decode_rows[size_t(b.shared_rows[size_t(r)])];
        EXPECT_EQ(chunk_tokens(row.position), i.token_end - i.token_begin);
        // The sequence whose row it is has the item's pages there.
        size_t owner = 0;
        while (batch.plan.sequences[owner].row_begin + batch.plan.sequences[owner].rows <= row.q_row) ++owner;
        EXPECT_LE(i.token_end, batch.plan.sequences[owner].position);
        const auto& pages = tables[owner];
        const auto& read = tables[size_t(i.table / 1000)];
        EXPECT_TRUE(std::equal(pages.begin() + i.token_begin / 32, pages.begin() + i.token_end / 32,
                               read.begin() + i.token_begin / 32));
      }
    }
  }
}

TEST(AttentionSchedule, CutsARowByItsPositionAlone) {
  const ScheduleShape shape{.mask = {8, 2, 0, true}};
  const auto parts_of = [&](const Batch& batch, int q_row) {
    Schedule s;
    make_schedule(batch.plan, batch.classes, batch.tables, shape, s);
    for (const DecodeRow& r : s.decode_rows)
      if (r.q_row == q_row) return std::vector<int>{r.position, r.begin, r.parts, r.first_chunk};
    return std::vector<int>{};
  };
  for (const int64_t length : {1, 511, 512, 513, 4096, 4097, 4098, 20000}) {
    Batch alone, crowded;
    alone.add(length, 1, RowClass::decode);
    for (int i = 0; i < 63; ++i) crowded.add(1 + 517 * i % 9000, 1, RowClass::decode);
    crowded.add(length, 1, RowClass::decode);
    EXPECT_EQ(parts_of(alone, 0), parts_of(crowded, 63)) << length;
    if (length < 4) continue;
    Batch several;
    several.add(length, 4, RowClass::decode);
    EXPECT_EQ(parts_of(alone, 0), parts_of(several, 3)) << length;
  }
}

TEST(AttentionSchedule, KeepsWorkersEvenlyBusy) {
  for (const bool zipf : {false, true}) {
    Batch batch;
    for (const int64_t n : zipf ? zipf_lengths(64, 4096, 5) : std::vector<int64_t>(64, 4096))
      batch.add(n, 1, RowClass::decode);
    const ScheduleShape shape{.mask = {32, 8, 0, true}};
    Schedule s;
    make_schedule(batch.plan, batch.classes, batch.tables, shape, s);
    // Workers take items in turn, as attention_decode.cu does; 264 of them.
    std::vector<int64_t> cost(264);
    int64_t largest = 0, total = 0;
    for (size_t i = 0; i < s.decode_items.size() * 8; ++i) {
      const DecodeItem& item = s.decode_items[i / 8];
      cost[i % cost.size()] += item.token_end - item.token_begin;
      total += item.token_end - item.token_begin;
      largest = std::max<int64_t>(largest, item.token_end - item.token_begin);
    }
    const double mean = double(total) / double(cost.size());
    EXPECT_LE(double(*std::max_element(cost.begin(), cost.end())), 1.10 * mean + double(largest))
        << "zipf " << zipf;
  }
}

TEST(AttentionSchedule, TakesNoLongerThanTwoHundredMicroseconds) {
  Batch batch;
  for (const int64_t n : zipf_lengths(256, 4096, 9)) batch.add(n, 1, RowClass::decode);
  const ScheduleShape shape{.mask = {32, 8, 0, true}};
  Schedule s;
  double best = 1e9;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    make_schedule(batch.plan, batch.classes, batch.tables, shape, s);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  RecordProperty("microseconds", int(best * 1e6));
  EXPECT_LE(best, 200e-6);
}

TEST(AttentionSchedule, ForeseesTheMostChunks) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 200; ++trial) {
    const int rows = 1 + int(random() % 40);
    Batch batch;
    int64_t tokens = 0;
    for (int i = 0; i < rows; ++i) {
      const int64_t length = 1 + int64_t(random() % (1u << (1 + random() % 18)));
      batch.add(length, 1, RowClass::decode), tokens += length;
    }
    Schedule s;
    make_schedule(batch.plan, batch.classes, batch.tables, {.mask = {8, 8, 0, true}}, s);
    EXPECT_LE(s.state_parts, most_chunks(rows, tokens)) << rows << " rows, " << tokens << " tokens";
  }
  EXPECT_LE(most_chunks(1, 131072), 50);
}

TEST(AttentionSchedule, RefusesWhatCannotBe) {
  Schedule s;
  const auto refuse = [&](const Batch& batch, const ScheduleShape& shape, const char* words) {
    try {
      make_schedule(batch.plan, batch.classes, batch.tables, shape, s);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  Batch good;
  good.add(10, 2, RowClass::decode);
  refuse(good, {.mask = {30, 8, 0, true}}, "30 heads cannot share 8 KV heads");
  refuse(good, {.mask = {32, 8, 0, false}}, "not causal");
  refuse(good, {.mask = {2048, 8, 0, true}}, "256 heads per KV head");
  Batch late = good;
  late.plan.sequences[0].position = 9;
  refuse(late, {.mask = {32, 8, 0, true}}, "2 rows from row 0 at position 9, but its cache holds 10");
  const std::vector<uint32_t> words(3);
  Batch masked = good;
  masked.plan.sequences[0].mask = words;
  refuse(masked, {.mask = {32, 8, 0, true}},
         "the mask of sequence 0 has 3 words; 2 rows of 10 tokens need 2");
  masked.plan.sequences[0].mask_begin = 11;
  refuse(masked, {.mask = {32, 8, 0, true}}, "begins at token 11, but its cache holds 10");
  Batch short_classes = good;
  short_classes.classes.clear();
  refuse(short_classes, {.mask = {32, 8, 0, true}}, "1 sequences, but 0 classes");
}

}  // namespace
}  // namespace cairn::cuda
