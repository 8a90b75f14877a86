// Loops of the kernels unroll completely, so that arrays of vectors live in registers and shifts are
// immediates.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "backends/cpu/matmul.h"

// Vector code inlines everything. A translation unit whose lanes are plain arrays must not (GCC took 4.6 GB
// and minutes for it): it defines CAIRN_INLINE empty before the first include.
#ifndef CAIRN_INLINE
#define CAIRN_INLINE __attribute__((always_inline))
#endif

namespace cairn::cpu {
namespace {

// f(integral_constant<0>) .. f(integral_constant<n - 1>)
template <int n, typename F>
CAIRN_INLINE inline void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) CAIRN_INLINE { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

// Asks for the cache lines that lie `ahead` bytes after `at`. Weights are read once, in order, but in loads
// of a whole line an Intel core's own prefetch starts late: two of them read memory at 23 GB/s so, at 36 with
// this. Lines past the end are not an error.
template <int lines, int ahead>
CAIRN_INLINE inline void prefetch_lines(const std::byte* at) {
  unroll<lines>([&](auto i) CAIRN_INLINE { __builtin_prefetch(at + ahead + 64 * i); });
}

// Calls f(P, panel, begin, count) for all groups of P (at the end single) panels and all pieces of k. While
// the left side fits in the second-level cache, panel after panel, so that weights are read as they lie; else
// piece after piece, so that a piece of the left side stays there.
template <int P, typename F>
void for_pieces(const MatMulArgs& a, int64_t blocks, int64_t piece, F&& f) {
  constexpr int64_t kCached = 512 << 10;
  const auto panels_piece = [&](int64_t first, int64_t last) {
    const auto pieces = [&](auto count_constant, int64_t panel) {
      for (int64_t b = first; b < last; b += piece)
        f(count_constant, panel, b, last - b < piece ? last - b : piece);
    };
    int64_t panel = a.panels.begin;
    if constexpr (P > 1)
      for (; panel + P <= a.panels.end; panel += P) pieces(std::integral_constant<int, P>(), panel);
    for (; panel < a.panels.end; panel++) pieces(std::integral_constant<int, 1>(), panel);
  };
  if (a.m * a.cols <= kCached) {
    panels_piece(0, blocks);
  } else {
    for (int64_t b = 0; b < blocks; b += piece) panels_piece(b, blocks - b < piece ? blocks : b + piece);
  }
}

}  // namespace
}  // namespace cairn::cpu
