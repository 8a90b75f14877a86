#include "backends/cpu/matmul_pack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "backends/cpu/matmul.h"

namespace cairn::cpu {
namespace {

// The header's definition, byte by byte.
void pack_plainly(const std::byte* file_rows, int64_t rows, int64_t blocks, int block_bytes,
                  std::span<const PackField> fields, int64_t panel_bytes, std::byte* packed) {
  for (int64_t row = 0; row < panels_of(rows) * kPanelRows; row++)
    for (int64_t b = 0; b < blocks; b++)
      for (const auto& f : fields)
        for (int i = 0; i < f.bytes; i++) {
          const int64_t piece = i / f.piece, lane = row % kPanelRows;
          packed[row / kPanelRows * panel_bytes + f.at + b * f.stride +
                 (piece * f.step * 16 + lane) * f.piece + i % f.piece] =
              row < rows ? file_rows[(row * blocks + b) * block_bytes + f.from + i] : std::byte{0};
        }
}

// Every length and piece, with and without room to read past the field, at the block's begin and end.
TEST(PackPanels, FollowsItsDefinition) {
  std::mt19937 random(1);
  for (const int piece : {1, 2, 4})
    for (const int bytes : {1, 2, 4, 8, 12, 15, 16, 20, 32, 48})
      for (const int from : {0, 1, 6})
        for (const int behind : {0, 3, 16})
          for (const int step : {1, 3}) {
            if (bytes % piece != 0) continue;
            constexpr int64_t kRows = 21, kBlocks = 3;
            const int block_bytes = from + bytes + behind;
            const int64_t stride = int64_t{16} * step * bytes;
            const PackField field{from, bytes, piece, 64, stride, step};
            const int64_t panel_bytes = 64 + kBlocks * stride;
            // A heap block that ends with the rows, so that sanitizers see a read past them.
            std::vector<std::byte> file(size_t(kRows * kBlocks * block_bytes));
            for (auto& b : file) b = std::byte(random());
            const auto size = size_t(panels_of(kRows) * panel_bytes);
            std::vector<std::byte> expected(size, std::byte{0xee}), packed = expected;
            pack_plainly(file.data(), kRows, kBlocks, block_bytes, {&field, 1}, panel_bytes, expected.data());
            pack_panels(file.data(), kRows, kBlocks, block_bytes, &field, 1, {0, 1}, panel_bytes,
                        packed.data());
            pack_panels(file.data(), kRows, kBlocks, block_bytes, &field, 1, {1, 2}, panel_bytes,
                        packed.data());
            ASSERT_EQ(packed, expected)
                << piece << " " << bytes << " " << from << " " << behind << " " << step;
          }
}

}  // namespace
}  // namespace cairn::cpu
