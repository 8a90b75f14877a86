#include "program/decode_groups.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "program/builder.h"
#include "program/fuse.h"

namespace cairn::program {
namespace {

// Three layers of a product and a gated one; the table makes the scores too.
Program small_program() {
  Builder b("test (nowhere)");
  Value x = b.embed(b.ids(), "embed.weight", 100, 32);
  for (int layer = 0; layer < 3; ++layer) {
    b.layer(layer);
    const std::string name = "layers." + std::to_string(layer);
    x = b.matmul(x, {name + ".q.weight", 32, {}});
    const Builder::Linear mlp[] = {{name + ".gate.weight", 48, {}}, {name + ".up.weight", 48, {}}};
    const auto gate_up = b.matmul(x, mlp);
    x = b.add(x,
              b.matmul(b.gated(gate_up[0], gate_up[1], Activation::silu), {name + ".down.weight", 32, {}}));
  }
  b.layer(-1);
  b.logits(b.gather_logit_rows(x), {"embed.weight", 100, {}});
  return b.finish();
}

// -1 for all but weights whose name begins so.
std::vector<int32_t> groups(const Program& program, std::initializer_list<std::string_view> prefixes) {
  std::vector<int32_t> result;
  for (const auto& weight : program.weights) {
    result.push_back(-1);
    int32_t group = 0;
    for (const auto prefix : prefixes) {
      if (weight.name.starts_with(prefix)) result.back() = group;
      ++group;
    }
  }
  return result;
}

struct Decoded {
  int32_t layer, place;
  size_t weights;
  bool for_lookup, on_host;
  bool operator==(const Decoded&) const = default;
};
std::vector<Decoded> decoded(const Program& program) {
  std::vector<Decoded> all;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<DecodeGroup>(&instruction.operation))
      all.push_back({instruction.layer, op->place, op->weights.size(), op->for_lookup, op->on_host});
  return all;
}

TEST(DecodeGroups, StandBeforeWhatReadsThem) {
  const Program plain = small_program();
  const Program program = decode_groups(plain, groups(plain, {"embed", "layers.0", "layers.1", "layers.2"}));
  check(program);
  EXPECT_EQ(decoded(program), (std::vector<Decoded>{{-1, 0, 1, true, false},
                                                    {0, 1, 4, false, false},
                                                    {1, 0, 4, false, false},
                                                    {2, 1, 4, false, false},
                                                    {-1, 0, 1, false, false}}));
  EXPECT_EQ(without_decode_groups(program).instructions, plain.instructions);
  // Fusing finds what it finds without them.
  EXPECT_EQ(without_decode_groups(fuse(program)).instructions, fuse(plain).instructions);
  // One group for everything is decoded once, and not for a lookup alone.
  const Program one = decode_groups(plain, groups(plain, {""}));
  EXPECT_EQ(decoded(one), (std::vector<Decoded>{{-1, 0, 13, false, false}}));
}

TEST(DecodeGroups, AreKeptOnTheHostByLayer) {
  const Program plain = small_program();
  const Program grouped = decode_groups(plain, groups(plain, {"embed", "layers.0", "layers.1", "layers.2"}));
  const auto some = decoded(keep_on_host(grouped, 2));
  EXPECT_TRUE(some[1].on_host && some[2].on_host);
  EXPECT_FALSE(some[0].on_host || some[3].on_host || some[4].on_host);
  // Layers that are stored plainly become groups of their matrices.
  EXPECT_EQ(decoded(keep_on_host(plain, 2)),
            (std::vector<Decoded>{{0, 0, 4, false, true}, {1, 1, 4, false, true}}));
  EXPECT_TRUE(decoded(keep_on_host(plain, 0)).empty());
}

TEST(DecodeGroups, RefuseAnInstructionOfTwoGroups) {
  const Program plain = small_program();
  try {
    decode_groups(plain, groups(plain, {"layers.1.gate", "layers.1.up"}));
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("reads weights of two groups"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace cairn::program
