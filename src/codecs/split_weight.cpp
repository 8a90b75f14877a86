#include "codecs/split_weight.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/float16.h"
#include "codecs/bcq.h"
#include "codecs/df11.h"
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
    const int64_t at = (row + layout_.first_row) / layout_.rows_per_scale * layout_.row_stride +
                       group * layout_.group_stride;
    return number(scales_, layout_.scale_codec, at, "scale", row, group);
  }
  float alpha(int plane, int64_t row, int64_t group) const {
    const int64_t at = group * layout_.group_stride + plane * layout_.stored_rows + row + layout_.first_row;
    return number(scales_, layout_.scale_codec, at, "alpha", row, group);
  }
  float bias(int64_t row, int64_t group) const {
    if (!zeros_) return 0;
    const int64_t at = group * layout_.stored_rows + row + layout_.first_row;
    return number(zeros_, layout_.bias_codec, at, "bias", row, group);
  }

  int zero(int64_t row, int64_t group) const {
    const int mask = (1 << layout_.bits) - 1;
    if (!zeros_) return (mask + 1) / 2;
    row += layout_.first_row;
    int stored = 0;
    switch (layout_.codes) {
      case SplitCodes::int4_rows:
        stored = int(word_at(zeros_, row / 8 * layout_.groups + group) >> (4 * (row % 8)));
        break;
      case SplitCodes::int4_by_rows:
        stored = int(word_at(zeros_, group * layout_.zero_rows + row / 8) >> (4 * kAwqNibble[row % 8]));
        break;
      default:
        stored = string_at(row * layout_.bits,
                           [&](int64_t i) { return word_at(zeros_, group * layout_.zero_rows + i); });
    }
    return (stored + layout_.zero_offset) & mask;
  }

  int code(int64_t row, int64_t col) const {
    if (layout_.codes == SplitCodes::ints_by_cols)
      return string_at(col * layout_.bits, [&](int64_t i) { return by_cols(i, row); }) &
             ((1 << layout_.bits) - 1);
    return int(eight(row, col / 8 * 8) >> (4 * (col % 8)) & 15);
  }

  // Word `index` of the row's string of codes.
  uint32_t word(int64_t row, int64_t index) const {
    return layout_.codes == SplitCodes::ints_by_cols ? by_cols(index, row) : eight(row, index * 8);
  }
  // The signs of columns [32 * index, 32 * index + 32).
  uint32_t signs(int plane, int64_t row, int64_t index) const {
    return by_cols(index * layout_.bits + plane, row);
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
  float number(const std::byte* from, CodecId id, int64_t at, const char* what, int64_t row,
               int64_t group) const {
    const auto& format = codec(id);
    float value;
    format.decode(from + at * format.block_bytes, &value, 1);
    if (!std::isfinite(value))
      fail(ErrorKind::invalid_file, "tensor {}: the {} of row {}, group {} is {}; the file is damaged",
           layout_.name, what, row + layout_.first_row, group, value);
    return value;
  }
  uint32_t by_cols(int64_t index, int64_t row) const {
    return word_at(codes_, index * layout_.stored_rows + row + layout_.first_row);
  }
  // From bit `at` of a string of words on; bits past the code's may follow.
  template <typename Words>
  int string_at(int64_t at, Words&& words) const {
    uint64_t both = words(at / 32);
    if (at % 32 + layout_.bits > 32) both |= uint64_t{words(at / 32 + 1)} << 32;
    return int(both >> (at % 32) & 255);
  }
  // Eight codes of four bits from column col (a multiple of 8) on, lowest nibble first.
  uint32_t eight(int64_t row, int64_t col) const {
    row += layout_.first_row;
    if (layout_.codes == SplitCodes::int4_rows) return word_at(codes_, (row * cols_ + col) / 8);
    assert(layout_.codes == SplitCodes::int4_by_rows);
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i)
      word |=
          (word_at(codes_, (col + i) * (layout_.stored_rows / 8) + row / 8) >> (4 * kAwqNibble[row % 8]) & 15)
          << (4 * i);
    return word;
  }

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
void make_ints(const SplitReader& from, int64_t cols, int64_t first, int64_t last, std::byte* to) {
  constexpr int kWords = Block::kElements * Block::kBits / 32;
  const int64_t row_bytes = cols / Block::kElements * int64_t(sizeof(Block));
  // Columns outside, rows inside: GPTQ and AWQ store neighbouring rows side by side.
  for (int64_t b = 0; b < cols / Block::kElements; ++b) {
    std::byte* const column = to + b * int64_t(sizeof(Block));
    const int64_t group = from.group_of(b * Block::kElements);
    for (int64_t row = first; row < last; ++row) {
      std::byte* const block = column + (row - first) * row_bytes;
      const float scale = from.scale(row, group);
      std::memcpy(block, &scale, sizeof scale);
      block[offsetof(Block, zero)] = std::byte(from.zero(row, group));
    }
    for (int w = 0; w < kWords; ++w)
      for (int64_t row = first; row < last; ++row) {
        const uint32_t word = from.word(row, b * kWords + w);
        std::memcpy(column + (row - first) * row_bytes + int64_t(offsetof(Block, qs)) + 4 * w, &word, 4);
      }
  }
}

