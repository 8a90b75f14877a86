#include "program/low_rank.h"

#include <algorithm>

#include "base/error.h"
#include "program/weight_roles.h"

namespace cairn::program {
namespace {

constexpr std::string_view kWeight = ".weight";

class Splitter {
 public:
  Splitter(const Program& program, const std::function<std::optional<int64_t>(const WeightInfo&)>& rank_of)
      : program_(program), out_(program), factor_(program.weights.size()) {
    out_.instructions.clear();
    const auto roles = weight_roles(program);
    for (size_t i = 0; i < program.weights.size(); ++i) {
      const auto& info = program.weights[i];
      const auto rank = info.name.ends_with(kWeight) ? rank_of(info) : std::nullopt;
      if (!rank) continue;
      if (roles[i].table || roles[i].vector || info.shape.size() != 2)
        fail(ErrorKind::unsupported,
             "{}: the weight {} is stored as two factors of rank {}, which only a product's matrix can be",
             program.model, info.name, *rank);
      const std::string module = info.name.substr(0, info.name.size() - kWeight.size());
      // Row ranges of one stored weight have one V.
      WeightInfo v{module + std::string(kLowRankV), {*rank, info.shape[1]}};
      auto known = std::find(out_.weights.begin(), out_.weights.end(), v);
      if (known == out_.weights.end()) known = out_.weights.insert(known, std::move(v));
      factor_[i] = {int32_t(known - out_.weights.begin())};
      auto& u = out_.weights[i];
      u.name = module + std::string(kLowRankU);
      u.shape[1] = *rank;
      u.transposed = false;
    }
  }

  Program split() {
    for (const auto& instruction : program_.instructions)
      std::visit([&](const auto& op) { add(op, instruction); }, instruction.operation);
    check(out_);
    return std::move(out_);
  }

 private:
  template <typename Op>
  void add(const Op& op, const Instruction& at) {
    for (const Weight w : uses(Operation(op)).weights)
      if (w && factor_[size_t(w.id)])
        fail(ErrorKind::unsupported,
             "{}: the weight {} of {} {} is stored as two factors, which cairn does not run there",
             program_.model, program_.info(w).name, Op::kName, at.name);
    out_.instructions.push_back(at);
  }
  void add(const MatMul& op, const Instruction& at) {
    MatMul narrow{op.x, {}};
    std::vector<std::pair<Value, Product>> wide;
    for (const auto& p : op.products) {
      if (factor_[size_t(p.weight.id)])
        wide.emplace_back(narrow_value(narrow, p.weight, at), p);
      else
        narrow.products.push_back(p);
    }
    append(std::move(narrow), at, wide.empty() ? "" : "_v");
    for (const auto& [p, product] : wide)
      out_.instructions.push_back(
          {MatMul{p, {product}}, out_.info(product.y).name + "_u", at.layer, at.lane});
  }
  void add(const Logits& op, const Instruction& at) {
    if (!factor_[size_t(op.weight.id)]) {
      out_.instructions.push_back(at);
      return;
    }
    MatMul narrow{op.x, {}};
    Logits wide = op;
    wide.x = narrow_value(narrow, op.weight, at);
    append(std::move(narrow), at, "_v");
    append(std::move(wide), at, "");
  }

  // The product of x and W's V, one for all weights that share it.
  Value narrow_value(MatMul& narrow, Weight w, const Instruction& at) {
    const Weight v = factor_[size_t(w.id)];
    for (const auto& p : narrow.products)
      if (p.weight == v) return p.y;
    const Extent rows = out_.info(narrow.x).shape.front();
    out_.values.push_back(
        {at.name + ".rank", DType::f32, {rows, Extent{out_.info(v).shape[0], Symbol::none}}});
    const Value y{int32_t(out_.values.size()) - 1};
    narrow.products.push_back({v, {}, y});
    return y;
  }
  template <typename Op>
  void append(Op op, const Instruction& at, const char* suffix) {
    out_.instructions.push_back({std::move(op), at.name + suffix, at.layer, at.lane});
  }

  const Program& program_;
  Program out_;
  std::vector<Weight> factor_;  // per weight of program_: its V
};

}  // namespace

Program split_low_rank(const Program& program,
                       const std::function<std::optional<int64_t>(const WeightInfo&)>& rank_of) {
  return Splitter(program, rank_of).split();
}

}  // namespace cairn::program
