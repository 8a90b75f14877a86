// The formats once more, written element by element from the block's bytes (../shared/seeds/gguf-kquants.md),
// and compared with the decoders on blocks in which every single bit is set, and cleared, in turn.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "base/float16.h"
#include "codecs/codec.h"

namespace cairn::codecs {
namespace {

using Bytes = const uint8_t*;

float half_at(Bytes b, int offset) { return f16_to_float(uint16_t(b[offset] | b[offset + 1] << 8)); }
int nibble(Bytes qs, int e) { return e < 16 ? qs[e] & 15 : qs[e - 16] >> 4; }  // of 32 elements
constexpr int kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr int kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

int k_scale(Bytes p, int s) { return s < 4 ? p[s] & 63 : (p[s + 4] & 15) | (p[s - 4] >> 6) << 4; }
int k_min(Bytes p, int s) { return s < 4 ? p[s + 4] & 63 : (p[s + 4] >> 4) | (p[s] >> 6) << 4; }

int ternary_digit(int byte, int k) {
  for (int i = 0; i < k; ++i) byte = byte * 3 % 256;
  return byte * 3 / 256;
}

float float_at(Bytes b, int offset) {
  float value;
  std::memcpy(&value, b + offset, sizeof value);
  return value;
}
// Sign, four bits of exponent (bias 7), three of mantissa; all ones is NaN.
float e4m3(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return std::numeric_limits<float>::quiet_NaN();
  const float magnitude =
      exponent == 0 ? std::ldexp(float(mantissa), -9) : std::ldexp(float(8 + mantissa), exponent - 10);
  return code & 128 ? -magnitude : magnitude;
}

// Bit by bit, without looking at bytes.
template <int bits>
float packed_int(Bytes b, int e) {
  int q = 0;
  for (int i = 0; i < bits; ++i) q |= ((b[5 + (e * bits + i) / 8] >> (e * bits + i) % 8) & 1) << i;
  return float_at(b, 0) * float(q - b[4]);
}
template <int q>
float signs(Bytes b, int e) {
  float sum = 0;
  for (int i = 0; i < q; ++i)
    sum += ((b[2 * q + 4 + 16 * i + e / 8] >> e % 8) & 1 ? 1.0f : -1.0f) * half_at(b, 2 * i);
  return sum + float_at(b, 2 * q);
}

struct Format {
  CodecId id;
  std::function<float(Bytes, int)> element;  // value of element e
  std::vector<int> f16_offsets;              // where an f16 lies that must be set for the rest to show
};

const Format kFormats[] = {
    {CodecId::q4_0, [](Bytes b, int e) { return half_at(b, 0) * float(nibble(b + 2, e) - 8); }, {0}},
    {CodecId::q4_1,
     [](Bytes b, int e) { return half_at(b, 0) * float(nibble(b + 4, e)) + half_at(b, 2); },
     {0, 2}},
    {CodecId::q5_0,
     [](Bytes b, int e) {
       return half_at(b, 0) * float((nibble(b + 6, e) | ((b[2 + e / 8] >> e % 8) & 1) << 4) - 16);
     },
     {0}},
    {CodecId::q5_1,
     [](Bytes b, int e) {
       return half_at(b, 0) * float(nibble(b + 8, e) | ((b[4 + e / 8] >> e % 8) & 1) << 4) + half_at(b, 2);
     },
     {0, 2}},
    {CodecId::q8_0, [](Bytes b, int e) { return half_at(b, 0) * float(int8_t(b[2 + e])); }, {0}},
    {CodecId::q2_k,
     [](Bytes b, int e) {
       const int q = (b[16 + e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2)) & 3, s = b[e / 16];
       return half_at(b, 80) * float(s & 15) * float(q) - half_at(b, 82) * float(s >> 4);
     },
     {80, 82}},
    {CodecId::q3_k,
     [](Bytes b, int e) {
       const int i = e / 16, h = (b[e % 32] >> (e / 32)) & 1;
       const int q = ((b[32 + e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2)) & 3) - (h ? 0 : 4);
       const int low = i < 8 ? b[96 + i] & 15 : b[88 + i] >> 4, high = (b[104 + i % 4] >> (i / 4 * 2)) & 3;
       return half_at(b, 108) * float((low | high << 4) - 32) * float(q);
     },
     {108}},
    {CodecId::q4_k,
     [](Bytes b, int e) {
       const int s = e / 32, byte = b[16 + e / 64 * 32 + e % 32], q = s % 2 ? byte >> 4 : byte & 15;
       return half_at(b, 0) * float(k_scale(b + 4, s)) * float(q) - half_at(b, 2) * float(k_min(b + 4, s));
     },
     {0, 2}},
    {CodecId::q5_k,
     [](Bytes b, int e) {
       const int s = e / 32, byte = b[48 + e / 64 * 32 + e % 32];
       const int q = (s % 2 ? byte >> 4 : byte & 15) | ((b[16 + e % 32] >> s) & 1) << 4;
       return half_at(b, 0) * float(k_scale(b + 4, s)) * float(q) - half_at(b, 2) * float(k_min(b + 4, s));
     },
     {0, 2}},
    {CodecId::q6_k,
     [](Bytes b, int e) {
       const int n = e / 128, c = e / 32 % 4, l = e % 32;
       const int low = c < 2 ? b[64 * n + 32 * c + l] & 15 : b[64 * n + 32 * (c - 2) + l] >> 4;
       const int high = (b[128 + 32 * n + l] >> 2 * c) & 3;
       return half_at(b, 208) * float(int8_t(b[192 + e / 16])) * float((low | high << 4) - 32);
     },
     {208}},
    {CodecId::iq4_nl, [](Bytes b, int e) { return half_at(b, 0) * float(kLevels[nibble(b + 2, e)]); }, {0}},
    {CodecId::iq4_xs,
     [](Bytes b, int e) {
       const int s = e / 32, high = ((b[2] | b[3] << 8) >> (2 * s)) & 3,
                 low = (b[4 + s / 2] >> (s % 2 * 4)) & 15;
       return half_at(b, 0) * float((low | high << 4) - 32) * float(kLevels[nibble(b + 8 + 16 * s, e % 32)]);
     },
     {0}},
    {CodecId::mxfp4,
     [](Bytes b, int e) { return std::ldexp(1.0f, b[0] - 128) * float(kFp4[nibble(b + 1, e)]); },
     {}},
    {CodecId::nvfp4,
     [](Bytes b, int e) {
       const int s = e / 16, code = b[s] & 127, exponent = code / 8, t = e % 16;
       const float scale = code == 127 && b[s] == 127 ? 0
                           : exponent == 0            ? std::ldexp(float(code % 8), -9)
                                                      : std::ldexp(float(8 + code % 8), exponent - 10);
       const int byte = b[4 + 8 * s + t % 8];
       return 0.5f * scale * float(kFp4[t < 8 ? byte & 15 : byte >> 4]);
     },
     {}},
    {CodecId::tq1_0,
     [](Bytes b, int e) {
       const int digit = e < 160   ? ternary_digit(b[e % 32], e / 32)
                         : e < 240 ? ternary_digit(b[32 + (e - 160) % 16], (e - 160) / 16)
                                   : ternary_digit(b[48 + (e - 240) % 4], (e - 240) / 4);
       return half_at(b, 52) * float(digit - 1);
     },
     {52}},
    {CodecId::tq2_0,
     [](Bytes b, int e) {
       return half_at(b, 64) * float(((b[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2)) & 3) - 1);
     },
     {64}},
    {CodecId::e4m3_g128, [](Bytes b, int e) { return float_at(b, 0) * e4m3(b[4 + e]); }, {}},
    {CodecId::int2_g32, packed_int<2>, {}},
    {CodecId::int2_g128, packed_int<2>, {}},
    {CodecId::int3_g32, packed_int<3>, {}},
    {CodecId::int3_g128, packed_int<3>, {}},
    {CodecId::int4_g32, packed_int<4>, {}},
    {CodecId::int4_g128, packed_int<4>, {}},
    {CodecId::int8_g32, packed_int<8>, {}},
    {CodecId::int8_g128, packed_int<8>, {}},
    {CodecId::bcq1_g128, signs<1>, {0}},
    {CodecId::bcq2_g128, signs<2>, {0, 2}},
    {CodecId::bcq3_g128, signs<3>, {0, 2, 4}},
    {CodecId::bcq4_g128, signs<4>, {0, 2, 4, 6}},
};

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

void expect_decoded(const Format& format, const std::vector<uint8_t>& block, const std::string& what) {
  const Codec& c = codec(format.id);
  std::vector<float> got(size_t(c.block_elements), std::numeric_limits<float>::quiet_NaN());
  c.decode(reinterpret_cast<const std::byte*>(block.data()), got.data(), c.block_elements);
  for (int e = 0; e < c.block_elements; ++e) {
    const float want = format.element(block.data(), e);
    ASSERT_TRUE(same(got[size_t(e)], want))
        << c.name << ' ' << what << " element " << e << ": " << got[size_t(e)] << ", want " << want;
  }
}

TEST(CodecDecode, EveryBitOfEveryFieldMeansWhatTheFormatSays) {
  for (const Format& format : kFormats) {
    const Codec& c = codec(format.id);
    for (const uint8_t background : {0x00, 0xff, 0xa5}) {
      std::vector<uint8_t> block(size_t(c.block_bytes), background);
      if (format.id >= CodecId::e4m3_g128 && format.id < CodecId::bcq1_g128) {
        const float scale = -0.75f;
        std::memcpy(block.data(), &scale, sizeof scale);
      }
      for (size_t i = 0; i < format.f16_offsets.size(); ++i) {
        const uint16_t d = float_to_f16(i == 0 ? 0.75f : -1.25f);
        std::memcpy(&block[size_t(format.f16_offsets[i])], &d, sizeof d);
      }
      expect_decoded(format, block, "background " + std::to_string(background));
      for (int bit = 0; bit < 8 * c.block_bytes; ++bit) {
        auto flipped = block;
        flipped[size_t(bit / 8)] ^= uint8_t(1 << bit % 8);
        expect_decoded(format, flipped,
                       "background " + std::to_string(background) + " bit " + std::to_string(bit));
      }
    }
  }
}

TEST(CodecDecode, EveryScaleCodeOfTheFp4Formats) {
  for (const Format& format : kFormats) {
    if (format.id != CodecId::mxfp4 && format.id != CodecId::nvfp4) continue;
    for (int code = 0; code < 256; ++code) {
      std::vector<uint8_t> block(size_t(codec(format.id).block_bytes), 0x71);
      block[0] = uint8_t(code);
      expect_decoded(format, block, "scale " + std::to_string(code));
    }
  }
}

TEST(CodecDecode, WorkedExamples) {
  // q4_0: d = 0.5; byte 0 holds element 0 (low nibble 3) and element 16 (high nibble 15).
  std::vector<uint8_t> q4_0(18, 0x88);
  q4_0[0] = 0x00, q4_0[1] = 0x38, q4_0[2] = 0xf3;
  float y[256];
  codec(CodecId::q4_0).decode(reinterpret_cast<const std::byte*>(q4_0.data()), y, 32);
  EXPECT_EQ(y[0], -2.5f);
  EXPECT_EQ(y[16], 3.5f);
  EXPECT_EQ(y[1], 0.0f);
  // q4_k: d = 1, dmin = 2. Sub-block 5 has scale 0b10'1101 = 45 and minimum 0b01'1001 = 25.
  std::vector<uint8_t> q4_k(144, 0);
  q4_k[1] = 0x3c, q4_k[3] = 0x40;
  q4_k[4 + 1] = 0x80;        // upper bits of scale 5, 10, over the six of scale 1
  q4_k[4 + 5] = 0x40;        // upper bits of minimum 5, 01
  q4_k[4 + 9] = 0x9d;        // lower bits: minimum 1001, scale 1101
  q4_k[16 + 64 + 7] = 0x60;  // element 5 * 32 + 7 = 6
  codec(CodecId::q4_k).decode(reinterpret_cast<const std::byte*>(q4_k.data()), y, 256);
  EXPECT_EQ(y[167], 45.0f * 6 - 2 * 25);
  EXPECT_EQ(y[160], -50.0f);
  EXPECT_EQ(y[0], 0.0f);
  // mxfp4: e = 127 is a scale of 1/2 on the doubled values; code 15 is -6.
  std::vector<uint8_t> mxfp4(17, 0xf2);
  mxfp4[0] = 127;
  codec(CodecId::mxfp4).decode(reinterpret_cast<const std::byte*>(mxfp4.data()), y, 32);
  EXPECT_EQ(y[0], 1.0f);
  EXPECT_EQ(y[16], -6.0f);
}

TEST(CodecDecode, PlainNumbers) {
  const auto check = [](CodecId id, auto first, auto second, float want_first, float want_second) {
    const decltype(first) stored[2] = {first, second};
    float y[2];
    codec(id).decode(reinterpret_cast<const std::byte*>(stored), y, 2);
    EXPECT_EQ(y[0], want_first) << codec(id).name;
    EXPECT_EQ(y[1], want_second) << codec(id).name;
  };
  check(CodecId::f32, 1.5f, -2.0f, 1.5f, -2.0f);
  check(CodecId::f16, uint16_t{0x3c00}, uint16_t{0xc000}, 1, -2);
  check(CodecId::bf16, uint16_t{0x3f80}, uint16_t{0xc000}, 1, -2);
  check(CodecId::f64, 0.1, 1e300, 0.1f, std::numeric_limits<float>::infinity());
  check(CodecId::e4m3, uint8_t{0x7e}, uint8_t{0x81}, 448, -0x1p-9f);
  check(CodecId::i8, int8_t{-128}, int8_t{127}, -128, 127);
  check(CodecId::i16, int16_t{-32768}, int16_t{2}, -32768, 2);
  check(CodecId::i32, int32_t{-3}, int32_t{1} << 30, -3, 0x1p30f);
  check(CodecId::i64, int64_t{-4}, int64_t{1} << 40, -4, 0x1p40f);
}

TEST(CodecTable, NamesTypesAndSizes) {
  for (const Codec& c : all_codecs()) {
    EXPECT_EQ(find_codec(c.name), &c);
    EXPECT_EQ(find_codec_of_ggml_type(c.ggml_type), c.ggml_type == kNoGgmlType ? nullptr : &c);
    EXPECT_EQ(&codec(c.id), &c);
    if (c.encode) {
      EXPECT_TRUE(c.decode) << c.name;
    }
  }
  EXPECT_EQ(find_codec("q9_9"), nullptr);
  for (const uint32_t removed : {4u, 5u, 9u, 15u, 31u, 33u, 36u, 38u, 1000u})
    EXPECT_EQ(find_codec_of_ggml_type(removed), nullptr) << removed;
  EXPECT_EQ(codec(CodecId::q4_k).bits_per_weight(), 4.5);
  EXPECT_EQ(codec(CodecId::q6_k).bits_per_weight(), 6.5625);
  EXPECT_EQ(row_bytes(codec(CodecId::q4_k), 512), 288u);
  EXPECT_EQ(row_bytes(codec(CodecId::q4_k), 0), 0u);
  EXPECT_EQ(row_bytes(codec(CodecId::q4_k), 500), std::nullopt);
  EXPECT_EQ(row_bytes(codec(CodecId::f64), uint64_t{1} << 60), std::nullopt);
  EXPECT_EQ(row_bytes(codec(CodecId::f64), uint64_t{1} << 62), std::nullopt);
}

}  // namespace
}  // namespace cairn::codecs
