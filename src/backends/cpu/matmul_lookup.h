// Products with planes of signs (codecs/bcq.h) by looking sums up: the left side is prepared as tables of the
// 16 sums that four neighbouring elements have under all signs (ActForm::signed_sums), once for all weights
// that read it. Four signs of a row are then an index, and one permutation of a register of 16 floats serves
// 16 rows: exact in f32, no multiplication but one per plane and 128 columns. (LUT-GEMM, arXiv 2206.09557,
// with tables of 4 inputs instead of 8.)
//
// Codes of 2 and 3 bits with a scale and a zero (int2_g128, int3_g128) are such planes too: the sign of plane
// i is bit i of the code, its scale 2^(i - 1) of the code's (codecs::bcq_of_uniform).
//
// A panel is the signs of all blocks, then all blocks' scales: per block and 32 columns q vectors of 16
// words, a word holds 32 signs of its row; per block q vectors of 16 alphas (f16) and one of 16 biases (f32),
// or one of 16 scales (f32) and one of 16 zeros (bytes).
// Bound: three instructions for 64 weights' signs of a plane (shift, permute, add), on two ports of AVX-512;
// so time grows with q.
//
// The same look-ups serve every number of rows, so that a row's bits do not depend on it: up to 32 rows they
// are faster than codes decoded to f32 (matmul_scaled.h; one row of int2 1.9 times, of int3 1.6), at 512 rows
// slower (0.8 and 0.6 times, four planes half as fast). What many rows would gain from bf16 matrix
// instructions is given up.
#pragma once

#include "backends/cpu/matmul_act.h"
#include "backends/cpu/matmul_macros.h"
#include "backends/cpu/matmul_pack.h"
#include "codecs/bcq.h"
#include "codecs/scaled_blocks.h"

