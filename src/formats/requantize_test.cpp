#include "formats/requantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/error.h"
#include "formats/gguf_writer.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using codecs::CodecId;
using testing::message_of;
using testing::TemporaryFolder;

struct Given {
  std::string name;
  std::vector<int64_t> shape;
  CodecId codec = CodecId::f32;
};

class Requantize : public ::testing::Test {
 protected:
  // Random f32 values encoded in each tensor's codec.
  Gguf write(const std::vector<Given>& tensors, uint64_t alignment = 32, float odd = 0) {
    const auto path = folder_.path() / "source.gguf";
    GgufWriter writer(path, alignment);
    writer.add_string("general.architecture", "llama");
    writer.add_u32("general.file_type", 0);
    writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "bc"});
    for (const auto& t : tensors) writer.add_tensor(t.name, t.codec, t.shape);
    std::mt19937 random(1);
    values_.clear();
    for (const auto& t : tensors) {
      int64_t count = 1;
      for (const auto n : t.shape) count *= n;
      std::vector<float> v;
      for (int64_t i = 0; i < count; ++i) v.push_back(std::normal_distribution<float>()(random));
      if (odd != 0) v[size_t(count) - 2] = odd;
      values_[t.name] = v;
      const auto& codec = codecs::codec(t.codec);
      std::vector<std::byte> bytes(size_t(*codecs::row_bytes(codec, uint64_t(count))));
      codec.encode(v.data(), bytes.data(), count, nullptr);
      writer.write(bytes);
    }
    writer.finish();
    return read_gguf(path);
  }
  Gguf run(const Gguf& source, std::string_view recipe, bool again = false) {
    const auto& r = *find_recipe(recipe);
    const auto out = folder_.path() / "out.gguf";
    requantize(source, r, plan_requantize(source, r, again), out, pool_);
    return read_gguf(out);
  }
  std::vector<std::byte> encoded(const std::string& name, CodecId id, int64_t cols) const {
    const auto& codec = codecs::codec(id);
    const auto& v = values_.at(name);
    const auto row = size_t(*codecs::row_bytes(codec, uint64_t(cols)));
    std::vector<std::byte> bytes(row * (v.size() / size_t(cols)));
    for (size_t r = 0; r < v.size() / size_t(cols); ++r)
      codec.encode(v.data() + r * size_t(cols), bytes.data() + r * row, cols, nullptr);
    return bytes;
  }
  const Tensor& tensor(const Gguf& file, std::string_view name) const {
    for (const auto& t : file.tensors)
      if (t.name == name) return t;
    throw std::runtime_error("no tensor " + std::string(name));
  }
  void expect_encoded(const Gguf& file, const std::string& name, CodecId id) const {
    const auto& t = tensor(file, name);
    EXPECT_EQ(t.codec, id) << name;
    const auto wanted = encoded(name, id, t.shape.back());
    ASSERT_EQ(t.bytes.size(), wanted.size()) << name;
    EXPECT_EQ(std::memcmp(t.bytes.data(), wanted.data(), wanted.size()), 0) << name;
  }

  TemporaryFolder folder_;
  ThreadPool pool_{2};
  std::map<std::string, std::vector<float>> values_;
};

TEST_F(Requantize, MatricesChangeAndTheRestStays) {
  const auto source = write({{"token_embd.weight", {40, 256}},
                             {"output_norm.weight", {256}},
                             {"blk.0.ffn_gate_inp.weight", {4, 256}},
                             {"blk.0.attn_q.weight", {24, 256}},
                             {"blk.0.attn_q.bias", {24}},
                             {"output.weight", {40, 256}}},
                            64);
  const auto out = run(source, "q8_0");
  for (const char* name : {"token_embd.weight", "blk.0.attn_q.weight", "output.weight"})
    expect_encoded(out, name, CodecId::q8_0);
  for (const char* name : {"output_norm.weight", "blk.0.ffn_gate_inp.weight", "blk.0.attn_q.bias"})
    expect_encoded(out, name, CodecId::f32);
  EXPECT_EQ(out.alignment, 64u);
  EXPECT_EQ(out.integer("general.file_type"), 7);
  EXPECT_EQ(out.string("general.architecture"), "llama");
  EXPECT_EQ(out.strings("tokenizer.ggml.tokens")->strings.at(1), "bc");
}

TEST_F(Requantize, MixesGiveMoreBitsToWhatLosesMost) {
  std::vector<Given> tensors = {{"token_embd.weight", {8, 256}}};
  for (int i = 0; i < 16; ++i)
    for (const char* part : {"attn_q", "attn_v", "ffn_down"})
      tensors.push_back({fmt::format("blk.{}.{}.weight", i, part), {8, 256}});
  const auto out = run(write(tensors), "q4_k_m");
  EXPECT_EQ(tensor(out, "token_embd.weight").codec, CodecId::q6_k);  // scores too: no output.weight
  for (int i = 0; i < 16; ++i) {
    const bool more = i < 2 || i >= 14 || i % 3 == 1;  // (i - 2) % 3 == 2
    EXPECT_EQ(tensor(out, fmt::format("blk.{}.attn_q.weight", i)).codec, CodecId::q4_k) << i;
    for (const char* part : {"attn_v", "ffn_down"})
      EXPECT_EQ(tensor(out, fmt::format("blk.{}.{}.weight", i, part)).codec,
                more ? CodecId::q6_k : CodecId::q4_k)
          << part << i;
  }
}

