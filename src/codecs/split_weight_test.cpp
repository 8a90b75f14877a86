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
  std::vector<int32_t> column_groups;
  std::vector<float> values;

  Stored(SplitCodes codes, int64_t rows, int64_t cols, int64_t group, bool zeros, int zero_offset,
         bool shuffled) {
    std::mt19937 random(unsigned(rows * 31 + cols + int(codes)));
    auto layout = std::make_shared<SplitLayout>();
    layout->name = "x.qweight", layout->codes = codes, layout->stored_rows = rows;
    layout->scale_codec = CodecId::f16;
    layout->group = group, layout->groups = (cols + group - 1) / group;
    const int64_t groups = layout->groups;
    const bool by_row = codes == SplitCodes::int4_rows || codes == SplitCodes::e4m3_rows;
    layout->row_stride = by_row ? groups : 1, layout->group_stride = by_row ? 1 : rows;
    layout->zero_offset = zero_offset, layout->zero_rows = (rows + 7) / 8;
    scales.resize(size_t(rows * groups)), zero_words.resize(size_t((rows + 7) / 8 * groups));
    words.resize(size_t(rows * cols / 8)), bytes.resize(size_t(rows * cols));
    std::vector<float> scale(size_t(rows * groups));
    std::vector<int> zero(size_t(rows * groups), 8);
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
        const uint32_t z = random() % 16;
        zero[size_t(r * groups + g)] = int(z);
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
        const uint32_t q = random() % 16;
        const auto put = [&](int64_t word, int at) { words[size_t(word)] |= q << (4 * at); };
        if (codes == SplitCodes::int4_rows) put((r * cols + c) / 8, int(c % 8));
        if (codes == SplitCodes::int4_by_cols) put(c / 8 * rows + r, int(c % 8));
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
      {SplitCodes::int4_by_cols, 16, 256, 128, true, 1, false, CodecId::int4_g128},
      {SplitCodes::int4_by_cols, 24, 96, 32, true, 0, false, CodecId::int4_g32},
      {SplitCodes::int4_by_cols, 24, 256, 128, true, 1, true, CodecId::f32},
      {SplitCodes::int4_by_rows, 24, 256, 128, true, 0, false, CodecId::int4_g128},
      {SplitCodes::int4_by_rows, 8, 64, 64, true, 0, false, CodecId::int4_g32},
  };
  for (const auto& c : cases) {
    const Stored stored(c.codes, c.rows, c.cols, c.group, c.zeros, c.zero_offset, c.shuffled);
    SCOPED_TRACE(testing::Message() << "codes " << int(c.codes) << ", " << c.rows << " x " << c.cols);
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