namespace cairn::cpu {
namespace {

constexpr int kLookupBlock = codecs::kBcqGroup, kTablesPerWord = 8, kWordsPerBlock = kLookupBlock / 32;

template <class W>
constexpr int64_t kSignBytes = int64_t{W::kPlanes} * kWordsPerBlock * 64;  // of a block in a panel

template <class W>
size_t lookup_panel_bytes(int64_t cols) {
  return size_t(align64(cols / kLookupBlock * (kSignBytes<W> + W::kScaleBytes)));
}

template <class S, codecs::CodecId kId, int q>
struct SignsWeight {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = kId;
  static constexpr int kPlanes = q;
  static constexpr int64_t kScaleBytes = q * 32 + 64;
  // total plus what a block adds: planes are its signed sums, sum that of its x.
  static CAIRN_INLINE inline typename S::F add(typename S::F total, const std::byte* scales,
                                               const typename S::F (&planes)[q], float sum) {
    unroll<q>([&](auto i) CAIRN_INLINE { total = S::fma(S::load_f16(scales + 32 * i), planes[i], total); });
    return S::fma(S::load_f(reinterpret_cast<const float*>(scales + 32 * q)), S::bcast_f(sum), total);
  }
  static void pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
    using Block = codecs::BlockBcq<q>;
    const int64_t blocks = cols / kLookupBlock, begin = blocks * kSignBytes<SignsWeight>;
    PackField fields[2 * q + 1];
    for (int i = 0; i < q; i++) {
      fields[i] = {int(offsetof(Block, planes)) + 16 * i, 16, 4, 64 * i, kSignBytes<SignsWeight>, q};
      fields[q + i] = {2 * i, 2, 2, begin + 32 * i, kScaleBytes};
    }
    fields[2 * q] = {int(offsetof(Block, bias)), 4, 4, begin + 32 * q, kScaleBytes};
    pack_panels(file_rows, rows, blocks, int(sizeof(Block)), fields, 2 * q + 1, panels,
                int64_t(lookup_panel_bytes<SignsWeight>(cols)), packed);
  }
};

#ifdef __BMI2__
template <class S, codecs::CodecId kId, class Block>
struct CodesAsSigns {
  using Lanes = S;
  static constexpr codecs::CodecId kCodec = kId;
  static constexpr int kPlanes = Block::kBits;
  static constexpr int64_t kScaleBytes = 80;
  static CAIRN_INLINE inline typename S::F add(typename S::F total, const std::byte* scales,
                                               const typename S::F (&planes)[kPlanes], float sum) {
    const auto scale = S::load_f(reinterpret_cast<const float*>(scales));
    auto all = S::mul_f(planes[0], S::bcast_f(0.5f));
    unroll<kPlanes - 1>([&](auto i)
                            CAIRN_INLINE { all = S::fma(planes[i + 1], S::bcast_f(float(1 << i)), all); });
    const auto middle = S::fnma(S::float_bytes(scales + 64), S::bcast_f(1),
                                S::bcast_f(0.5f * float((1 << kPlanes) - 1)));  // less zero
    total = S::fma(scale, all, total);
    return S::fma(S::mul_f(scale, middle), S::bcast_f(sum), total);
  }
  // Where word w of a string of codes holds bits of plane i.
  static constexpr uint64_t place(int i, int w) {
    uint64_t mask = 0;
    for (int bit = 0; bit < 64; bit++) mask |= uint64_t((64 * w + bit) % kPlanes == i) << bit;
    return mask;
  }
  // Bits i, i + kPlanes, .. of a string of 128 codes.
  template <int i>
  static void take_plane(const uint8_t* string, uint8_t* plane) {
    uint64_t out[2] = {0, 0};
    int filled = 0;
    unroll<2 * kPlanes>([&](auto w) CAIRN_INLINE {
      constexpr uint64_t kMask = place(i, w);
      uint64_t word;
      __builtin_memcpy(&word, string + 8 * w, 8);
      const uint64_t bits = _pext_u64(word, kMask);
      constexpr int kCount = __builtin_popcountll(kMask);
      out[filled / 64] |= bits << (filled % 64);
      if (filled % 64 + kCount > 64) out[1] |= bits >> (64 - filled % 64);
      filled += kCount;
    });
    __builtin_memcpy(plane, out, 16);
  }
  static void pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
    struct Planes {  // a file block in another order
      std::byte head[5];
      uint8_t planes[kPlanes][16];
    };
    static_assert(sizeof(Planes) == sizeof(Block) && offsetof(Block, qs) == 5);
    const int64_t blocks = cols / kLookupBlock, begin = blocks * kSignBytes<CodesAsSigns>;
    const auto panel_bytes = int64_t(lookup_panel_bytes<CodesAsSigns>(cols));
    constexpr int64_t kTogether = 32;  // blocks of a panel's rows
    Planes some[kPanelRows * kTogether];
    for (int64_t panel = panels.begin; panel < panels.end; panel++) {
      const int64_t first = panel * kPanelRows;
      const int64_t present = rows - first < kPanelRows ? rows - first : kPanelRows;
      for (int64_t block = 0; block < blocks; block += kTogether) {
        const int64_t count = blocks - block < kTogether ? blocks - block : kTogether;
        for (int64_t r = 0; r < present; r++)
          for (int64_t b = 0; b < count; b++) {
            Block from;
            __builtin_memcpy(&from, file_rows + ((first + r) * blocks + block + b) * int64_t(sizeof from),
                             sizeof from);
            Planes& to = some[r * count + b];
            __builtin_memcpy(to.head, &from, 5);
            unroll<kPlanes>([&](auto i) CAIRN_INLINE { take_plane<i>(from.qs, to.planes[i]); });
          }
        PackField fields[kPlanes + 2];
        for (int i = 0; i < kPlanes; i++)
          fields[i] = {5 + 16 * i, 16, 4, block * kSignBytes<CodesAsSigns> + 64 * i, kSignBytes<CodesAsSigns>,
                       kPlanes};
        fields[kPlanes] = {0, 4, 4, begin + block * kScaleBytes, kScaleBytes};
        fields[kPlanes + 1] = {4, 1, 1, begin + block * kScaleBytes + 64, kScaleBytes};
        pack_panels(reinterpret_cast<const std::byte*>(some), present, count, int(sizeof(Planes)), fields,
                    kPlanes + 2, {0, 1}, 0, packed + panel * panel_bytes);
      }
    }
  }
};
#endif

inline void prepare_signed_sums(const float* x, int64_t ldx, Range rows, int64_t cols, std::byte* act) {
  const size_t bytes = act_row_bytes(ActForm::signed_sums, cols);
  for (int64_t r = rows.begin; r < rows.end; r++) {
    const float* from = x + r * ldx;
    auto* table = reinterpret_cast<float*>(act + size_t(r) * bytes);
    auto* sums = reinterpret_cast<float*>(act + size_t(r) * bytes + ActSignedSums::sum_at(cols));
    for (int64_t k = 0; k < cols; k += kLookupBlock) {
      float sum = 0;
      for (int i = 0; i < kLookupBlock; i += 4, from += 4, table += 16) {
        const float low[4] = {-from[0] - from[1], from[0] - from[1], from[1] - from[0], from[0] + from[1]};
        const float high[4] = {-from[2] - from[3], from[2] - from[3], from[3] - from[2], from[2] + from[3]};
        for (int h = 0; h < 4; h++)
          for (int l = 0; l < 4; l++) table[4 * h + l] = low[l] + high[h];
        sum += low[3] + high[3];
      }
      sums[k / kLookupBlock] = sum;
    }
  }
}

