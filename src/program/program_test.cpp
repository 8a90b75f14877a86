#include "program/program.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "program/arena.h"
#include "program/builder.h"
#include "program/fuse.h"

namespace cairn::program {
namespace {

// Two layers of everything that a decoder has: attention, a gated MLP, experts.
Program small_program() {
  Builder b("test (nowhere)");
  Value x = b.embed(b.ids(), "embed.weight", 100, 32);
  const auto rope = b.rope_table({{}, 10000, 8, 64});
  for (int layer = 0; layer < 2; ++layer) {
    b.layer(layer);
    const Value n = b.rms_norm(x, "norm.weight", 1e-6f);
    const Builder::Linear projections[] = {{"q.weight", 32, {}}, {"k.weight", 16, {}}, {"v.weight", 16, {}}};
    const auto qkv = b.matmul(n, projections);
    const Value q = b.rope(qkv[0], 4, 8, 8, RopePairing::half, rope);
    const Value k = b.rope(qkv[1], 2, 8, 8, RopePairing::half, rope);
    Builder::AttentionOptions attention;
    attention.heads = 4, attention.kv_heads = 2, attention.head_dim_k = attention.head_dim_v = 8,
    attention.scale = 1;
    x = b.add(x, b.matmul(b.attention(q, k, qkv[2], attention), {"o.weight", 32, {}}));
    const Value m = b.rms_norm(x, "norm2.weight", 1e-6f);
    const Builder::Linear mlp[] = {{"gate.weight", 48, {}}, {"up.weight", 48, {}}};
    const auto gate_up = b.matmul(m, mlp);
    x = b.add(x, b.matmul(b.gated(gate_up[0], gate_up[1], Activation::silu), {"down.weight", 32, {}}));
    const auto routed = b.route(b.matmul(x, {"router.weight", 4, {}}), 2, Routing::softmax_topk);
    const Builder::Linear expert[] = {{"experts.weight", 32, {}}};
    x = b.add(x, b.expert_combine(b.expert_matmul(x, routed.chosen, false, 4, expert)[0], routed.weights));
  }
  x = b.rms_norm(b.gather_logit_rows(x), "final.weight", 1e-6f);
  b.logits(x, {"embed.weight", 100, {}}, 1, 30);
  return b.finish();
}

std::string refusal(const Program& program) {
  try {
    check(program);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_file);
    return error.what();
  }
  return "accepted";
}

TEST(Program, TiedEmbeddingIsOneWeight) {
  const Program program = small_program();
  int named = 0;
  for (const auto& weight : program.weights) named += weight.name == "embed.weight";
  EXPECT_EQ(named, 1);
  EXPECT_EQ(program.ropes.size(), 1u);
  EXPECT_EQ(program.kv.size(), 2u);
}

TEST(Program, PrintsOneLinePerInstruction) {
  const std::string text = print(small_program());
  EXPECT_NE(text.find("layer 1\n"), std::string::npos) << text;
  EXPECT_NE(text.find("[tokens, 32] = rms_norm("), std::string::npos) << text;
  EXPECT_NE(text.find("attention("), std::string::npos);
  EXPECT_NE(text.find("softcap=30"), std::string::npos);
  EXPECT_NE(text.find("[2*tokens, 32] = expert_matmul("), std::string::npos) << text;
}

TEST(Program, CheckerNamesInstructionAndBothValues) {
  Program program = small_program();
  for (auto& instruction : program.instructions)
    if (auto* norm = std::get_if<RmsNorm>(&instruction.operation); norm && instruction.layer == 1) {
      program.weights[size_t(norm->weight.id)].shape = {31};
      break;
    }
  const std::string message = refusal(program);
  EXPECT_NE(message.find("test (nowhere)"), std::string::npos) << message;
  EXPECT_NE(message.find("rms_norm layers."), std::string::npos) << message;
  EXPECT_NE(message.find("[31]"), std::string::npos) << message;
  EXPECT_NE(message.find("[32]"), std::string::npos) << message;
}

TEST(Program, CheckerRefusesUseBeforeDefinitionAndDoubleDefinition) {
  Program program = small_program();
  std::swap(program.instructions[1], program.instructions[2]);
  EXPECT_NE(refusal(program).find("before it is written"), std::string::npos);
  program = small_program();
  program.instructions.push_back(program.instructions[1]);
  EXPECT_NE(refusal(program).find("already has a value"), std::string::npos);
}

TEST(Program, CheckerRefusesWrongHeadCountsAndWindows) {
  Program program = small_program();
  for (auto& instruction : program.instructions)
    if (auto* attention = std::get_if<Attention>(&instruction.operation)) attention->heads = 3;
  EXPECT_NE(refusal(program).find("3 query heads are not a multiple of 2 KV heads"), std::string::npos);
}

// No two values that are alive at the same instruction share a byte.
void expect_disjoint(const Program& program, const Bounds& bounds) {
  const ArenaPlan plan = plan_arena(program, bounds);
  EXPECT_GE(plan.bytes, plan.lower_bound);
  const auto bytes = [&](Value v) {
    int64_t elements = 1;
    for (const Extent extent : program.info(v).shape) elements *= bounds.of(extent);
    return elements * int64_t(tensor::bytes_of(program.info(v).dtype));
  };
  std::vector<int> first(program.values.size(), -1), last(program.values.size(), -1);
  const auto see = [&](Value v, int at) {
    if (first[size_t(v.id)] < 0) first[size_t(v.id)] = at;
    last[size_t(v.id)] = at;
  };
  for (Value v : {program.ids, program.positions, program.logit_rows}) see(v, 0);
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const Uses used = uses(program.instructions[i].operation);
    for (Value v : used.in) see(v, int(i));
    for (Value v : used.out) see(v, int(i));
  }
  for (Value v : {program.logits, program.hidden}) see(v, int(program.instructions.size()));
  for (int32_t a = 0; a < int32_t(first.size()); ++a)
    for (int32_t b = a + 1; b < int32_t(first.size()); ++b) {
      const auto sa = size_t(a), sb = size_t(b);
      if (first[sa] < 0 || first[sb] < 0 || last[sa] < first[sb] || last[sb] < first[sa]) continue;
      if (bytes({a}) == 0 || bytes({b}) == 0) continue;
      const int64_t oa = plan.offsets[sa], ob = plan.offsets[sb];
      EXPECT_TRUE(oa + bytes({a}) <= ob || ob + bytes({b}) <= oa) << "values " << a << " and " << b;
      EXPECT_LE(oa + bytes({a}), plan.bytes);
    }
}

