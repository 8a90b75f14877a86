// Products with float weights: f32 and f16 (left side f32), bf16 (left side f32, or bf16 where the processor
// multiplies bf16 pairs). Each lane adds its row's products in the order of k, one fused multiply-add (or
// pair) each.
//
// One row reads each weight once: bound by memory. Many rows: a tile of kFloatRows x kFloatPanels
// accumulators over a piece of k whose weights stay in the first-level cache; between pieces the sums wait in
// y.
#pragma once

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_macros.h"
#include "backends/cpu/matmul_pack.h"

namespace cairn::cpu {
namespace {

// kStep: elements of k per vector of weights, kBytes: bytes of that vector; add: acc plus their products.
template <class S>
struct F32Weight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::f32;
  static constexpr ActForm kAct = ActForm::f32;
  static constexpr int kStep = 1, kBytes = 64, kActBytes = 4, kPiece = 256, kFileElement = 4, kAlign = 1;
  static CAIRN_INLINE inline typename S::F add(typename S::F acc, typename S::I w, const std::byte* x) {
    float a;
    __builtin_memcpy(&a, x, 4);
    return S::fma(S::bits_float(w), S::bcast_f(a), acc);
  }
  static CAIRN_INLINE inline typename S::I load(const std::byte* w) { return S::load(w); }
};

template <class S>
struct F16Weight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::f16;
  static constexpr ActForm kAct = ActForm::f32;
  static constexpr int kStep = 1, kBytes = 32, kActBytes = 4, kPiece = 512, kFileElement = 2, kAlign = 1;
  static CAIRN_INLINE inline typename S::F add(typename S::F acc, typename S::F w, const std::byte* x) {
    float a;
    __builtin_memcpy(&a, x, 4);
    return S::fma(w, S::bcast_f(a), acc);
  }
  static CAIRN_INLINE inline typename S::F load(const std::byte* w) { return S::load_f16(w); }
};

template <class S>
struct Bf16Weight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = codecs::CodecId::bf16;
  static constexpr ActForm kAct = ActForm::f32;
  static constexpr int kStep = 2, kBytes = 64, kActBytes = 8, kPiece = 512, kFileElement = 2, kAlign = 32;
  static CAIRN_INLINE inline typename S::F add(typename S::F acc, typename S::I w, const std::byte* x) {
    float a[2];
    __builtin_memcpy(a, x, 8);
    acc = S::fma(S::bits_float(S::template shl32<16>(w)), S::bcast_f(a[0]), acc);
    return S::fma(S::bits_float(S::high16(w)), S::bcast_f(a[1]), acc);
  }
  static CAIRN_INLINE inline typename S::I load(const std::byte* w) { return S::load(w); }
};

template <class W>
int64_t float_panel_bytes(int64_t cols) {
  const int64_t padded = (cols + W::kAlign - 1) / W::kAlign * W::kAlign;
  return align64(padded / W::kStep * W::kBytes);
}

