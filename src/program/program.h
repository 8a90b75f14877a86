// A model as a program: a straight line of typed instructions in SSA form over values whose row counts are
// symbols. Backends execute it, work.h's readers count it, print() shows it. Built once per model by a
// Builder.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "program/activation.h"
#include "program/attention.h"
#include "program/decode_group.h"
#include "program/elementwise.h"
#include "program/embed.h"
#include "program/experts.h"
#include "program/low_rank_ops.h"
#include "program/matmul.h"
#include "program/norm.h"
#include "program/rope.h"
#include "program/rope_scaling.h"
#include "program/value.h"
#include "program/work.h"

namespace cairn::program {

// A reader that forgets an operation does not compile: visit it with one overload per type.
using Operation =
    std::variant<Embed, GatherRows, MatMul, GatedMatMul, Logits, Activate, GatedActivation, Add, Clamp,
                 SoftCap, GateRows, RmsNorm, LayerNorm, AddRmsNorm, Rope, KvWrite, Attention, Route,
                 ExpertMatMul, ExpertCombine, DecodeGroup, LowRankMlp, LowRankAttention>;

// Where an instruction runs: a device stream, a copy engine, the CPU pool. Interpreters honour lanes and
// never invent them; values that cross lanes are ordered by events. Lane 0 is the backend's main one.
using Lane = uint8_t;

struct Instruction {
  Operation operation;
  std::string name;  // "layers.3.attn.qkv": what errors and traces call it
  int32_t layer = -1;
  Lane lane = 0;
  bool operator==(const Instruction&) const = default;
};

// The angles of Rope instructions; recomputed by the backend when the scaling depends on the sequence's
// length.
struct RopeTable {
  RopeScaling scaling;
  double theta = 10000;
  int64_t rotary_dim = 0;
  int64_t max_position = 0;
  bool operator==(const RopeTable&) const = default;
};

// Of a program that is one part of another (parts.h): instructions up to `end`, before which the rows of `in`
// are handed over by other parts and after which those of `out` are taken.
struct Stage {
  int32_t begin = 0, end = 0;
  std::vector<Value> in, out;
  bool operator==(const Stage&) const = default;
};

struct Program {
  std::string model;  // "llama (model.gguf)": what errors name
  std::vector<ValueInfo> values;
  std::vector<WeightInfo> weights;
  std::vector<RopeTable> ropes;
  std::vector<KvSlot> kv;
  std::vector<Instruction> instructions;
  std::vector<Stage> stages;  // empty: a whole program, which runs from its first to its last instruction

  // Inputs, set by the executor before each step.
  Value ids, positions, logit_rows;  // [tokens], [tokens], [logits] i32
  // Outputs; absent in a part that does not compute them.
  Value logits;  // [logits, vocabulary]; absent in an encoder's program
  Value hidden;  // [logits, dim]: the rows that logits were computed from, for embeddings; an encoder's:
                 // [tokens, dim]

  const ValueInfo& info(Value v) const { return values[size_t(v.id)]; }
  const WeightInfo& info(Weight w) const { return weights[size_t(w.id)]; }
  int64_t width(Value v) const;  // product of the constant extents behind the rows
};

// The values an instruction reads and writes, and its weights, in the order it describes them.
struct Uses {
  std::vector<Value> in, out;
  std::vector<Weight> weights;
};
Uses uses(const Operation&);
const char* name_of(const Operation&);

// Throws Error(invalid_file) "model: instruction rms_norm layers.3.norm: weight is [4095], x is [tokens,
// 4096]" for a shape, dtype or order that does not fit. Every program is checked once when it is built.
void check(const Program&);

Work work(const Program&, const Instruction&, const StepSizes&);
Work work(const Program&, const StepSizes&);

std::string print(const Program&);
std::string print(const Program&, const Instruction&);

}  // namespace cairn::program
