#include "program/parts.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "program/arena.h"
#include "program/builder.h"

namespace cairn::program {
namespace {

// Embedding, two layers of attention and a product whose result a later layer reads too, scores.
Program program_of_two_layers() {
  Builder b("test (nowhere)");
  Value x = b.embed(b.ids(), "embed.weight", 100, 32), early;
  for (int layer = 0; layer < 2; ++layer) {
    b.layer(layer);
    const Builder::Linear projections[] = {{"q.weight", 32, {}}, {"k.weight", 16, {}}, {"v.weight", 16, {}}};
    const auto qkv = b.matmul(x, projections);
    Builder::AttentionOptions attention;
    attention.heads = 4, attention.kv_heads = 2, attention.head_dim_k = attention.head_dim_v = 8,
    attention.scale = 1;
    const Value o = b.matmul(b.attention(qkv[0], qkv[1], qkv[2], attention), {"o.weight", 32, {}});
    x = b.add(layer == 0 ? x : early, o);
    if (layer == 0) early = o;
  }
  b.logits(b.rms_norm(b.gather_logit_rows(x), "final.weight", 1e-6f), {"embed.weight", 100, {}});
  return b.finish();
}

Program with_first_layer_on(Lane lane) {
  Program program = program_of_two_layers();
  bool layers = false;
  for (auto& instruction : program.instructions) {
    layers |= instruction.layer >= 0;
    if (instruction.layer == 0 || !layers) instruction.lane = lane;
  }
  return program;
}

TEST(Parts, OneLaneIsThePartThatIsTheWhole) {
  const Program whole = program_of_two_layers();
  const Parts parts = cut_by_lane(whole);
  ASSERT_EQ(parts.parts.size(), 1u);
  EXPECT_EQ(parts.turns.size(), 1u);
  EXPECT_EQ(parts.parts[0].program.instructions, whole.instructions);
  EXPECT_TRUE(parts.parts[0].program.stages[0].in.empty());
  EXPECT_EQ(parts.parts[0].program.logits, whole.logits);
}

TEST(Parts, HandOverWhatCrossesAndNumberSlotsAnew) {
  const Program whole = with_first_layer_on(1);
  const Parts parts = cut_by_lane(whole);
  ASSERT_EQ(parts.parts.size(), 2u);
  ASSERT_EQ(parts.turns.size(), 2u);
  const Part &rest = parts.parts[0], &first = parts.parts[1];
  EXPECT_EQ(first.lane, 1);
  EXPECT_EQ(parts.turns[0].part, 1);
  EXPECT_FALSE(first.program.logits);
  EXPECT_EQ(rest.program.logits, whole.logits);
  EXPECT_EQ(rest.program.hidden, whole.hidden);
  EXPECT_EQ(first.slots, std::vector<int32_t>{0});
  EXPECT_EQ(rest.slots, std::vector<int32_t>{1});
  for (const auto& instruction : rest.program.instructions)
    if (const auto* op = std::get_if<Attention>(&instruction.operation)) {
      EXPECT_EQ(op->slot, 0);
    }
  // The first layer's sum feeds layer 1's products, its attention's product the sum after them.
  EXPECT_EQ(first.program.stages[0].out.size(), 2u);
  EXPECT_EQ(rest.program.stages[0].in, first.program.stages[0].out);
  for (size_t i = 0; i < rest.instructions.size(); ++i)
    EXPECT_EQ(rest.program.instructions[i].name, whole.instructions[size_t(rest.instructions[i])].name);
}

TEST(Parts, KeepHandedValuesAliveInTheArena) {
  const Parts parts = cut_by_lane(with_first_layer_on(1));
  const Bounds bounds{16, 2};
  for (const auto& part : parts.parts) {
    const ArenaPlan plan = plan_arena(part.program, bounds);
    for (const auto& stage : part.program.stages)
      for (const auto* values : {&stage.in, &stage.out})
        for (size_t a = 0; a < values->size(); ++a) {
          const int64_t at = plan.offsets[size_t((*values)[a].id)];
          EXPECT_NE(at, ArenaPlan::kNone);
          for (size_t b = 0; b < a; ++b)
            EXPECT_GE(std::abs(at - plan.offsets[size_t((*values)[b].id)]), 16 * 32 * 4);
        }
  }
}

TEST(Parts, RefuseACacheSlotOnTwoLanes) {
  Program program = program_of_two_layers();
  for (auto& instruction : program.instructions)
    if (std::holds_alternative<Attention>(instruction.operation) && instruction.layer == 1)
      instruction.lane = 1;
  try {
    cut_by_lane(program);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("cache slot 1 on lane 1, but lane 0 writes it"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace cairn::program
