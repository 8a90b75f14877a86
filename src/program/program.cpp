#include "program/program.h"

#include <algorithm>

namespace cairn::program {
namespace {

// Collects an operation's operands through its describe().
struct Collector {
  Uses& uses;
  void in(std::string_view, Value v) { uses.in.push_back(v); }
  void out(std::string_view, Value v) { uses.out.push_back(v); }
  void weight(std::string_view, Weight w) { uses.weights.push_back(w); }
  template <typename T>
  void field(std::string_view, const T&) {}
};

}  // namespace

int64_t Program::width(Value v) const {
  const Shape& shape = info(v).shape;
  int64_t product = 1;
  for (size_t i = 1; i < shape.size(); ++i) product *= shape[i].size;
  return product;
}

Uses uses(const Operation& operation) {
  Uses result;
  Collector collector{result};
  std::visit([&](const auto& op) { op.describe(collector); }, operation);
  return result;
}

const char* name_of(const Operation& operation) {
  return std::visit([](const auto& op) { return op.kName; }, operation);
}

std::string_view to_string(Activation activation) {
  switch (activation) {
    case Activation::identity: return "identity";
    case Activation::relu: return "relu";
    case Activation::silu: return "silu";
    case Activation::gelu: return "gelu";
    case Activation::gelu_tanh: return "gelu_tanh";
    case Activation::quick_gelu: return "quick_gelu";
    case Activation::sigmoid: return "sigmoid";
  }
  return "?";
}

std::optional<Activation> find_activation(std::string_view name) {
  constexpr std::pair<std::string_view, Activation> kNames[] = {
      {"relu", Activation::relu},           {"silu", Activation::silu},
      {"swish", Activation::silu},          {"gelu", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh},  {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"gelu_fast", Activation::gelu_tanh}, {"quick_gelu", Activation::quick_gelu},
      {"linear", Activation::identity},     {"sigmoid", Activation::sigmoid},
  };
  for (const auto& [known, activation] : kNames)
    if (known == name) return activation;
  return std::nullopt;
}

std::string_view to_string(Routing routing) {
  return routing == Routing::softmax_topk ? "softmax_topk" : "softmax_topk_renorm";
}

}  // namespace cairn::program
