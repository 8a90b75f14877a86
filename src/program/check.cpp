#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "program/decode_groups.h"
#include "program/program.h"

namespace cairn::program {
namespace {

// One checker per program: instructions in order, each value defined once and before its use.
class Checker {
 public:
  explicit Checker(const Program& program) : program_(program), defined_(program.values.size(), false) {}

  void run() {
    for (Value input : {program_.ids, program_.positions, program_.logit_rows})
      defined_[size_t(input.id)] = true;
    size_t stage = 0;
    for (size_t i = 0; i < program_.instructions.size(); ++i) {
      const auto& instruction = program_.instructions[i];
      instruction_ = &instruction;
      if (stage < program_.stages.size() && program_.stages[stage].begin == int32_t(i))
        for (Value v : program_.stages[stage++].in) defined_[size_t(v.id)] = true;
      const Uses used = uses(instruction.operation);
      for (Value v : used.in) {
        require(v.id >= 0 && size_t(v.id) < defined_.size(), "reads a value that does not exist");
        require(defined_[size_t(v.id)], fmt::format("reads %{} before it is written", v.id));
      }
      for (Weight w : used.weights)
        require(w.id >= 0 && size_t(w.id) < program_.weights.size(), "names a weight that does not exist");
      for (Value v : used.out) {
        require(v.id >= 0 && size_t(v.id) < defined_.size(), "writes a value that does not exist");
        require(!defined_[size_t(v.id)], fmt::format("writes %{}, which already has a value", v.id));
      }
      std::visit([&](const auto& op) { check_operation(op); }, instruction.operation);
      for (Value v : used.out) defined_[size_t(v.id)] = true;
    }
    if (!program_.stages.empty()) return;  // a part
    for (Value output : {program_.logits, program_.hidden})
      if (output ? !defined_[size_t(output.id)] : output == program_.hidden)
        fail(ErrorKind::invalid_file, "{}: the program never computes its results", program_.model);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail(ErrorKind::invalid_file, "{}: instruction {} {}: {}", program_.model,
         name_of(instruction_->operation), instruction_->name, what);
  }
  void require(bool condition, const std::string& what) const {
    if (!condition) refuse(what);
  }

  const Shape& shape(Value v) const { return program_.info(v).shape; }
  int64_t width(Value v) const { return program_.width(v); }
  Extent rows(Value v) const { return shape(v).front(); }

  void same_shape(Value a, const char* a_name, Value b, const char* b_name) const {
    require(rows(a) == rows(b) && width(a) == width(b),
            fmt::format("{} has width {}, {} has width {}; they must have the same shape", a_name, width(a),
                        b_name, width(b)));
  }
  void is_type(Value v, const char* name, DType type) const {
    require(program_.info(v).dtype == type,
            fmt::format("{} is {}, it must be {}", name, tensor::to_string(program_.info(v).dtype),
                        tensor::to_string(type)));
  }
  static std::string text(const std::vector<int64_t>& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
  }
  void weight_is(Weight w, const std::vector<int64_t>& expected) const {
    const auto& info = program_.info(w);
    require(info.shape == expected, fmt::format("weight {} is {}, the inputs ask for {}", info.name,
                                                text(info.shape), text(expected)));
  }
  void optional_weight_is(Weight w, const std::vector<int64_t>& expected) const {
    if (w) weight_is(w, expected);
  }

