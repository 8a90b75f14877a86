// For tests of the service: the shipped model, a listener that remembers, answers alone and served.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "engine/generate.h"
#include "engine/serving/service.h"

namespace cairn::engine::testing {

inline const std::filesystem::path kModel =
    std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories/cairn-stories-q8_0.gguf";

inline EngineOptions options(int64_t cache_tokens) {
  EngineOptions o;
  o.threads = 2;
  o.place = Place::cpu;
  o.context = 256;
  o.cache_tokens = cache_tokens;
  o.step_tokens = 96;
  o.step_logits = 64;
  return o;
}

// One model for all tests; the pool's size and the step's bounds are the test's.
struct Loaded {
  explicit Loaded(int64_t cache_tokens, EngineOptions o = {})
      : tokenizer(text::load_tokenizer(kModel)),
        engine(models::open_model(kModel), o.threads ? o : options(cache_tokens)) {}
  std::unique_ptr<text::Tokenizer> tokenizer;
  Engine engine;
};

class Recorder : public Listener {
 public:
  struct Answer {
    std::string text;
    std::vector<int32_t> tokens;
    std::optional<Ended> end;
  };
  explicit Recorder(int answers = 1) : answers_(size_t(answers)), open_(answers) {}
  void on_piece(const Piece& p) override {
    const std::lock_guard lock(mutex_);
    auto& a = answers_.at(size_t(p.answer));
    EXPECT_FALSE(a.end);
    a.text += p.text;
    a.tokens.insert(a.tokens.end(), p.tokens.begin(), p.tokens.end());
    ++pieces_;
    changed_.notify_all();
    if (on_first_piece && pieces_ == 1) on_first_piece();
  }
  void on_end(const Ended& e) override {
    const std::lock_guard lock(mutex_);
    auto& a = answers_.at(size_t(e.answer));
    EXPECT_FALSE(a.end);
    a.end = e;
    --open_;
    changed_.notify_all();
  }
  const Answer& wait(int answer = 0) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return open_ == 0; }));
    return answers_.at(size_t(answer));
  }
  std::function<void()> on_first_piece;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Answer> answers_;
  int open_ = 0, pieces_ = 0;
};

inline GenerateRequest request(const Loaded& model, const std::string& prompt, uint64_t seed,
                               int64_t max_tokens) {
  GenerateRequest r;
  r.prompt = model.tokenizer->encode(prompt);
  r.sampling.temperature = seed % 2 ? 0.9f : 0;
  r.sampling.seed = seed;
  r.max_tokens = max_tokens;
  return r;
}

inline std::vector<GenerateRequest> mixed_requests(const Loaded& model, size_t count) {
  const std::string words =
      "Once upon a time there was a little fox who lived near the river and liked to count the stars at "
      "night "
      "while his mother told him about the wide sea and the ships that sail on it. One day";
  std::vector<GenerateRequest> all;
  for (size_t i = 0; i < count; ++i)
    all.push_back(
        request(model, words.substr(0, 12 + 37 * i % (words.size() - 12)), i, int64_t(5 + i * 7 % 40)));
  return all;
}

inline std::vector<std::string> alone(Loaded& model, const std::vector<GenerateRequest>& requests) {
  std::vector<std::string> texts;
  for (const auto& r : requests) {
    Session session(model.engine, *model.tokenizer);
    GenerateOptions o;
    o.sampling = r.sampling;
    o.max_tokens = r.max_tokens;
    texts.push_back(session.generate(r.prompt, o).text);
  }
  return texts;
}

inline std::vector<std::string> served(Loaded& model, const std::vector<GenerateRequest>& requests,
                                       ServiceOptions o, ServiceStats* stats = nullptr) {
  Service service(model.engine, *model.tokenizer, o);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (const auto& r : requests) {
    recorders.push_back(std::make_shared<Recorder>());
    service.submit(r, recorders.back());
  }
  std::vector<std::string> texts;
  for (const auto& recorder : recorders) {
    const auto& answer = recorder->wait();
    EXPECT_TRUE(answer.end && !answer.end->error) << (answer.end ? answer.end->message : "no end");
    texts.push_back(answer.text);
  }
  if (stats) *stats = service.stats();
  return texts;
}

inline ServiceOptions first_come() {
  ServiceOptions o;
  o.policy = "first-come";
  return o;
}

}  // namespace cairn::engine::testing
