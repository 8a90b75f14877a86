// Answers whose tokens are drawn by the executor, one step ahead, on the CPU.
#include "engine/generate.h"

#include "engine/overlap_testing.h"

namespace cairn::engine {
namespace {

TEST(Generate, StepsAheadGiveTheSameAnswers) {
  EngineOptions o;
  o.place = Place::cpu;
  o.threads = 2;
  o.context = 256;
  o.cache_tokens = 1024;
  Engine engine(models::open_model(testing::stories()), o);
  const auto tokenizer = text::load_tokenizer(testing::stories());
  EXPECT_FALSE(engine.overlaps());
  testing::expect_same_answers(engine, *tokenizer);
}

// Two sequences, the second of which starts while a step of the first is under way; scores of one and tokens
// of the other in one step.
TEST(Generate, AStepMayWantScoresAndTokens) {
  EngineOptions o;
  o.place = Place::cpu;
  o.threads = 2;
  o.context = 64;
  o.cache_tokens = 512;
  Engine engine(models::open_model(testing::stories()), o);
  const int64_t vocabulary = engine.model().vocabulary_size;
  text::Draw greedy;
  kv::Sequence a(engine.kv()), b(engine.kv()), c(engine.kv());
  const std::vector<int32_t> first = {5, 6, 7}, second = {9, 10};
  const auto step = [](kv::Sequence& s, std::span<const int32_t> tokens, const text::Draw* draw,
                       int64_t drawn_row) {
    backends::SequenceStep one;
    one.sequence = &s, one.tokens = tokens, one.logit_rows = 1, one.rope_length = 64;
    one.draw = draw, one.drawn_row = drawn_row;
    return one;
  };
  std::vector<backends::SequenceStep> one = {step(b, second, nullptr, -1), step(a, first, &greedy, -1)};
  engine.enqueue(one);
  const int32_t unknown = 0;
  std::vector<backends::SequenceStep> two = {step(a, {&unknown, 1}, nullptr, 1)};
  engine.enqueue(two);
  EXPECT_EQ(a.length(), 4);
  const auto got = engine.finish();
  ASSERT_EQ(got.rows, 2);
  const std::vector<float> scores_of_b(got.logits, got.logits + vocabulary);
  const int32_t drawn = got.tokens[1];
  const auto last = engine.finish();
  const std::vector<float> after(last.logits, last.logits + vocabulary);

  const auto alone = engine.feed(c, second, 1, 64);
  EXPECT_EQ(scores_of_b, std::vector<float>(alone.logits, alone.logits + vocabulary));
  c.truncate(0);
  auto scores = engine.feed(c, first, 1, 64);
  EXPECT_EQ(drawn, std::max_element(scores.logits, scores.logits + vocabulary) - scores.logits);
  scores = engine.feed(c, {&drawn, 1}, 1, 64);
  EXPECT_EQ(after, std::vector<float>(scores.logits, scores.logits + vocabulary));
}

}  // namespace
}  // namespace cairn::engine
