// Products for codecs without a kernel of their own: the codec decodes a piece of a panel to f32, which every
// row of the left side (f32) then multiplies. A panel is its 16 file rows as they are.
#pragma once

#include "backends/cpu/matmul_float.h"

namespace cairn::cpu {
namespace {

constexpr int64_t kDecodedPiece = 256;  // columns, a multiple of every block

template <codecs::CodecId kId>
size_t decoded_panel_bytes(int64_t cols) {
  const codecs::Codec& codec = codecs::codec(kId);
  return size_t(align64(cols / codec.block_elements * codec.block_bytes * kPanelRows));
}

template <codecs::CodecId kId>
void decoded_pack(const std::byte* file_rows, int64_t rows, int64_t cols, Range panels, std::byte* packed) {
  const codecs::Codec& codec = codecs::codec(kId);
  const int64_t row_bytes = cols / codec.block_elements * codec.block_bytes;
  const size_t panel_bytes = decoded_panel_bytes<kId>(cols);
  for (int64_t panel = panels.begin; panel < panels.end; panel++) {
    const int64_t first = panel * kPanelRows;
    const int64_t present = rows - first < kPanelRows ? rows - first : kPanelRows;
    std::byte* const to = packed + size_t(panel) * panel_bytes;
    __builtin_memcpy(to, file_rows + first * row_bytes, size_t(present * row_bytes));
    __builtin_memset(to + present * row_bytes, 0, panel_bytes - size_t(present * row_bytes));
  }
}

template <class S, codecs::CodecId kId>
void decoded_multiply(const MatMulArgs& a) {
  const codecs::Codec& codec = codecs::codec(kId);
  const int64_t row_bytes = a.cols / codec.block_elements * codec.block_bytes;
  const size_t panel_bytes = decoded_panel_bytes<kId>(a.cols);
  const size_t act_bytes = act_row_bytes(ActForm::f32, a.cols);
  auto* const rows = reinterpret_cast<float*>(a.scratch);  // [16][kDecodedPiece]
  auto* const lanes = rows + kPanelRows * kDecodedPiece;   // [kDecodedPiece][16]
  for (int64_t panel = a.panels.begin; panel < a.panels.end; panel++) {
    const std::byte* const from = a.packed + size_t(panel) * panel_bytes;
    for (int64_t k = 0; k < a.cols; k += kDecodedPiece) {
      const int64_t count = a.cols - k < kDecodedPiece ? a.cols - k : kDecodedPiece;
      for (int64_t r = 0; r < kPanelRows; r++) {
        codec.decode(from + r * row_bytes + k / codec.block_elements * codec.block_bytes, rows + r * count,
                     count);
        for (int64_t i = 0; i < count; i++) lanes[i * kPanelRows + r] = rows[r * count + i];
      }
      float_panels<F32Weight<S>, 1>(a, reinterpret_cast<const std::byte*>(lanes), panel, k, k + count, 0,
                                    act_bytes);
    }
  }
}

template <class S, codecs::CodecId kId>
constexpr MatMulKernel decoded_kernel() {
  return {kId,
          S::kIsa,
          ActForm::f32,
          decoded_panel_bytes<kId>,
          decoded_pack<kId>,
          prepare_f32,
          decoded_multiply<S, kId>,
          size_t(2 * kPanelRows * kDecodedPiece) * 4};
}

}  // namespace
}  // namespace cairn::cpu
