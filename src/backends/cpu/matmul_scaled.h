// Products with the forms of codecs/scaled_blocks.h: a scale (and a zero) per block of a row, codes of 2 to 8
// bits. The left side stays f32. Each weight is decoded once per tile of rows, to the float that
// its codec says up to one rounding, and every lane adds its row's products in the order of k.
//
// A panel is block after block: 16 scales (f32), for integers 16 zeros (bytes), then the codes: vectors of 16
// bytes, one e4m3 code of each row, or of 16 words of the rows' strings of codes. Bound: memory for one row
// (some four instructions for 16 weights), arithmetic for many.
#pragma once

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_float.h"
#include "backends/cpu/matmul_macros.h"
#include "backends/cpu/matmul_pack.h"
#include "codecs/scaled_blocks.h"

namespace cairn::cpu {
namespace {

// kUnit: columns of a vector of codes; kHead: bytes before a block's codes.
template <class S>
struct E4M3Weight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::e4m3_g128;
  static constexpr int kBlock = 128, kUnit = 1, kUnitBytes = 16, kHead = 64, kFileBytes = 132;
  struct Head {
    typename S::F scale;
  };
  static CAIRN_INLINE inline Head head(const std::byte* block) {
    // load_e4m3 gives 2^-8 of the values
    return {S::mul_f(S::load_f(reinterpret_cast<const float*>(block)), S::bcast_f(256))};
  }
  static CAIRN_INLINE inline typename S::F load(const std::byte* codes) { return S::load_e4m3(codes); }
  template <int i>
  static CAIRN_INLINE inline typename S::F value(typename S::F code, const Head& h) {
    return S::mul_f(code, h.scale);
  }
  static constexpr PackField kFields[] = {{0, 4, 4, 0, 0},      {4, 16, 1, 64, 0},     {20, 16, 1, 320, 0},
                                          {36, 16, 1, 576, 0},  {52, 16, 1, 832, 0},   {68, 16, 1, 1088, 0},
                                          {84, 16, 1, 1344, 0}, {100, 16, 1, 1600, 0}, {116, 16, 1, 1856, 0}};
};

// Codes of 2, 4 and 8 bits fill a word each 32 / bits columns, those of 3 bits three words each 32.
template <class S, codecs::CodecId kId, class Block>
struct IntWeight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = kId;
  static constexpr int kBits = Block::kBits, kWords = kBits == 3 ? 3 : 1;
  static constexpr int kBlock = Block::kElements, kUnit = 32 * kWords / kBits, kUnitBytes = 64 * kWords,
                       kHead = 80, kFileBytes = int(sizeof(Block));
  struct Head {
    typename S::F scale, minus;  // w = scale q + minus
  };
  struct Codes {
    typename S::I word[kWords];
  };
  static CAIRN_INLINE inline Head head(const std::byte* block) {
    const auto scale = S::load_f(reinterpret_cast<const float*>(block));
    const auto zero = S::float_bytes(block + 64);
    return {scale, S::fnma(scale, zero, S::zero_f())};
  }
  static CAIRN_INLINE inline Codes load(const std::byte* from) {
    Codes codes;
    unroll<kWords>([&](auto w) CAIRN_INLINE { codes.word[w] = S::load(from + 64 * w); });
    return codes;
  }
  template <int i>
  static CAIRN_INLINE inline typename S::F value(const Codes& codes, const Head& h) {
    constexpr int kWord = i * kBits / 32, kAt = i * kBits % 32;
    if constexpr (kAt + kBits > 32)
      return S::fma(
          S::template field<0, kBits>(S::template join<kAt>(codes.word[kWord], codes.word[kWord + 1])),
          h.scale, h.minus);
    else
      return S::fma(S::template field<kAt, kBits>(codes.word[kWord]), h.scale, h.minus);
  }
  static constexpr PackField kFields[] = {
      {0, 4, 4, 0, 0}, {4, 1, 1, 64, 0}, {5, kBlock* kBits / 8, 4, 80, 0}};
};

template <class W>
constexpr int kPackedBlock = W::kHead + W::kBlock / W::kUnit* W::kUnitBytes;

template <class W>
size_t scaled_panel_bytes(int64_t cols) {
  return size_t(align64(cols / W::kBlock * kPackedBlock<W>));
}

template <class W>
void scaled_pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
  PackField fields[std::size(W::kFields)];
  for (size_t i = 0; i < std::size(fields); i++) {
    fields[i] = W::kFields[i];
    fields[i].stride = kPackedBlock<W>;
  }
  pack_panels(file_rows, rows, cols / W::kBlock, W::kFileBytes, fields, int(std::size(fields)), panels,
              int64_t(scaled_panel_bytes<W>(cols)), packed);
}