// Steps [step0, step1) of R rows and P panels; w is where the first panel's step0 lies.
template <class W, int R, int P>
CAIRN_INLINE inline void float_tile(const MatMulArgs& a, const std::byte* w, int64_t panel, int64_t row,
                                    int64_t step0, int64_t step1, int64_t panel_bytes, size_t act_bytes) {
  using S = typename W::Lanes;
  const std::byte* x = a.act + size_t(row) * act_bytes + step0 * W::kActBytes;
  float* y = a.y + row * a.ldy + panel * kPanelRows;
  const int64_t valid = a.n_valid - (panel + P - 1) * kPanelRows;  // of the last panel
  typename S::F acc[R][P];
  if (step0 == 0) {
    unroll<R>([&](auto r) CAIRN_INLINE { unroll<P>([&](auto p) CAIRN_INLINE { acc[r][p] = S::zero_f(); }); });
  } else {
    unroll<R>([&](auto r) CAIRN_INLINE {
      unroll<P>([&](auto p) CAIRN_INLINE {
        const float* from = y + r * a.ldy + p * kPanelRows;
        acc[r][p] = p == P - 1 && valid < kPanelRows ? S::load_f(from, valid) : S::load_f(from);
      });
    });
  }
  for (int64_t step = step0; step < step1; step++, w += W::kBytes, x += W::kActBytes) {
    decltype(W::load(w)) v[P];
    unroll<P>([&](auto p) CAIRN_INLINE { v[p] = W::load(w + p * panel_bytes); });
    unroll<R>([&](auto r) CAIRN_INLINE {
      unroll<P>([&](auto p) CAIRN_INLINE { acc[r][p] = W::add(acc[r][p], v[p], x + size_t(r) * act_bytes); });
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

template <class W, int P>
void float_panels(const MatMulArgs& a, const std::byte* w, int64_t panel, int64_t step0, int64_t step1,
                  int64_t panel_bytes, size_t act_bytes) {
  int64_t row = 0;
  const auto tiles = [&](auto R) CAIRN_INLINE {
    for (; a.m - row >= R; row += R)
      float_tile<W, R, P>(a, w, panel, row, step0, step1, panel_bytes, act_bytes);
  };
  constexpr int R = W::Lanes::kFloatRows;
  tiles(std::integral_constant<int, R>());
  if constexpr (R > 8) tiles(std::integral_constant<int, 8>());
  if constexpr (R > 4) tiles(std::integral_constant<int, 4>());
  tiles(std::integral_constant<int, 2>());
  tiles(std::integral_constant<int, 1>());
}

template <class W>
void float_multiply(const MatMulArgs& a) {
  using S = typename W::Lanes;
  const int64_t panel_bytes = float_panel_bytes<W>(a.cols);
  const size_t act_bytes = act_row_bytes(W::kAct, a.cols);
  const int64_t steps = (a.cols + W::kStep - 1) / W::kStep;
  const auto at = [&](int64_t panel, int64_t step) {
    return a.packed + panel * panel_bytes + step * W::kBytes;
  };
  if (a.m == 1) {
    constexpr int P = S::kRowPanels;
    int64_t panel = a.panels.begin;
    if constexpr (P > 1)
      for (; panel + P <= a.panels.end; panel += P)
        float_tile<W, 1, P>(a, at(panel, 0), panel, 0, 0, steps, panel_bytes, act_bytes);
    for (; panel < a.panels.end; panel++)
      float_tile<W, 1, 1>(a, at(panel, 0), panel, 0, 0, steps, panel_bytes, act_bytes);
    return;
  }
  // One tile of rows needs no pieces: each weight is read once anyway.
  const int64_t piece = a.m <= S::kFloatRows ? steps : W::kPiece / W::kStep;
  for_pieces<S::kFloatPanels>(a, steps, piece, [&](auto P, int64_t panel, int64_t step, int64_t count) {
    float_panels<W, P>(a, at(panel, step), panel, step, step + count, panel_bytes, act_bytes);
  });
}

template <class W>
size_t float_panel_size(int64_t cols) {
  return size_t(float_panel_bytes<W>(cols));
}

// The element is the file's block here. Pairs of bf16 (kStep 2) are moved as one piece; an odd last one
// alone.
template <class W>
void float_pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
  const int64_t panel_bytes = float_panel_bytes<W>(cols);
  constexpr int kPiece = W::kStep * W::kFileElement;
  for (int64_t panel = panels.begin; panel < panels.end; panel++) {
    std::byte* out = packed + panel * panel_bytes;
    const int64_t first = panel * kPanelRows;
    const int64_t present = rows - first < kPanelRows ? rows - first : kPanelRows;
    const std::byte* from = file_rows + first * cols * W::kFileElement;
    const int64_t row_bytes = cols * W::kFileElement;
    const int64_t whole = row_bytes / kPiece;
    for (int64_t i = 0; i < whole; i++) {
      for (int64_t r = 0; r < present; r++)
        __builtin_memcpy(out + (i * kPanelRows + r) * kPiece, from + r * row_bytes + i * kPiece, kPiece);
      if (present < kPanelRows)
        __builtin_memset(out + (i * kPanelRows + present) * kPiece, 0, size_t(kPanelRows - present) * kPiece);
    }
    __builtin_memset(out + whole * kPanelRows * kPiece, 0, size_t(panel_bytes - whole * kPanelRows * kPiece));
    if (whole * kPiece < row_bytes)
      for (int64_t r = 0; r < present; r++)
        __builtin_memcpy(out + (whole * kPanelRows + r) * kPiece, from + r * row_bytes + whole * kPiece,
                         W::kFileElement);
  }
}

inline void prepare_f32(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::f32, cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    std::byte* to = act + size_t(r) * bytes;
    __builtin_memcpy(to, x + r * ldx, size_t(cols) * 4);
    __builtin_memset(to + cols * 4, 0, size_t(ActFloat::padded(cols) - cols) * 4);
  }
}

template <class W>
constexpr MatMulKernel float_kernel(void (*prepare)(const float*, int64_t, Range, int64_t,
                                                    std::byte*) = prepare_f32) {
  return {W::kCodec,     W::Lanes::kIsa, W::kAct,           float_panel_size<W>,
          float_pack<W>, prepare,        float_multiply<W>, 0};
}

}  // namespace
}  // namespace cairn::cpu
