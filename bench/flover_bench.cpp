// Requests at random times on one engine: Flover against the ways it was made to replace, and against
// continuous batching over pages. Every run is real; run them alone on the machine, in turn.
//
//   flover_bench make OUT.gguf                     a 52 M model of random weights (q8_0)
//   flover_bench capacity MODEL                    requests per second when all are there from the start
//   flover_bench run MODEL HOW RATE [requests]     HOW: one, instances, static8, static50, first-come,
//   continuous,
//                                                  flover-aside, flover-between
//   flover_bench waste MODEL RATE                  rows that were holes, by how the shuffle is used
//   flover_bench gaps MODEL HOW                    gaps of eight answers while prompts of 512 tokens arrive
#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <random>
#include <string_view>

#include "base/steady_seconds.h"
#include "engine/scheduling/flover.h"
#include "engine/scheduling/simulate.h"
#include "formats/gguf_writer.h"
#include "models/model.h"

namespace {

using namespace cairn;
using namespace cairn::engine;

void make(const char* path) {
  constexpr int64_t kLayers = 10, kDim = 512, kHeads = 8, kKvHeads = 4, kHead = 64, kHidden = 1792,
                    kWords = 32000;
  formats::GgufWriter file(path);
  file.add_string("general.architecture", "llama");
  file.add_u32("llama.block_count", kLayers);
  file.add_u32("llama.context_length", 4096);
  file.add_u32("llama.embedding_length", kDim);
  file.add_u32("llama.feed_forward_length", kHidden);
  file.add_u32("llama.attention.head_count", kHeads);
  file.add_u32("llama.attention.head_count_kv", kKvHeads);
  file.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.add_f32("llama.rope.freq_base", 10000);
  file.add_u32("llama.rope.dimension_count", kHead);
  file.add_u32("llama.vocab_size", kWords);
  file.add_string("tokenizer.ggml.model", "no_vocab");
  struct Tensor {
    std::string name;
    int64_t rows, columns;  // rows 0: a norm of ones
  };
  std::vector<Tensor> tensors{{"token_embd.weight", kWords, kDim}};
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string b = fmt::format("blk.{}.", i);
    for (const Tensor& t : {Tensor{"attn_norm", 0, kDim},
                            {"ffn_norm", 0, kDim},
                            {"attn_q", kHeads * kHead, kDim},
                            {"attn_k", kKvHeads * kHead, kDim},
                            {"attn_v", kKvHeads * kHead, kDim},
                            {"attn_output", kDim, kHeads * kHead},
                            {"ffn_gate", kHidden, kDim},
                            {"ffn_up", kHidden, kDim},
                            {"ffn_down", kDim, kHidden}})
      tensors.push_back({b + t.name + ".weight", t.rows, t.columns});
  }
  tensors.push_back({"output_norm.weight", 0, kDim});
  using codecs::CodecId;
  for (const auto& t : tensors) {
    const int64_t shape[] = {t.rows, t.columns};
    file.add_tensor(t.name, t.rows ? CodecId::q8_0 : CodecId::f32, std::span(shape).last(t.rows ? 2 : 1));
  }
  std::mt19937_64 random(1);
  for (const auto& t : tensors) {
    std::vector<std::byte> bytes;
    if (t.rows == 0) {
      const std::vector<float> ones(size_t(t.columns), 1.0f);
      file.write(std::as_bytes(std::span(ones)));
      continue;
    }
    bytes.resize(size_t(t.rows * t.columns / 32 * 34));
    for (auto& b : bytes) b = std::byte(random());
    for (size_t block = 0; block < bytes.size(); block += 34)
      bytes[block] = std::byte{0x6c},
      bytes[block + 1] = std::byte{0x0c};  // f16 0.00027: weights of about 0.02
    file.write(bytes);
  }
  file.finish();
}

EngineOptions engine_options(int threads, int64_t slots, int64_t slot_tokens) {
  EngineOptions o;
  o.place = Place::cpu;
  o.threads = threads;
  o.context = slot_tokens;
  o.cache_tokens = slots * slot_tokens;
  o.step_tokens = 512;
  o.step_logits = slots;
  return o;
}

// The paper's load: prompts of 8, answers here of 16 to 504 tokens; 32 at once.
constexpr int kSlots = 32;
constexpr int64_t kSlotTokens = 512;

std::vector<Arrival> load(double rate, size_t requests) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> interval(1);
  std::vector<Arrival> all(requests);
  double at = 0;
  for (auto& a : all) {
    at += interval(random);
    a.at = rate > 0 ? at / rate : 0;
    a.prompt_tokens = 8;
    a.answer_tokens = 16 + int64_t(random() % 489);
  }
  return all;
}

