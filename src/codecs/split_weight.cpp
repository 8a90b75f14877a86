#include "codecs/split_weight.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/content_hash.h"
#include "base/error.h"
#include "codecs/scaled_blocks.h"

namespace cairn::codecs {
namespace {

// AWQ's words: the nibble that holds row % 8.
constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t word_at(const std::byte* words, int64_t index) {
  uint32_t word;
  std::memcpy(&word, words + index * 4, 4);
  return word;
}

// One piece of a split weight, element by element and by words of eight columns.
class SplitReader {
 public:
  SplitReader(const StoredWeight& weight, size_t piece)
      : layout_(*weight.split), cols_(weight.cols), codes_(weight.pieces[piece].data) {
    const auto part = [&](SplitPart which) { return weight.pieces[piece].beside[size_t(which)].data; };
    scales_ = part(SplitPart::scales), zeros_ = part(SplitPart::zeros), groups_ = part(SplitPart::groups);
  }

  int64_t group_of(int64_t col) const {
    if (!groups_) return col / layout_.group;
    return int32_t(word_at(groups_, col));  // checked when it was bound
  }

  float scale(int64_t row, int64_t group) const {
    const auto& format = codec(layout_.scale_codec);
    const int64_t at = (row + layout_.first_row) / layout_.rows_per_scale * layout_.row_stride +
                       group * layout_.group_stride;
    float value;
    format.decode(scales_ + at * format.block_bytes, &value, 1);
    if (!std::isfinite(value))
      fail(ErrorKind::invalid_file, "tensor {}: the scale of row {}, group {} is {}; the file is damaged",
           layout_.name, row + layout_.first_row, group, value);
    return value;
  }

  int zero(int64_t row, int64_t group) const {
    if (!zeros_) return 8;
    row += layout_.first_row;
    const bool rows_first = layout_.codes == SplitCodes::int4_rows;
    const uint32_t word =
        word_at(zeros_, rows_first ? row / 8 * layout_.groups + group : group * layout_.zero_rows + row / 8);
    const int nibble = layout_.codes == SplitCodes::int4_by_rows ? kAwqNibble[row % 8] : int(row % 8);
    return (int(word >> (4 * nibble) & 15) + layout_.zero_offset) & 15;
  }

  // The eight codes from column col (a multiple of 8) on, lowest nibble first.
  uint32_t eight(int64_t row, int64_t col) const {
    row += layout_.first_row;
    switch (layout_.codes) {
      case SplitCodes::int4_rows: return word_at(codes_, (row * cols_ + col) / 8);
      case SplitCodes::int4_by_cols: return word_at(codes_, col / 8 * layout_.stored_rows + row);
      case SplitCodes::int4_by_rows: {
        uint32_t word = 0;
        for (int i = 0; i < 8; ++i)
          word |=
              (word_at(codes_, (col + i) * (layout_.stored_rows / 8) + row / 8) >> (4 * kAwqNibble[row % 8]) &
               15)
              << (4 * i);
        return word;
      }
      case SplitCodes::e4m3_rows: break;
    }
    assert(false);
    return 0;
  }

  const std::byte* bytes(int64_t row) const { return codes_ + (row + layout_.first_row) * cols_; }

  void refuse_nan(const std::byte* codes, int64_t count, int64_t row) const {
    bool found = false;
    for (int64_t i = 0; i < count; ++i) found |= (uint8_t(codes[i]) & 0x7f) == 0x7f;
    if (found)
      fail(ErrorKind::invalid_file, "tensor {}: row {} holds a NaN; the file is damaged", layout_.name,
           row + layout_.first_row);
  }

