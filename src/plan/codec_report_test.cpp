#include "plan/codec_report.h"

#include <gtest/gtest.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace cairn::plan {
namespace {

CodecTime time_of(const std::string& codec, double bits, int64_t k, int64_t rows, double us) {
  CodecTime t{codec, 1024, k, rows};
  t.seconds = us * 1e-6;
  t.bytes = uint64_t(bits * 1024 * double(k) / 8);
  return t;
}

// One row: bytes decide, but q3 is slower than q4. 512 rows: q8 is slower than bf16.
CodecTimes example() {
  CodecTimes times;
  times.machine = "Machine & more";
  times.read_bytes_per_s = 1e11;
  times.energy = "none";
  for (const int64_t k : {256, 512}) {
    times.times.push_back(time_of("bf16", 16, k, 1, 100));
    times.times.push_back(time_of("bf16", 16, k, 512, 1000));
    times.times.push_back(time_of("q8", 8.5, k, 1, 50));
    times.times.push_back(time_of("q8", 8.5, k, 512, 2500));
    times.times.push_back(time_of("q4", 4.5, k, 1, 30));
    times.times.push_back(time_of("q4", 4.5, k, 512, 900));
    times.times.push_back(time_of("q3", 3.4, k, 1, 40));
    times.times.push_back(time_of("q3", 3.4, k, 512, 910));
  }
  times.times.push_back(time_of("odd", 2, 256, 1, 1));  // without the other shape
  times.left_out = {"odd: no kernel for 512 columns"};
  return times;
}

TEST(CodecReport, SumsShapesAndFindsWhatIsSmallerAndSlower) {
  const auto sums = sum_codecs(example());
  ASSERT_EQ(sums.size(), 8u);  // odd is not compared
  EXPECT_EQ(sums[0].codec, "q3");
  EXPECT_DOUBLE_EQ(sums[0].of_bf16, 0.4);
  EXPECT_NEAR(sums[0].bits, 3.4, 1e-2);
  EXPECT_EQ(sums[0].beaten_by, "q4");
  EXPECT_NEAR(sums[0].beaten_times, 4.0 / 3, 1e-9);
  EXPECT_EQ(sums[1].codec, "q4");
  EXPECT_EQ(sums[1].beaten_by, "");
  EXPECT_EQ(sums[4].rows, 512);
  EXPECT_EQ(sums[4].beaten_by, "");  // 910 against 900 is within the margin
  EXPECT_EQ(sums[6].codec, "q8");
  EXPECT_EQ(sums[6].beaten_by, "bf16");
}

TEST(CodecReport, SaysItInWords) {
  const auto lines = findings(example());
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0],
            "1 row: fastest q4 (0.30 of bf16's time); slower than a codec of more bits: q3 1.33x q4");
  EXPECT_EQ(lines[1],
            "512 rows: fastest q4 (0.90 of bf16's time); slower than bf16 with fewer bits: q8 2.50x");
  const auto table = codec_table(example());
  EXPECT_NE(table.find(lines[0]), std::string::npos);
  EXPECT_NE(table.find("not measured: odd: no kernel for 512 columns"), std::string::npos);
  const auto json = nlohmann::json::parse(codec_json(example()));
  EXPECT_EQ(json.at("times").size(), 17u);
  EXPECT_EQ(json.at("findings").at(1), lines[1]);
}

TEST(CodecReport, DrawsABarForEachCodecAndRows) {
  const auto svg = codec_plot(example());
  EXPECT_NE(svg.find("Machine &amp; more"), std::string::npos);
  size_t red = 0, blue = 0;
  for (size_t at = 0; (at = svg.find("fill=\"#d1495b\"", at)) != std::string::npos; ++at) ++red;
  for (size_t at = 0; (at = svg.find("fill=\"#1b6ca8\"", at)) != std::string::npos; ++at) ++blue;
  EXPECT_EQ(red, 2u);
  EXPECT_EQ(blue, 6u);
}

TEST(CodecTimes, AreMeasuredWhereKernelsAre) {
  ThreadPool pool(2);
  CodecBench bench{
      .codecs = {"bf16", "q4_k", "q8_0"}, .shapes = {{64, 320}, {32, 256}}, .rows = {1, 5}, .seconds = 0};
  const auto times = measure_codecs(bench, pool);
  ASSERT_EQ(times.times.size(), 10u);  // q4_k's blocks of 256 do not divide 320
  ASSERT_EQ(times.left_out.size(), 1u);
  EXPECT_EQ(times.left_out[0], "q4_k: no kernel for 320 columns");
  for (const auto& t : times.times) EXPECT_TRUE(t.seconds > 0 && t.bytes > 0) << t.codec;
  EXPECT_NEAR(times.times[0].bits(), 16, 0.5);
  EXPECT_GT(times.read_bytes_per_s, 1e8);
}

TEST(CodecTimes, RefuseUnknownCodecs) {
  CodecBench bench{.codecs = {"q9_x"}, .shapes = {{64, 256}}, .rows = {1}};
  try {
    codecs_to_measure(bench);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("'q9_x'"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("q4_k"), std::string::npos);
  }
}

TEST(CodecTimes, RandomWeightsAreFiniteInEveryCodec) {
  for (const auto* codec : codecs_to_measure({})) {
    const auto bytes = random_weight(*codec, {4, 512});
    std::vector<float> values(4 * 512);
    codec->decode(bytes.data(), values.data(), int64_t(values.size()));
    for (const float v : values) ASSERT_TRUE(std::isfinite(v)) << codec->name;
  }
}

}  // namespace
}  // namespace cairn::plan
