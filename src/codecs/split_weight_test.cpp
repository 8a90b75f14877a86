// Tensors of quantisers made by hand, and the rows that become of them against the formulas of
// split_weight.h.
#include "codecs/split_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/float16.h"
#include "codecs/scaled_blocks.h"

namespace cairn::codecs {
namespace {

// Codes, scales, zeros and groups of random values, stored in a layout, and what they stand for.
struct Stored {
  StoredWeight weight;
  std::vector<uint32_t> words, zero_words;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> scales;  // f16
  std::vector<float> biases;
  std::vector<int32_t> column_groups;
  std::vector<float> values;

  Stored(SplitCodes codes, int64_t rows, int64_t cols, int64_t group, bool zeros, int zero_offset,
         bool shuffled, int bits = 4) {
    std::mt19937 random(unsigned(rows * 31 + cols + int(codes)));
    auto layout = std::make_shared<SplitLayout>();
    layout->name = "x.qweight", layout->bits = bits, layout->codes = codes, layout->stored_rows = rows;
    layout->scale_codec = CodecId::f16;
    layout->group = group, layout->groups = (cols + group - 1) / group;
    const int64_t groups = layout->groups;
    const bool by_row = codes == SplitCodes::int4_rows || codes == SplitCodes::e4m3_rows;
    layout->row_stride = by_row ? groups : 1, layout->group_stride = by_row ? 1 : rows;
    layout->zero_offset = zero_offset, layout->zero_rows = (rows * bits + 31) / 32;
    if (codes == SplitCodes::planes_by_cols) {
      make_planes(layout, rows, cols, zeros, random);
      return;
    }
    const uint32_t levels = 1u << bits;
    scales.resize(size_t(rows * groups)), zero_words.resize(size_t(layout->zero_rows * groups));
    words.resize(size_t(rows * cols * bits / 32)), bytes.resize(size_t(rows * cols));
    std::vector<float> scale(size_t(rows * groups));
    std::vector<int> zero(size_t(rows * groups), int(levels / 2));
    constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};  // of AWQ: the row in nibble i
    const auto nibble = [&](int64_t row) {
      const int r = int(row % 8);
      return codes == SplitCodes::int4_by_rows ? int(std::find(kOrder, kOrder + 8, r) - kOrder) : r;
    };
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t g = 0; g < groups; ++g) {
        const uint16_t half = float_to_f16(0.001f * float(1 + random() % 1000));
        scale[size_t(r * groups + g)] = f16_to_float(half);
        scales[size_t(r * layout->row_stride + g * layout->group_stride)] = half;
        if (!zeros) continue;
        const uint32_t z = random() % levels;
        zero[size_t(r * groups + g)] = int(z);
        if (codes == SplitCodes::ints_by_cols) {
          put_bits(zero_words, r * bits, (z - uint32_t(zero_offset)) & (levels - 1), bits, 1,
                   g * layout->zero_rows);
          continue;
        }
        const int64_t at = by_row ? r / 8 * groups + g : g * layout->zero_rows + r / 8;
        zero_words[size_t(at)] |= ((z - uint32_t(zero_offset)) & 15) << (4 * nibble(r));
      }
    for (int64_t c = 0; c < cols; ++c) column_groups.push_back(int32_t(c / group));
    if (shuffled) std::shuffle(column_groups.begin(), column_groups.end(), random);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const auto g = size_t(r * groups + column_groups[size_t(c)]);
        if (codes == SplitCodes::e4m3_rows) {
          const auto code = uint8_t(random() % 127 + 128 * (random() % 2));
          bytes[size_t(r * cols + c)] = code;
          values.push_back(scale[g] * e4m3_to_float(code));
          continue;
        }
        const uint32_t q = random() % levels;
        const auto put = [&](int64_t word, int at) { words[size_t(word)] |= q << (4 * at); };
        if (codes == SplitCodes::int4_rows) put((r * cols + c) / 8, int(c % 8));
        if (codes == SplitCodes::ints_by_cols) put_bits(words, c * bits, q, bits, rows, r);
        if (codes == SplitCodes::int4_by_rows) put(c * (rows / 8) + r / 8, nibble(r));
        values.push_back(scale[g] * float(int(q) - zero[g]));
      }
    const auto part = [](const auto& v) {
      return StoredPart{reinterpret_cast<const std::byte*>(v.data()), v.size() * sizeof v[0], -1};
    };
    const auto stored = codes == SplitCodes::e4m3_rows ? part(bytes) : part(words);
    weight = {codec_of_split(*layout, cols, shuffled), rows, cols, false, 0, 0, {}, layout};
    weight.pieces.push_back({stored.data,
                             stored.bytes,
                             -1,
                             {part(scales), zeros ? part(zero_words) : StoredPart(),
                              shuffled ? part(column_groups) : StoredPart()}});
  }

  // Bit by bit: a string whose words are `stride` apart.
  static void put_bits(std::vector<uint32_t>& to, int64_t at, uint32_t value, int bits, int64_t stride,
                       int64_t first) {
    for (int i = 0; i < bits; ++i, ++at)
      to[size_t(first + at / 32 * stride)] |= (value >> i & 1) << (at % 32);
  }
  void make_planes(const std::shared_ptr<SplitLayout>& layout, int64_t rows, int64_t cols, bool with_bias,
                   std::mt19937& random) {
    const int64_t q = layout->bits, groups = layout->groups;
    layout->group_stride = q * rows;
    words.resize(size_t(cols / 32 * q * rows));
    for (auto& word : words) word = uint32_t(random());
    for (int64_t i = 0; i < groups * q * rows; ++i)
      scales.push_back(float_to_f16(0.001f * float(1 + random() % 1000)));
    for (int64_t i = 0; i < groups * rows; ++i) biases.push_back(0.01f * float(random() % 100));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        float sum = 0;
        const int64_t g = c / layout->group;
        for (int64_t i = 0; i < q; ++i) {
          const float alpha = f16_to_float(scales[size_t((g * q + i) * rows + r)]);
          sum += words[size_t((c / 32 * q + i) * rows + r)] >> (c % 32) & 1 ? alpha : -alpha;
        }
        values.push_back(sum + (with_bias ? biases[size_t(g * rows + r)] : 0));
      }
    const auto part = [](const auto& v) {
      return StoredPart{reinterpret_cast<const std::byte*>(v.data()), v.size() * sizeof v[0], -1};
    };
    weight = {codec_of_split(*layout, cols, false), rows, cols, false, 0, 0, {}, layout};
    weight.pieces.push_back({part(words).data,
                             part(words).bytes,
                             -1,
                             {part(scales), with_bias ? part(biases) : StoredPart(), StoredPart()}});
  }

  std::vector<float> rows(int64_t first, int64_t last) const {
    std::vector<std::byte> room;
    std::vector<float> result(size_t((last - first) * weight.cols));
    codec(weight.codec)
        .decode(stored_rows(weight, 0, first, last, room), result.data(), (last - first) * weight.cols);
    return result;
  }
};

