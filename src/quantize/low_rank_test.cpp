// Low rank: that the factors are the best of their rank for the inputs that were seen, and that a folder of
// them opens and computes what the product of its factors computes.
#include "quantize/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>
#include <random>

#include "formats/safetensors_writer.h"
#include "formats/testing.h"
#include "models/encoder_goldens.h"
#include "models/plain_executor.h"
#include "quantize/model_folder.h"

namespace cairn::quantize {
namespace {

using formats::testing::message_of;
using formats::testing::TemporaryFolder;

struct Case {
  int64_t rows, cols, samples;
  std::vector<float> w, x, moments;  // x [samples, cols]
};

// Inputs whose columns depend on a few hidden causes, with columns of very different size.
Case correlated(int64_t rows, int64_t cols, int64_t samples, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Case c{rows,
         cols,
         samples,
         {},
         std::vector<float>(size_t(samples * cols)),
         std::vector<float>(size_t(cols * cols))};
  for (int64_t i = 0; i < rows * cols; ++i) c.w.push_back(normal(random));
  const int64_t causes = std::max<int64_t>(2, cols / 6);
  std::vector<float> mix(size_t(causes * cols)), size(static_cast<size_t>(cols));
  for (auto& m : mix) m = normal(random);
  for (auto& s : size) s = std::exp(normal(random));
  for (int64_t t = 0; t < samples; ++t) {
    std::vector<float> cause(static_cast<size_t>(causes));
    for (auto& v : cause) v = normal(random);
    for (int64_t i = 0; i < cols; ++i) {
      float sum = 0.2f * normal(random);
      for (int64_t k = 0; k < causes; ++k) sum += cause[size_t(k)] * mix[size_t(k * cols + i)];
      c.x[size_t(t * cols + i)] = sum * size[size_t(i)];
    }
  }
  for (int64_t i = 0; i < cols; ++i)
    for (int64_t j = 0; j < cols; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < samples; ++t)
        sum += double(c.x[size_t(t * cols + i)]) * double(c.x[size_t(t * cols + j)]);
      c.moments[size_t(i * cols + j)] = float(sum / double(samples));
    }
  return c;
}

std::vector<double> product(const Factors& f, int64_t rows, int64_t cols) {
  std::vector<double> w(size_t(rows * cols), 0);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < f.rank; ++k)
      for (int64_t j = 0; j < cols; ++j)
        w[size_t(i * cols + j)] += double(f.u[size_t(i * f.rank + k)]) * double(f.v[size_t(k * cols + j)]);
  return w;
}

// The mean over the samples of |W x - W' x|^2.
double output_error(const Case& c, const Factors& f) {
  const auto w = product(f, c.rows, c.cols);
  double sum = 0;
  for (int64_t t = 0; t < c.samples; ++t)
    for (int64_t i = 0; i < c.rows; ++i) {
      double d = 0;
      for (int64_t j = 0; j < c.cols; ++j)
        d += (double(c.w[size_t(i * c.cols + j)]) - w[size_t(i * c.cols + j)]) *
             double(c.x[size_t(t * c.cols + j)]);
      sum += d * d;
    }
  return sum / double(c.samples);
}

double sum_from(std::span<const double> energies, int64_t rank) {
  return std::accumulate(energies.begin() + rank, energies.end(), 0.0);
}

TEST(LowRank, WhitenedBeatsPlainAtEveryRankOnCorrelatedInputs) {
  for (const auto& [rows, cols] : {std::pair(24, 40), std::pair(40, 24), std::pair(32, 32)})
    for (unsigned seed = 1; seed <= 4; ++seed) {
      const Case c = correlated(rows, cols, 200, seed);
      const Decomposition whitened(c.w, rows, cols, c.moments), plain(c.w, rows, cols, {});
      const double all = sum_from(whitened.energies(), 0);
      for (int64_t rank = 1; rank < std::min(rows, cols); ++rank) {
        const double a = output_error(c, whitened.factors(c.w, c.moments, rank)),
                     b = output_error(c, plain.factors(c.w, {}, rank));
        EXPECT_LT(a, b) << rows << 'x' << cols << " rank " << rank << " seed " << seed;
        // And it is the least there is (Eckart and Young): what the components left out carry.
        EXPECT_NEAR(a, sum_from(whitened.energies(), rank), 1e-5 * all);
      }
    }
}

TEST(LowRank, PlainIsTheNearestMatrixAndFullRankTheMatrix) {
  for (const auto& [rows, cols] : {std::pair(24, 40), std::pair(40, 24), std::pair(32, 32)}) {
    const Case c = correlated(rows, cols, 100, 9);
    const Decomposition plain(c.w, rows, cols, {});
    for (int64_t rank : {1, 7, 24}) {
      const auto w = product(plain.factors(c.w, {}, rank), rows, cols);
      double error = 0;
      for (size_t i = 0; i < w.size(); ++i) error += std::pow(w[i] - double(c.w[i]), 2);
      EXPECT_NEAR(error, sum_from(plain.energies(), rank), 1e-4);
    }
    const Decomposition whitened(c.w, rows, cols, c.moments);
    const auto w = product(whitened.factors(c.w, c.moments, std::min(rows, cols)), rows, cols);
    for (size_t i = 0; i < w.size(); ++i) ASSERT_NEAR(w[i], double(c.w[i]), 1e-4);
  }
}

