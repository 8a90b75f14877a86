#include "models/rope_config.h"

#include "base/error.h"
#include "formats/json_fields.h"

namespace cairn::models {
namespace {

using formats::optional_bool;
using formats::optional_int;
using formats::optional_number;
using program::RopeScaling;
using Kind = RopeScaling::Kind;

Kind read_kind(const nlohmann::json& scaling, const std::string& file) {
  auto type = formats::optional_string(scaling, "rope_type", file);
  if (!type) type = formats::optional_string(scaling, "type", file);
  if (!type || *type == "default") return Kind::none;
  if (*type == "linear") return Kind::linear;
  if (*type == "dynamic") return Kind::dynamic_ntk;
  if (*type == "yarn") return Kind::yarn;
  if (*type == "llama3") return Kind::llama3;
  if (*type == "longrope" || *type == "su") return Kind::longrope;
  fail(ErrorKind::unsupported,
       "{}: rope_type is '{}'; cairn knows default, linear, dynamic, yarn, llama3 and longrope", file, *type);
}

int64_t max_position(const Source& source) {
  return optional_int(source.config, "max_position_embeddings", 1, int64_t{1} << 40, source.file)
      .value_or(2048);
}

// Partly turned heads are a family's own business (Phi-3 reads and removes the field); elsewhere they are
// refused.
void refuse_partial(const Source& source, const nlohmann::json& object) {
  const auto factor = optional_number(object, "partial_rotary_factor", 0, 1, source.file);
  if (factor && *factor != 1)
    fail(ErrorKind::unsupported,
         "{}: partial_rotary_factor is {}, but models of this family turn whole heads", source.file, *factor);
}

RopeScaling read_scaling(const Source& source, const nlohmann::json& scaling) {
  const auto& file = source.file;
  const auto number = [&](const char* field, double low) {
    return optional_number(scaling, field, low, 1e6, file);
  };
  const auto list = [&](const char* field) {
    const auto numbers = formats::optional_numbers(scaling, field, -1e30, 1e30, file);
    return numbers ? std::vector<float>(numbers->begin(), numbers->end()) : std::vector<float>();
  };
  RopeScaling rope;
  rope.kind = read_kind(scaling, file);
  rope.factor = number("factor", 1e-6);
  rope.attention_factor = number("attention_factor", 1e-6);
  // Beside the scaling (Phi-3) wins over inside; the library falls back to the model's own length.
  std::optional<int64_t> original;
  for (const auto* place : {&source.config, &scaling})
    if (!original)
      original = optional_int(*place, "original_max_position_embeddings", 1, int64_t{1} << 40, file);
  rope.original_max_position = original.value_or(max_position(source));
  rope.beta_fast = number("beta_fast", 0).value_or(32);
  rope.beta_slow = number("beta_slow", 0).value_or(1);
  rope.mscale = number("mscale", 0).value_or(0);
  rope.mscale_all_dim = number("mscale_all_dim", 0).value_or(0);
  rope.truncate = optional_bool(scaling, "truncate", file).value_or(true);
  rope.low_freq_factor = number("low_freq_factor", 0).value_or(1);
  rope.high_freq_factor = number("high_freq_factor", 0).value_or(4);
  if (rope.kind == Kind::longrope) {
    rope.short_factor = list("short_factor");
    rope.long_factor = list("long_factor");
  }
  return rope;
}

}  // namespace

program::RopeTable read_rope(const Source& source, int64_t rotary_dim, double default_theta) {
  const auto& config = source.config;
  const auto* parameters = formats::optional_object(config, "rope_parameters", source.file);
  const auto* scaling =
      parameters ? parameters : formats::optional_object(config, "rope_scaling", source.file);
  double theta = optional_number(config, "rope_theta", 1e-3, 1e12, source.file).value_or(default_theta);
  if (parameters) theta = optional_number(*parameters, "rope_theta", 1e-3, 1e12, source.file).value_or(theta);
  return read_rope(source, scaling, theta, rotary_dim);
}

program::RopeTable read_rope(const Source& source, const nlohmann::json* scaling, double theta,
                             int64_t rotary_dim) {
  program::RopeTable table;
  table.theta = theta;
  table.rotary_dim = rotary_dim;
  table.max_position = max_position(source);
  refuse_partial(source, source.config);
  if (scaling) refuse_partial(source, *scaling);
  if (const auto stored = optional_int(source.config, "rotary_dim", 1, 1 << 20, source.file);
      stored && *stored != rotary_dim)
    fail(ErrorKind::unsupported,
         "{}: {} elements of each head are turned, but models of this family turn all {}", source.file,
         *stored, rotary_dim);
  if (!source.rope_divisors.empty()) {
    if (scaling && read_kind(*scaling, source.file) != Kind::none)
      fail(ErrorKind::unsupported,
           "{}: there are both a rope_freqs tensor and a rope scaling; cairn applies one of them at most",
           source.file);
    table.scaling.kind = Kind::divisors;
    table.scaling.short_factor = source.rope_divisors;
  } else if (scaling) {
    table.scaling = read_scaling(source, *scaling);
  }
  check_rope_scaling(table.scaling, theta, int(rotary_dim), table.max_position,
                     source.file + ": rope scaling");
  return table;
}

}  // namespace cairn::models
