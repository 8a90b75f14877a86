// How a stored weight is laid out and what it means. One row of the table in codec.cpp per codec; a codec's
// own file pair holds its block struct, its decoder (the definition of the format) and, where we write it,
// its encoder. Block formats follow ggml (gguf types); a row of a matrix is cols / block_elements consecutive
// blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace cairn::codecs {

// clang-format off
enum class CodecId : uint8_t {
  f32, f16, bf16, f64, i8, i16, i32, i64, u8,
  q4_0, q4_1, q5_0, q5_1, q8_0,
  q2_k, q3_k, q4_k, q5_k, q6_k,
  iq4_nl, iq4_xs, mxfp4, nvfp4, tq1_0, tq2_0,
  // Sizes are known, so that files open and inspect lists them; decode is null and running them is refused.
  iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s,
  // No GGUF file holds these. Codes with scales (scaled_blocks.h).
  e4m3, e4m3_g128,
  int2_g32, int2_g128, int3_g32, int3_g128, int4_g32, int4_g128, int8_g32, int8_g128,
  // Planes of signs (bcq.h).
  bcq1_g128, bcq2_g128, bcq3_g128, bcq4_g128,
};
// clang-format on
inline constexpr size_t kCodecs = size_t(CodecId::bcq4_g128) + 1;
inline constexpr uint32_t kNoGgmlType = UINT32_MAX;

struct Codec {
  CodecId id;
  std::string_view name;  // as in llama.cpp and in our flags, lower case: "q4_k"
  uint32_t ggml_type;     // the number in a GGUF file, or kNoGgmlType
  int block_elements;     // consecutive elements of a row that share a block
  int block_bytes;
  // Writes count floats from count / block_elements blocks; count is a multiple of block_elements.
  void (*decode)(const std::byte* blocks, float* values, int64_t count);
  // Inverse of decode up to the codec's loss; null where cairn only reads. importance is null or one weight
  // per element (the mean squared activation of its input channel).
  void (*encode)(const float* values, std::byte* blocks, int64_t count, const float* importance);

  double bits_per_weight() const { return 8.0 * block_bytes / block_elements; }
};

const Codec& codec(CodecId);
std::span<const Codec> all_codecs();
const Codec* find_codec(std::string_view name);            // null when unknown
const Codec* find_codec_of_ggml_type(uint32_t ggml_type);  // null when unknown

// Bytes of a row of cols elements; nullopt when cols is not a multiple of the block or the size passes 2^63.
std::optional<uint64_t> row_bytes(const Codec&, uint64_t cols);

}  // namespace cairn::codecs