// Blocks [block0, block1) of R rows and P panels; w is where the first panel's block0 lies.
template <class W, int R, int P>
CAIRN_INLINE inline void scaled_tile(const MatMulArgs& a, const std::byte* w, int64_t panel, int64_t row,
                                     int64_t block0, int64_t block1, int64_t panel_bytes, size_t act_bytes) {
  using S = typename W::Lanes;
  const std::byte* x = a.act + size_t(row) * act_bytes + block0 * W::kBlock * 4;
  float* y = a.y + row * a.ldy + panel * kPanelRows;
  const int64_t valid = a.n_valid - (panel + P - 1) * kPanelRows;  // of the last panel
  typename S::F acc[R][P];
  if (block0 == 0) {
    unroll<R>([&](auto r) CAIRN_INLINE { unroll<P>([&](auto p) CAIRN_INLINE { acc[r][p] = S::zero_f(); }); });
  } else {
    unroll<R>([&](auto r) CAIRN_INLINE {
      unroll<P>([&](auto p) CAIRN_INLINE {
        const float* from = y + r * a.ldy + p * kPanelRows;
        acc[r][p] = p == P - 1 && valid < kPanelRows ? S::load_f(from, valid) : S::load_f(from);
      });
    });
  }
  for (int64_t block = block0; block < block1; block++, w += kPackedBlock<W>) {
    typename W::Head heads[P];
    unroll<P>([&](auto p) CAIRN_INLINE { heads[p] = W::head(w + p * panel_bytes); });
    const std::byte* codes = w + W::kHead;
    for (int unit = 0; unit < W::kBlock / W::kUnit; unit++, codes += W::kUnitBytes, x += W::kUnit * 4) {
      decltype(W::load(codes)) v[P];
      unroll<P>([&](auto p) CAIRN_INLINE {
        if constexpr (R == 1) __builtin_prefetch(codes + p * panel_bytes + 1024);
        v[p] = W::load(codes + p * panel_bytes);
      });
      unroll<W::kUnit>([&](auto i) CAIRN_INLINE {
        typename S::F f[P];
        unroll<P>([&](auto p) CAIRN_INLINE { f[p] = W::template value<i>(v[p], heads[p]); });
        unroll<R>([&](auto r) CAIRN_INLINE {
          float left;
          __builtin_memcpy(&left, x + size_t(r) * act_bytes + i * 4, 4);
          unroll<P>([&](auto p) CAIRN_INLINE { acc[r][p] = S::fma(f[p], S::bcast_f(left), acc[r][p]); });
        });
      });
    }
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

template <class W>
void scaled_multiply(const MatMulArgs& a) {
  using S = typename W::Lanes;
  const auto panel_bytes = int64_t(scaled_panel_bytes<W>(a.cols));
  const size_t act_bytes = act_row_bytes(ActForm::f32, a.cols);
  const int64_t blocks = a.cols / W::kBlock;
  const auto at = [&](int64_t panel, int64_t block) {
    return a.packed + panel * panel_bytes + block * kPackedBlock<W>;
  };
  if (a.m == 1) {
    constexpr int P = S::kRowPanels;
    int64_t panel = a.panels.begin;
    if constexpr (P > 1)
      for (; panel + P <= a.panels.end; panel += P)
        scaled_tile<W, 1, P>(a, at(panel, 0), panel, 0, 0, blocks, panel_bytes, act_bytes);
    for (; panel < a.panels.end; panel++)
      scaled_tile<W, 1, 1>(a, at(panel, 0), panel, 0, 0, blocks, panel_bytes, act_bytes);
    return;
  }
  const int64_t piece = a.m <= S::kFloatRows ? blocks : 512 / W::kBlock;
  for_pieces<S::kFloatPanels>(a, blocks, piece, [&](auto P, int64_t panel, int64_t block, int64_t count) {
    int64_t row = 0;
    const auto tiles = [&](auto R) CAIRN_INLINE {
      for (; a.m - row >= R; row += R)
        scaled_tile<W, R, P>(a, at(panel, block), panel, row, block, block + count, panel_bytes, act_bytes);
    };
    constexpr int R = S::kFloatRows;
    tiles(std::integral_constant<int, R>());
    if constexpr (R > 4) tiles(std::integral_constant<int, 4>());
    tiles(std::integral_constant<int, 1>());
  });
}

template <class W>
constexpr MatMulKernel scaled_kernel() {
  return {W::kCodec,      W::Lanes::kIsa, ActForm::f32,       scaled_panel_bytes<W>,
          scaled_pack<W>, prepare_f32,    scaled_multiply<W>, 0};
}

template <class S, codecs::CodecId kId, class Block>
constexpr MatMulKernel int_kernel() {
  return scaled_kernel<IntWeight<S, kId, Block>>();
}

}  // namespace
}  // namespace cairn::cpu