 private:
  const SplitLayout& layout_;
  int64_t cols_;
  const std::byte *codes_, *scales_, *zeros_, *groups_;
};

void make_e4m3(const SplitReader& from, int64_t cols, int64_t first, int64_t last, std::byte* to) {
  for (int64_t row = first; row < last; ++row) {
    const std::byte* codes = from.bytes(row);
    from.refuse_nan(codes, cols, row);
    for (int64_t col = 0; col < cols; col += BlockE4M3::kElements, to += sizeof(BlockE4M3)) {
      const float scale = from.scale(row, from.group_of(col));
      std::memcpy(to, &scale, sizeof scale);
      std::memcpy(to + offsetof(BlockE4M3, codes), codes + col, BlockE4M3::kElements);
    }
  }
}

template <typename Block>
void make_int4(const SplitReader& from, int64_t cols, int64_t first, int64_t last, std::byte* to) {
  const int64_t row_bytes = cols / Block::kElements * int64_t(sizeof(Block));
  // Columns outside, rows inside: GPTQ and AWQ store neighbouring rows side by side.
  for (int64_t col = 0; col < cols; col += Block::kElements) {
    std::byte* const column = to + col / Block::kElements * int64_t(sizeof(Block));
    for (int64_t row = first; row < last; ++row) {
      std::byte* const block = column + (row - first) * row_bytes;
      const float scale = from.scale(row, from.group_of(col));
      std::memcpy(block, &scale, sizeof scale);
      block[offsetof(Block, zero)] = std::byte(from.zero(row, from.group_of(col)));
    }
    for (int64_t c = 0; c < Block::kElements; c += 8)
      for (int64_t row = first; row < last; ++row) {
        const uint32_t word = from.eight(row, col + c);
        std::memcpy(column + (row - first) * row_bytes + int64_t(offsetof(Block, qs)) + c / 2, &word, 4);
      }
  }
}

void make_f32(const SplitReader& from, const SplitLayout& layout, int64_t cols, int64_t first, int64_t last,
              std::byte* to) {
  std::vector<float> scales(size_t(layout.groups));
  std::vector<int> zeros(size_t(layout.groups));
  const bool e4m3 = layout.codes == SplitCodes::e4m3_rows;
  for (int64_t row = first; row < last; ++row) {
    for (int64_t group = 0; group < layout.groups; ++group) {
      scales[size_t(group)] = from.scale(row, group);
      if (!e4m3) zeros[size_t(group)] = from.zero(row, group);
    }
    if (e4m3) from.refuse_nan(from.bytes(row), cols, row);
    for (int64_t col = 0; col < cols; ++col, to += sizeof(float)) {
      const auto group = size_t(from.group_of(col));
      const float value =
          scales[group] *
          (e4m3 ? e4m3_to_float(uint8_t(from.bytes(row)[col]))
                : float(int(from.eight(row, col / 8 * 8) >> (4 * (col % 8)) & 15) - zeros[group]));
      std::memcpy(to, &value, sizeof value);
    }
  }
}

}  // namespace

float split_scale(const StoredWeight& weight, size_t piece, int64_t row, int64_t group) {
  return SplitReader(weight, piece).scale(row, group);
}

uint64_t hash_of(const SplitLayout& layout) {
  uint64_t hash = 0;
  for (const int64_t field : {int64_t(layout.codes), layout.first_row, layout.stored_rows,
                              int64_t(layout.scale_codec), layout.rows_per_scale, layout.row_stride,
                              layout.group_stride, layout.group, layout.groups, int64_t(layout.zero_offset)})
    hash = combine_hashes(hash, uint64_t(field));
  return hash;
}

CodecId codec_of_split(const SplitLayout& layout, int64_t cols, bool has_column_groups) {
  const auto whole = [&](int64_t block) {
    return cols % block == 0 && !has_column_groups && (layout.group % block == 0 || layout.group >= cols);
  };
  if (layout.codes == SplitCodes::e4m3_rows)
    return whole(BlockE4M3::kElements) ? CodecId::e4m3_g128 : CodecId::f32;
  if (whole(BlockInt4G128::kElements)) return CodecId::int4_g128;
  return whole(BlockInt4G32::kElements) ? CodecId::int4_g32 : CodecId::f32;
}

const std::byte* stored_rows(const StoredWeight& weight, size_t piece, int64_t first, int64_t last,
                             std::vector<std::byte>& room) {
  assert(!weight.transposed && first <= last && last <= weight.rows);
  const auto row_bytes = int64_t(codecs::row_bytes(codec(weight.codec), uint64_t(weight.cols)).value());
  if (!weight.split) return weight.pieces[piece].data + first * row_bytes;
  room.resize(size_t((last - first) * row_bytes));
  const SplitReader from(weight, piece);
  switch (weight.codec) {
    case CodecId::e4m3_g128: make_e4m3(from, weight.cols, first, last, room.data()); break;
    case CodecId::int4_g32: make_int4<BlockInt4G32>(from, weight.cols, first, last, room.data()); break;
    case CodecId::int4_g128: make_int4<BlockInt4G128>(from, weight.cols, first, last, room.data()); break;
    default:
      assert(weight.codec == CodecId::f32);
      make_f32(from, *weight.split, weight.cols, first, last, room.data());
  }
  return room.data();
}

}  // namespace cairn::codecs