TEST(LowRank, FewerInputsThanColumnsRaiseTheDiagonal) {
  for (const auto& [rows, cols] : {std::pair(24, 40), std::pair(48, 40)}) {
    Case c = correlated(rows, cols, 10, 3);
    const Decomposition d(c.w, rows, cols, c.moments);
    EXPECT_GT(d.shift(), 0);
    EXPECT_LT(d.shift(), 1e-3);
    const Decomposition plain(c.w, rows, cols, {});
    const auto f = d.factors(c.w, c.moments, 12);
    EXPECT_LT(output_error(c, f), 1e-3 * output_error(c, plain.factors(c.w, {}, 12)))
        << "ten inputs span ten outputs";
    for (const float v : f.u) ASSERT_TRUE(std::isfinite(v));
    std::fill(c.moments.begin(), c.moments.end(), 0.f);  // nothing was seen
    EXPECT_EQ(Decomposition(c.w, rows, cols, c.moments).factors(c.w, c.moments, 5).u,
              plain.factors(c.w, {}, 5).u);
  }
  const std::vector<float> zeros(12 * 8, 0.f);
  const auto f = Decomposition(zeros, 12, 8, {}).factors(zeros, {}, 4);
  EXPECT_EQ(f.rank, 1);
  for (const double v : product(f, 12, 8)) EXPECT_EQ(v, 0);
}

