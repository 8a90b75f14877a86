// Products with blocks of 32 weights that share one scale: q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, mxfp4. The
// left side is int8 with a scale per block. Per block and lane:
//   dot = sum of 32 integer products (exact)        y += (d_w d_x) * dot      and, with a minimum m: y += (m
//   d_x) sum_x
// Weights are unsigned bytes u = w + offset (so that one instruction multiplies and adds four); the sum then
// begins at -offset * sum_x.
//
// A panel is [scales of all blocks][integers of all blocks]. One row reads it as it is (bound by memory). For
// more rows each piece of k is first unpacked into scratch, one byte per weight, and read from there by every
// tile.
#pragma once

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_macros.h"
#include "backends/cpu/matmul_pack.h"

namespace cairn::cpu {
namespace {

// Each format: kScaleBytes and kIntBytes of a panel's block, w<j>: vector j (elements 4j..4j+3 of 16 rows),
// kOffset: what was added to the weights, or kSigned: they are signed bytes; scale and, if kHasMin, minimum.
template <class S>
struct Q8_0 {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q8_0;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int kOffset = 0, kScaleBytes = 32, kIntBytes = 512, kFileBytes = 34;
  static constexpr PackField kFields[] = {{0, 2, 2, 0, kScaleBytes}, {2, 32, 4, -1, kIntBytes}};
  template <int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* b) {
    return S::signed_form(S::load(b + 64 * j));
  }
  static typename S::F scale(const std::byte* s) { return S::load_f16(s); }
  static typename S::F minimum(const std::byte*) { return S::zero_f(); }
};

template <class S>
struct Q4_0 {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q4_0;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 8, kScaleBytes = 32, kIntBytes = 256, kFileBytes = 18;
  static constexpr PackField kFields[] = {{0, 2, 2, 0, kScaleBytes}, {2, 16, 4, -1, kIntBytes}};
  template <int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* b) {
    return S::template shr_and<(j < 4 ? 0 : 4), 15>(S::load(b + 64 * (j % 4)));
  }
  static typename S::F scale(const std::byte* s) { return S::load_f16(s); }
  static typename S::F minimum(const std::byte*) { return S::zero_f(); }
};

template <class S>
struct Q4_1 : Q4_0<S> {
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q4_1;
  static constexpr bool kHasMin = true;
  static constexpr int kOffset = 0, kScaleBytes = 64, kIntBytes = 256, kFileBytes = 20;
  static constexpr PackField kFields[] = {{0, 4, 2, 0, kScaleBytes}, {4, 16, 4, -1, kIntBytes}};
  static typename S::F minimum(const std::byte* s) { return S::load_f16(s + 32); }
};

// The fifth bits: bit i of a row's u32 belongs to element i; four consecutive ones are spread over four
// bytes.
template <class S>
struct Q5_0 {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q5_0;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 16, kScaleBytes = 32, kIntBytes = 320, kFileBytes = 22;
  static constexpr PackField kFields[] = {{0, 2, 2, 0, kScaleBytes}, {2, 20, 4, -1, kIntBytes}};
  template <int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* b) {
    const auto nibbles = S::template shr_and<(j < 4 ? 0 : 4), 15>(S::load(b + 64 + 64 * (j % 4)));
    return S::bit_or(nibbles, S::template spread4<4 * j>(S::load(b)));
  }
  static typename S::F scale(const std::byte* s) { return S::load_f16(s); }
  static typename S::F minimum(const std::byte*) { return S::zero_f(); }
};

template <class S>
struct Q5_1 : Q5_0<S> {
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q5_1;
  static constexpr bool kHasMin = true;
  static constexpr int kOffset = 0, kScaleBytes = 64, kIntBytes = 320, kFileBytes = 24;
  static constexpr PackField kFields[] = {{0, 4, 2, 0, kScaleBytes}, {4, 20, 4, -1, kIntBytes}};
  static typename S::F minimum(const std::byte* s) { return S::load_f16(s + 32); }
};

