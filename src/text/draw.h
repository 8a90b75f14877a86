// One draw of a token from scores, with everything it depends on looked up: what a Sampler hands to whoever
// draws in its place (backends/cuda/kernels/sample.cu), and how both come to the same token.
//
// A token's weight is e^((logit - largest) * scale) in plain f32 products and sums; its mass is the weight in
// steps of 2^-40. Whatever is summed or compared is a mass, a whole number: the order of the sums does not
// show, and the same scores give the same token everywhere, bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace cairn::text {

// Probabilities and random numbers as parts of 2^53.
inline constexpr uint64_t kWhole = uint64_t{1} << 53;
// Tokens of 2^24 such masses fit into 64 bits.
inline constexpr float kMassOne = 0x1p40f;
inline uint64_t mass_of(float weight) { return uint64_t(int64_t(weight * kMassOne)); }

__extension__ typedef unsigned __int128 Wide;
// total * part / 2^53, rounded down or up.
inline uint64_t share_of(uint64_t total, uint64_t part) { return uint64_t(Wide{total} * part >> 53); }
inline uint64_t share_up(uint64_t total, uint64_t part) {
  return uint64_t((Wide{total} * part + (kWhole - 1)) >> 53);
}

// What a drawn token says instead when there is none.
inline constexpr int32_t kNotNumbers = -1, kNothingAllowed = -2;

// A token whose score changes before the draw.
struct Edit {
  TokenId token = 0;
  float bias = 0;
  int32_t seen = 0, answered = 0;  // times in prompt and answer together; in the answer
};

struct Draw {
  float scale = 0;    // 1 / temperature; 0: the largest score, the lowest id among equals
  int32_t top_k = 0;  // 0: all
  uint64_t typical_p = kWhole, top_p = kWhole;  // of 2^53
  float min_p = 0;
  uint64_t random = 0;  // below 2^53
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<Edit> edits;  // no token twice
  // The token that the scores' row was computed from belongs to the answer, and `edits` does not count it
  // yet.
  bool count_input = false;
  std::span<const uint32_t> mask;  // bit per token, 0: may not come; empty: all may

  bool penalises() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
  // In which order masses are added up to the drawn one: the most likely first, or by id.
  bool by_rank() const { return top_k > 0 || typical_p < kWhole || top_p < kWhole; }
};

// What the last draw was made from.
struct Candidate {
  TokenId token = 0;
  float score = 0;        // what it is ranked by
  float logit = 0;        // above the largest score, divided by the temperature: 0 or less
  float probability = 0;  // of the distribution drawn from, the kept ones summing to 1
  uint64_t mass = 0;
};

bool has_nan(std::span<const float> scores);

// Of scores that are numbers, at least one.
size_t first_largest(std::span<const float> scores);

// Masks and edits the scores, as every draw begins.
void edit_scores(const Draw&, TokenId input, std::span<float> scores);

// Draws on the CPU, and is the reference of the GPU's kernel.
class Drawer {
 public:
  // The token, or kNotNumbers or kNothingAllowed. Overwrites the scores. input: the token of the scores' row.
  int32_t draw(const Draw&, TokenId input, std::span<float> scores);
  std::span<const Candidate> candidates() const { return kept_; }  // none after a greedy choice

 private:
  void keep_all(const Draw&, std::span<const float> logits, float largest);
  void keep_top_k(const Draw&, std::span<const float> logits, float largest);
  void keep_typical(uint64_t part);
  void keep_top_p(uint64_t part);
  void keep_min_p(float part);
  float nucleus_floor(uint64_t goal) const;
  void normalise();

  std::vector<float> weights_;  // of the whole vocabulary
  std::vector<Candidate> kept_;
  uint64_t total_ = 0;  // the mass of what the next filter chooses from, part of which kept_ may lack
  bool sorted_ = false;
};

}  // namespace cairn::text
