#include "program/rope_scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "base/error.h"

namespace cairn::program {
namespace {

using Kind = RopeScaling::Kind;

struct Expected {
  const char* name;
  RopeScaling scaling;
  double theta;
  int rotary_dim;
  int64_t sequence_length, max_position;
  double attention_factor;
  std::vector<double> inverse_frequencies;
};

const std::vector<Expected>& table() {
  static const std::vector<Expected> rows = {
#include "program/rope_scaling_table.inc"
  };
  return rows;
}

// transformers works in fp32: the exponent (relative error 2^-24, times the logarithm of the frequency, at
// most 14), the power and up to six more roundings. Ours round once.
double bound(double frequency) { return (14 + 8) * 0x1p-24 * frequency; }

TEST(RopeScaling, MatchesTransformers) {
  ASSERT_EQ(table().size(), 20u);
  for (const Expected& row : table()) {
    check_rope_scaling(row.scaling, row.theta, row.rotary_dim, row.max_position, row.name);
    RopeFrequencies got =
        rope_frequencies(row.scaling, row.theta, row.rotary_dim, row.sequence_length, row.max_position);
    EXPECT_NEAR(got.attention_factor, row.attention_factor, 2e-7 * row.attention_factor) << row.name;
    ASSERT_EQ(got.inverse_frequencies.size(), row.inverse_frequencies.size()) << row.name;
    for (size_t i = 0; i < row.inverse_frequencies.size(); ++i)
      EXPECT_NEAR(got.inverse_frequencies[i], row.inverse_frequencies[i], bound(row.inverse_frequencies[i]))
          << row.name << ", pair " << i;
  }
}

TEST(RopeScaling, DivisorsAreTheShortListAtEveryLength) {
  RopeScaling scaling;
  scaling.kind = Kind::divisors;
  scaling.short_factor = {1, 2, 4, 8};
  RopeFrequencies got = rope_frequencies(scaling, 10000, 8, 1 << 20, 64);
  EXPECT_EQ(got.inverse_frequencies, (std::vector<float>{1.f, 0.05f, 0.0025f, 0.000125f}));
  EXPECT_EQ(got.attention_factor, 1);
  EXPECT_FALSE(depends_on_length(scaling));
}

TEST(RopeScaling, SaysWhichKindsDependOnTheLength) {
  for (Kind kind : {Kind::none, Kind::linear, Kind::yarn, Kind::llama3, Kind::divisors}) {
    RopeScaling scaling;
    scaling.kind = kind;
    EXPECT_FALSE(depends_on_length(scaling)) << to_string(kind);
  }
  RopeScaling dynamic;
  dynamic.kind = Kind::dynamic_ntk;
  EXPECT_TRUE(depends_on_length(dynamic));
  RopeScaling longrope;
  longrope.kind = Kind::longrope;
  longrope.short_factor = longrope.long_factor = {1, 2};
  EXPECT_FALSE(depends_on_length(longrope));
  longrope.long_factor = {1, 3};
  EXPECT_TRUE(depends_on_length(longrope));
}

std::string refusal(const std::function<void(RopeScaling&)>& change, double theta = 10000, int rotary_dim = 4,
                    int64_t max_position = 4096) {
  RopeScaling scaling;
  scaling.factor = 4;
  scaling.original_max_position = 1024;
  scaling.short_factor = {1, 1};
  scaling.long_factor = {2, 2};
  change(scaling);
  try {
    check_rope_scaling(scaling, theta, rotary_dim, max_position, "config.json: rope_scaling");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_file);
    return error.what();
  }
  return "accepted";
}

TEST(RopeScaling, RefusesWhatMakesNoSense) {
  auto kind = [](Kind value) { return [value](RopeScaling& s) { s.kind = value; }; };
  for (Kind value : {Kind::none, Kind::linear, Kind::dynamic_ntk, Kind::yarn, Kind::llama3, Kind::longrope,
                     Kind::divisors})
    EXPECT_EQ(refusal(kind(value)), "accepted") << to_string(value);

  EXPECT_EQ(refusal(kind(Kind::none), 10000, 5),
            "config.json: rope_scaling: 5 rotary dimensions, but the number must be positive and even");
  EXPECT_EQ(refusal(kind(Kind::none), 0),
            "config.json: rope_scaling: theta is 0, but must be a positive finite number");
  EXPECT_EQ(refusal(kind(Kind::none), 10000, 4, 0),
            "config.json: rope_scaling: max_position_embeddings is 0, but must be positive");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::linear;
              s.factor = std::numeric_limits<double>::quiet_NaN();
            }),
            "config.json: rope_scaling: factor is nan, but must be a positive finite number");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::llama3;
              s.factor.reset();
            }),
            "config.json: rope_scaling: factor is missing, and llama3 scaling needs it");
  EXPECT_EQ(
      refusal([](RopeScaling& s) {
        s.kind = Kind::llama3;
        s.high_freq_factor = 1;
      }),
      "config.json: rope_scaling: low_freq_factor is 1 and high_freq_factor 1, but high_freq_factor must be "
      "the larger");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::longrope;
              s.long_factor = {1, 2, 3};
            }),
            "config.json: rope_scaling: long_factor has 3 numbers, but 4 rotary dimensions need 2");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::longrope;
              s.short_factor = {1, 0};
            }),
            "config.json: rope_scaling: short_factor is 0, but must be a positive finite number");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::yarn;
              s.original_max_position = 0;
            }),
            "config.json: rope_scaling: original_max_position_embeddings is 0, but must be positive");
  EXPECT_EQ(refusal([](RopeScaling& s) {
              s.kind = Kind::yarn;
              s.beta_fast = 0.5;
            }),
            "config.json: rope_scaling: beta_fast is 0.5 and beta_slow 1, but beta_fast must be the larger");
  EXPECT_EQ(refusal(kind(Kind::dynamic_ntk), 10000, 2),
            "config.json: rope_scaling: dynamic scaling needs more than 2 rotary dimensions");
}

}  // namespace
}  // namespace cairn::program
