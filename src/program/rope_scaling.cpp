#include "program/rope_scaling.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace cairn::program {
namespace {

using Kind = RopeScaling::Kind;

double stretch(const RopeScaling& scaling, int64_t max_position) {
  if (scaling.factor) return *scaling.factor;
  return double(max_position) / double(scaling.original_max_position);
}

// YaRN section 3.4: attention logits grow with the logarithm of the stretch.
double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

double yarn_attention_factor(const RopeScaling& scaling, double factor) {
  if (scaling.attention_factor) return *scaling.attention_factor;
  if (scaling.mscale != 0 && scaling.mscale_all_dim != 0)
    return yarn_scale(factor, scaling.mscale) / yarn_scale(factor, scaling.mscale_all_dim);
  return yarn_scale(factor, 1);
}

// The dimension (not whole) that turns `rotations` times within the original length.
double yarn_dimension(double rotations, int rotary_dim, double theta, double original) {
  return rotary_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

struct Ramp {
  double low, high;
  double at(int pair) const { return std::clamp((pair - low) / (high - low), 0.0, 1.0); }
};

Ramp yarn_ramp(const RopeScaling& scaling, double theta, int rotary_dim) {
  const double original = double(scaling.original_max_position);
  double low = yarn_dimension(scaling.beta_fast, rotary_dim, theta, original);
  double high = yarn_dimension(scaling.beta_slow, rotary_dim, theta, original);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, double(rotary_dim - 1));
  if (low == high) high += 0.001;
  return {low, high};
}

double llama3_frequency(const RopeScaling& scaling, double frequency) {
  const double factor = *scaling.factor;
  const double original = double(scaling.original_max_position);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength < original / scaling.high_freq_factor) return frequency;
  if (wavelength > original / scaling.low_freq_factor) return frequency / factor;
  const double smooth = (original / wavelength - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

void check_positive(double value, const char* name, std::string_view where) {
  if (!(value > 0) || !std::isfinite(value))
    fail(ErrorKind::invalid_file, "{}: {} is {}, but must be a positive finite number", where, name, value);
}

void check_list(const std::vector<float>& list, const char* name, int rotary_dim, std::string_view where) {
  if (list.size() != size_t(rotary_dim / 2))
    fail(ErrorKind::invalid_file, "{}: {} has {} numbers, but {} rotary dimensions need {}", where, name,
         list.size(), rotary_dim, rotary_dim / 2);
  for (float value : list) check_positive(value, name, where);
}

}  // namespace

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::none: return "none";
    case Kind::linear: return "linear";
    case Kind::dynamic_ntk: return "dynamic";
    case Kind::yarn: return "yarn";
    case Kind::llama3: return "llama3";
    case Kind::longrope: return "longrope";
    case Kind::divisors: return "divisors";
  }
  return "?";
}

bool depends_on_length(const RopeScaling& scaling) {
  return scaling.kind == Kind::dynamic_ntk ||
         (scaling.kind == Kind::longrope && scaling.short_factor != scaling.long_factor);
}

