#include "backends/cuda/weight_blocks.h"

#include <cassert>
#include <cstring>

#include "base/error.h"
#include "base/float16.h"
#include "codecs/fp4.h"
#include "codecs/k_quants.h"
#include "codecs/legacy_blocks.h"
#include "codecs/nonlinear.h"
#include "codecs/scaled_blocks.h"
#include "codecs/ternary.h"

namespace cairn::cuda {
namespace {

using codecs::CodecId;

void put16(uint8_t* to, uint16_t v) { std::memcpy(to, &v, 2); }

// 32 codes from the bytes' low nibbles, then their high ones.
void nibbles(const uint8_t* qs, uint8_t* codes, int half = 16) {
  for (int j = 0; j < half; ++j) codes[j] = qs[j] & 15, codes[j + half] = qs[j] >> 4;
}
void fifth_bits(const uint8_t (&qh)[4], uint8_t* codes) {
  for (int e = 0; e < 32; ++e) codes[e] = uint8_t(codes[e] | ((qh[e / 8] >> (e % 8)) & 1) << 4);
}

// i: number of the block in the chunk.
void take(const codecs::BlockQ4_0& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i);
  put16(r.scales + 2 * i, b.d);
}
void take(const codecs::BlockQ4_1& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i);
  put16(r.scales + 4 * i, b.d), put16(r.scales + 4 * i + 2, b.m);
}
void take(const codecs::BlockQ5_0& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i), fifth_bits(b.qh, r.codes + 32 * i);
  put16(r.scales + 2 * i, b.d);
}
void take(const codecs::BlockQ5_1& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i), fifth_bits(b.qh, r.codes + 32 * i);
  put16(r.scales + 4 * i, b.d), put16(r.scales + 4 * i + 2, b.m);
}
void take(const codecs::BlockQ8_0& b, int i, BlockRow& r) {
  std::memcpy(r.codes + 32 * i, b.qs, 32);
  put16(r.scales + 2 * i, b.d);
}
void take(const codecs::BlockIQ4_NL& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i);
  put16(r.scales + 2 * i, b.d);
}
void take(const codecs::BlockMXFP4& b, int i, BlockRow& r) {
  nibbles(b.qs, r.codes + 32 * i);
  r.scales[i] = b.e;
}
void take(const codecs::BlockNVFP4& b, int i, BlockRow& r) {
  for (int s = 0; s < 4; ++s) {
    nibbles(b.qs + 8 * s, r.codes + 64 * i + 16 * s, 8);
    r.scales[4 * i + s] = b.d[s];
  }
}

// Codes of two bits, 128 to a 32 bytes: code c of byte l is column 32 c + l.
void pairs_of_bits(const uint8_t* qs, uint8_t* codes) {
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) codes[128 * n + 32 * c + l] = (qs[32 * n + l] >> (2 * c)) & 3;
}
void take(const codecs::BlockQ2_K& b, int, BlockRow& r) {
  pairs_of_bits(b.qs, r.codes);
  std::memcpy(r.scales, b.scales, 16);
  put16(r.row, b.d), put16(r.row + 2, b.dmin);
}
void take(const codecs::BlockQ3_K& b, int, BlockRow& r) {
  pairs_of_bits(b.qs, r.codes);
  for (int e = 0; e < 256; ++e) r.codes[e] = uint8_t(r.codes[e] | ((b.hmask[e % 32] >> (e / 32)) & 1) << 2);
  int8_t scale[16];
  codecs::unpack_q3_k_scales(b.scales, scale);
  std::memcpy(r.scales, scale, 16);
  put16(r.row, b.d);
}
template <typename Block>  // q4_k, q5_k
void take_affine(const Block& b, BlockRow& r) {
  for (int s = 0; s < 8; ++s)
    for (int l = 0; l < 32; ++l)
      r.codes[32 * s + l] = s % 2 ? b.qs[32 * (s / 2) + l] >> 4 : b.qs[32 * (s / 2) + l] & 15;
  uint8_t scale[8], min[8];
  codecs::unpack_k_scales(b.scales, scale, min);
  for (int section = 0; section < 2; ++section) {
    std::memcpy(r.scales + 8 * section, scale + 4 * section, 4);
    std::memcpy(r.scales + 8 * section + 4, min + 4 * section, 4);
  }
  put16(r.row, b.d), put16(r.row + 2, b.dmin);
}
void take(const codecs::BlockQ4_K& b, int, BlockRow& r) { take_affine(b, r); }
void take(const codecs::BlockQ5_K& b, int, BlockRow& r) {
  take_affine(b, r);
  for (int e = 0; e < 256; ++e) r.codes[e] = uint8_t(r.codes[e] | ((b.qh[e % 32] >> (e / 32)) & 1) << 4);
}
void take(const codecs::BlockQ6_K& b, int, BlockRow& r) {
  for (int n = 0; n < 2; ++n)
    for (int c = 0; c < 4; ++c)
      for (int l = 0; l < 32; ++l) {
        const uint8_t low = b.ql[64 * n + 32 * (c & 1) + l];
        r.codes[128 * n + 32 * c + l] =
            uint8_t((c < 2 ? low & 15 : low >> 4) | ((b.qh[32 * n + l] >> (2 * c)) & 3) << 4);
      }
  std::memcpy(r.scales, b.scales, 16);
  put16(r.row, b.d);
}
void take(const codecs::BlockIQ4_XS& b, int, BlockRow& r) {
  for (int s = 0; s < 8; ++s) {
    nibbles(b.qs + 16 * s, r.codes + 32 * s);
    const int low = (b.scales_l[s / 2] >> (4 * (s % 2))) & 15, high = (b.scales_h >> (2 * s)) & 3;
    r.scales[s] = uint8_t((low | high << 4) - 32);
  }
  put16(r.row, b.d);
}
void take(const codecs::BlockTQ2_0& b, int, BlockRow& r) {
  pairs_of_bits(b.qs, r.codes);
  put16(r.scales, b.d);
}
void take(const codecs::BlockTQ1_0& b, int, BlockRow& r) {
  static constexpr int kPowers[5] = {1, 3, 9, 27, 81};
  const auto digit = [](uint8_t byte, int k) { return uint8_t((uint8_t(byte * kPowers[k]) * 3) >> 8); };
  uint8_t* to = r.codes;
  for (int k = 0; k < 5; ++k)
    for (int j = 0; j < 32; ++j) *to++ = digit(b.qs[j], k);
  for (int k = 0; k < 5; ++k)
    for (int j = 32; j < 48; ++j) *to++ = digit(b.qs[j], k);
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 4; ++j) *to++ = digit(b.qh[j], k);
  put16(r.scales, b.d);
}

