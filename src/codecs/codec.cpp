#include "codecs/codec.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "base/checked.h"
#include "codecs/bcq.h"
#include "codecs/fp4.h"
#include "codecs/k_quants.h"
#include "codecs/legacy_blocks.h"
#include "codecs/nonlinear.h"
#include "codecs/plain.h"
#include "codecs/scaled_blocks.h"
#include "codecs/ternary.h"

namespace cairn::codecs {
namespace {

template <typename Block>
constexpr Codec block_codec(CodecId id, uint32_t ggml_type, decltype(Codec::decode) decode,
                            decltype(Codec::encode) encode) {
  return {id, Block::kName, ggml_type, Block::kElements, int(sizeof(Block)), decode, encode};
}

// In the order of CodecId.
constexpr Codec kTable[] = {
    {CodecId::f32, "f32", 0, 1, 4, decode_f32, encode_f32},
    {CodecId::f16, "f16", 1, 1, 2, decode_f16, encode_f16},
    {CodecId::bf16, "bf16", 30, 1, 2, decode_bf16, encode_bf16},
    {CodecId::f64, "f64", 28, 1, 8, decode_f64, encode_f64},
    {CodecId::i8, "i8", 24, 1, 1, decode_i8, nullptr},
    {CodecId::i16, "i16", 25, 1, 2, decode_i16, nullptr},
    {CodecId::i32, "i32", 26, 1, 4, decode_i32, nullptr},
    {CodecId::i64, "i64", 27, 1, 8, decode_i64, nullptr},
    // Bytes that mean something together with others only.
    {CodecId::u8, "u8", kNoGgmlType, 1, 1, nullptr, nullptr},
    block_codec<BlockQ4_0>(CodecId::q4_0, 2, decode_q4_0, encode_q4_0),
    block_codec<BlockQ4_1>(CodecId::q4_1, 3, decode_q4_1, encode_q4_1),
    block_codec<BlockQ5_0>(CodecId::q5_0, 6, decode_q5_0, encode_q5_0),
    block_codec<BlockQ5_1>(CodecId::q5_1, 7, decode_q5_1, encode_q5_1),
    block_codec<BlockQ8_0>(CodecId::q8_0, 8, decode_q8_0, encode_q8_0),
    block_codec<BlockQ2_K>(CodecId::q2_k, 10, decode_q2_k, encode_q2_k),
    block_codec<BlockQ3_K>(CodecId::q3_k, 11, decode_q3_k, encode_q3_k),
    block_codec<BlockQ4_K>(CodecId::q4_k, 12, decode_q4_k, encode_q4_k),
    block_codec<BlockQ5_K>(CodecId::q5_k, 13, decode_q5_k, encode_q5_k),
    block_codec<BlockQ6_K>(CodecId::q6_k, 14, decode_q6_k, encode_q6_k),
    block_codec<BlockIQ4_NL>(CodecId::iq4_nl, 20, decode_iq4_nl, encode_iq4_nl),
    block_codec<BlockIQ4_XS>(CodecId::iq4_xs, 23, decode_iq4_xs, encode_iq4_xs),
    block_codec<BlockMXFP4>(CodecId::mxfp4, 39, decode_mxfp4, encode_mxfp4),
    block_codec<BlockNVFP4>(CodecId::nvfp4, 40, decode_nvfp4, encode_nvfp4),
    block_codec<BlockTQ1_0>(CodecId::tq1_0, 34, decode_tq1_0, encode_tq1_0),
    block_codec<BlockTQ2_0>(CodecId::tq2_0, 35, decode_tq2_0, encode_tq2_0),
    {CodecId::iq1_s, "iq1_s", 19, 256, 50, nullptr, nullptr},
    {CodecId::iq1_m, "iq1_m", 29, 256, 56, nullptr, nullptr},
    {CodecId::iq2_xxs, "iq2_xxs", 16, 256, 66, nullptr, nullptr},
    {CodecId::iq2_xs, "iq2_xs", 17, 256, 74, nullptr, nullptr},
    {CodecId::iq2_s, "iq2_s", 22, 256, 82, nullptr, nullptr},
    {CodecId::iq3_xxs, "iq3_xxs", 18, 256, 98, nullptr, nullptr},
    {CodecId::iq3_s, "iq3_s", 21, 256, 110, nullptr, nullptr},
    {CodecId::e4m3, "e4m3", kNoGgmlType, 1, 1, decode_e4m3, nullptr},
    block_codec<BlockE4M3>(CodecId::e4m3_g128, kNoGgmlType, decode_e4m3_g128, nullptr),
    block_codec<BlockInt2G32>(CodecId::int2_g32, kNoGgmlType, decode_ints<BlockInt2G32>, nullptr),
    block_codec<BlockInt2G128>(CodecId::int2_g128, kNoGgmlType, decode_ints<BlockInt2G128>, nullptr),
    block_codec<BlockInt3G32>(CodecId::int3_g32, kNoGgmlType, decode_ints<BlockInt3G32>, nullptr),
    block_codec<BlockInt3G128>(CodecId::int3_g128, kNoGgmlType, decode_ints<BlockInt3G128>, nullptr),
    block_codec<BlockInt4G32>(CodecId::int4_g32, kNoGgmlType, decode_ints<BlockInt4G32>, nullptr),
    block_codec<BlockInt4G128>(CodecId::int4_g128, kNoGgmlType, decode_ints<BlockInt4G128>, nullptr),
    block_codec<BlockInt8G32>(CodecId::int8_g32, kNoGgmlType, decode_ints<BlockInt8G32>, nullptr),
    block_codec<BlockInt8G128>(CodecId::int8_g128, kNoGgmlType, decode_ints<BlockInt8G128>, nullptr),
    block_codec<BlockBcq<1>>(CodecId::bcq1_g128, kNoGgmlType, decode_bcq<1>, encode_bcq<1>),
    block_codec<BlockBcq<2>>(CodecId::bcq2_g128, kNoGgmlType, decode_bcq<2>, encode_bcq<2>),
    block_codec<BlockBcq<3>>(CodecId::bcq3_g128, kNoGgmlType, decode_bcq<3>, encode_bcq<3>),
    block_codec<BlockBcq<4>>(CodecId::bcq4_g128, kNoGgmlType, decode_bcq<4>, encode_bcq<4>),
};

constexpr bool in_order() {
  for (size_t i = 0; i < kCodecs; ++i)
    if (kTable[i].id != CodecId(i)) return false;
  return std::size(kTable) == kCodecs;
}
static_assert(in_order());

}  // namespace

const Codec& codec(CodecId id) { return kTable[size_t(id)]; }

std::span<const Codec> all_codecs() { return kTable; }

const Codec* find_codec(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTable), std::end(kTable), [&](const Codec& c) { return c.name == name; });
  return found == std::end(kTable) ? nullptr : found;
}

const Codec* find_codec_of_ggml_type(uint32_t ggml_type) {
  if (ggml_type == kNoGgmlType) return nullptr;
  const auto* found = std::find_if(std::begin(kTable), std::end(kTable),
                                   [&](const Codec& c) { return c.ggml_type == ggml_type; });
  return found == std::end(kTable) ? nullptr : found;
}

std::optional<uint64_t> row_bytes(const Codec& c, uint64_t cols) {
  if (cols % uint64_t(c.block_elements) != 0) return std::nullopt;
  const auto bytes = checked_mul(cols / uint64_t(c.block_elements), uint64_t(c.block_bytes));
  if (!bytes || *bytes > uint64_t(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return bytes;
}

}  // namespace cairn::codecs