void check_rope_scaling(const RopeScaling& scaling, double theta, int rotary_dim, int64_t max_position,
                        std::string_view where) {
  if (rotary_dim <= 0 || rotary_dim % 2 != 0)
    fail(ErrorKind::invalid_file, "{}: {} rotary dimensions, but the number must be positive and even", where,
         rotary_dim);
  check_positive(theta, "theta", where);
  const bool stretched_from_original =
      scaling.kind == Kind::yarn || scaling.kind == Kind::llama3 || scaling.kind == Kind::longrope;
  if (stretched_from_original && scaling.original_max_position <= 0)
    fail(ErrorKind::invalid_file, "{}: original_max_position_embeddings is {}, but must be positive", where,
         scaling.original_max_position);
  if (max_position <= 0)
    fail(ErrorKind::invalid_file, "{}: max_position_embeddings is {}, but must be positive", where,
         max_position);
  if (scaling.factor) check_positive(*scaling.factor, "factor", where);
  if (scaling.attention_factor) check_positive(*scaling.attention_factor, "attention_factor", where);
  const bool needs_factor =
      scaling.kind == Kind::linear || scaling.kind == Kind::dynamic_ntk || scaling.kind == Kind::llama3;
  if (needs_factor && !scaling.factor)
    fail(ErrorKind::invalid_file, "{}: factor is missing, and {} scaling needs it", where,
         to_string(scaling.kind));
  switch (scaling.kind) {
    case Kind::none:
    case Kind::linear: break;
    case Kind::dynamic_ntk:
      // The exponent is dim / (dim - 2).
      if (rotary_dim == 2)
        fail(ErrorKind::invalid_file, "{}: dynamic scaling needs more than 2 rotary dimensions", where);
      if (*scaling.factor < 1)
        fail(ErrorKind::invalid_file, "{}: factor is {}, but dynamic scaling needs at least 1", where,
             *scaling.factor);
      break;
    case Kind::yarn:
      if (theta <= 1)
        fail(ErrorKind::invalid_file, "{}: theta is {}, but yarn needs more than 1", where, theta);
      check_positive(scaling.beta_fast, "beta_fast", where);
      check_positive(scaling.beta_slow, "beta_slow", where);
      if (scaling.beta_fast < scaling.beta_slow)
        fail(ErrorKind::invalid_file,
             "{}: beta_fast is {} and beta_slow {}, but beta_fast must be the larger", where,
             scaling.beta_fast, scaling.beta_slow);
      check_positive(yarn_attention_factor(scaling, stretch(scaling, max_position)), "attention_factor",
                     where);
      break;
    case Kind::llama3:
      check_positive(scaling.low_freq_factor, "low_freq_factor", where);
      check_positive(scaling.high_freq_factor, "high_freq_factor", where);
      if (scaling.high_freq_factor <= scaling.low_freq_factor)
        fail(ErrorKind::invalid_file,
             "{}: low_freq_factor is {} and high_freq_factor {}, but high_freq_factor must be the larger",
             where, scaling.low_freq_factor, scaling.high_freq_factor);
      break;
    case Kind::longrope:
      check_list(scaling.short_factor, "short_factor", rotary_dim, where);
      check_list(scaling.long_factor, "long_factor", rotary_dim, where);
      // Its logarithm divides.
      if (!scaling.attention_factor && scaling.original_max_position < 2)
        fail(ErrorKind::invalid_file,
             "{}: original_max_position_embeddings is {}, but longrope needs at least 2", where,
             scaling.original_max_position);
      break;
    case Kind::divisors: check_list(scaling.short_factor, "the list of divisors", rotary_dim, where); break;
  }
}

RopeFrequencies rope_frequencies(const RopeScaling& scaling, double theta, int rotary_dim,
                                 int64_t sequence_length, int64_t max_position) {
  assert(rotary_dim > 0 && rotary_dim % 2 == 0);
  double attention_factor = 1;
  if (scaling.kind == Kind::dynamic_ntk) {
    const double factor = *scaling.factor;
    const double growth =
        factor * double(std::max(sequence_length, max_position)) / double(max_position) - (factor - 1);
    theta *= std::pow(growth, rotary_dim / (rotary_dim - 2.0));
  }

  const std::vector<float>* divisors = nullptr;
  double factor = 1;
  Ramp ramp{};
  if (scaling.kind == Kind::yarn) {
    factor = stretch(scaling, max_position);
    ramp = yarn_ramp(scaling, theta, rotary_dim);
    attention_factor = yarn_attention_factor(scaling, factor);
  } else if (scaling.kind == Kind::longrope) {
    factor = stretch(scaling, max_position);
    divisors = sequence_length > scaling.original_max_position ? &scaling.long_factor : &scaling.short_factor;
    if (scaling.attention_factor) {
      attention_factor = *scaling.attention_factor;
    } else if (factor > 1) {
      attention_factor = std::sqrt(1 + std::log(factor) / std::log(double(scaling.original_max_position)));
    }
  } else if (scaling.kind == Kind::divisors) {
    divisors = &scaling.short_factor;
  }

  RopeFrequencies result;
  result.attention_factor = float(attention_factor);
  result.inverse_frequencies.resize(size_t(rotary_dim / 2));
  for (int pair = 0; pair < rotary_dim / 2; ++pair) {
    double frequency = std::pow(theta, -2.0 * pair / rotary_dim);
    switch (scaling.kind) {
      case Kind::none:
      case Kind::dynamic_ntk: break;
      case Kind::linear: frequency /= *scaling.factor; break;
      case Kind::yarn: {
        const double interpolated = ramp.at(pair);
        frequency = frequency / factor * interpolated + frequency * (1 - interpolated);
        break;
      }
      case Kind::llama3: frequency = llama3_frequency(scaling, frequency); break;
      case Kind::longrope:
      case Kind::divisors: frequency /= double((*divisors)[size_t(pair)]); break;
    }
    result.inverse_frequencies[size_t(pair)] = float(frequency);
  }
  return result;
}

}  // namespace cairn::program