  void check_operation(const Embed& op) {
    if (op.ids) is_type(op.ids, "ids", DType::i32);
    const auto& table = program_.info(op.table);
    require(table.shape.size() == 2,
            fmt::format("table {} is {}, it must have two axes", table.name, text(table.shape)));
    require(width(op.y) == table.shape[1],
            fmt::format("y has width {}, the table {}", width(op.y), table.shape[1]));
    require(op.ids || (op.offset >= 0 && op.offset < table.shape[0]),
            fmt::format("reads row {} of table {}, which has {}", op.offset, table.name, table.shape[0]));
  }
  void check_operation(const GatherRows& op) {
    is_type(op.rows, "rows", DType::i32);
    require(width(op.x) == width(op.y), fmt::format("x has width {}, y {}", width(op.x), width(op.y)));
    require(rows(op.y) == rows(op.rows), "y must have one row per index");
  }
  void product(Value x, const Product& p) {
    weight_is(p.weight, {width(p.y), width(x)});
    optional_weight_is(p.bias, {width(p.y)});
    require(rows(x) == rows(p.y), "x and y have different numbers of rows");
  }
  void check_operation(const MatMul& op) {
    require(!op.products.empty(), "has no weights");
    for (const auto& p : op.products) product(op.x, p);
  }
  void check_operation(const GatedMatMul& op) {
    product(op.x, {op.gate, {}, op.y});
    product(op.x, {op.up, {}, op.y});
  }
  void check_operation(const Logits& op) {
    product(op.x, {op.weight, op.bias, op.y});
    require(op.softcap >= 0, fmt::format("softcap is {}, it must be 0 or more", op.softcap));
  }
  void check_operation(const Activate& op) { same_shape(op.x, "x", op.y, "y"); }
  void check_operation(const GatedActivation& op) {
    same_shape(op.gate, "gate", op.up, "up");
    same_shape(op.up, "up", op.y, "y");
  }
  void check_operation(const Add& op) {
    same_shape(op.a, "a", op.b, "b");
    same_shape(op.a, "a", op.y, "y");
  }
  void check_operation(const Clamp& op) {
    same_shape(op.x, "x", op.y, "y");
    require(op.limit > 0, fmt::format("limit is {}, it must be positive", op.limit));
  }
  void check_operation(const SoftCap& op) { same_shape(op.x, "x", op.y, "y"); }
  void check_operation(const GateRows& op) {
    same_shape(op.x, "x", op.y, "y");
    require(width(op.gate) == 1 && rows(op.gate) == rows(op.x), "gate must have one number per row of x");
  }
  void epsilon(float eps) {
    require(eps >= 0 && eps < 1, fmt::format("eps is {}, it must lie in [0, 1)", eps));
  }
  void check_operation(const RmsNorm& op) {
    same_shape(op.x, "x", op.y, "y");
    const int64_t group = op.group != 0 ? op.group : width(op.x);
    require(group > 0 && width(op.x) % group == 0,
            fmt::format("x has width {}, which is not a multiple of the group {}", width(op.x), group));
    optional_weight_is(op.weight, {group});
    epsilon(op.eps);
  }
  void check_operation(const LayerNorm& op) {
    same_shape(op.x, "x", op.y, "y");
    optional_weight_is(op.weight, {width(op.x)});
    optional_weight_is(op.bias, {width(op.x)});
    epsilon(op.eps);
  }
  void check_operation(const AddRmsNorm& op) {
    same_shape(op.a, "a", op.b, "b");
    same_shape(op.a, "a", op.sum, "sum");
    same_shape(op.a, "a", op.y, "y");
    optional_weight_is(op.weight, {width(op.a)});
    epsilon(op.eps);
  }
  void check_operation(const Rope& op) {
    is_type(op.positions, "positions", DType::i32);
    same_shape(op.x, "x", op.y, "y");
    require(op.heads > 0 && op.head_dim > 0 && width(op.x) == op.heads * op.head_dim,
            fmt::format("x has width {}, {} heads of {} need {}", width(op.x), op.heads, op.head_dim,
                        op.heads * op.head_dim));
    require(
        op.rotary_dim > 0 && op.rotary_dim % 2 == 0 && op.rotary_dim <= op.head_dim,
        fmt::format("rotary_dim is {}, it must be even and at most head_dim {}", op.rotary_dim, op.head_dim));
    require(op.table >= 0 && size_t(op.table) < program_.ropes.size(),
            "names a rope table that does not exist");
    require(program_.ropes[size_t(op.table)].rotary_dim == op.rotary_dim,
            fmt::format("rope table {} has rotary_dim {}, the instruction {}", op.table,
                        program_.ropes[size_t(op.table)].rotary_dim, op.rotary_dim));
  }
  const KvSlot& slot(int32_t index) const {
    require(index >= 0 && size_t(index) < program_.kv.size(),
            fmt::format("cache slot {} does not exist", index));
    return program_.kv[size_t(index)];
  }
  void check_operation(const KvWrite& op) {
    const KvSlot& kv = slot(op.slot);
    require(width(op.k) == kv.kv_heads * kv.head_dim_k,
            fmt::format("k has width {}, slot {} holds {} heads of {}", width(op.k), op.slot, kv.kv_heads,
                        kv.head_dim_k));
    require(width(op.v) == kv.kv_heads * kv.head_dim_v,
            fmt::format("v has width {}, slot {} holds {} heads of {}", width(op.v), op.slot, kv.kv_heads,
                        kv.head_dim_v));
  }
  void check_operation(const Attention& op) {
    is_type(op.written, "written", DType::token);
    const KvSlot& kv = slot(op.slot);
    require(op.heads > 0 && kv.kv_heads > 0 && op.heads % kv.kv_heads == 0,
            fmt::format("{} query heads are not a multiple of {} KV heads", op.heads, kv.kv_heads));
    require(width(op.q) == op.heads * kv.head_dim_k,
            fmt::format("q has width {}, {} heads of {} need {}", width(op.q), op.heads, kv.head_dim_k,
                        op.heads * kv.head_dim_k));
    require(width(op.y) == op.heads * kv.head_dim_v,
            fmt::format("y has width {}, {} heads of {} need {}", width(op.y), op.heads, kv.head_dim_v,
                        op.heads * kv.head_dim_v));
    require(op.window >= 0, fmt::format("window is {}, it must be 0 (none) or more", op.window));
    optional_weight_is(op.sinks, {op.heads});
  }
  void check_operation(const Route& op) {
    is_type(op.chosen, "chosen", DType::i32);
    require(width(op.weights) == width(op.chosen), "weights and chosen must have the same width");
    require(width(op.chosen) >= 1 && width(op.chosen) <= width(op.scores),
            fmt::format("top_k is {}, there are {} experts", width(op.chosen), width(op.scores)));
  }
  void check_operation(const ExpertMatMul& op) {
    is_type(op.chosen, "chosen", DType::i32);
    const int64_t top_k = width(op.chosen);
    const Extent expected{op.per_choice ? top_k : 1, Symbol::tokens};
    require(rows(op.x) == expected,
            fmt::format("x has {} rows per token, it must have {}", rows(op.x).size, expected.size));
    for (const auto& p : op.products) {
      const auto& info = program_.info(p.weight);
      require(info.shape.size() == 3 && info.shape[1] == width(p.y) && info.shape[2] == width(op.x),
              fmt::format("weight {} is {}, the inputs ask for [experts, {}, {}]", info.name,
                          text(info.shape), width(p.y), width(op.x)));
      require(rows(p.y) == Extent{top_k, Symbol::tokens}, "y must have one row per token and choice");
    }
  }
  void check_operation(const ExpertCombine& op) {
    require(width(op.x) == width(op.y), fmt::format("x has width {}, y {}", width(op.x), width(op.y)));
    require(rows(op.x) == Extent{width(op.weights), Symbol::tokens},
            "x must have one row per token and choice");
  }
  void check_operation(const LowRankMlp& op) {
    const int64_t hidden = program_.info(op.up).shape[0];
    weight_is(op.up, {hidden, width(op.p)});
    optional_weight_is(op.up_bias, {hidden});
    require(bool(op.gate_p) == bool(op.gate), "has a gate's weight or its input alone");
    if (op.gate_p) {
      weight_is(op.gate, {hidden, width(op.gate_p)});
      optional_weight_is(op.gate_bias, {hidden});
      require(rows(op.gate_p) == rows(op.p), "p and gate_p have different numbers of rows");
    }
    weight_is(op.down, {width(op.y), hidden});
    require(rows(op.y) == rows(op.p), "p and y have different numbers of rows");
  }
  void check_operation(const LowRankAttention& op) {
    const KvSlot& kv = slot(op.slot);
    require(kv.kv_heads == 1, fmt::format("slot {} holds {} heads, it must hold one", op.slot, kv.kv_heads));
    require(op.heads > 0 && op.kv_heads > 0 && op.heads % op.kv_heads == 0,
            fmt::format("{} query heads are not a multiple of {} KV heads", op.heads, op.kv_heads));
    const auto factor = [&](const LowRankAttention::Factor& f, int64_t out) {
      weight_is(f.up, {out, width(f.p)});
      optional_weight_is(f.bias, {out});
      require(rows(f.p) == rows(op.y), "p and y have different numbers of rows");
    };
    factor(op.q, op.heads * kv.head_dim_k);
    factor(op.k, op.kv_heads * kv.head_dim_k);
    factor(op.v, op.kv_heads * kv.head_dim_v);
    require(width(op.y) == op.heads * kv.head_dim_v,
            fmt::format("y has width {}, {} heads of {} need {}", width(op.y), op.heads, kv.head_dim_v,
                        op.heads * kv.head_dim_v));
    require(op.window >= 0, fmt::format("window is {}, it must be 0 (none) or more", op.window));
  }
  void check_operation(const DecodeGroup& op) {
    require(!op.weights.empty(), "decodes no weight");
    require(op.place >= 0 && op.place < kGroupPlaces, fmt::format("there is no place {}", op.place));
  }

  const Program& program_;
  std::vector<bool> defined_;
  const Instruction* instruction_ = nullptr;
};

}  // namespace

void check(const Program& program) { Checker(program).run(); }

}  // namespace cairn::program
