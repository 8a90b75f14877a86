#include "codecs/scaled_blocks.h"

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

void decode_block(const BlockE4M3& block, float* values) {
  for (int e = 0; e < BlockE4M3::kElements; ++e) values[e] = block.scale * e4m3_to_float(block.codes[e]);
}

template <typename Block>
void decode_int_block(const Block& block, float* values) {
  for (int e = 0; e < Block::kElements; ++e)
    values[e] = block.scale * float(code_at<Block::kBits>(block.qs, e * Block::kBits) - int(block.zero));
}

}  // namespace

void decode_e4m3(const std::byte* codes, float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = e4m3_to_float(uint8_t(codes[i]));
}
void decode_e4m3_g128(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<BlockE4M3, decode_block>(blocks, values, count);
}
template <typename Block>
void decode_ints(const std::byte* blocks, float* values, int64_t count) {
  decode_blocks<Block, decode_int_block<Block>>(blocks, values, count);
}
template void decode_ints<BlockInt2G32>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt2G128>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt3G32>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt3G128>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt4G32>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt4G128>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt8G32>(const std::byte*, float*, int64_t);
template void decode_ints<BlockInt8G128>(const std::byte*, float*, int64_t);

}  // namespace cairn::codecs