std::vector<int32_t> prompt_of(const Arrival& a, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens(size_t(a.prompt_tokens));
  for (auto& t : tokens) t = int32_t(random() % 32000);
  return tokens;
}

struct Outcome {
  std::vector<std::vector<double>> tokens;  // per arrival: when each came
  double seconds = 0;                       // from the first arrival to the last token
};

// Waits for `window` seconds after the first request, takes what is there, and nothing more until all of it
// has ended. An answer that ends early leaves at once; in the servers of that time it stayed to the end.
class Batches final : public Policy {
 public:
  Batches(double window, size_t most) : window_(window), most_(most) {}
  std::string_view name() const override { return "static"; }
  void plan(const SchedulerState& state, StepPlan& plan) override {
    int64_t tokens = state.step_tokens;
    const auto give = [&](const SequenceView& s) {
      const int64_t count = std::min(tokens, s.left());
      if (count > 0) plan.shares.push_back({s.id, count}), tokens -= count;
    };
    if (!state.running.empty()) return void(std::for_each(state.running.begin(), state.running.end(), give));
    if (state.waiting.empty() ||
        (state.now - state.waiting.front().arrival < window_ && state.waiting.size() < most_))
      return;
    for (size_t i = 0; i < std::min(most_, state.waiting.size()); ++i) give(state.waiting[i]);
  }

 private:
  double window_;
  size_t most_;
};

// Drives an engine by a policy in real time. Instances that share `next` take one request each when idle.
void drive(Engine& engine, Policy& policy, const std::vector<Arrival>& arrivals, double start,
           std::atomic<size_t>* shared, Outcome& outcome) {
  struct Live {
    size_t index;
    SequenceView view;
    kv::Sequence cache;
    text::Sampler sampler;
    std::vector<int32_t> known;
  };
  const auto vocabulary = size_t(engine.model().vocabulary_size);
  std::vector<std::unique_ptr<Live>> running, waiting;
  size_t mine = 0;
  StepPlan plan;
  for (;;) {
    const double now = steady_seconds() - start;
    const auto accept = [&](size_t i) {
      auto s = std::make_unique<Live>(Live{i,
                                           {},
                                           kv::Sequence(engine.kv()),
                                           text::Sampler({}, int32_t(vocabulary), 0),
                                           prompt_of(arrivals[i], i)});
      s->view.id = i, s->view.arrival = arrivals[i].at;
      s->view.known = s->view.prompt_tokens = arrivals[i].prompt_tokens;
      s->view.max_tokens = arrivals[i].prompt_tokens + arrivals[i].answer_tokens;
      waiting.push_back(std::move(s));
    };
    size_t upcoming = arrivals.size();
    if (shared) {
      if (running.empty() && waiting.empty()) {
        const size_t i = shared->fetch_add(1);
        if (i >= arrivals.size()) return;
        while (steady_seconds() - start < arrivals[i].at)
          std::this_thread::sleep_for(std::chrono::microseconds(200));
        accept(i);
      }
    } else {
      while (mine < arrivals.size() && arrivals[mine].at <= now) accept(mine++);
      upcoming = mine;
      if (running.empty() && waiting.empty()) {
        if (upcoming == arrivals.size()) return;
        std::this_thread::sleep_for(
            std::chrono::duration<double>(std::max(0.0, arrivals[upcoming].at - now)));
        continue;
      }
    }
    std::vector<SequenceView> run, wait;
    for (auto* list : {&running, &waiting})
      for (auto& s : *list) {
        s->view.computed = s->cache.length(), s->view.pages = int64_t(s->cache.block_table().size());
        (list == &running ? run : wait).push_back(s->view);
      }
    SchedulerState state;
    state.now = steady_seconds() - start, state.running = run, state.waiting = wait;
    state.free_pages = engine.kv().free_pages(), state.total_pages = engine.kv().config().pages;
    state.page_tokens = engine.kv().config().page_tokens;
    state.step_tokens = engine.bounds().tokens,
    state.step_sequences = state.max_running = engine.bounds().logits;
    plan.clear();
    policy.plan(state, plan);
    if (!plan.preempt.empty())
      fail(ErrorKind::unsupported, "this bench's pool is large enough for no preemption");
    if (plan.shares.empty()) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
    std::vector<backends::SequenceStep> steps;
    std::vector<Live*> rows;
    StepShape shape;
    for (const auto& share : plan.shares) {
      const auto is = [&](const auto& s) { return s->view.id == share.id; };
      auto place = std::find_if(running.begin(), running.end(), is);
      if (place == running.end()) {
        const auto w = std::find_if(waiting.begin(), waiting.end(), is);
        running.push_back(std::move(*w));
        waiting.erase(w);
        place = running.end() - 1;
      }
      Live& s = **place;
      shape.add(s.view, share.tokens);
      const bool last = share.tokens == s.view.left();
      steps.push_back({&s.cache, 0, std::span(s.known).subspan(size_t(s.view.computed), size_t(share.tokens)),
                       last, s.view.max_tokens,
                       s.view.decoding() ? backends::RowClass::decode : backends::RowClass::prompt});
      rows.push_back(last ? &s : nullptr);
    }
    const double begin = steady_seconds();
    const auto result = engine.step(steps);
    policy.measured(shape, steady_seconds() - begin);
    std::erase(rows, nullptr);
    std::atomic<size_t> next{0};
    engine.pool().run([&](int) {
      for (size_t i = next++; i < rows.size(); i = next++)
        rows[i]->known.push_back(rows[i]->sampler.sample({result.logits + i * vocabulary, vocabulary}));
    });
    for (Live* s : rows) {
      ++s->view.known;
      outcome.tokens[s->index].push_back(steady_seconds() - start);
    }
    std::erase_if(running, [](const auto& s) { return s->view.known == s->view.max_tokens; });
  }
}

