#include "codecs/scaled_blocks.h"

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

void decode_block(const BlockE4M3& block, float* values) {
  for (int e = 0; e < BlockE4M3::kElements; ++e) values[e] = block.scale * e4m3_to_float(block.codes[e]);
}

template <typename Block>
void decode_int4_block(const Block& block, float* values) {
  for (int e = 0; e < Block::kElements; ++e) {
    const int q = (block.qs[e / 2] >> (4 * (e % 2))) & 15;
    values[e] = block.scale * float(q - int(block.zero));
  }
}

}  // namespace

void decode_e4m3(const std::byte* codes, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = e4m3_to_float(uint8_t(codes[i]));
}
void decode_e4m3_g128(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockE4M3, decode_block>(blocks, values, count);
}
void decode_int4_g32(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockInt4G32, decode_int4_block<BlockInt4G32>>(blocks, values, count);
}
void decode_int4_g128(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockInt4G128, decode_int4_block<BlockInt4G128>>(blocks, values, count);
}

}  // namespace cairn::codecs
