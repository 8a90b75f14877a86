#pragma once

#include "program/matmul.h"
#include "program/value.h"

namespace cairn::program {

// How router scores become expert weights.
enum class Routing : uint8_t {
  softmax_topk,  // softmax over all experts, keep the k largest as they are (OLMoE, Qwen-MoE unnormalised)
  softmax_topk_renorm,  // and divide by their sum (Mixtral, Qwen3-MoE)
};
std::string_view to_string(Routing);

// Picks top_k experts per row; ties go to the lower expert number.
struct Route {
  static constexpr const char* kName = "route";
  Value scores;   // [tokens, experts]
  Value weights;  // [tokens, top_k] f32
  Value chosen;   // [tokens, top_k] i32
  Routing routing = Routing::softmax_topk_renorm;
  bool operator==(const Route&) const = default;
  void describe(auto& d) const {
    d.in("scores", scores), d.out("weights", weights), d.out("chosen", chosen);
    d.field("routing", to_string(routing));
  }
};

// y[t,s,:] = x row (t, or (t,s) when per_choice) times the weight of expert chosen[t,s]
struct ExpertMatMul {
  static constexpr const char* kName = "expert_matmul";
  Value x;       // [tokens, in], or [tokens * top_k, in] when per_choice
  Value chosen;  // [tokens, top_k] i32
  bool per_choice = false;
  std::vector<Product> products;  // weights [experts, out, in]; y [tokens * top_k, out]
  bool operator==(const ExpertMatMul&) const = default;
  void describe(auto& d) const {
    d.in("x", x), d.in("chosen", chosen);
    for (const auto& product : products) d.weight("w", product.weight), d.out("y", product.y);
    if (per_choice) d.field("x", std::string_view("per choice"));
  }
};

// y[t,:] = sum_s weights[t,s] x[t * top_k + s,:], in the order of s
struct ExpertCombine {
  static constexpr const char* kName = "expert_combine";
  Value x;        // [tokens * top_k, dim]
  Value weights;  // [tokens, top_k]
  Value y;        // [tokens, dim]
  bool operator==(const ExpertCombine&) const = default;
  void describe(auto& d) const { d.in("x", x), d.in("weights", weights), d.out("y", y); }
};

}  // namespace cairn::program