// Blocks [block0, block1) of R rows and P panels. The order of additions of one row and lane is the same for
// all R and P, and whether sums wait in y between blocks or not.
template <class W, int R, int P>
CAIRN_INLINE inline void lookup_tile(const MatMulArgs& a, int64_t panel, int64_t row, int64_t block0,
                                     int64_t block1, int64_t panel_bytes, size_t act_bytes) {
  using S = typename W::Lanes;
  constexpr int q = W::kPlanes;
  const int64_t blocks = a.cols / kLookupBlock;
  const std::byte* w = a.packed + panel * panel_bytes + block0 * kSignBytes<W>;
  const std::byte* scales = a.packed + panel * panel_bytes + blocks * kSignBytes<W> + block0 * W::kScaleBytes;
  const std::byte* x = a.act + size_t(row) * act_bytes + block0 * kLookupBlock * 16;
  const std::byte* sums = a.act + size_t(row) * act_bytes + ActSignedSums::sum_at(a.cols);
  float* y = a.y + row * a.ldy + panel * kPanelRows;
  const int64_t valid = a.n_valid - (panel + P - 1) * kPanelRows;  // of the last panel
  for (int64_t block = block0; block < block1;
       block++, w += kSignBytes<W>, scales += W::kScaleBytes, x += kLookupBlock * 16) {
    typename S::F acc[R][P][q];
    unroll<R>([&](auto r) CAIRN_INLINE {
      unroll<P>([&](auto p)
                    CAIRN_INLINE { unroll<q>([&](auto i) CAIRN_INLINE { acc[r][p][i] = S::zero_f(); }); });
    });
    for (int word = 0; word < kWordsPerBlock; word++) {
      const std::byte* tables = x + word * kTablesPerWord * 64;
      unroll<q>([&](auto i) CAIRN_INLINE {
        unroll<P>([&](auto p) CAIRN_INLINE {
          const std::byte* from = w + p * panel_bytes + (word * q + i) * 64;
          if constexpr (R == 1) __builtin_prefetch(from + 1024);
          const typename S::I signs = S::load(from);
          unroll<kTablesPerWord>([&](auto t) CAIRN_INLINE {
            unroll<R>([&](auto r) CAIRN_INLINE {
              const auto* table = reinterpret_cast<const float*>(tables + size_t(r) * act_bytes + 64 * t);
              acc[r][p][i] = S::add_f(acc[r][p][i], S::template entry<4 * t>(signs, table));
            });
          });
        });
      });
    }
    unroll<R>([&](auto r) CAIRN_INLINE {
      float sum;
      __builtin_memcpy(&sum, sums + size_t(r) * act_bytes + block * 4, 4);
      unroll<P>([&](auto p) CAIRN_INLINE {
        float* at = y + r * a.ldy + p * kPanelRows;
        const std::byte* s = scales + p * panel_bytes;
        const bool cut = p == P - 1 && valid < kPanelRows;
        typename S::F total = block == 0 ? S::zero_f() : cut ? S::load_f(at, valid) : S::load_f(at);
        total = W::add(total, s, acc[r][p], sum);
        if (cut)
          S::store_f(at, total, valid);
        else
          S::store_f(at, total);
      });
    });
  }
}

template <class W>
void lookup_multiply(const MatMulArgs& a) {
  using S = typename W::Lanes;
  constexpr int q = W::kPlanes;
  const auto panel_bytes = int64_t(lookup_panel_bytes<W>(a.cols));
  const size_t act_bytes = act_row_bytes(ActForm::signed_sums, a.cols);
  // Of 32 registers 24 hold sums, of 16 pairs of AVX2 a few.
  constexpr bool kMany = S::kIsa >= Isa::avx512;
  constexpr int kPanels = !kMany ? 1 : q <= 2 ? 4 : 3, kRows = !kMany ? 1 : q <= 3 ? 4 : 3;
  const int64_t blocks = a.cols / kLookupBlock;
  if (a.m == 1) {
    int64_t panel = a.panels.begin;
    for (; panel + kPanels <= a.panels.end; panel += kPanels)
      lookup_tile<W, 1, kPanels>(a, panel, 0, 0, blocks, panel_bytes, act_bytes);
    for (; panel < a.panels.end; panel++)
      lookup_tile<W, 1, 1>(a, panel, 0, 0, blocks, panel_bytes, act_bytes);
    return;
  }
  // Tables take 16 bytes per element: a piece of a few rows' has to stay in the first-level cache, one of all
  // rows' in the second.
  for_pieces<kMany ? 2 : 1>(a, blocks, 1, [&](auto P, int64_t panel, int64_t block, int64_t count) {
    int64_t row = 0;
    for (; a.m - row >= kRows; row += kRows)
      lookup_tile<W, kRows, P>(a, panel, row, block, block + count, panel_bytes, act_bytes);
    if constexpr (kRows > 1)
      for (; row < a.m; row++)
        lookup_tile<W, 1, P>(a, panel, row, block, block + count, panel_bytes, act_bytes);
  });
}

template <class W>
constexpr MatMulKernel lookup_kernel() {
  return {W::kCodec, W::Lanes::kIsa,      ActForm::signed_sums, lookup_panel_bytes<W>,
          W::pack,   prepare_signed_sums, lookup_multiply<W>,   0};
}

}  // namespace
}  // namespace cairn::cpu