Outcome run_policy(const char* model, Policy& policy, const std::vector<Arrival>& arrivals,
                   int64_t slot_tokens) {
  Engine engine(models::open_model(model), engine_options(2, kSlots, slot_tokens));
  Outcome outcome;
  outcome.tokens.resize(arrivals.size());
  drive(engine, policy, arrivals, steady_seconds(), nullptr, outcome);
  return outcome;
}

Outcome run_instances(const char* model, int count, const std::vector<Arrival>& arrivals) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (int i = 0; i < count; ++i)
    engines.push_back(std::make_unique<Engine>(models::open_model(model), engine_options(1, 1, kSlotTokens)));
  Outcome outcome;
  outcome.tokens.resize(arrivals.size());
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  const double start = steady_seconds();
  for (auto& engine : engines)
    threads.emplace_back([&, e = engine.get()] {
      Batches one(0, 1);
      drive(*e, one, arrivals, start, &next, outcome);
    });
  for (auto& t : threads) t.join();
  return outcome;
}

Outcome run_flover(const char* model, FloverOptions options, const std::vector<Arrival>& arrivals,
                   FloverStats* stats = nullptr) {
  Engine engine(models::open_model(model), engine_options(2, kSlots, options.slot_tokens));
  options.slots = kSlots;
  options.most_waiting = arrivals.size();
  Flover flover(engine, options);
  Outcome outcome;
  outcome.tokens.resize(arrivals.size());
  const double start = steady_seconds();
  for (size_t i = 0; i < arrivals.size(); ++i) {
    std::this_thread::sleep_for(
        std::chrono::duration<double>(std::max(0.0, arrivals[i].at - (steady_seconds() - start))));
    FloverRequest r;
    r.prompt = prompt_of(arrivals[i], i);
    r.max_tokens = arrivals[i].answer_tokens;
    r.on_token = [&outcome, i, start](int32_t) { outcome.tokens[i].push_back(steady_seconds() - start); };
    flover.submit(std::move(r));
  }
  flover.drain();
  if (stats) *stats = flover.stats();
  return outcome;
}

Outcome run(const char* model, std::string_view how, const std::vector<Arrival>& arrivals,
            int64_t slot_tokens, FloverStats* stats = nullptr) {
  if (how == "instances") return run_instances(model, 4, arrivals);
  if (how.starts_with("flover")) {
    FloverOptions o;
    o.slot_tokens = slot_tokens;
    o.prefill = how == "flover-aside" ? FloverOptions::Prefill::aside : FloverOptions::Prefill::between;
    return run_flover(model, o, arrivals, stats);
  }
  std::unique_ptr<Policy> policy;
  if (how == "one")
    policy = std::make_unique<Batches>(0, 1);
  else if (how.starts_with("static"))
    policy = std::make_unique<Batches>(1e-3 * std::atof(how.data() + 6), kSlots);
  else
    policy = make_policy(how, {});
  return run_policy(model, *policy, arrivals, slot_tokens);
}