TEST_F(Requantize, RowsThatAreNoWholeBlocksTakeSmallerOnes) {
  const auto source = write({{"blk.0.attn_q.weight", {8, 96}}, {"blk.0.attn_k.weight", {8, 40}}});
  const auto plan = plan_requantize(source, *find_recipe("q4_k_s"));
  EXPECT_EQ(plan[0].note, "96 columns are no whole blocks of q4_k");
  const auto out = run(source, "q4_k_s");
  expect_encoded(out, "blk.0.attn_q.weight", CodecId::q5_0);
  expect_encoded(out, "blk.0.attn_k.weight", CodecId::f16);
}

TEST_F(Requantize, EveryRecipeWritesAFileThatReadsBack) {
  const auto source = write({{"token_embd.weight", {8, 512}}, {"blk.0.ffn_up.weight", {3, 8, 256}}});
  for (const auto& recipe : recipes()) {
    const auto out = run(source, recipe.name);
    expect_encoded(out, "blk.0.ffn_up.weight", recipe.codec);
    expect_encoded(out, "token_embd.weight", recipe.more);
    EXPECT_EQ(out.integer("general.file_type"), recipe.file_type);
  }
}

TEST_F(Requantize, RefusesToLoseTwiceUnlessAsked) {
  const auto source = write({{"blk.0.attn_q.weight", {8, 256}, CodecId::q8_0}});
  EXPECT_NE(message_of([&] { run(source, "q4_k_m"); }).find("'blk.0.attn_q.weight' is q8_0 already"),
            std::string::npos);
  EXPECT_EQ(run(source, "q4_k_m", true).tensors.at(0).codec, CodecId::q4_k);
  EXPECT_EQ(run(source, "q8_0").tensors.at(0).codec, CodecId::q8_0);  // nothing to do
}

TEST_F(Requantize, ValuesThatAreNotFiniteAreNamedAndNoFileStays) {
  for (const float odd : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const auto source = write({{"blk.0.attn_q.weight", {8, 256}}}, 32, odd);
    EXPECT_NE(message_of([&] {
                run(source, "q8_0");
              }).find("'blk.0.attn_q.weight' has a value that is not finite in row 7"),
              std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder_.path() / "out.gguf"));
  }
}

TEST_F(Requantize, ColumnsThatCountMoreLoseLess) {
  const auto source = write({{"blk.0.attn_q.weight", {4, 256}}, {"blk.0.ffn_up_exps.weight", {2, 3, 256}}});
  const auto& recipe = *find_recipe("q4_k_s");
  const auto plan = plan_requantize(source, recipe);
  Importance importance;
  auto& row = importance["blk.0.attn_q.weight"];
  for (int i = 0; i < 256; ++i) row.push_back(i % 8 == 0 ? 100.f : 0.01f);
  auto& experts = importance["blk.0.ffn_up_exps.weight"];
  experts.assign(512, 1.f);
  for (int i = 0; i < 256; ++i) experts[size_t(256 + i)] = row[size_t(i)];
  const auto out = folder_.path() / "out.gguf";
  const auto lost = [&](const std::string& name, size_t first, size_t count) {
    const auto file = read_gguf(out);
    const auto& t = tensor(file, name);
    std::vector<float> values(size_t(t.elements()));
    codecs::codec(t.codec).decode(t.bytes.data(), values.data(), t.elements());
    double sum = 0;
    for (size_t i = first; i < first + count; ++i)
      sum += double(row[i % 256]) * std::pow(double(values[i]) - double(values_.at(name)[i]), 2);
    return sum;
  };
  requantize(source, recipe, plan, out, pool_);
  const double plain = lost("blk.0.attn_q.weight", 0, 1024), first = lost("blk.0.ffn_up_exps.weight", 0, 768),
               second = lost("blk.0.ffn_up_exps.weight", 768, 768);
  requantize(source, recipe, plan, out, pool_, {}, importance);
  EXPECT_LT(lost("blk.0.attn_q.weight", 0, 1024), 0.8 * plain);
  EXPECT_LT(lost("blk.0.ffn_up_exps.weight", 768, 768), 0.8 * second);  // the second expert's
  EXPECT_GT(lost("blk.0.ffn_up_exps.weight", 0, 768), 0.8 * first);     // and not the first one's
  row.pop_back();
  EXPECT_NE(message_of([&] {
              requantize(source, recipe, plan, out, pool_, {}, importance);
            }).find("its importance 255"),
            std::string::npos);
}

}  // namespace
}  // namespace cairn::formats
