#include "backends/cpu/matmul_pack.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/matmul.h"

namespace cairn::cpu {
namespace {

template <int piece>
void interleave(const std::byte* const rows[16], int bytes, int step, std::byte* out) {
  for (int i = 0; i < bytes; i += piece, out += step * 16 * piece)
    for (int r = 0; r < 16; r++) std::memcpy(out + r * piece, rows[r] + i, piece);
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
        std::byte* const to = out + f->at + b * f->stride;
        if (f->piece == 4)
          interleave<4>(from, f->bytes, f->step, to);
        else if (f->piece == 2)
          interleave<2>(from, f->bytes, f->step, to);
        else
          interleave<1>(from, f->bytes, f->step, to);
      }
    }
  }
}

}  // namespace cairn::cpu