inline constexpr int8_t kIq4Table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

template <class S>
struct Iq4Nl : Q4_0<S> {
  static constexpr codecs::CodecId kCodec = codecs::CodecId::iq4_nl;
  static constexpr bool kSigned = true;
  static constexpr int kOffset = 0;
  template <int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* b) {
    return S::signed_form(S::lookup(Q4_0<S>::template w<j>(b), kIq4Table));
  }
};

// Codes are twice the e2m1 values, here plus 16. The scale 2^(e - 128) is subnormal for e < 2.
inline constexpr int8_t kMxfp4Table[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

template <class S>
struct Mxfp4 {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::mxfp4;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 16, kScaleBytes = 16, kIntBytes = 256, kFileBytes = 17;
  static constexpr PackField kFields[] = {{0, 1, 1, 0, kScaleBytes}, {1, 16, 4, -1, kIntBytes}};
  template <int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* b) {
    return S::lookup(Q4_0<S>::template w<j>(b), kMxfp4Table);
  }
  static typename S::F scale(const std::byte* s) { return S::power_of_two(S::widen_u8(s)); }
  static typename S::F minimum(const std::byte*) { return S::zero_f(); }
};

constexpr int64_t kPiece32 = 16;  // blocks (512 columns): 16 KiB of unpacked weights for two panels

template <class C>
constexpr int64_t scale_area(int64_t cols) {
  return align64(cols / 32 * C::kScaleBytes);
}
template <class C>
size_t block32_panel_bytes(int64_t cols) {
  return size_t(scale_area<C>(cols) + align64(cols / 32 * C::kIntBytes));
}

// The two ways a tile meets its weights: packed, or unpacked by unpack32.
template <class C>
struct Packed32 {
  using S = typename C::Lanes;
  const std::byte* scales;
  const std::byte* ints;
  template <int j>
  CAIRN_INLINE typename S::I w(int64_t b) const {
    return C::template w<j>(ints + b * C::kIntBytes);
  }
  CAIRN_INLINE typename S::F scale(int64_t b) const { return C::scale(scales + b * C::kScaleBytes); }
  CAIRN_INLINE typename S::F minimum(int64_t b) const { return C::minimum(scales + b * C::kScaleBytes); }
  CAIRN_INLINE void fetch_ahead(int64_t b) const {
    prefetch_lines<C::kIntBytes / 64, 2048>(ints + b * C::kIntBytes);
  }
};

struct Unpacked32Block {
  alignas(64) std::byte w[8][64];
  alignas(64) float scale[16];
  alignas(64) float minimum[16];
};

template <class C>
struct Unpacked32 {
  using S = typename C::Lanes;
  const Unpacked32Block* blocks;
  template <int j>
  CAIRN_INLINE typename S::I w(int64_t b) const {
    return S::load(blocks[b].w[j]);
  }
  CAIRN_INLINE typename S::F scale(int64_t b) const { return S::load_f(blocks[b].scale); }
  CAIRN_INLINE typename S::F minimum(int64_t b) const { return S::load_f(blocks[b].minimum); }
  CAIRN_INLINE void fetch_ahead(int64_t) const {}
};

template <class C>
void unpack32(const Packed32<C>& from, int64_t blocks, Unpacked32Block* to) {
  using S = typename C::Lanes;
  for (int64_t b = 0; b < blocks; b++) {
    unroll<8>([&](auto j) CAIRN_INLINE { S::store(to[b].w[j], from.template w<j>(b)); });
    S::store_f(to[b].scale, from.scale(b));
    if constexpr (C::kHasMin) S::store_f(to[b].minimum, from.minimum(b));
  }
}