TEST(Arena, LiveValuesNeverOverlap) {
  for (const Bounds bounds : {Bounds{1, 1}, Bounds{17, 3}, Bounds{512, 8}}) {
    expect_disjoint(small_program(), bounds);
    expect_disjoint(fuse(small_program()), bounds);
    expect_disjoint(expand(small_program()), bounds);
  }
}

TEST(Arena, ReusesMemoryAcrossLayers) {
  const ArenaPlan plan = plan_arena(small_program(), {512, 1});
  int64_t all = 0;
  for (const auto& value : small_program().values) {
    int64_t elements = 4;
    for (const Extent extent : value.shape) elements *= Bounds{512, 1}.of(extent);
    all += elements;
  }
  EXPECT_LT(plan.bytes, all / 2);
  EXPECT_LE(plan.bytes, plan.lower_bound * 5 / 4);
}

template <typename Op>
int count(const Program& program) {
  int found = 0;
  for (const auto& instruction : program.instructions)
    found += std::holds_alternative<Op>(instruction.operation);
  return found;
}

TEST(Fuse, FindsGatedProductsAndResidualNorms) {
  const Program fused = fuse(small_program());
  EXPECT_EQ(count<GatedMatMul>(fused), 2);
  EXPECT_EQ(count<GatedActivation>(fused), 0);
  // attention's sum feeds norm2 in each layer, the last sum of layer 0 feeds layer 1's norm
  EXPECT_EQ(count<AddRmsNorm>(fused), 3);
}

TEST(Fuse, ExpandUndoesIt) {
  const Program program = small_program();
  const Program again = expand(fuse(program));
  EXPECT_EQ(count<GatedMatMul>(again), 0);
  EXPECT_EQ(count<AddRmsNorm>(again), 0);
  EXPECT_EQ(count<Logits>(again), 0);
  EXPECT_EQ(count<RmsNorm>(again), count<RmsNorm>(program));
  EXPECT_EQ(count<Add>(again), count<Add>(program));
  EXPECT_EQ(count<SoftCap>(again), 1);
}

TEST(Fuse, KeepsAGateThatSomebodyElseReads) {
  Builder b("test");
  const Value x = b.embed(b.ids(), "embed.weight", 10, 8);
  const Builder::Linear mlp[] = {{"gate.weight", 8, {}}, {"up.weight", 8, {}}};
  const auto gate_up = b.matmul(x, mlp);
  const Value y = b.add(b.gated(gate_up[0], gate_up[1], Activation::silu), gate_up[0]);
  b.logits(b.gather_logit_rows(y), {"embed.weight", 10, {}});
  EXPECT_EQ(count<GatedMatMul>(fuse(b.finish())), 0);
}

// The work of a product is exactly 2 m n k, and its weight is read once whatever the rows.
TEST(Work, CountsProductsAndAttention) {
  Program program = small_program();
  for (auto& weight : program.weights) weight.bytes = 1000;
  StepSizes sizes;
  sizes.tokens = 3;
  sizes.context = 10;
  for (const auto& instruction : program.instructions) {
    const Work counted = work(program, instruction, sizes);
    if (instruction.name == "layers.0.o") {
      EXPECT_EQ(counted.operations, 2u * 3 * 32 * 32);
      EXPECT_EQ(counted.weight_bytes, 1000u);
    }
    if (instruction.name == "layers.0.attention") {
      // rows see 11, 12 and 13 keys; 4 heads, 8 + 8 elements each
      EXPECT_EQ(counted.operations, 2u * (11 + 12 + 13) * 4 * 16);
      EXPECT_EQ(counted.kv_bytes, 13u * 2 * 16 * 2);
    }
  }
}

}  // namespace
}  // namespace cairn::program