struct Case {
  SplitCodes codes;
  int64_t rows, cols, group;
  bool zeros;
  int zero_offset;
  bool shuffled;
  CodecId codec;
  int bits = 4;
};

TEST(SplitWeight, RowsHoldWhatTheTensorsSay) {
  const Case cases[] = {
      {SplitCodes::e4m3_rows, 5, 384, 128, false, 0, false, CodecId::e4m3_g128},
      {SplitCodes::e4m3_rows, 5, 256, 256, false, 0, false, CodecId::e4m3_g128},
      {SplitCodes::e4m3_rows, 3, 200, 128, false, 0, false, CodecId::f32},
      {SplitCodes::int4_rows, 13, 256, 128, true, 0, false, CodecId::int4_g128},
      {SplitCodes::int4_rows, 13, 256, 128, false, 0, false, CodecId::int4_g128},
      {SplitCodes::int4_rows, 9, 192, 64, true, 0, false, CodecId::int4_g32},
      {SplitCodes::int4_rows, 9, 48, 24, true, 0, false, CodecId::f32},
      {SplitCodes::ints_by_cols, 16, 256, 128, true, 1, false, CodecId::int4_g128},
      {SplitCodes::ints_by_cols, 24, 96, 32, true, 0, false, CodecId::int4_g32},
      {SplitCodes::ints_by_cols, 24, 256, 128, true, 1, true, CodecId::f32},
      {SplitCodes::int4_by_rows, 24, 256, 128, true, 0, false, CodecId::int4_g128},
      {SplitCodes::int4_by_rows, 8, 64, 64, true, 0, false, CodecId::int4_g32},
      {SplitCodes::ints_by_cols, 16, 256, 128, true, 1, false, CodecId::int2_g128, 2},
      {SplitCodes::ints_by_cols, 32, 256, 256, true, 1, false, CodecId::int3_g128, 3},
      {SplitCodes::ints_by_cols, 64, 96, 32, true, 0, false, CodecId::int3_g32, 3},
      {SplitCodes::ints_by_cols, 16, 64, 64, false, 0, false, CodecId::int2_g32, 2},
      {SplitCodes::ints_by_cols, 12, 256, 128, true, 1, false, CodecId::int8_g128, 8},
      {SplitCodes::ints_by_cols, 12, 96, 96, true, 0, false, CodecId::int8_g32, 8},
      {SplitCodes::ints_by_cols, 32, 256, 128, true, 1, true, CodecId::f32, 3},
      {SplitCodes::ints_by_cols, 12, 256, 128, true, 1, true, CodecId::f32, 8},
      {SplitCodes::planes_by_cols, 13, 256, 128, true, 0, false, CodecId::bcq3_g128, 3},
      {SplitCodes::planes_by_cols, 8, 384, 384, false, 0, false, CodecId::bcq1_g128, 1},
      {SplitCodes::planes_by_cols, 7, 256, 256, true, 0, false, CodecId::bcq4_g128, 4},
      {SplitCodes::planes_by_cols, 7, 256, 64, true, 0, false, CodecId::f32, 2},
      {SplitCodes::planes_by_cols, 7, 128, 128, true, 0, false, CodecId::bcq2_g128, 2},
  };
  for (const auto& c : cases) {
    const Stored stored(c.codes, c.rows, c.cols, c.group, c.zeros, c.zero_offset, c.shuffled, c.bits);
    SCOPED_TRACE(testing::Message() << "codes " << int(c.codes) << ", " << c.rows << " x " << c.cols << ", "
                                    << c.bits << " bits");
    ASSERT_EQ(stored.weight.codec, c.codec);
    EXPECT_EQ(stored.rows(0, c.rows), stored.values);
    const auto middle = stored.rows(2, 3);
    EXPECT_TRUE(std::equal(middle.begin(), middle.end(), stored.values.begin() + 2 * c.cols));
  }
}