// Blocks [b0, b0 + blocks) of R rows and P panels; sources begin at b0.
template <class C, int R, int P, class Source>
CAIRN_INLINE inline void block32_tile(const MatMulArgs& a, const Source* sources, int64_t panel, int64_t row,
                                      int64_t b0, int64_t blocks, size_t act_bytes) {
  using S = typename C::Lanes;
  constexpr int kOffset = C::kSigned ? S::kSignedOffset : C::kOffset;
  const std::byte* const x0 = a.act + size_t(row) * act_bytes;
  const std::byte* x = x0 + b0 * 32;
  const std::byte* xscale = x0 + ActBlock32::scale_at(a.cols) + b0 * 4;
  const std::byte* xsum = x0 + ActBlock32::sum_at(a.cols) + b0 * 4;
  float* y = a.y + row * a.ldy + panel * kPanelRows;
  const int64_t valid = a.n_valid - (panel + P - 1) * kPanelRows;
  typename S::F acc[R][P];
  unroll<R>([&](auto r) CAIRN_INLINE {
    unroll<P>([&](auto p) CAIRN_INLINE {
      const float* from = y + r * a.ldy + p * kPanelRows;
      if (b0 == 0)
        acc[r][p] = S::zero_f();
      else
        acc[r][p] = p == P - 1 && valid < kPanelRows ? S::load_f(from, valid) : S::load_f(from);
    });
  });
  for (int64_t b = 0; b < blocks; b++, x += 32, xscale += 4, xsum += 4) {
    unroll<P>([&](auto p) CAIRN_INLINE { sources[p].fetch_ahead(b); });
    typename S::I dot[R][P];
    unroll<R>([&](auto r) CAIRN_INLINE {
      typename S::I start = S::zero();
      if constexpr (kOffset != 0)
        start = S::template shl32<__builtin_ctz(kOffset ? kOffset : 1)>(
            S::bcast_load(xsum + size_t(r) * act_bytes));
      unroll<P>([&](auto p) CAIRN_INLINE { dot[r][p] = start; });
    });
    unroll<8>([&](auto j) CAIRN_INLINE {
      typename S::I w[P];
      unroll<P>([&](auto p) CAIRN_INLINE { w[p] = sources[p].template w<j>(b); });
      unroll<R>([&](auto r) CAIRN_INLINE {
        const typename S::I v = S::bcast_load(x + size_t(r) * act_bytes + 4 * j);
        unroll<P>([&](auto p) CAIRN_INLINE {
          dot[r][p] = C::kSigned ? S::dp_signed(dot[r][p], w[p], v) : S::dp(dot[r][p], w[p], v);
        });
      });
    });
    unroll<P>([&](auto p) CAIRN_INLINE {
      const typename S::F scale = sources[p].scale(b);
      unroll<R>([&](auto r) CAIRN_INLINE {
        float dx;
        __builtin_memcpy(&dx, xscale + size_t(r) * act_bytes, 4);
        acc[r][p] = S::fma(S::to_float(dot[r][p]), S::mul_f(scale, S::bcast_f(dx)), acc[r][p]);
      });
      if constexpr (C::kHasMin) {
        const typename S::F minimum = sources[p].minimum(b);
        unroll<R>([&](auto r) CAIRN_INLINE {
          float dx;
          int32_t minus_sum;
          __builtin_memcpy(&dx, xscale + size_t(r) * act_bytes, 4);
          __builtin_memcpy(&minus_sum, xsum + size_t(r) * act_bytes, 4);
          acc[r][p] = S::fnma(minimum, S::bcast_f(float(minus_sum) * dx), acc[r][p]);
        });
      }
    });
  }
  unroll<R>([&](auto r) CAIRN_INLINE {
    unroll<P>([&](auto p) CAIRN_INLINE {
      float* to = y + r * a.ldy + p * kPanelRows;
      if (p == P - 1 && valid < kPanelRows)
        S::store_f(to, acc[r][p], valid);
      else
        S::store_f(to, acc[r][p]);
    });
  });
}