template <int q>
void make_planes(const SplitReader& from, int64_t cols, int64_t first, int64_t last, std::byte* to) {
  using Block = BlockBcq<q>;
  const int64_t row_bytes = cols / kBcqGroup * int64_t(sizeof(Block));
  for (int64_t b = 0; b < cols / kBcqGroup; ++b) {
    std::byte* const column = to + b * int64_t(sizeof(Block));
    const int64_t group = from.group_of(b * kBcqGroup);
    for (int64_t row = first; row < last; ++row) {
      Block block = {};
      for (int i = 0; i < q; ++i) block.alpha[i] = float_to_f16(from.alpha(i, row, group));
      block.bias = from.bias(row, group);
      std::memcpy(column + (row - first) * row_bytes, &block, sizeof block);
    }
    for (int i = 0; i < q; ++i)
      for (int w = 0; w < kBcqGroup / 32; ++w)
        for (int64_t row = first; row < last; ++row) {
          const uint32_t word = from.signs(i, row, b * (kBcqGroup / 32) + w);
          std::memcpy(column + (row - first) * row_bytes + int64_t(offsetof(Block, planes)) +
                          i * (kBcqGroup / 8) + 4 * w,
                      &word, 4);
        }
  }
}

void make_f32(const SplitReader& from, const SplitLayout& layout, int64_t cols, int64_t first, int64_t last,
              std::byte* to) {
  const bool e4m3 = layout.codes == SplitCodes::e4m3_rows,
             planes = layout.codes == SplitCodes::planes_by_cols;
  const auto groups = size_t(layout.groups), scales_of_group = size_t(planes ? layout.bits : 1);
  std::vector<float> scales(groups * scales_of_group), biases(groups);
  std::vector<int> zeros(groups);
  for (int64_t row = first; row < last; ++row) {
    for (size_t g = 0; g < groups; ++g) {
      const auto group = int64_t(g);
      if (planes) {
        biases[g] = from.bias(row, group);
        for (int i = 0; i < layout.bits; ++i)
          scales[g * scales_of_group + size_t(i)] = from.alpha(i, row, group);
        continue;
      }
      scales[g] = from.scale(row, group);
      if (!e4m3) zeros[g] = from.zero(row, group);
    }
    if (e4m3) from.refuse_nan(from.bytes(row), cols, row);
    for (int64_t col = 0; col < cols; ++col, to += sizeof(float)) {
      const auto group = size_t(from.group_of(col));
      float value = 0;
      if (planes) {
        for (int i = 0; i < layout.bits; ++i) {
          const float alpha = scales[group * scales_of_group + size_t(i)];
          value += from.signs(i, row, col / 32) >> (col % 32) & 1 ? alpha : -alpha;
        }
        value += biases[group];
      } else {
        value = scales[group] * (e4m3 ? e4m3_to_float(uint8_t(from.bytes(row)[col]))
                                      : float(from.code(row, col) - zeros[group]));
      }
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
  for (const int64_t field :
       {int64_t(layout.codes), layout.first_row, layout.stored_rows, int64_t(layout.scale_codec),
        layout.rows_per_scale, layout.row_stride, layout.group_stride, layout.group, layout.groups,
        int64_t(layout.zero_offset), int64_t(layout.bits), int64_t(layout.bias_codec)})
    hash = combine_hashes(hash, uint64_t(field));
  return hash;
}

CodecId codec_of_split(const SplitLayout& layout, int64_t cols, bool has_column_groups) {
  const auto whole = [&](int64_t block) {
    return cols % block == 0 && !has_column_groups && (layout.group % block == 0 || layout.group >= cols);
  };
  if (layout.codes == SplitCodes::e4m3_rows)
    return whole(BlockE4M3::kElements) ? CodecId::e4m3_g128 : CodecId::f32;
  if (layout.codes == SplitCodes::planes_by_cols) {
    constexpr CodecId kPlanes[] = {CodecId::bcq1_g128, CodecId::bcq2_g128, CodecId::bcq3_g128,
                                   CodecId::bcq4_g128};
    return whole(kBcqGroup) ? kPlanes[layout.bits - 1] : CodecId::f32;
  }
  const bool large = whole(128);
  if (!large && !whole(32)) return CodecId::f32;
  switch (layout.bits) {
    case 2: return large ? CodecId::int2_g128 : CodecId::int2_g32;
    case 3: return large ? CodecId::int3_g128 : CodecId::int3_g32;
    case 8: return large ? CodecId::int8_g128 : CodecId::int8_g32;
    default: return large ? CodecId::int4_g128 : CodecId::int4_g32;
  }
}

const std::byte* stored_rows(const StoredWeight& weight, size_t piece, int64_t first, int64_t last,
                             std::vector<std::byte>& room) {
  assert(!weight.transposed && first <= last && last <= weight.rows);
  const auto row_bytes = int64_t(codecs::row_bytes(codec(weight.codec), uint64_t(weight.cols)).value());
  if (weight.has_rows()) return weight.pieces[piece].data + first * row_bytes;
  room.resize(size_t((last - first) * row_bytes));
  if (weight.group) {
    const int64_t begin = weight.pieces[piece].first_element;
    weight.group->decode(begin + first * weight.cols, begin + last * weight.cols,
                         reinterpret_cast<uint16_t*>(room.data()));
    return room.data();
  }
  const SplitReader from(weight, piece);
  const auto make = [&](auto rows_of) { rows_of(from, weight.cols, first, last, room.data()); };
  switch (weight.codec) {
    case CodecId::e4m3_g128: make(make_e4m3); break;
    case CodecId::int2_g32: make(make_ints<BlockInt2G32>); break;
    case CodecId::int2_g128: make(make_ints<BlockInt2G128>); break;
    case CodecId::int3_g32: make(make_ints<BlockInt3G32>); break;
    case CodecId::int3_g128: make(make_ints<BlockInt3G128>); break;
    case CodecId::int4_g32: make(make_ints<BlockInt4G32>); break;
    case CodecId::int4_g128: make(make_ints<BlockInt4G128>); break;
    case CodecId::int8_g32: make(make_ints<BlockInt8G32>); break;
    case CodecId::int8_g128: make(make_ints<BlockInt8G128>); break;
    case CodecId::bcq1_g128: make(make_planes<1>); break;
    case CodecId::bcq2_g128: make(make_planes<2>); break;
    case CodecId::bcq3_g128: make(make_planes<3>); break;
    case CodecId::bcq4_g128: make(make_planes<4>); break;
    default:
      assert(weight.codec == CodecId::f32);
      make_f32(from, *weight.split, weight.cols, first, last, room.data());
  }
  return room.data();
}

}  // namespace cairn::codecs