void take(const codecs::BlockE4M3& b, int i, BlockRow& r) {
  std::memcpy(r.codes + 128 * i, b.codes, 128);
  std::memcpy(r.scales + 4 * i, &b.scale, 4);
}
// Scales come as f16 or bf16. f16 holds every bf16 from 2^-14 on, smaller ones to 2^-25, and nothing past
// 65504.
template <int bits, int elements>
void take(const codecs::BlockInt<bits, elements>& b, int i, BlockRow& r) {
  // 8-bit codes are held signed.
  for (int e = 0; e < elements; ++e)
    r.codes[elements * i + e] = uint8_t(codecs::code_at<bits>(b.qs, e * bits) ^ (bits == 8 ? 128 : 0));
  const uint16_t scale = float_to_f16(b.scale);
  if ((scale & 0x7c00) == 0x7c00)
    fail(ErrorKind::unsupported,
         "a group of {}-bit weights has the scale {}, past the f16 limit 65504 of the GPU", bits, b.scale);
  const float zero = (bits == 8 ? 128.0f : -128.0f) - float(b.zero);
  put16(r.scales + 4 * i, scale), put16(r.scales + 4 * i + 2, float_to_bf16(zero));
}

template <typename Block>
void take_all(const std::byte* blocks, int cols, BlockRow& r) {
  r.file_bytes = 0;
  for (int i = 0; i * Block::kElements < cols; ++i) {
    Block block;
    std::memcpy(&block, blocks + r.file_bytes, sizeof block);
    r.file_bytes += int(sizeof block);
    take(block, i, r);
  }
}

}  // namespace

void read_block_row(CodecId codec, const std::byte* blocks, int cols, BlockRow& r) {
  std::memset(&r, 0, sizeof r);
  switch (codec) {
    case CodecId::q4_0: return take_all<codecs::BlockQ4_0>(blocks, cols, r);
    case CodecId::q4_1: return take_all<codecs::BlockQ4_1>(blocks, cols, r);
    case CodecId::q5_0: return take_all<codecs::BlockQ5_0>(blocks, cols, r);
    case CodecId::q5_1: return take_all<codecs::BlockQ5_1>(blocks, cols, r);
    case CodecId::q8_0: return take_all<codecs::BlockQ8_0>(blocks, cols, r);
    case CodecId::q2_k: return take_all<codecs::BlockQ2_K>(blocks, cols, r);
    case CodecId::q3_k: return take_all<codecs::BlockQ3_K>(blocks, cols, r);
    case CodecId::q4_k: return take_all<codecs::BlockQ4_K>(blocks, cols, r);
    case CodecId::q5_k: return take_all<codecs::BlockQ5_K>(blocks, cols, r);
    case CodecId::q6_k: return take_all<codecs::BlockQ6_K>(blocks, cols, r);
    case CodecId::iq4_nl: return take_all<codecs::BlockIQ4_NL>(blocks, cols, r);
    case CodecId::iq4_xs: return take_all<codecs::BlockIQ4_XS>(blocks, cols, r);
    case CodecId::mxfp4: return take_all<codecs::BlockMXFP4>(blocks, cols, r);
    case CodecId::nvfp4: return take_all<codecs::BlockNVFP4>(blocks, cols, r);
    case CodecId::tq1_0: return take_all<codecs::BlockTQ1_0>(blocks, cols, r);
    case CodecId::tq2_0: return take_all<codecs::BlockTQ2_0>(blocks, cols, r);
    case CodecId::e4m3_g128: return take_all<codecs::BlockE4M3>(blocks, cols, r);
    case CodecId::int2_g32: return take_all<codecs::BlockInt2G32>(blocks, cols, r);
    case CodecId::int2_g128: return take_all<codecs::BlockInt2G128>(blocks, cols, r);
    case CodecId::int3_g32: return take_all<codecs::BlockInt3G32>(blocks, cols, r);
    case CodecId::int3_g128: return take_all<codecs::BlockInt3G128>(blocks, cols, r);
    case CodecId::int4_g32: return take_all<codecs::BlockInt4G32>(blocks, cols, r);
    case CodecId::int4_g128: return take_all<codecs::BlockInt4G128>(blocks, cols, r);
    case CodecId::int8_g32: return take_all<codecs::BlockInt8G32>(blocks, cols, r);
    case CodecId::int8_g128: return take_all<codecs::BlockInt8G128>(blocks, cols, r);
    default: assert(false);
  }
}

}  // namespace cairn::cuda
