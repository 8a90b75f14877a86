// Schedulers without a model: what they cost, and what they give under load on a recorded machine.
//
//   schedule_bench record MODEL [seconds]      steps of random shapes on this machine, as text (simulate.h)
//   schedule_bench plan                        microseconds of a plan with 1,000 running and 10,000 waiting
//   schedule_bench loads STEPS [PLOT.svg]      policies at several loads, on the machine of the recorded
//   steps schedule_bench trace STEPS TRACE [requests [speed]]   a published trace, times divided by speed
//   schedule_bench check STEPS                 how well the step time model explains the recorded steps
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string_view>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/scheduling/arrivals.h"
#include "engine/scheduling/simulate.h"

namespace {

using namespace cairn;
using namespace cairn::engine;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<RecordedStep> steps_of(const char* path) {
  std::ifstream file(path);
  if (!file) fail(ErrorKind::not_found, "{} cannot be read", path);
  return read_steps(file, path);
}

// Sequences grow by prompt chunks and answers of random sizes, so that steps of all kinds and depths come.
void record(const char* model, double seconds) {
  constexpr int kSequences = 24;
  constexpr int64_t kLongest = 3072;
  EngineOptions options;
  options.place = Place::cpu;
  options.context = 4096;
  options.cache_tokens = kSequences * 4096;
  options.step_logits = kSequences;
  Engine engine(models::open_model(model), options);
  std::mt19937_64 random(1);
  struct Live {
    kv::Sequence cache;
    std::vector<int32_t> tokens;
  };
  std::vector<Live> live;
  for (int i = 0; i < kSequences; ++i) live.push_back({kv::Sequence(engine.kv()), {}});
  fmt::print("# decode_rows prompt_tokens context prompt_pairs seconds; {}, {}\n", engine.device_name(),
             model);
  const auto start = Clock::now();
  for (int64_t n = 0; seconds_since(start) < seconds; ++n) {
    std::vector<size_t> order(live.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    const bool reads = n < kSequences || random() % 3 == 0;
    const size_t decodes = n % 4 == 0 ? 0 : size_t(std::exp2(double(random() % 460) / 100));
    std::vector<backends::SequenceStep> rows;
    StepShape shape;
    const auto give = [&](Live& s, int64_t tokens, backends::RowClass kind) {
      SequenceView view;
      view.computed = s.cache.length(), view.known = view.computed + tokens;
      view.prompt_tokens = kind == backends::RowClass::decode ? view.known - 1 : view.known;
      shape.add(view, tokens);
      s.tokens.resize(size_t(tokens));
      for (auto& t : s.tokens) t = int32_t(random() % uint64_t(engine.model().vocabulary_size));
      rows.push_back({&s.cache, 0, s.tokens, 1, 0, kind});
    };
    size_t reader = order.size();
    if (reads) {
      reader = order.back();
      for (size_t i = 0; i < live.size(); ++i)
        if (live[i].cache.length() == 0) reader = i;
      if (live[reader].cache.length() > kLongest) live[reader].cache.release();
    }
    for (const size_t i : order)
      if (rows.size() < decodes && i != reader && live[i].cache.length() > 0 && live[i].cache.length() < 4000)
        give(live[i], 1, backends::RowClass::decode);
    if (reads)
      give(live[reader], int64_t(std::exp2(double(random() % 870) / 100)), backends::RowClass::prompt);
    if (rows.empty()) continue;
    const auto begin = Clock::now();
    engine.step(rows);
    fmt::print("{}\n", to_line({shape, seconds_since(begin)}));
  }
}

void check(const std::vector<RecordedStep>& steps) {
  // As a server would: each step predicted before it is learned.
  StepTimeModel online;
  std::vector<double> errors, late;
  int64_t above = 0, known = 0;
  for (const auto& s : steps) {
    if (const double predicted = online.predict(s.shape); predicted > 0) {
      errors.push_back(std::abs(predicted / s.seconds - 1));
      if (errors.size() > 50) late.push_back(errors.back());
      if (errors.size() > 50 && std::isfinite(online.upper(s.shape)))
        ++known, above += s.seconds > online.upper(s.shape);
    }
    online.add(s.shape, s.seconds);
  }
  const auto all = spread(errors), after = spread(late);
  fmt::print(
      "{} steps; relative error of predictions p50 {:.3f}, p90 {:.3f}; after the first 50: p50 {:.3f}, p90 "
      "{:.3f}, "
      "p99 {:.3f}; {:.1f} % took longer than upper()\n",
      steps.size(), all.p50, all.p90, after.p50, after.p90, after.p99,
      100.0 * double(above) / double(std::max<int64_t>(1, known)));
}

void time_plans() {
  fmt::print("| policy | running | waiting | clients | us per plan | largest |\n|---|--:|--:|--:|--:|--:|\n");
  for (const char* name : {"first-come", "continuous"})
    for (const auto& [running, waiting, clients] :
         {std::tuple{8, 0, 1}, std::tuple{256, 1000, 1}, std::tuple{1000, 10000, 1},
          std::tuple{1000, 10000, 100}, std::tuple{1000, 10000, 10000}}) {
      const auto policy = make_policy(name, {});
      std::vector<SequenceView> run(static_cast<size_t>(running)), wait(static_cast<size_t>(waiting));
      std::mt19937_64 random(1);
      SequenceId id = 0;
      for (auto* list : {&run, &wait})
        for (auto& s : *list) {
          s.id = id++;
          s.client = random() % uint64_t(clients);
          s.priority = int(random() % 2);
          s.arrival = double(s.id);
          s.prompt_tokens = s.known = 500, s.max_tokens = 1000;
        }
      for (auto& s : run) {
        s.computed = s.prompt_tokens, s.known += 1, s.pages = 16;
        if (random() % 100 == 0) s.computed = 100, s.known = 500;
      }
      SchedulerState state;
      state.running = run, state.waiting = wait;
      state.total_pages = 40000, state.page_tokens = 32;
      state.step_tokens = 2048, state.step_sequences = 1024, state.max_running = 1010;
      std::vector<double> times;
      for (int i = 0; i < 300; ++i) {
        state.now = 20000 + 0.05 * i;
        state.free_pages = 40000 - 16 * running;
        StepPlan plan;
        const auto begin = Clock::now();
        policy->plan(state, plan);
        times.push_back(1e6 * seconds_since(begin));
        StepShape shape;
        for (auto& s : run) shape.add(s, 1);
        policy->measured(shape, 0.05);
        for (auto& s : run)
          if (s.known > s.prompt_tokens) ++s.computed, ++s.known;
      }
      const auto t = spread(times);
      fmt::print("| {} | {} | {} | {} | {:.0f} | {:.0f} |\n", name, running, waiting, clients, t.p50,
                 t.largest);
    }
}

constexpr const char* kHead =
    "| load | policy | TTFT p50 s | TTFT p99 s | gap p50 ms | gap p99 ms | worst gap ms | worst beside "
    "prompts ms | answer "
    "tokens/s | preempted | recomputed % | pages % |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";

void print(const std::string& load, std::string_view policy, const SimulateResult& r,
           const SimulateOptions& o) {
  if (!r.broken.empty()) fmt::print("{}: broken: {}\n", policy, r.broken);
  fmt::print(
      "| {} | {} | {:.2f} | {:.2f} | {:.1f} | {:.1f} | {:.0f} | {:.0f} | {:.1f} | {} | {:.1f} | {:.0f} |\n",
      load, policy, r.first_token.p50, r.first_token.p99, 1e3 * r.gap.p50, 1e3 * r.gap.p99,
      1e3 * r.gap.largest, 1e3 * r.worst_gap_beside_prompts, double(r.answer_tokens) / r.seconds,
      r.preemptions,
      100.0 * double(r.recomputed) / double(std::max<int64_t>(1, r.prompt_tokens + r.answer_tokens)),
      100 * r.pages_mean / double(o.pages));
}

// Lines over load: one panel per quantity, logarithmic upwards.
void plot(const char* path, const std::vector<double>& loads, const std::vector<std::string>& policies,
          const std::vector<std::vector<SimulateResult>>& results) {
  struct Panel {
    const char* title;
    double (*value)(const SimulateResult&);
  };
  const Panel panels[] = {{"TTFT p50, s", [](const SimulateResult& r) { return r.first_token.p50; }},
                          {"TTFT p99, s", [](const SimulateResult& r) { return r.first_token.p99; }},
                          {"gap p99, s", [](const SimulateResult& r) { return r.gap.p99; }}};
  constexpr const char* kColours[] = {"#c0392b", "#2471a3", "#1e8449"};
  std::ofstream out(path);
  out << "<svg xmlns='http://www.w3.org/2000/svg' width='960' height='300' font-family='sans-serif' "
         "font-size='12'>"
         "<rect width='960' height='300' fill='white'/>\n";
  for (size_t p = 0; p < 3; ++p) {
    double low = 1e9, high = 0;
    for (const auto& row : results)
      for (const auto& r : row)
        low = std::min(low, panels[p].value(r)), high = std::max(high, panels[p].value(r));
    low = std::pow(10, std::floor(std::log10(std::max(low, 1e-3)))),
    high = std::pow(10, std::ceil(std::log10(high)));
    const double x0 = 60 + 315 * double(p), width = 240, y0 = 250, height = 200;
    const auto x = [&](double load) {
      return x0 + width * (load - loads.front()) / (loads.back() - loads.front());
    };
    const auto y = [&](double v) {
      return y0 - height * std::log10(std::max(v, low) / low) / std::log10(high / low);
    };
    out << fmt::format("<text x='{}' y='30' font-weight='bold'>{}</text>\n", x0, panels[p].title);
    for (double v = low; v <= high * 1.01; v *= 10)
      out << fmt::format(
          "<path d='M{} {}h{}' stroke='#ddd'/><text x='{}' y='{}' text-anchor='end'>{:g}</text>\n", x0, y(v),
          width, x0 - 6, y(v) + 4, v);
    for (const double l : loads)
      out << fmt::format("<text x='{}' y='{}' text-anchor='middle'>{:g}</text>\n", x(l), y0 + 18, l);
    out << fmt::format("<text x='{}' y='{}' text-anchor='middle'>load</text>\n", x0 + width / 2, y0 + 36);
    for (size_t i = 0; i < policies.size(); ++i) {
      std::string points;
      for (size_t l = 0; l < loads.size(); ++l)
        points += fmt::format("{:.1f},{:.1f} ", x(loads[l]), y(panels[p].value(results[i][l])));
      out << fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='2'/>\n", points,
                         kColours[i % 3]);
      if (p == 0)
        out << fmt::format("<text x='{}' y='{}' fill='{}'>{}</text>\n", x0 + 8, 56 + 16 * double(i),
                           kColours[i % 3], policies[i]);
    }
  }
  out << "</svg>\n";
}

void loads(const std::vector<RecordedStep>& steps, const char* svg) {
  const Machine machine = recorded_machine(steps);
  const SimulateOptions options{.pages = 1024, .step_tokens = 512, .step_sequences = 64, .max_running = 64};
  PoissonLoad load{.rate = 1e6, .requests = 300, .prompt_mean = 400, .answer_mean = 150, .most_tokens = 4096};
  // Load 1 is what the machine gets done when everything is there from the start.
  const auto all = simulate(*make_policy("continuous", {}), machine, poisson_load(load), options);
  const double capacity = double(load.requests) / all.seconds;
  fmt::print("capacity {:.3f} requests/s, {:.1f} answer tokens/s\n\n{}", capacity,
             double(all.answer_tokens) / all.seconds, kHead);
  const std::vector<double> parts{0.3, 0.5, 0.7, 0.8, 0.9, 1.1};
  const std::vector<std::string> names{"first-come", "continuous"};
  std::vector<std::vector<SimulateResult>> results(names.size());
  for (const double part : parts)
    for (size_t i = 0; i < names.size(); ++i) {
      load.rate = part * capacity;
      results[i].push_back(simulate(*make_policy(names[i], {}), machine, poisson_load(load), options));
      print(fmt::format("{:.1f}", part), names[i], results[i].back(), options);
    }
  if (svg) plot(svg, parts, names, results);

  fmt::print("\nSixteen running answers, then four prompts of 16,384 tokens\n\n{}", kHead);
  std::vector<Arrival> long_prompts(
      16, Arrival{.at = 0, .client = 1, .prompt_tokens = 100, .answer_tokens = 3000});
  for (int i = 0; i < 4; ++i)
    long_prompts.push_back({.at = 5.0 + 20 * i, .client = 2, .prompt_tokens = 16384, .answer_tokens = 20});
  SimulateOptions wide = options;
  wide.pages = 8192;
  for (const auto& [name, gap] :
       {std::pair{"first-come", 0.1}, {"continuous", 0.1}, {"continuous", 0.2}, {"continuous", 0.5}})
    print(fmt::format("16K, budget {} ms", int(1e3 * gap)), name,
          simulate(*make_policy(name, {.max_token_gap = gap}), machine, long_prompts, wide), wide);

  fmt::print(
      "\nOne client floods with 1,000 requests; another sends one every 10 s: its own first tokens\n\n| "
      "policy | TTFT p50 s | TTFT largest s |\n|---|--:|--:|\n");
  std::vector<Arrival> flood(1000, Arrival{.at = 0, .client = 1, .prompt_tokens = 400, .answer_tokens = 150});
  for (int i = 1; i < 30; ++i)
    flood.push_back({.at = 10.0 * i, .client = 2, .prompt_tokens = 400, .answer_tokens = 150});
  for (const auto& name : names) {
    const auto r = simulate(*make_policy(name, {}), machine, flood, options);
    std::vector<double> first;
    for (size_t i = 1000; i < flood.size(); ++i) first.push_back(r.requests[i].first - flood[i].at);
    const auto s = spread(first);
    fmt::print("| {} | {:.2f} | {:.2f} |\n", name, s.p50, s.largest);
  }
}

void trace(const std::vector<RecordedStep>& steps, const char* path, size_t requests, double speed) {
  const Machine machine = recorded_machine(steps);
  auto arrivals = read_trace(path, requests);
  int64_t longest = 0;
  for (auto& a : arrivals) a.at /= speed, longest = std::max(longest, a.prompt_tokens + a.answer_tokens);
  fmt::print("{} requests in {:.0f} s, the longest of {} tokens\n\n{}", arrivals.size(), arrivals.back().at,
             longest, kHead);
  SimulateOptions options{.pages = 16384, .step_tokens = 2048, .step_sequences = 256, .max_running = 256};
  options.pages = std::max(options.pages, longest / 32 + 1);
  for (const bool cache : {false, true}) {
    options.ideal_prefix_cache = cache;
    for (const char* name : {"first-come", "continuous"}) {
      const auto r = simulate(*make_policy(name, {}), machine, arrivals, options);
      int64_t reused = 0, prompts = 0;
      for (size_t i = 0; i < arrivals.size(); ++i)
        reused += r.requests[i].reused, prompts += arrivals[i].prompt_tokens;
      print(fmt::format("{}", cache ? fmt::format("ideal cache, {:.1f} % hit",
                                                  100.0 * double(reused) / double(prompts))
                                    : "no cache"),
            name, r, options);
    }
  }
}

int run(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "record" && argc > 2)
    record(argv[2], argc > 3 ? std::atof(argv[3]) : 30);
  else if (what == "plan")
    time_plans();
  else if (what == "check" && argc > 2)
    check(steps_of(argv[2]));
  else if (what == "loads" && argc > 2)
    loads(steps_of(argv[2]), argc > 3 ? argv[3] : nullptr);
  else if (what == "trace" && argc > 3)
    trace(steps_of(argv[2]), argv[3], argc > 4 ? size_t(std::atoll(argv[4])) : 1000,
          argc > 5 ? std::atof(argv[5]) : 1);
  else
    return fmt::print(stderr,
                      "schedule_bench record MODEL [seconds] | plan | check STEPS | loads STEPS [PLOT.svg] | "
                      "trace STEPS TRACE [requests [speed]]\n"),
           2;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
