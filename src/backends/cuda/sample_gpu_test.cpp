// The device's sampler against the CPU's over random scores: the same token, always.
#include "backends/cuda/sample.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cuda/testing.h"
#include "text/sampler.h"

namespace cairn::cuda {
namespace {

using testing::Gpu;
using text::Draw;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint64_t part(double p) { return uint64_t(p * double(text::kWhole)); }

// One row of a batch: how it is drawn, the token that its scores were computed from, and the scores.
struct Case {
  std::string name;
  Draw how;
  int32_t input = 0;
  std::vector<float> scores;
  std::vector<uint32_t> mask;
  bool drawn = true;
};

// Draws all rows in one launch; rows of undrawn cases must keep what was there.
std::vector<int32_t> draw_on(Gpu& gpu, const std::vector<Case>& cases) {
  const auto vocabulary = int64_t(cases.front().scores.size());
  std::vector<float> scores;
  std::vector<RowDraw> rows;
  std::vector<text::Edit> edits(1);
  std::vector<uint32_t> masks(1);
  // Ids lie in the opposite order, so that a wrong row of them is noticed.
  std::vector<int32_t> ids(cases.size()), logit_rows;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Case& c = cases[i];
    scores.insert(scores.end(), c.scores.begin(), c.scores.end());
    rows.push_back(c.drawn ? row_draw(c.how, int32_t(edits.size()), int32_t(masks.size())) : RowDraw{});
    edits.insert(edits.end(), c.how.edits.begin(), c.how.edits.end());
    masks.insert(masks.end(), c.mask.begin(), c.mask.end());
    logit_rows.push_back(int32_t(cases.size() - 1 - i));
    ids[size_t(logit_rows.back())] = c.input;
  }
  const Buffer d_scores = gpu.upload(scores), d_rows = gpu.upload(rows), d_edits = gpu.upload(edits),
               d_masks = gpu.upload(masks), d_ids = gpu.upload(ids), d_logit_rows = gpu.upload(logit_rows);
  const Buffer tokens = gpu.poisoned(cases.size() * 4);
  gpu.stream.fill(tokens.address(), 0x55, tokens.size());
  SampleLauncher launcher(gpu.kernels);
  launcher.sample(gpu.stream,
                  {d_scores.address(), int64_t(cases.size()), vocabulary, d_rows.address(), d_edits.address(),
                   d_masks.address(), d_ids.address(), d_logit_rows.address(), tokens.address(), false});
  return gpu.download<int32_t>(tokens);
}

void expect_as_on_the_cpu(Gpu& gpu, const std::vector<Case>& cases, const std::string& where) {
  const auto got = draw_on(gpu, cases);
  text::Drawer drawer;
  int shown = 0;
  for (size_t i = 0; i < cases.size() && shown < 20; ++i) {
    const Case& c = cases[i];
    auto scores = c.scores;
    Draw how = c.how;
    how.mask = c.mask;
    const int32_t want = c.drawn ? drawer.draw(how, c.input, scores) : 0x55555555;
    if (got[i] == want) continue;
    ++shown;
    ADD_FAILURE() << where << ", row " << i << " (" << c.name << ", vocabulary " << c.scores.size()
                  << "): drawn " << got[i] << ", on the CPU " << want << " of " << drawer.candidates().size()
                  << " candidates"
                  << (want >= 0 && got[i] >= 0 && got[i] < int32_t(c.scores.size())
                          ? fmt::format("; scores {} and {}", c.scores[size_t(got[i])],
                                        c.scores[size_t(want)])
                          : "");
  }
}

// Many ways to draw, each with its own random number.
std::vector<std::pair<std::string, Draw>> ways() {
  std::vector<std::pair<std::string, Draw>> all;
  uint64_t number = 0;
  const auto add = [&](std::string name, auto set) {
    Draw d;
    d.scale = 1;
    d.random = text::random_bits(9, 1, ++number);
    set(d);
    all.emplace_back(std::move(name), std::move(d));
  };
  add("greedy", [](Draw& d) { d.scale = 0; });
  add("temperature 1", [](Draw&) {});
  add("temperature 0.3", [](Draw& d) { d.scale = 1 / 0.3f; });
  add("temperature 100", [](Draw& d) { d.scale = 0.01f; });
  add("temperature 1e-5", [](Draw& d) { d.scale = 1e5f; });
  add("random 0", [](Draw& d) { d.random = 0; });
  add("random largest", [](Draw& d) { d.random = text::kWhole - 1; });
  for (const int k : {1, 2, 40, 511, 512, 513, 5000})
    add(fmt::format("top_k {}", k), [&](Draw& d) { d.top_k = k; });
  for (const double p : {1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 0.9999999})
    add(fmt::format("top_p {}", p), [&](Draw& d) { d.top_p = part(p); });
  for (const float p : {1e-6f, 0.01f, 0.3f, 1.f})
    add(fmt::format("min_p {}", p), [&](Draw& d) { d.min_p = p; });
  add("top_k 40 top_p 0.9", [](Draw& d) { d.top_k = 40, d.top_p = part(0.9), d.scale = 1 / 0.7f; });
  add("top_k 700 top_p 0.99 min_p 0.05",
      [](Draw& d) { d.top_k = 700, d.top_p = part(0.99), d.min_p = 0.05f, d.scale = 1 / 1.5f; });
  add("top_p 0.8 min_p 0.2 random largest",
      [](Draw& d) { d.top_p = part(0.8), d.min_p = 0.2f, d.random = text::kWhole - 1; });
  return all;
}

// Scores of several shapes.
std::vector<std::pair<std::string, std::vector<float>>> shapes(size_t vocabulary, unsigned seed) {
  std::vector<std::pair<std::string, std::vector<float>>> all;
  for (const float spread : {0.01f, 1.f, 3.f, 20.f})
    all.emplace_back(fmt::format("normal {}", spread), testing::normal(vocabulary, seed++, spread));
  auto peaked = testing::normal(vocabulary, seed++, 1);
  peaked[vocabulary / 3] = 25, peaked[vocabulary / 2] = 24.5f;
  all.emplace_back("peaked", peaked);
  auto ties = testing::normal(vocabulary, seed++, 2);
  for (float& x : ties) x = std::round(x * 4) / 4;  // zeros of both signs among them
  all.emplace_back("ties", ties);
  all.emplace_back("all equal", std::vector<float>(vocabulary, -3.5f));
  auto few = testing::normal(vocabulary, seed++, 2);
  for (size_t i = 0; i < few.size(); ++i)
    if (i % 97 != 5 % std::min<size_t>(97, vocabulary)) few[i] = -kInfinity;
  all.emplace_back("mostly forbidden", few);
  std::vector<float> one(vocabulary, -kInfinity);
  one[vocabulary - 1] = -8;
  all.emplace_back("one left", one);
  auto infinite = testing::normal(vocabulary, seed++, 2);
  infinite[vocabulary / 2] = infinite[vocabulary - 1] = kInfinity;
  all.emplace_back("infinite", infinite);
  auto huge = testing::normal(vocabulary, seed++, 1);
  for (float& x : huge) x *= 1e38f;
  all.emplace_back("huge", huge);
  return all;
}

TEST(Sample, DrawsWhatTheCpuDraws) {
  CAIRN_NEED_GPU(gpu);
  unsigned seed = 1;
  for (const size_t vocabulary : {size_t{1}, size_t{2}, size_t{7}, size_t{8}, size_t{33}, size_t{511},
                                  size_t{2049}, size_t{5003}, size_t{32000}, size_t{128256}, size_t{151936}})
    for (const auto& [shape, scores] : shapes(vocabulary, seed += 100)) {
      std::vector<Case> cases;
      for (const auto& [name, how] : ways()) {
        if (how.top_k >= int(vocabulary)) continue;  // a Sampler would have said 0
        cases.push_back({name, how, 0, scores, {}});
      }
      expect_as_on_the_cpu(gpu, cases, shape);
    }
}

TEST(Sample, EditsAndMasksAsTheCpuDoes) {
  CAIRN_NEED_GPU(gpu);
  for (const size_t vocabulary : {size_t{50}, size_t{32000}, size_t{128257}}) {
    std::vector<Case> cases;
    std::mt19937 random(unsigned(vocabulary) + 1);
    const auto plain = ways();
    for (int i = 0; i < 64; ++i) {
      Case c;
      const auto& [name, how] = plain[random() % plain.size()];
      c.name = name;
      c.how = how;
      if (c.how.top_k >= int(vocabulary)) c.how.top_k = 0;
      c.scores = testing::normal(vocabulary, unsigned(random()), 2);
      c.input = int32_t(random() % vocabulary);
      c.how.repetition_penalty = i % 3 == 0 ? 1.f : 0.5f + float(random() % 100) / 50;
      c.how.presence_penalty = i % 4 == 0 ? 0.f : 1.3f;
      c.how.frequency_penalty = i % 5 == 0 ? 0.f : -0.7f;
      c.how.count_input = i % 2 == 0;
      c.drawn = i % 13 != 4;
      std::vector<int32_t> tokens;
      for (int t = 0; t < i * 20; ++t) tokens.push_back(int32_t(random() % vocabulary));
      if (i % 6 == 0) tokens.push_back(c.input);
      std::sort(tokens.begin(), tokens.end());
      tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
      for (const int32_t t : tokens)
        c.how.edits.push_back({t, random() % 3 ? 0.f : float(random() % 200) - 100, int32_t(random() % 4),
                               int32_t(random() % 3)});
      if (i % 7 == 0) {
        c.mask.resize((vocabulary + 31) / 32);
        for (auto& word : c.mask) word = uint32_t(random()) & uint32_t(random());
        c.how.mask = c.mask;
      }
      cases.push_back(std::move(c));
      // A vector's words stay where they are when the case moves.
    }
    expect_as_on_the_cpu(gpu, cases, "edited");
  }
}

TEST(Sample, RefusesWhatTheCpuRefuses) {
  CAIRN_NEED_GPU(gpu);
  std::vector<Case> cases;
  for (const auto& [name, how] : ways()) {
    for (const size_t at : {size_t{0}, size_t{15999}, size_t{31999}}) {
      Case c{name + " NaN", how, 0, testing::normal(32000, 3), {}};
      if (c.how.top_k >= 32000) continue;
      c.scores[at] = std::numeric_limits<float>::quiet_NaN();
      cases.push_back(c);
      c.scores[at] = -std::numeric_limits<float>::quiet_NaN();
      c.mask.assign(1000, 0xfffffffeu);
      c.how.mask = c.mask;
      cases.push_back(std::move(c));
    }
    cases.push_back({name + " nothing", how, 0, std::vector<float>(32000, -kInfinity), {}});
    Case masked{name + " nothing in the mask", how, 0, testing::normal(32000, 5),
                std::vector<uint32_t>(1000)};
    masked.how.mask = masked.mask;
    cases.push_back(std::move(masked));
  }
  expect_as_on_the_cpu(gpu, cases, "refused");
}

// The same rows alone and among others.
TEST(Sample, DoesNotDependOnTheBatch) {
  CAIRN_NEED_GPU(gpu);
  std::vector<Case> cases;
  for (const auto& [name, how] : ways())
    cases.push_back({name, how, 0, testing::normal(128256, unsigned(cases.size()), 2), {}});
  const auto together = draw_on(gpu, cases);
  for (size_t i = 0; i < cases.size(); ++i)
    EXPECT_EQ(draw_on(gpu, {cases[i]})[0], together[i]) << cases[i].name;
}

TEST(Sample, TakesDrawnTokens) {
  CAIRN_NEED_GPU(gpu);
  const Buffer ids = gpu.upload<int32_t>({5, 6, 7, 8}), from = gpu.upload<int32_t>({-1, 2, -1, 0}),
               drawn = gpu.upload<int32_t>({-2, 11, 12});
  SampleLauncher(gpu.kernels)
      .take_drawn(gpu.stream, ids.address(), from.address(), drawn.address(), 4, false);
  EXPECT_EQ(gpu.download<int32_t>(ids), (std::vector<int32_t>{5, 12, 7, 0}));
}

// For people: microseconds per launch.
TEST(Sample, Times) {
  CAIRN_NEED_GPU(gpu);
  for (const size_t vocabulary : {size_t{32000}, size_t{128256}})
    for (const size_t rows : {size_t{1}, size_t{8}, size_t{64}}) {
      std::string line = fmt::format("sample {} x {}:", rows, vocabulary);
      for (const auto& [name, how] : ways()) {
        if (name != "greedy" && name != "temperature 1" && name != "top_p 0.95" && name != "top_k 40" &&
            name != "top_k 40 top_p 0.9")
          continue;
        std::vector<float> scores;
        for (size_t r = 0; r < rows; ++r) {
          const auto row = testing::normal(vocabulary, unsigned(r), 3);
          scores.insert(scores.end(), row.begin(), row.end());
        }
        const Buffer d_scores = gpu.upload(scores),
                     d_rows = gpu.upload(std::vector<RowDraw>(rows, row_draw(how, 0, 0))),
                     zeros = gpu.upload(std::vector<int32_t>(rows)), tokens = gpu.poisoned(rows * 4);
        SampleLauncher launcher(gpu.kernels);
        const SampleCall call{d_scores.address(),
                              int64_t(rows),
                              int64_t(vocabulary),
                              d_rows.address(),
                              0,
                              0,
                              zeros.address(),
                              zeros.address(),
                              tokens.address(),
                              false};
        launcher.sample(gpu.stream, call);
        const auto graph = Graph::capture(gpu.stream, [&] {
          for (int i = 0; i < 100; ++i) launcher.sample(gpu.stream, call);
        });
        std::vector<float> times;
        for (int i = 0; i < 5; ++i) {
          Event begin(gpu.device, true), end(gpu.device, true);
          begin.record(gpu.stream);
          graph.launch(gpu.stream);
          end.record(gpu.stream);
          gpu.stream.synchronize();
          times.push_back(end.since(begin) * 10);
        }
        std::sort(times.begin(), times.end());
        line += fmt::format(" {} {:.1f} us,", name, double(times[2]));
      }
      std::puts(line.c_str());
    }
}

}  // namespace
}  // namespace cairn::cuda