TEST(LowRank, RanksGoWhereTheEnergyIsWithinTheBudget) {
  std::vector<double> steep(64), flat(64, 1.0), medium(64);
  for (size_t i = 0; i < 64; ++i) steep[i] = std::pow(0.5, double(i)), medium[i] = std::pow(0.95, double(i));
  const Spectrum all[] = {{64, 256, steep}, {64, 256, flat}, {256, 64, medium}};
  const auto numbers = [&](const std::vector<int64_t>& ranks) {
    int64_t sum = 0;
    for (size_t i = 0; i < ranks.size(); ++i)
      sum += ranks[i] == 0 ? all[i].rows * all[i].cols : ranks[i] * (all[i].rows + all[i].cols);
    return sum;
  };
  int64_t before = 0;
  for (const double keep : {0.1, 0.3, 0.5, 0.8}) {
    const auto ranks = choose_ranks(all, keep);
    EXPECT_LE(double(numbers(ranks)), keep * 3 * 64 * 256);
    EXPECT_GE(numbers(ranks), before) << "more budget, more numbers";
    before = numbers(ranks);
  }
  const auto ranks = choose_ranks(all, 0.4);
  EXPECT_LT(ranks[0], ranks[2]);
  EXPECT_LT(ranks[0], 20);
  EXPECT_EQ(choose_ranks(all, 1), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_NE(message_of([&] { choose_ranks(all, 0.02); }).find("--keep 0.02"), std::string::npos);
}

Settings settings(const char* keep) { return Settings({{"keep", keep}, {"plain", "on"}}); }

// A golden model with its matrices as factors, in `out`.
FolderReport factorise(const std::filesystem::path& model, const std::filesystem::path& out,
                       const char* keep) {
  ThreadPool pool(2);
  const auto encoder = kLowRank.make(settings(keep));
  return quantize_folder(models::open_model(model), *encoder,
                         {.out = out, .overwrite = false, .settings = {}, .on_progress = {}}, pool);
}

// The same folder with the product of each pair of factors as a plain weight.
void multiply_out(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::create_directories(to);
  auto config = nlohmann::json::parse(std::ifstream(from / "config.json"));
  config.erase("quantization_config");
  std::ofstream(to / "config.json") << config.dump();
  const auto checkpoint = formats::open_checkpoint(from);
  formats::SafetensorsWriter writer(to / "model.safetensors");
  std::vector<std::vector<float>> data;
  const auto values = [](const formats::Tensor& t) {
    std::vector<float> v(size_t(t.elements()));
    codecs::codec(t.codec).decode(t.bytes.data(), v.data(), t.elements());
    return v;
  };
  for (const auto& t : checkpoint.tensors) {
    if (t.name.ends_with(".lowrank_v")) continue;
    if (!t.name.ends_with(".lowrank_u")) {
      writer.add_tensor(t.name, "F32", t.shape);
      data.push_back(values(t));
      continue;
    }
    const std::string module = t.name.substr(0, t.name.size() - 10);
    const auto& v = *checkpoint.find(module + ".lowrank_v");
    const auto w = product({t.shape[1], values(t), values(v)}, t.shape[0], v.shape[1]);
    writer.add_tensor(module + ".weight", "F32", std::vector<int64_t>{t.shape[0], v.shape[1]});
    data.emplace_back(w.begin(), w.end());
  }
  for (const auto& d : data) writer.write(std::as_bytes(std::span(d)));
  writer.finish();
}

TEST(LowRank, FoldersComputeWithTheProductOfTheirFactors) {
  const auto goldens = models::testing::goldens_folder();
  for (const char* name : {"encoders/bert", "encoders/modernbert", "llama-mha", "phi3", "llama-bf16"}) {
    const TemporaryFolder folder;
    const auto report = factorise(goldens / name, folder.path() / "low", "0.6");
    EXPECT_GT(report.matrices, 5) << name;
    EXPECT_LT(double(report.after), 0.6 * double(report.before)) << name;
    multiply_out(folder.path() / "low", folder.path() / "plain");
    const auto low = models::open_model(folder.path() / "low"),
               plain = models::open_model(folder.path() / "plain");
    EXPECT_GT(low.program.instructions.size(), plain.program.instructions.size());
    const std::vector<int32_t> ids = {5, 9, 33, 60, 2, 17, 17, 8, 44};
    const auto a = models::testing::plain_hidden(low, ids), b = models::testing::plain_hidden(plain, ids);
    ASSERT_EQ(a.size(), b.size());
    double scale = 0;
    for (const float v : b) scale = std::max(scale, double(std::abs(v)));
    EXPECT_LE(models::testing::largest_difference(a.data(), b), 2e-5 * scale) << name;
    const auto original = models::testing::plain_hidden(models::open_model(goldens / name), ids);
    EXPECT_GT(models::testing::largest_difference(a.data(), original), 1e-2 * scale) << "nothing was lost?";
  }
}

TEST(LowRank, EncodersKeepTheirPooling) {
  const TemporaryFolder folder;
  factorise(models::testing::goldens_folder() / "encoders/bert", folder.path() / "low", "0.6");
  EXPECT_EQ(models::open_model(folder.path() / "low").pooling, models::Pooling::cls);
}

TEST(LowRank, WholeMatricesStayAsTheyAre) {
  const auto model = models::testing::goldens_folder() / "encoders/bert";
  const TemporaryFolder folder;
  const auto report = factorise(model, folder.path() / "low", "1");
  EXPECT_EQ(report.before, report.after);
  const std::vector<int32_t> ids = {5, 9, 33};
  EXPECT_EQ(models::testing::plain_hidden(models::open_model(folder.path() / "low"), ids),
            models::testing::plain_hidden(models::open_model(model), ids));
}

// What opening a golden encoder says, one of whose weights is stored as factors of these shapes (none: not).
std::string with_factors(const std::string& module, const std::vector<int64_t>& u,
                         const std::vector<int64_t>& v, const char* dtype = "F32") {
  const TemporaryFolder folder;
  const auto source = models::testing::goldens_folder() / "encoders/bert";
  auto config = nlohmann::json::parse(std::ifstream(source / "config.json"));
  config["quantization_config"] = {{"quant_method", "lowrank"}};
  folder.write("config.json", config.dump());
  const auto checkpoint = formats::open_checkpoint(source);
  formats::SafetensorsWriter writer(folder.path() / "model.safetensors");
  for (const auto& t : checkpoint.tensors)
    if (t.name != module + ".weight") writer.add_tensor(t.name, "F32", t.shape);
  if (!u.empty()) writer.add_tensor(module + ".lowrank_u", dtype, u);
  if (!v.empty()) writer.add_tensor(module + ".lowrank_v", dtype, v);
  const std::vector<std::byte> zeros(writer.data_bytes());
  writer.write(zeros);
  writer.finish();
  return message_of([&] { models::open_model(folder.path()); });
}

TEST(LowRank, FactorsThatDoNotFitAreRefused) {
  const std::string module = "encoder.layer.0.output.dense";  // [32, 48]
  EXPECT_EQ(with_factors(module, {32, 4}, {4, 48}), "");
  EXPECT_EQ(with_factors(module, {32, 4}, {4, 48}, "BF16"), "");
  const auto refused = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " not in: " << message;
  };
  refused(with_factors(module, {32, 33}, {33, 48}),
          "dense.lowrank_v has rank 33; it must lie between 1 and 32");
  refused(with_factors(module, {32, 0}, {0, 48}), "has rank 0");
  refused(with_factors(module, {32, 4}, {4, 47}), "dense.lowrank_v has shape [4, 47]");
  refused(with_factors(module, {32, 4}, {4, 24, 2}), "dense.lowrank_v has shape [4, 24, 2]");
  refused(with_factors(module, {32, 5}, {4, 48}), "dense.lowrank_u has shape [32, 5]");
  refused(with_factors(module, {}, {4, 48}), "dense.lowrank_u is missing");
  refused(with_factors(module, {32, 4}, {}), "dense.weight is missing");
  refused(with_factors(module, {32, 4}, {4, 48}, "I32"), "dense.lowrank_v is stored as i32");
  refused(with_factors("embeddings.word_embeddings", {96, 4}, {4, 32}), "only a product's matrix");
  refused(with_factors("embeddings.LayerNorm", {32, 1}, {1, 32}), "LayerNorm");
}

}  // namespace
}  // namespace cairn::quantize