template <class C>
Packed32<C> packed32(const MatMulArgs& a, int64_t panel, size_t panel_bytes, int64_t b0) {
  const std::byte* at = a.packed + size_t(panel) * panel_bytes;
  return {at + b0 * C::kScaleBytes, at + scale_area<C>(a.cols) + b0 * C::kIntBytes};
}

template <class C, int P>
void block32_panels(const MatMulArgs& a, int64_t panel, int64_t b0, int64_t blocks, size_t panel_bytes,
                    size_t act_bytes) {
  Unpacked32<C> sources[P];
  for (int p = 0; p < P; p++) {
    auto* const to = reinterpret_cast<Unpacked32Block*>(a.scratch) + p * kPiece32;
    unpack32<C>(packed32<C>(a, panel + p, panel_bytes, b0), blocks, to);
    sources[p].blocks = to;
  }
  int64_t row = 0;
  const auto tiles = [&](auto R) CAIRN_INLINE {
    for (; a.m - row >= R; row += R) block32_tile<C, R, P>(a, sources, panel, row, b0, blocks, act_bytes);
  };
  constexpr int R = C::Lanes::kRows;
  tiles(std::integral_constant<int, R>());
  if constexpr (R > 4) tiles(std::integral_constant<int, 4>());
  tiles(std::integral_constant<int, 2>());
  tiles(std::integral_constant<int, 1>());
}

template <class C>
void block32_multiply(const MatMulArgs& a) {
  const size_t panel_bytes = block32_panel_bytes<C>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::q8_block32, a.cols);
  const int64_t blocks = a.cols / 32;
  if (a.m == 1) {
    for (int64_t panel = a.panels.begin; panel < a.panels.end; panel++) {
      const Packed32<C> source = packed32<C>(a, panel, panel_bytes, 0);
      block32_tile<C, 1, 1>(a, &source, panel, 0, 0, blocks, act_bytes);
    }
    return;
  }
  for_pieces<C::Lanes::kPanels>(a, blocks, kPiece32, [&](auto P, int64_t panel, int64_t b0, int64_t count) {
    block32_panels<C, P>(a, panel, b0, count, panel_bytes, act_bytes);
  });
}

template <class C>
void block32_pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
  PackField fields[2] = {C::kFields[0], C::kFields[1]};
  fields[1].at = scale_area<C>(cols);
  pack_panels(file_rows, rows, cols / 32, C::kFileBytes, fields, 2, panels,
              int64_t(block32_panel_bytes<C>(cols)), packed);
}

template <class S>
void prepare_block32(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::q8_block32, cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    std::byte* const to = act + size_t(r) * bytes;
    auto* const q = reinterpret_cast<int8_t*>(to);
    auto* const scale = reinterpret_cast<float*>(to + ActBlock32::scale_at(cols));
    auto* const sum = reinterpret_cast<int32_t*>(to + ActBlock32::sum_at(cols));
    for (int64_t b = 0; b < cols / 32; b++) {
      const float* from = x + r * ldx + b * 32;
      const uint32_t bits = S::max_magnitude_bits(from, 32);
      float most;
      __builtin_memcpy(&most, &bits, 4);
      // A block of (next to) zeros is zero; infinity and NaN survive in the scale.
      const float inverse = most < 1e-30f ? 0.0f : 127.0f / most;
      scale[b] = most < 1e-30f ? 0.0f : most / 127.0f;
      sum[b] =
          -(S::quantize16(from, inverse, q + b * 32) + S::quantize16(from + 16, inverse, q + b * 32 + 16));
    }
  }
}

template <class C>
constexpr MatMulKernel block32_kernel() {
  using S = typename C::Lanes;
  return {C::kCodec,           S::kIsa,
          ActForm::q8_block32, block32_panel_bytes<C>,
          block32_pack<C>,     prepare_block32<S>,
          block32_multiply<C>, size_t(S::kPanels) * kPiece32 * sizeof(Unpacked32Block)};
}

}  // namespace
}  // namespace cairn::cpu
