#include "backends/cpu/matmul_pack.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/matmul.h"
#include "backends/cpu/matmul_macros.h"

namespace cairn::cpu {
namespace {

template <int piece>
void interleave(const std::byte* const rows[16], int bytes, int step, std::byte* out) {
  for (int i = 0; i < bytes; i += piece, out += step * 16 * piece)
    for (int r = 0; r < 16; r++) std::memcpy(out + r * piece, rows[r] + i, piece);
}

// Sixteen bytes, of which every baseline (SSE2, NEON) has registers.
using Bytes16 = uint8_t __attribute__((vector_size(16)));
using Words4 = uint32_t __attribute__((vector_size(16)));

template <typename V>
V load(const std::byte* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <typename V>
void store(std::byte* to, V v) {
  std::memcpy(to, &v, sizeof v);
}

// As interleave<4>, sixteen bytes of four rows at a time.
void interleave_words(const std::byte* const rows[16], int bytes, int step, std::byte* out) {
  for (int i = 0; i < bytes; i += 16, out += 4 * step * 64)
    for (int r = 0; r < 16; r += 4) {
      Words4 a[4], b[4];
      unroll<4>([&](auto k) CAIRN_INLINE { a[k] = load<Words4>(rows[r + k] + i); });
      b[0] = __builtin_shufflevector(a[0], a[1], 0, 4, 1, 5);
      b[1] = __builtin_shufflevector(a[0], a[1], 2, 6, 3, 7);
      b[2] = __builtin_shufflevector(a[2], a[3], 0, 4, 1, 5);
      b[3] = __builtin_shufflevector(a[2], a[3], 2, 6, 3, 7);
      a[0] = __builtin_shufflevector(b[0], b[2], 0, 1, 4, 5);
      a[1] = __builtin_shufflevector(b[0], b[2], 2, 3, 6, 7);
      a[2] = __builtin_shufflevector(b[1], b[3], 0, 1, 4, 5);
      a[3] = __builtin_shufflevector(b[1], b[3], 2, 3, 6, 7);
      unroll<4>([&](auto k) CAIRN_INLINE { store(out + k * step * 64 + r * 4, a[k]); });
    }
}

// As interleave<1> for 1 to 16 bytes; reads 16 of every row. Four rounds, each of which interleaves the first
// half of the registers with the second, turn 16 rows of 16 bytes.
void interleave_bytes(const std::byte* const rows[16], int bytes, int step, std::byte* out) {
  Bytes16 a[16], b[16];
  unroll<16>([&](auto r) CAIRN_INLINE { a[r] = load<Bytes16>(rows[r]); });
  const auto round = [](const Bytes16* x, Bytes16* y) CAIRN_INLINE {
    unroll<8>([&](auto k) CAIRN_INLINE {
      y[2 * k] =
          __builtin_shufflevector(x[k], x[k + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      y[2 * k + 1] = __builtin_shufflevector(x[k], x[k + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                             30, 15, 31);
    });
  };
  round(a, b), round(b, a), round(a, b), round(b, a);
  for (int i = 0; i < bytes; i++) store(out + i * step * 16, a[i]);
}

void interleave_field(const PackField& f, int block_bytes, const std::byte* const rows[16], std::byte* out) {
  if (f.piece == 4 && f.bytes % 16 == 0) return interleave_words(rows, f.bytes, f.step, out);
  if (f.piece == 1 && f.bytes <= 16 && f.from + 16 <= block_bytes)
    return interleave_bytes(rows, f.bytes, f.step, out);
  if (f.piece == 4) return interleave<4>(rows, f.bytes, f.step, out);
  if (f.piece == 2) return interleave<2>(rows, f.bytes, f.step, out);
  interleave<1>(rows, f.bytes, f.step, out);
}

}  // namespace

void pack_panels(const std::byte* file_rows, int64_t rows, int64_t blocks, int block_bytes,
                 const PackField* fields, int field_count, Range panels, int64_t panel_bytes,
                 std::byte* packed) {
  static constexpr std::byte kZeros[512] = {};
  for (int64_t panel = panels.begin; panel < panels.end; panel++) {
    const int64_t first = panel * kPanelRows;
    const auto present = int(std::min<int64_t>(kPanelRows, rows - first));
    std::byte* const out = packed + panel * panel_bytes;
    const std::byte* row[16];
    for (int64_t b = 0; b < blocks; b++) {
      for (int r = 0; r < 16; r++) {
        if (r < present)
          row[r] = file_rows + ((first + r) * blocks + b) * block_bytes;
        else
          row[r] = kZeros;
      }
      for (const PackField* f = fields; f != fields + field_count; f++) {
        const std::byte* from[16];
        for (int r = 0; r < 16; r++) from[r] = row[r] + f->from;
        interleave_field(*f, block_bytes, from, out + f->at + b * f->stride);
      }
    }
  }
}

}  // namespace cairn::cpu
