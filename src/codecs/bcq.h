// Binary-coding quantization: a weight is a bias plus or minus each of q scales, and the signs are planes of
// bits (LUT-GEMM, Park et al. 2022, arXiv 2206.09557). What it is for: with signs as weights, the sums of a
// few neighbouring activations can be looked up instead of multiplied, and time grows with q.
//
//   w[e] = bias + sum_{i < q} alpha[i] * (plane[i] has bit e ? 1 : -1)       one alpha and bias per 128
//   weights of a row
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace cairn::codecs {

inline constexpr int kBcqGroup = 128;
inline constexpr int kBcqMostPlanes = 4;  // that we run; the format knows 8
inline constexpr int kBcqRounds = 15;

#pragma pack(push, 1)
template <int q>
struct BlockBcq {
  static constexpr int kElements = kBcqGroup, kPlanes = q;
  static const std::string_view kName;
  uint16_t alpha[q];  // f16
  float bias;         // f32: exact where scales and zeros of a uniform code become bias (below)
  uint8_t planes[q][kBcqGroup / 8];  // element e is bit e % 8 of byte e / 8; set is +
};
#pragma pack(pop)
template <>
inline constexpr std::string_view BlockBcq<1>::kName = "bcq1_g128";
template <>
inline constexpr std::string_view BlockBcq<2>::kName = "bcq2_g128";
template <>
inline constexpr std::string_view BlockBcq<3>::kName = "bcq3_g128";
template <>
inline constexpr std::string_view BlockBcq<4>::kName = "bcq4_g128";
static_assert(sizeof(BlockBcq<1>) == 22 && sizeof(BlockBcq<3>) == 58);

template <int q>
void decode_bcq(const std::byte* blocks, float* values, int64_t count);
// bcq_fit with kBcqRounds, alphas rounded to f16, bias 0.
template <int q>
void encode_bcq(const float* values, std::byte* blocks, int64_t count, const float* importance);

// The scales of one group of weights by greedy fitting and alternating least squares: each round fits the
// scales to the signs, then gives every weight the nearest of the 2^q sums. rounds 0 is greedy; else even
// steps over the range are tried as a second start and the better end is taken.
struct BcqFit {
  float alpha[8] = {};  // descending, none negative
  std::vector<double>
      errors;  // sum of importance * (w - w_hat)^2 after the greedy start and after every round
};
// count weights, all finite; importance is null or one number >= 0 per weight; q from 1 to 8.
BcqFit bcq_fit(const float* values, int count, const float* importance, int q, int rounds = kBcqRounds);

// Signs of each weight for given scales: bit i of codes[e] is plane i. The nearest of the 2^q sums.
void bcq_assign(const float* values, int count, const float* alpha, float bias, int q, uint8_t* codes);
// Signs by the greedy rule, plane after plane; what bcq_fit with 0 rounds means.
void bcq_assign_greedy(const float* values, int count, const float* alpha, int q, uint8_t* codes);

// A uniform code w = scale * (code - zero) of `bits` bits is BCQ without loss: plane i is bit i of the code.
// In f32 the scales are exact; sums of them are too when scale has at most 24 - 2 * bits significant bits, as
// an f16 has for 4.
struct BcqScales {
  float alpha[8] = {};
  float bias = 0;
};
BcqScales bcq_of_uniform(int bits, float scale, int zero);

}  // namespace cairn::codecs
