// Rotary position embedding: the frequencies of every published way to stretch them, as Hugging Face
// transformers (modeling_rope_utils.py) defines them. Dimension pair i of position p turns by p *
// inverse_frequencies[i]; cosine and sine are both multiplied by attention_factor.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace cairn::program {

struct RopeScaling {
  enum class Kind : uint8_t {
    none,         // theta^(-2i / dim)
    linear,       // divided by factor
    dynamic_ntk,  // theta grows with the sequence once it is longer than max_position
    yarn,         // Peng et al. 2023: slow dimensions interpolated, fast ones left, a ramp between
    llama3,       // Llama 3.1: the same idea by wavelength
    longrope,     // Ding et al. 2024: a divisor per pair, one list for short sequences and one for long ones
    divisors,     // one list of divisors per pair (GGUF's rope_freqs.weight): short_factor holds it
  };
  Kind kind = Kind::none;

  // linear, dynamic_ntk, yarn, llama3. yarn and longrope: absent means max_position / original_max_position.
  std::optional<double> factor;
  // yarn, llama3, longrope: the length the model was trained with before stretching.
  int64_t original_max_position = 0;
  // yarn, longrope: absent means the formula of the paper.
  std::optional<double> attention_factor;
  // yarn
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0,
         mscale_all_dim = 0;  // both non-zero: attention_factor is the ratio of the two (DeepSeek)
  bool truncate = true;       // the ramp's ends are whole dimensions
  // llama3
  double low_freq_factor = 1, high_freq_factor = 4;
  // longrope: rotary_dim / 2 divisors each, used up to original_max_position and beyond it
  std::vector<float> short_factor, long_factor;

  bool operator==(const RopeScaling&) const = default;
};

const char* to_string(RopeScaling::Kind);

struct RopeFrequencies {
  std::vector<float> inverse_frequencies;  // rotary_dim / 2, radians per position
  float attention_factor = 1;
};

// True when sequence_length changes the result (dynamic_ntk, longrope with two different lists). Such a
// sequence has one length from its first token to its last: keys rotated for another length would not fit the
// queries.
bool depends_on_length(const RopeScaling&);

// Throws Error(invalid_file) whose sentence starts with `where` (file and field) when the parameters make no
// sense: odd rotary_dim, a list of the wrong length, a factor that is not a positive finite number, ...
void check_rope_scaling(const RopeScaling&, double theta, int rotary_dim, int64_t max_position,
                        std::string_view where);

// sequence_length: tokens of the whole sequence, prompt and answer. max_position: the model's
// max_position_embeddings. Precondition: check_rope_scaling accepts the same parameters.
RopeFrequencies rope_frequencies(const RopeScaling&, double theta, int rotary_dim, int64_t sequence_length,
                                 int64_t max_position);

}  // namespace cairn::program