TEST(SplitWeight, PartOfAFusedTensorBeginsAtItsRow) {
  const Stored whole(SplitCodes::int4_by_rows, 24, 128, 32, true, 0, false);
  StoredWeight part = whole.weight;
  auto layout = std::make_shared<SplitLayout>(*part.split);
  layout->first_row = 5, part.rows = 7, part.split = layout;
  std::vector<std::byte> room;
  std::vector<float> values(7 * 128);
  codec(part.codec).decode(stored_rows(part, 0, 0, 7, room), values.data(), int64_t(values.size()));
  EXPECT_TRUE(std::equal(values.begin(), values.end(), whole.values.begin() + 5 * 128));
}

TEST(SplitWeight, WhatIsNoNumberIsAnErrorNamingTensorAndRow) {
  const auto message = [](const Stored& stored) -> std::string {
    try {
      stored.rows(0, stored.weight.rows);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  Stored codes(SplitCodes::e4m3_rows, 5, 128, 128, false, 0, false);
  codes.bytes[3 * 128 + 7] = 0xff;
  EXPECT_EQ(message(codes), "tensor x.qweight: row 3 holds a NaN; the file is damaged");
  Stored scales(SplitCodes::int4_rows, 5, 256, 128, true, 0, false);
  scales.scales[2 * 2 + 1] = 0x7c00;
  EXPECT_EQ(message(scales), "tensor x.qweight: the scale of row 2, group 1 is inf; the file is damaged");
}

}  // namespace
}  // namespace cairn::codecs