void print(std::string_view how, const Outcome& o, const std::vector<Arrival>& arrivals) {
  std::vector<double> first, whole, gaps;
  double end = 0;
  size_t tokens = 0;
  for (size_t i = 0; i < arrivals.size(); ++i) {
    const auto& t = o.tokens[i];
    if (int64_t(t.size()) != arrivals[i].answer_tokens)
      fail(ErrorKind::unsupported, "request {} got {} tokens of {}", i, t.size(), arrivals[i].answer_tokens);
    first.push_back(t.front() - arrivals[i].at), whole.push_back(t.back() - arrivals[i].at);
    for (size_t j = 1; j < t.size(); ++j) gaps.push_back(t[j] - t[j - 1]);
    end = std::max(end, t.back()), tokens += t.size();
  }
  const auto f = spread(first), w = spread(whole), g = spread(gaps);
  fmt::print("| {} | {:.2f} | {:.0f} | {:.3f} | {:.3f} | {:.2f} | {:.2f} | {:.2f} | {:.1f} |\n", how, end,
             double(tokens) / end, f.p50, f.p99, w.mean, w.p99, 1e3 * g.p50, 1e3 * g.p99);
}

void waste(const char* model, double rate) {
  const auto arrivals = load(rate, 40);
  fmt::print(
      "| shuffle | seconds | rows | of holes % | turns | shuffles | moves | MB moved "
      "|\n|---|--:|--:|--:|--:|--:|--:|--:|\n");
  using Shuffle = FloverOptions::Shuffle;
  for (const auto& [name, shuffle] :
       {std::pair{"never", Shuffle::never}, {"always", Shuffle::always}, {"automatic", Shuffle::automatic}}) {
    FloverOptions o;
    o.compute_holes = true, o.shuffle = shuffle, o.prefill = FloverOptions::Prefill::between;
    FloverStats s;
    const auto outcome = run_flover(model, o, arrivals, &s);
    double end = 0;
    for (const auto& t : outcome.tokens) end = std::max(end, t.back());
    fmt::print("| {} | {:.2f} | {} | {:.2f} | {} | {} | {} | {:.1f} |\n", name, end, s.rows,
               100.0 * double(s.wasted_rows) / double(s.rows), s.turns, s.shuffles, s.moves,
               double(s.bytes_moved) / 1e6);
  }
}

void gaps(const char* model, const std::string& how) {
  std::vector<Arrival> arrivals(8, Arrival{.at = 0, .prompt_tokens = 8, .answer_tokens = 800});
  for (int i = 0; i < 8; ++i)
    arrivals.push_back({.at = 0.3 + 0.3 * i, .prompt_tokens = 512, .answer_tokens = 16});
  const auto outcome = run(model, how, arrivals, 1024);
  std::vector<double> gaps, first;
  for (size_t i = 0; i < 8; ++i)
    for (size_t j = 1; j < outcome.tokens[i].size(); ++j)
      if (outcome.tokens[i][j] > 0.3) gaps.push_back(outcome.tokens[i][j] - outcome.tokens[i][j - 1]);
  for (size_t i = 8; i < arrivals.size(); ++i) first.push_back(outcome.tokens[i].front() - arrivals[i].at);
  const auto g = spread(gaps), f = spread(first);
  fmt::print("| {} | {:.2f} | {:.1f} | {:.1f} | {:.3f} | {:.3f} |\n", how, 1e3 * g.p50, 1e3 * g.p99,
             1e3 * g.largest, f.p50, f.largest);
}

int command(int argc, char** argv) {
  const std::string_view what = argc > 2 ? argv[1] : "";
  if (what == "make") {
    make(argv[2]);
  } else if (what == "capacity") {
    const auto arrivals = load(0, 64);
    const auto outcome = run(argv[2], "continuous", arrivals, kSlotTokens);
    double end = 0;
    for (const auto& t : outcome.tokens) end = std::max(end, t.back());
    fmt::print("{:.3f}\n", 64 / end);
  } else if (what == "run" && argc > 4) {
    const auto arrivals = load(std::atof(argv[4]), argc > 5 ? size_t(std::atoll(argv[5])) : 64);
    print(argv[3], run(argv[2], argv[3], arrivals, kSlotTokens), arrivals);
  } else if (what == "waste" && argc > 3) {
    waste(argv[2], std::atof(argv[3]));
  } else if (what == "gaps" && argc > 3) {
    gaps(argv[2], argv[3]);
  } else {
    fmt::print(stderr,
               "flover_bench make OUT | capacity MODEL | run MODEL HOW RATE [requests] | waste MODEL RATE | "
               "gaps MODEL HOW\n");
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return command(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
