// Products with super-blocks of 256 weights, whose sub-blocks have small integer scales: q2_k..q6_k, iq4_xs,
// tq2_0. The left side is int8 with a scale per 256 and sums of its sub-blocks. Per super-block and lane:
//   total = sum_s scale_s * dot_s - offset * sum_s scale_s * sum_x_s      exact in int32
//   y += (d d_x) * total      and, with minima m_s:      y -= (d_min d_x) * sum_s m_s * sum_x_s
//
// A panel is [d (and d_min) of all super-blocks][scales and integers of all super-blocks], the latter a
// multiple of 64 bytes. As in matmul_block32.h one row reads it as it is, more rows read an unpacked piece.
#pragma once

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_macros.h"
#include "backends/cpu/matmul_pack.h"

namespace cairn::cpu {
namespace {

template <class S, int kSubs>
struct SuperScales {
  typename S::I scale[kSubs];  // 16 int32 each
  typename S::I
      pair[kSubs / 2];  // int16 pairs that multiply the sums of x: minima, or scales where there is an offset
};

// Sub-blocks' six-bit scales and minima of q4_k and q5_k.
template <class S>
CAIRN_INLINE inline void kq_scales(const std::byte* b, SuperScales<S, 8>& to) {
  if constexpr (S::kIsa >= Isa::vnni) {
    S::kq_scales(b, to.scale, to.pair);
  } else {
    typename S::I minimum[8];
    unroll<4>([&](auto s) CAIRN_INLINE {
      const auto low = S::widen_u8(b + 16 * s), mid = S::widen_u8(b + 16 * (s + 4)),
                 high = S::widen_u8(b + 16 * (s + 8));
      to.scale[s] = S::template shr_and<0, 63>(low);
      minimum[s] = S::template shr_and<0, 63>(mid);
      to.scale[s + 4] = S::bit_or(S::template shr_and<0, 15>(high), S::template shr_and<2, 0x30>(low));
      minimum[s + 4] = S::bit_or(S::template shr_and<4, 15>(high), S::template shr_and<2, 0x30>(mid));
    });
    unroll<4>([&](auto i) CAIRN_INLINE { to.pair[i] = S::pair(minimum[2 * i], minimum[2 * i + 1]); });
  }
}

// Each format: kSubs sub-blocks; w<s, j>: vector j of sub-block s; scales. kPairs: how many pairs are in use;
// 8 pairs go with sums of 16 elements, 4 with sums of 32. kOffset and kSigned as in matmul_block32.h.
template <class S>
struct Q4_K {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q4_k;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kOffset = 0, kSubs = 8, kPairs = 4, kScaleBytes = 64, kBodyBytes = 2240,
                       kFileBytes = 144;
  static constexpr int kFieldCount = 3;
  static constexpr PackField kFields[] = {
      {0, 4, 2, 0, kScaleBytes}, {4, 12, 1, -1, kBodyBytes}, {16, 128, 4, -193, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    return S::template shr_and<(s % 2) * 4, 15>(S::load(body + 192 + 64 * (s / 2 * 8 + j)));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte* body, SuperScales<S, kSubs>& to) {
    kq_scales<S>(body, to);
  }
};

template <class S>
struct Q5_K {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q5_k;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kOffset = 0, kSubs = 8, kPairs = 4, kScaleBytes = 64, kBodyBytes = 2752,
                       kFileBytes = 176;
  static constexpr int kFieldCount = 3;
  // qh and qs follow each other in the file and in the body.
  static constexpr PackField kFields[] = {
      {0, 4, 2, 0, kScaleBytes}, {4, 12, 1, -1, kBodyBytes}, {16, 160, 4, -193, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    const auto low = S::template shr_and<(s % 2) * 4, 15>(S::load(body + 704 + 64 * (s / 2 * 8 + j)));
    const auto fifth = S::load(body + 192 + 64 * j);
    if constexpr (s < 4)
      return S::bit_or(low, S::template shl_and<4 - s, 16>(fifth));
    else
      return S::bit_or(low, S::template shr_and<s - 4, 16>(fifth));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte* body, SuperScales<S, kSubs>& to) {
    kq_scales<S>(body, to);
  }
};

// Pairs of neighbouring scales, for formats with an offset.
template <class S, int kSubs>
CAIRN_INLINE inline void scale_pairs(SuperScales<S, kSubs>& to) {
  unroll<kSubs / 2>([&](auto i) CAIRN_INLINE { to.pair[i] = S::pair(to.scale[2 * i], to.scale[2 * i + 1]); });
}

template <class S>
struct Q6_K {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q6_k;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 32, kSubs = 16, kPairs = 8, kScaleBytes = 32, kBodyBytes = 3328,
                       kFileBytes = 210;
  // Per half n and v = 0..7 three vectors: low nibbles of c = 0 and 2, of c = 1 and 3, high bits of all four.
  // One row then reads memory nearly in order, which the processor's prefetch wants (one thread: 11.6 GB/s,
  // 9.9 with all low bits before the high ones).
  static constexpr int kFieldCount = 8;
  static constexpr int kHalf = 24 * 64;
  static constexpr PackField kFields[] = {{208, 2, 2, 0, kScaleBytes},
                                          {192, 16, 1, -1, kBodyBytes},
                                          {0, 32, 4, -257, kBodyBytes, 3},
                                          {32, 32, 4, -257 - 64, kBodyBytes, 3},
                                          {128, 32, 4, -257 - 128, kBodyBytes, 3},
                                          {64, 32, 4, -257 - kHalf, kBodyBytes, 3},
                                          {96, 32, 4, -257 - kHalf - 64, kBodyBytes, 3},
                                          {160, 32, 4, -257 - kHalf - 128, kBodyBytes, 3}};
  template <int s, int j>  // s: 16 elements, j in 0..3
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    constexpr int n = s / 8, c = s / 2 % 4, v = 4 * (s % 2) + j;
    const std::byte* const at = body + 256 + n * kHalf + v * 192;
    const auto low = S::template shr_and<(c / 2) * 4, 15>(S::load(at + 64 * (c % 2)));
    const auto high = S::load(at + 128);
    if constexpr (c < 2)
      return S::bit_or(low, S::template shl_and<4 - 2 * c, 0x30>(high));
    else
      return S::bit_or(low, S::template shr_and<2 * c - 4, 0x30>(high));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte* body, SuperScales<S, kSubs>& to) {
    unroll<16>([&](auto s) CAIRN_INLINE { to.scale[s] = S::widen_s8(body + 16 * s); });
    scale_pairs<S, kSubs>(to);
  }
};

template <class S>
struct Q3_K {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q3_k;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 4, kSubs = 16, kPairs = 8, kScaleBytes = 32, kBodyBytes = 1728,
                       kFileBytes = 110;
  static constexpr int kFieldCount = 3;
  // hmask and qs, then the twelve bytes of scales at the end of the body
  static constexpr PackField kFields[] = {
      {108, 2, 2, 0, kScaleBytes}, {96, 12, 1, -1537, kBodyBytes}, {0, 96, 4, -1, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    constexpr int n = s / 8, c = s / 2 % 4, v = 4 * (s % 2) + j, bit = 4 * n + c;
    const auto low = S::template shr_and<2 * c, 3>(S::load(body + 512 + 64 * (8 * n + v)));
    const auto mask = S::load(body + 64 * v);
    if constexpr (bit < 2)
      return S::bit_or(low, S::template shl_and<2 - bit, 4>(mask));
    else
      return S::bit_or(low, S::template shr_and<bit - 2, 4>(mask));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte* body, SuperScales<S, kSubs>& to) {
    const std::byte* const at = body + 1536;
    unroll<16>([&](auto s) CAIRN_INLINE {
      const auto bytes = S::widen_u8(at + 16 * (s % 8));
      const auto high = S::widen_u8(at + 16 * (8 + s % 4));
      const auto low4 = S::template shr_and<(s < 8 ? 0 : 4), 15>(bytes);
      constexpr int from = 2 * (s / 4);
      if constexpr (from < 4)
        to.scale[s] = S::bit_or(low4, S::template shl_and<4 - from, 0x30>(high));
      else
        to.scale[s] = S::bit_or(low4, S::template shr_and<from - 4, 0x30>(high));
      to.scale[s] = S::sub(to.scale[s], S::bcast(32));
    });
    scale_pairs<S, kSubs>(to);
  }
};

template <class S>
struct Q2_K {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::q2_k;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int kOffset = 0, kSubs = 16, kPairs = 8, kScaleBytes = 64, kBodyBytes = 1280,
                       kFileBytes = 84;
  static constexpr int kFieldCount = 3;
  static constexpr PackField kFields[] = {
      {80, 4, 2, 0, kScaleBytes}, {0, 16, 1, -1, kBodyBytes}, {16, 64, 4, -257, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    constexpr int n = s / 8, c = s / 2 % 4, v = 4 * (s % 2) + j;
    return S::template shr_and<2 * c, 3>(S::load(body + 256 + 64 * (8 * n + v)));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte* body, SuperScales<S, kSubs>& to) {
    unroll<8>([&](auto i) CAIRN_INLINE {
      const auto first = S::widen_u8(body + 32 * i), second = S::widen_u8(body + 32 * i + 16);
      to.scale[2 * i] = S::template shr_and<0, 15>(first);
      to.scale[2 * i + 1] = S::template shr_and<0, 15>(second);
      to.pair[i] = S::pair(S::template shr_and<4, 15>(first), S::template shr_and<4, 15>(second));
    });
  }
};

inline constexpr int8_t kIq4XsTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};

template <class S>
struct Iq4Xs {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::iq4_xs;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int kOffset = 0, kSubs = 8, kPairs = 4, kScaleBytes = 64, kBodyBytes = 2112,
                       kFileBytes = 136;
  static constexpr int kFieldCount = 3;
  // The two high bits of the scales (a u16 per row) lie beside d.
  static constexpr PackField kFields[] = {
      {0, 4, 2, 0, kScaleBytes}, {4, 4, 1, -1, kBodyBytes}, {8, 128, 4, -65, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    const auto codes = S::template shr_and<(j < 4 ? 0 : 4), 15>(S::load(body + 64 + 64 * (4 * s + j % 4)));
    return S::signed_form(S::lookup(codes, kIq4XsTable));
  }
  static CAIRN_INLINE inline void scales(const std::byte* head, const std::byte* body,
                                         SuperScales<S, kSubs>& to) {
    const auto high = S::widen_u16(head + 32);
    unroll<8>([&](auto s) CAIRN_INLINE {
      const auto low4 = S::template shr_and<(s % 2) * 4, 15>(S::widen_u8(body + 16 * (s / 2)));
      to.scale[s] = S::sub(S::bit_or(low4, S::template high2<2 * s>(high)), S::bcast(32));
    });
    scale_pairs<S, kSubs>(to);
  }
};

template <class S>
struct Tq2_0 {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::tq2_0;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int kOffset = 1, kSubs = 8, kPairs = 4, kScaleBytes = 32, kBodyBytes = 1024,
                       kFileBytes = 66;
  static constexpr int kFieldCount = 2;
  static constexpr PackField kFields[] = {{64, 2, 2, 0, kScaleBytes}, {0, 64, 4, -1, kBodyBytes}};
  template <int s, int j>
  static CAIRN_INLINE inline typename S::I w(const std::byte* body) {
    return S::template shr_and<2 * (s % 4), 3>(S::load(body + 64 * (8 * (s / 4) + j)));
  }
  static CAIRN_INLINE inline void scales(const std::byte*, const std::byte*, SuperScales<S, kSubs>& to) {
    unroll<8>([&](auto s) CAIRN_INLINE { to.scale[s] = S::bcast(1); });
    scale_pairs<S, kSubs>(to);
  }
};

constexpr int64_t kPiece256 =
    2;  // super-blocks (512 columns): about 24 KiB of unpacked weights for two panels

template <class C>
constexpr int64_t super_scale_area(int64_t cols) {
  return align64(cols / 256 * C::kScaleBytes);
}
template <class C>
size_t super256_panel_bytes(int64_t cols) {
  static_assert(C::kBodyBytes % 64 == 0 && C::kScaleBytes + C::kBodyBytes == 16 * C::kFileBytes);
  return size_t(super_scale_area<C>(cols) + cols / 256 * C::kBodyBytes);
}

template <class C>
struct UnpackedSuper {
  alignas(64) std::byte w[64][64];  // sub-block after sub-block
  SuperScales<typename C::Lanes, C::kSubs> scales;
  alignas(64) float d[16];
  alignas(64) float d_min[16];
};

// The two ways a tile meets its weights. enter(b) goes to a super-block. Packed fields differ from sub-block
// to sub-block, so their loop is unrolled; unpacked ones do not, and a loop keeps the compiler's time in
// minutes.
template <class C>
struct PackedSuper {
  using S = typename C::Lanes;
  template <typename F>
  static CAIRN_INLINE void each_sub(F&& f) {
    unroll<C::kSubs>(f);
  }
  const std::byte* heads;
  const std::byte* bodies;
  const std::byte* head;
  const std::byte* body;
  SuperScales<S, C::kSubs> scales;
  CAIRN_INLINE void enter(int64_t b) {
    head = heads + b * C::kScaleBytes;
    body = bodies + b * C::kBodyBytes;
    C::scales(head, body, scales);
  }
  template <int s, int j>
  CAIRN_INLINE typename S::I w(std::integral_constant<int, s>, std::integral_constant<int, j>) const {
    return C::template w<s, j>(body);
  }
  CAIRN_INLINE typename S::I scale(int s) const { return scales.scale[s]; }
  CAIRN_INLINE typename S::I pair(int i) const { return scales.pair[i]; }
  template <int s>
  CAIRN_INLINE void fetch_ahead(std::integral_constant<int, s>) const {
    constexpr int kLines = C::kBodyBytes / 64, kBegin = kLines * s / C::kSubs,
                  kEnd = kLines * (s + 1) / C::kSubs;
    prefetch_lines<kEnd - kBegin, 2048>(body + 64 * kBegin);
  }
  CAIRN_INLINE typename S::F d() const { return S::load_f16(head); }
  CAIRN_INLINE typename S::F d_min() const { return S::load_f16(head + 32); }
};

template <class C>
struct UnpackedSuperSource {
  using S = typename C::Lanes;
  const UnpackedSuper<C>* blocks;
  const UnpackedSuper<C>* at;
  template <typename F>
  static CAIRN_INLINE void each_sub(F&& f) {
    for (int s = 0; s < C::kSubs; s++) f(s);
  }
  CAIRN_INLINE void enter(int64_t b) { at = blocks + b; }
  CAIRN_INLINE typename S::I w(int s, int j) const { return S::load(at->w[s * (64 / C::kSubs) + j]); }
  CAIRN_INLINE typename S::I scale(int s) const { return at->scales.scale[s]; }
  CAIRN_INLINE typename S::I pair(int i) const { return at->scales.pair[i]; }
  CAIRN_INLINE void fetch_ahead(int) const {}
  CAIRN_INLINE typename S::F d() const { return S::load_f(at->d); }
  CAIRN_INLINE typename S::F d_min() const { return S::load_f(at->d_min); }
};

template <class C>
void unpack_super(PackedSuper<C>& from, int64_t blocks, UnpackedSuper<C>* to) {
  using S = typename C::Lanes;
  constexpr int kVectors = 64 / C::kSubs;
  for (int64_t b = 0; b < blocks; b++) {
    from.enter(b);
    unroll<C::kSubs>([&](auto s) CAIRN_INLINE {
      unroll<kVectors>([&](auto j) CAIRN_INLINE { S::store(to[b].w[s * kVectors + j], from.w(s, j)); });
    });
    to[b].scales = from.scales;
    S::store_f(to[b].d, from.d());
    if constexpr (C::kHasMin) S::store_f(to[b].d_min, from.d_min());
  }
}

// Super-blocks [b0, b0 + blocks) of R rows and P panels; sources begin at b0.
template <class C, int R, int P, class Source>
CAIRN_INLINE inline void super256_tile(const MatMulArgs& a, Source* sources, int64_t panel, int64_t row,
                                       int64_t b0, int64_t blocks, size_t act_bytes) {
  using S = typename C::Lanes;
  constexpr int kVectors = 64 / C::kSubs, kSubElements = 256 / C::kSubs;
  constexpr int kOffset = C::kSigned ? S::kSignedOffset : C::kOffset;
  const std::byte* const x0 = a.act + size_t(row) * act_bytes;
  const std::byte* x = x0 + b0 * 256;
  const std::byte* xscale = x0 + ActBlock256::scale_at(a.cols) + b0 * 4;
  const std::byte* xsum =
      x0 + ActBlock256::sum_at(a.cols) + b0 * ActBlock256::kSumBytes + (C::kPairs == 8 ? 0 : 32);
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
  for (int64_t b = 0; b < blocks; b++, x += 256, xscale += 4, xsum += ActBlock256::kSumBytes) {
    typename S::I total[R][P];
    unroll<P>([&](auto p) CAIRN_INLINE { sources[p].enter(b); });
    unroll<R>([&](auto r) CAIRN_INLINE { unroll<P>([&](auto p) CAIRN_INLINE { total[r][p] = S::zero(); }); });
    Source::each_sub([&](auto s) CAIRN_INLINE {
      unroll<P>([&](auto p) CAIRN_INLINE { sources[p].fetch_ahead(s); });
      typename S::I dot[R][P];
      unroll<R>([&](auto r) CAIRN_INLINE { unroll<P>([&](auto p) CAIRN_INLINE { dot[r][p] = S::zero(); }); });
      unroll<kVectors>([&](auto j) CAIRN_INLINE {
        typename S::I w[P];
        unroll<P>([&](auto p) CAIRN_INLINE { w[p] = sources[p].w(s, j); });
        unroll<R>([&](auto r) CAIRN_INLINE {
          const typename S::I v = S::bcast_load(x + size_t(r) * act_bytes + s * kSubElements + 4 * j);
          unroll<P>([&](auto p) CAIRN_INLINE {
            dot[r][p] = C::kSigned ? S::dp_signed(dot[r][p], w[p], v) : S::dp(dot[r][p], w[p], v);
          });
        });
      });
      unroll<P>([&](auto p) CAIRN_INLINE {
        const typename S::I scale = sources[p].scale(s);
        unroll<R>([&](auto r) CAIRN_INLINE { total[r][p] = S::add(total[r][p], S::mul(dot[r][p], scale)); });
      });
    });
    unroll<P>([&](auto p) CAIRN_INLINE {
      unroll<R>([&](auto r) CAIRN_INLINE {
        typename S::I sums = S::zero();
        if constexpr (C::kHasMin || kOffset != 0)
          unroll<C::kPairs>([&](auto i) CAIRN_INLINE {
            sums = S::dp16(sums, sources[p].pair(i), S::bcast_load(xsum + size_t(r) * act_bytes + 4 * i));
          });
        float dx;
        __builtin_memcpy(&dx, xscale + size_t(r) * act_bytes, 4);
        const typename S::F dxs = S::bcast_f(dx);
        if constexpr (kOffset != 0)
          total[r][p] = S::sub(total[r][p], S::template shl32<__builtin_ctz(kOffset ? kOffset : 1)>(sums));
        acc[r][p] = S::fma(S::to_float(total[r][p]), S::mul_f(sources[p].d(), dxs), acc[r][p]);
        if constexpr (C::kHasMin)
          acc[r][p] = S::fnma(S::to_float(sums), S::mul_f(sources[p].d_min(), dxs), acc[r][p]);
      });
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
void enter_panel(const MatMulArgs& a, int64_t panel, size_t panel_bytes, int64_t b0, PackedSuper<C>& to) {
  const std::byte* at = a.packed + size_t(panel) * panel_bytes;
  to.heads = at + b0 * C::kScaleBytes;
  to.bodies = at + super_scale_area<C>(a.cols) + b0 * C::kBodyBytes;
}

template <class C, int P>
void super256_panels(const MatMulArgs& a, int64_t panel, int64_t b0, int64_t blocks, size_t panel_bytes,
                     size_t act_bytes) {
  UnpackedSuperSource<C> sources[P];
  PackedSuper<C> packed;
  for (int p = 0; p < P; p++) {
    auto* const to = reinterpret_cast<UnpackedSuper<C>*>(a.scratch) + p * kPiece256;
    enter_panel<C>(a, panel + p, panel_bytes, b0, packed);
    unpack_super<C>(packed, blocks, to);
    sources[p].blocks = to;
  }
  int64_t row = 0;
  const auto tiles = [&](auto R) CAIRN_INLINE {
    for (; a.m - row >= R; row += R) super256_tile<C, R, P>(a, sources, panel, row, b0, blocks, act_bytes);
  };
  constexpr int R = C::Lanes::kRows;
  tiles(std::integral_constant<int, R>());
  if constexpr (R > 4) tiles(std::integral_constant<int, 4>());
  tiles(std::integral_constant<int, 2>());
  tiles(std::integral_constant<int, 1>());
}

template <class C>
void super256_multiply(const MatMulArgs& a) {
  const size_t panel_bytes = super256_panel_bytes<C>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::q8_block256, a.cols);
  const int64_t blocks = a.cols / 256;
  if (a.m == 1) {
    for (int64_t panel = a.panels.begin; panel < a.panels.end; panel++) {
      PackedSuper<C> source;
      enter_panel<C>(a, panel, panel_bytes, 0, source);
      super256_tile<C, 1, 1>(a, &source, panel, 0, 0, blocks, act_bytes);
    }
    return;
  }
  for_pieces<C::Lanes::kPanels>(a, blocks, kPiece256, [&](auto P, int64_t panel, int64_t b0, int64_t count) {
    super256_panels<C, P>(a, panel, b0, count, panel_bytes, act_bytes);
  });
}

template <class C>
void super256_pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
  PackField fields[C::kFieldCount];
  for (int i = 0; i < C::kFieldCount; i++) {
    fields[i] = C::kFields[i];
    if (fields[i].at < 0) fields[i].at = super_scale_area<C>(cols) - 1 - fields[i].at;
  }
  pack_panels(file_rows, rows, cols / 256, C::kFileBytes, fields, C::kFieldCount, panels,
              int64_t(super256_panel_bytes<C>(cols)), packed);
}

template <class S>
void prepare_block256(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::q8_block256, cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    std::byte* const to = act + size_t(r) * bytes;
    auto* const q = reinterpret_cast<int8_t*>(to);
    auto* const scale = reinterpret_cast<float*>(to + ActBlock256::scale_at(cols));
    for (int64_t b = 0; b < cols / 256; b++) {
      const float* from = x + r * ldx + b * 256;
      auto* const sum =
          reinterpret_cast<int16_t*>(to + ActBlock256::sum_at(cols) + b * ActBlock256::kSumBytes);
      const uint32_t bits = S::max_magnitude_bits(from, 256);
      float most;
      __builtin_memcpy(&most, &bits, 4);
      const float inverse = most < 1e-30f ? 0.0f : 127.0f / most;
      scale[b] = most < 1e-30f ? 0.0f : most / 127.0f;
      for (int i = 0; i < 16; i++)
        sum[i] = int16_t(S::quantize16(from + 16 * i, inverse, q + b * 256 + 16 * i));
      for (int i = 0; i < 8; i++) sum[16 + i] = int16_t(sum[2 * i] + sum[2 * i + 1]);
    }
  }
}

template <class C>
constexpr MatMulKernel super256_kernel() {
  using S = typename C::Lanes;
  return {C::kCodec,
          S::kIsa,
          ActForm::q8_block256,
          super256_panel_bytes<C>,
          super256_pack<C>,
          prepare_block256<S>,
          super256_multiply<C>,
          size_t(S::kPanels) * kPiece256 * sizeof(UnpackedSuper<C>)};
}

}  // namespace
}  // namespace cairn::cpu
