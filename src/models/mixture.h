// The mixture-of-experts MLP that Mixtral and its descendants share (Shazeer et al. 2017; Jiang et al. 2024).
#pragma once

#include "models/decoder.h"

namespace cairn::models {

struct MixtureBlock {
  int64_t experts = 0, top_k = 0;
  int64_t intermediate = 0;  // of each expert
  bool renormalize = false;  // the chosen experts' weights sum to one
  program::Activation activation = program::Activation::silu;
  // Under the layer's prefix: the router, and the three matrices of expert *.
  std::string router = "mlp.gate";
  std::string gate = "mlp.experts.*.gate_proj", up = "mlp.experts.*.up_proj",
              down = "mlp.experts.*.down_proj";
};

// Reads and checks the counts; field names differ between families.
MixtureBlock read_mixture(const Source&, std::string_view experts_field, std::string_view intermediate_field);

// sum over the chosen experts of weight * down(act(gate(x)) * up(x)); prefix: "model.layers.3."
program::Value mixture(program::Builder&, program::Value x, const std::string& prefix, const MixtureBlock&);

}  // namespace cairn::models
