#include "models/mixture.h"

#include "base/error.h"
#include "formats/json_fields.h"

namespace cairn::models {

using program::Builder;
using program::Value;

MixtureBlock read_mixture(const Source& source, std::string_view experts_field,
                          std::string_view intermediate_field) {
  MixtureBlock m;
  m.experts = formats::require_int(source.config, experts_field, 1, 65536, source.file);
  m.top_k = formats::require_int(source.config, "num_experts_per_tok", 1, 65536, source.file);
  if (m.top_k > m.experts)
    fail(ErrorKind::invalid_file, "{}: num_experts_per_tok is {}, but {} is {}", source.file, m.top_k,
         experts_field, m.experts);
  m.intermediate = formats::require_int(source.config, intermediate_field, 1, 1 << 24, source.file);
  m.activation = read_activation(source, "hidden_act", "silu");
  return m;
}

Value mixture(Builder& b, Value x, const std::string& prefix, const MixtureBlock& m) {
  const int64_t hidden = b.width(x);
  const Value scores = b.matmul(x, linear(prefix + m.router, m.experts));
  const auto routed =
      b.route(scores, m.top_k,
              m.renormalize ? program::Routing::softmax_topk_renorm : program::Routing::softmax_topk);
  const Builder::Linear inputs[] = {linear(prefix + m.gate, m.intermediate),
                                    linear(prefix + m.up, m.intermediate)};
  const auto gate_up = b.expert_matmul(x, routed.chosen, false, m.experts, inputs);
  const Value gated = b.gated(gate_up[0], gate_up[1], m.activation);
  const Builder::Linear outputs[] = {linear(prefix + m.down, hidden)};
  const Value down = b.expert_matmul(gated, routed.chosen, true, m.experts, outputs)[0];
  return b.expert_combine(down, routed.weights);
}

}  // namespace cairn::models
