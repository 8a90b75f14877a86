// For Flover's tests: requests at random times, and what each must answer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>

#include "engine/generate.h"
#include "engine/scheduling/flover.h"

namespace cairn::engine::testing {

using Prefill = FloverOptions::Prefill;
using Shuffle = FloverOptions::Shuffle;

inline const std::filesystem::path kModel =
    std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories/cairn-stories-q8_0.gguf";

inline EngineOptions engine_options() {
  EngineOptions o;
  o.place = Place::cpu;
  o.threads = 2;
  o.context = 256;
  o.cache_tokens = 12 * 96;
  o.step_tokens = 96;
  o.step_logits = 12;
  return o;
}

struct Request {
  FloverRequest ask;
  double at = 0;
  std::vector<int32_t> alone;  // what it must answer
};

struct Model {
  std::unique_ptr<text::Tokenizer> tokenizer = text::load_tokenizer(kModel);
  std::vector<int32_t> ends;
  Model() {
    for (const auto id : tokenizer->special().end_of_turn) ends.push_back(id);
  }

  // At random times, of random lengths, half greedy and half drawn with a seed.
  std::vector<Request> requests(size_t count, double span) const {
    const std::string words =
        "Once upon a time there was a little fox who lived near the river and liked to count the stars at "
        "night "
        "while his mother told him about the wide sea and the ships that sail on it. One day";
    std::mt19937_64 random(3);
    std::vector<Request> all(count);
    for (auto& r : all) {
      const size_t from = random() % 30;
      r.ask.prompt = tokenizer->encode(words.substr(from, 5 + random() % 120));
      r.ask.max_tokens = 1 + int64_t(random() % 48);
      if (random() % 2) r.ask.sampling.temperature = 0.9f;
      r.ask.sampling.seed = random();
      r.ask.ends = ends;
      r.at = span * double(random() % 1000) / 1000;
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.at < b.at; });
    Engine engine(models::open_model(kModel), engine_options());
    for (auto& r : all) {
      Session session(engine, *tokenizer);
      GenerateOptions o;
      o.sampling = r.ask.sampling;
      o.max_tokens = r.ask.max_tokens;
      r.alone = session.generate(r.ask.prompt, o).tokens;
    }
    return all;
  }
};

inline const Model& model() {
  static const Model m;
  return m;
}

inline FloverStats run(const std::vector<Request>& requests, const FloverOptions& options) {
  Engine engine(models::open_model(kModel), engine_options());
  std::vector<std::vector<int32_t>> answers(requests.size());
  std::atomic<int> ended{0}, failed{0};
  FloverStats stats;
  {
    Flover flover(engine, options);
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < requests.size(); ++i) {
      std::this_thread::sleep_until(start + std::chrono::duration<double>(requests[i].at));
      FloverRequest ask = requests[i].ask;
      ask.on_token = [&answers, i](int32_t token) { answers[i].push_back(token); };
      ask.on_end = [&](Finish, const std::string& error) { ++ended, failed += !error.empty(); };
      flover.submit(std::move(ask));
    }
    flover.drain();
    stats = flover.stats();
  }
  EXPECT_EQ(ended, int(requests.size()));
  EXPECT_EQ(failed, 0);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(answers[i], requests[i].alone) << i;
  EXPECT_EQ(stats.live, 0);
  EXPECT_EQ(engine.kv().free_pages(), engine.kv().config().pages);
  return stats;
}

inline FloverOptions options(Prefill prefill, Shuffle shuffle, bool holes) {
  FloverOptions o;
  o.slots = 12, o.slot_tokens = 96, o.most_waiting = 64, o.prefill_piece = 16;
  o.prefill = prefill, o.shuffle = shuffle, o.compute_holes = holes;
  return o;
}

}  // namespace cairn::engine::testing
