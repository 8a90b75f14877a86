// The tensors of LUT-GEMM's layout, read back by the readers of models.
#include "quantize/bcq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/error.h"
#include "codecs/split_weight.h"
#include "quantize/gptq_layout.h"

namespace cairn::quantize {
namespace {

using codecs::SplitCodes;

std::vector<float> gaussian(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> x(count);
  for (float& v : x) v = normal(random);
  return x;
}

codecs::StoredPart part(const OutputTensor& t) { return {t.bytes.data(), t.bytes.size(), -1}; }

// What a model that holds these tensors multiplies with. codes: bW or qweight, scales, then zeros or biases.
std::vector<float> read(SplitCodes codes, int bits, const std::vector<OutputTensor>& tensors, int64_t rows,
                        int64_t cols, int64_t group) {
  const auto find = [&](const char* suffix) -> const OutputTensor* {
    for (const auto& t : tensors)
      if (t.name.ends_with(suffix)) return &t;
    return nullptr;
  };
  const bool planes = codes == SplitCodes::planes_by_cols;
  auto layout = std::make_shared<codecs::SplitLayout>();
  layout->codes = codes, layout->bits = bits, layout->stored_rows = rows;
  layout->scale_codec = codecs::CodecId::f16, layout->bias_codec = codecs::CodecId::f32;
  layout->group = group, layout->groups = cols / group;
  layout->group_stride = planes ? bits * rows : rows;
  layout->zero_offset = 1, layout->zero_rows = rows * bits / 32;
  codecs::StoredWeight w{codec_of_split(*layout, cols, false), rows, cols, false, 0, 0, {}, layout};
  const auto *main = find(planes ? ".bW" : ".qweight"), *scales = find(planes ? ".alpha" : ".scales"),
             *zeros = find(planes ? ".q_bias" : ".qzeros");
  w.pieces.push_back({main->bytes.data(),
                      main->bytes.size(),
                      -1,
                      {part(*scales), zeros ? part(*zeros) : codecs::StoredPart(), codecs::StoredPart()}});
  std::vector<std::byte> room;
  std::vector<float> values(size_t(rows * cols));
  codecs::codec(w.codec).decode(codecs::stored_rows(w, 0, 0, rows, room), values.data(), rows * cols);
  return values;
}

double error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return sum;
}

TEST(BcqLayout, CodesOfGptqAreTheSameNumbersAsSigns) {
  std::mt19937 random(1);
  for (const int bits : {2, 3, 4})
    for (const int64_t group : {128, 32}) {
      GptqMatrix m{bits, 64, 384, 384 / group, {}, {}, {}};
      for (int64_t i = 0; i < m.rows * m.cols; ++i) m.codes.push_back(uint8_t(random() % (1u << bits)));
      for (int64_t i = 0; i < m.groups * m.rows; ++i)
        m.grids.push_back({0.001f * float(1 + random() % 1000), int(1 + random() % ((1u << bits) - 1))});
      for (int64_t c = 0; c < m.cols; ++c) m.column_groups.push_back(int32_t(c / group));
      const auto codes = gptq_tensors(m, "x");
      int64_t rounded = 0;
      const auto signs = signs_tensors(signs_of_gptq(bits, codes, &rounded), "x");
      EXPECT_EQ(rounded, 0);
      ASSERT_EQ(signs.size(), 3u);
      EXPECT_EQ(signs[0].shape, (std::vector<int64_t>{12, bits, 64}));
      EXPECT_EQ(read(SplitCodes::planes_by_cols, bits, signs, 64, 384, group),
                read(SplitCodes::ints_by_cols, bits, codes, 64, 384, group))
          << bits << " bits, groups of " << group;
    }
}

TEST(BcqLayout, ScalesTooSmallToHalveAreCounted) {
  GptqMatrix m{2, 32, 32, 1, {}, {}, {}};
  m.codes.assign(32 * 32, 1), m.column_groups.assign(32, 0);
  m.grids.assign(32, {0x1.004p-14f, 1});  // the least normal exponent of f16, last bit set
  int64_t rounded = 0;
  signs_of_gptq(2, gptq_tensors(m, "x"), &rounded);
  EXPECT_EQ(rounded, 32);
}

TEST(BcqLayout, FittedSignsReadBackNearTheWeights) {
  ThreadPool pool(2);
  const int64_t rows = 33, cols = 256;
  const auto x = gaussian(size_t(rows * cols), 3);
  double power = error(x, std::vector<float>(x.size(), 0.0f)), last = power;
  for (const int planes : {1, 2, 3, 4}) {
    const auto signs = signs_tensors(fit_signs(x, rows, cols, 128, planes, 15, nullptr, "w", pool), "x");
    ASSERT_EQ(signs.size(), 2u);
    const double now = error(x, read(SplitCodes::planes_by_cols, planes, signs, rows, cols, 128));
    EXPECT_LT(now, 0.45 * last) << planes;
    const auto greedy = signs_tensors(fit_signs(x, rows, cols, 128, planes, 0, nullptr, "w", pool), "x");
    const double first = error(x, read(SplitCodes::planes_by_cols, planes, greedy, rows, cols, 128));
    EXPECT_LE(now, first * 1.0001) << planes;
    last = now;
  }
  EXPECT_LT(last, 0.012 * power);
}

// The shipped model's: errors against greedy scales and against rounding to even steps of the same bits.
TEST(BcqLayout, TrainedWeightsLoseLessThanByRoundingOrGreedily) {
  ThreadPool pool(2);
  const auto model =
      formats::open_checkpoint(std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories");
  for (const char* name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.3.mlp.down_proj.weight"}) {
    const auto* stored = model.find(name);
    ASSERT_NE(stored, nullptr);
    const Matrix matrix{name, stored->shape[0], stored->shape[1], false, stored};
    const auto x = matrix.values();
    const auto lost = [&](int rounds) {
      const auto signs =
          signs_tensors(fit_signs(x, matrix.rows, matrix.cols, 128, 3, rounds, nullptr, name, pool), "x");
      return error(x, read(SplitCodes::planes_by_cols, 3, signs, matrix.rows, matrix.cols, 128));
    };
    double rounded = 0;
    for (size_t at = 0; at < x.size(); at += 128) {
      const auto grid = fit_grid(std::span(x).subspan(at, 128), {.bits = 3});
      for (size_t i = at; i < at + 128; ++i)
        rounded += std::pow(double{x[i]} - double{value_of(code_of(x[i], grid, 3), grid)}, 2);
    }
    const double fitted = lost(15);
    EXPECT_LT(fitted, 0.9 * lost(0)) << name;
    EXPECT_LT(fitted, 0.9 * rounded) << name;
  }
}

Settings settings(std::map<std::string, std::string, std::less<>> said) {
  for (const auto& s : kBcq.settings) said.emplace(s.name, s.standard);
  return Settings(std::move(said));
}

TEST(BcqMethod, RefusesWhatTheFormatCannotHold) {
  const auto refused = [](std::map<std::string, std::string, std::less<>> said) -> std::string {
    try {
      kBcq.make(settings(std::move(said)));
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({{"from", "gptq"}, {"bits", "3"}}), "");
  EXPECT_NE(refused({{"bits", "5"}}).find("--bits is '5'"), std::string::npos);
  EXPECT_NE(refused({{"bits", "0"}}).find("--bits is '0'"), std::string::npos);
  EXPECT_NE(refused({{"group", "100"}}).find("--group is 100"), std::string::npos);
  EXPECT_NE(refused({{"from", "awq"}}).find("--from is 'awq'"), std::string::npos);
  EXPECT_NE(refused({{"from", "gptq"}, {"bits", "1"}}).find("--bits is 1"), std::string::npos);
  const auto encoder = kBcq.make(settings({}));
  EXPECT_EQ(encoder->keeps({"a.weight", 16, 128}), "");
  EXPECT_EQ(encoder->keeps({"a.weight", 16, 192}), "192 columns are no multiple of the group of 128");
  EXPECT_EQ(encoder->keeps({"a.weight", 16, 100}), "100 columns are no multiple of 32");
}

TEST(BcqMethod, WeightsThatAreNoNumbersAreNamed) {
  ThreadPool pool(1);
  std::vector<float> values(128 * 2, 0.5f);
  values[128 + 7] = NAN;
  formats::Tensor stored;
  stored.codec = codecs::CodecId::f32;
  stored.bytes = std::as_bytes(std::span(values));
  const Matrix matrix{"a.weight", 2, 128, false, &stored};
  try {
    kBcq.make(settings({}))->encode(std::span(&matrix, 1), pool);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tensor a.weight: row 1, column 7 is nan"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace cairn::quantize
