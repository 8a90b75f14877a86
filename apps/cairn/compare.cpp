// cairn compare: what a second form of a model loses and gains against the first, on a text.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/steady_seconds.h"
#include "command.h"
#include "engine/scoring.h"
#include "model_options.h"
#include "output.h"
#include "scored_text.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions first;
  std::string second, second_kv;
  ScoredText text;
};

struct Side {
  std::unique_ptr<Model::Impl> model;
  double seconds = 0;  // scoring
  double decode_rate = 0;
  engine::RunningMean surprise;

  engine::Engine& engine() { return model->engine; }
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const auto& tensor : model->engine.model().checkpoint.tensors) sum += tensor.bytes.size();
    return sum;
  }
  double bits_per_weight() const { return 8.0 * double(bytes()) / double(model->engine.model().parameters); }
  double perplexity() const { return std::exp(surprise.mean()); }
};

void check_same_vocabulary(Side (&side)[2], const std::string& text) {
  const int64_t sizes[] = {side[0].engine().model().vocabulary_size,
                           side[1].engine().model().vocabulary_size};
  if (sizes[0] != sizes[1])
    fail(ErrorKind::invalid_argument,
         "{} scores {} tokens and {} scores {}; only models of one vocabulary can be compared",
         side[0].engine().model().file, sizes[0], side[1].engine().model().file, sizes[1]);
  const std::string some = text.substr(0, size_t{1} << 16);
  if (side[0].model->tokenizer->encode(some) != side[1].model->tokenizer->encode(some))
    fail(ErrorKind::invalid_argument,
         "{} and {} cut the text into different tokens; give two forms of one model",
         side[0].engine().model().file, side[1].engine().model().file);
}

// Tokens per second, one after another, behind a short prompt. The median of five runs of eight.
double decode_rate(engine::Engine& engine, std::span<const int32_t> tokens) {
  constexpr size_t kWarm = 4, kSteps = 8, kRuns = 5;
  const size_t prompt = std::min<size_t>(tokens.size() / 2, 64);
  kv::Sequence sequence(engine.kv());
  engine.feed(sequence, tokens.first(prompt), 1, int64_t(tokens.size()));
  std::vector<double> rates;
  size_t at = prompt;
  const auto steps = [&](size_t count) {
    for (size_t i = 0; i < count; ++i)
      engine.feed(sequence, tokens.subspan(at++, 1), 1, int64_t(tokens.size()), {}, nullptr,
                  backends::RowClass::decode);
  };
  if (tokens.size() < prompt + kWarm + kRuns * kSteps) return 0;
  steps(kWarm);
  for (size_t run = 0; run < kRuns; ++run) {
    const double start = steady_seconds();
    steps(kSteps);
    rates.push_back(double(kSteps) / (steady_seconds() - start));
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

// Of sorted values; p in 0..1.
double quantile(const std::vector<double>& sorted, double p) {
  return sorted[size_t(std::lround(p * double(sorted.size() - 1)))];
}

void print(Side (&side)[2], const engine::RunningMean& divergence, const std::vector<double>& sorted,
           const engine::RunningMean& agreement, const engine::RunningMean& difference, int64_t window) {
  write_out(fmt::format("{:26}{:>16}{:>16}\n", "", "first", "second"));
  const auto row = [&](std::string_view name, std::string_view a, std::string_view b) {
    write_out(fmt::format("{:26}{:>16}{:>16}\n", name, a, b));
  };
  row("size", readable_bytes(side[0].bytes()), readable_bytes(side[1].bytes()));
  row("bits per weight", fmt::format("{:.2f}", side[0].bits_per_weight()),
      fmt::format("{:.2f}", side[1].bits_per_weight()));
  row("perplexity", fmt::format("{:.4f}", side[0].perplexity()), fmt::format("{:.4f}", side[1].perplexity()));
  const auto rate = [](double r) { return r > 0 ? fmt::format("{:.1f}", r) : std::string("text too short"); };
  const auto count = double(difference.count());
  row("scoring, tok/s", rate(count / side[0].seconds), rate(count / side[1].seconds));
  row("decoding, tok/s", rate(side[0].decode_rate), rate(side[1].decode_rate));
  write_out(
      fmt::format("\nsecond against first, {} tokens in windows of {}:\n"
                  "perplexity             {:+.3f} % +- {:.3f} %\n"
                  "divergence (KL, nats)  mean {:.6f} +- {:.6f}, median {:.6f}, 99 % {:.6f}, most {:.6f}\n"
                  "same first choice      {:.2f} % +- {:.2f} %\n",
                  difference.count(), window, 100 * std::expm1(difference.mean()),
                  100 * std::exp(difference.mean()) * difference.standard_error(), divergence.mean(),
                  divergence.standard_error(), quantile(sorted, 0.5), quantile(sorted, 0.99), sorted.back(),
                  100 * agreement.mean(), 100 * agreement.standard_error()));
}

int run(Options options) {
  const std::string text = read_text_file(options.text.file, size_t{1} << 30);
  options.first.shape.step_logits = 128;
  if (options.text.window != 0) options.first.load.context = options.text.window;
  Side side[2];
  side[0].model = load_model(options.first);
  ModelOptions second = options.first;
  second.model = options.second;
  if (!options.second_kv.empty()) second.load.kv = options.second_kv;
  side[1].model = load_model(second);
  check_same_vocabulary(side, text);

  const int64_t window =
      options.text.window != 0
          ? options.text.window
          : std::min({side[0].engine().context(), side[1].engine().context(), int64_t{1024}});
  if (window < 2) fail(ErrorKind::invalid_argument, "--window is {}; it must be at least 2", window);
  const auto& tokenizer = *side[0].model->tokenizer;
  const auto tokens =
      tokens_of(tokenizer, text, options.text.tokens, options.text.file, options.text.special);
  const auto windows = engine::text_windows(tokens, window, first_token(tokenizer));
  for (auto& s : side)
    s.decode_rate = decode_rate(s.engine(), std::span(tokens).first(std::min(tokens.size(), size_t(window))));

  const auto vocabulary = size_t(side[0].engine().model().vocabulary_size);
  const auto piece = size_t(std::min({side[0].engine().bounds().tokens, side[0].engine().bounds().logits,
                                      side[1].engine().bounds().tokens, side[1].engine().bounds().logits}));
  engine::RunningMean divergence, agreement, difference;
  std::vector<double> divergences;
  ProgressBar bar("comparing", tokens.size(), ProgressUnit::tokens);
  kv::Sequence sequences[2] = {kv::Sequence(side[0].engine().kv()), kv::Sequence(side[1].engine().kv())};
  for (const auto& rows : windows) {
    for (auto& sequence : sequences) sequence.truncate(0);
    for (size_t done = 0; done + 1 < rows.size(); done += piece) {
      const size_t count = std::min(piece, rows.size() - 1 - done);
      const float* scores[2];
      for (int i = 0; i < 2; ++i) {
        const double start = steady_seconds();
        scores[i] = side[i]
                        .engine()
                        .feed(sequences[i], std::span(rows).subspan(done, count), int64_t(count), window)
                        .logits;
        side[i].seconds += steady_seconds() - start;
      }
      std::vector<engine::RowDifference> found(count);
      side[0].engine().pool().split(int64_t(count), 1, [&](Range part) {
        for (auto r = size_t(part.begin); r < size_t(part.end); ++r)
          found[r] = engine::compare_rows({scores[0] + r * vocabulary, vocabulary},
                                          {scores[1] + r * vocabulary, vocabulary}, rows[done + r + 1]);
      });
      for (const auto& d : found) {
        for (int i = 0; i < 2; ++i) side[i].surprise.add(d.surprise[i]);
        difference.add(d.surprise[1] - d.surprise[0]);
        divergence.add(d.divergence);
        divergences.push_back(d.divergence);
        agreement.add(d.same_choice);
      }
      bar.update(divergences.size());
    }
  }
  bar.finish();
  std::sort(divergences.begin(), divergences.end());
  if (!options.text.json) {
    print(side, divergence, divergences, agreement, difference, window);
    return 0;
  }
  const auto form = [&](Side& s) {
    return nlohmann::ordered_json{{"model", s.engine().model().file},
                                  {"bytes", s.bytes()},
                                  {"bits_per_weight", s.bits_per_weight()},
                                  {"perplexity", s.perplexity()},
                                  {"scoring_tokens_per_second", double(divergences.size()) / s.seconds},
                                  {"decode_tokens_per_second", s.decode_rate}};
  };
  write_out(nlohmann::ordered_json{{"file", options.text.file},
                                   {"window", window},
                                   {"tokens", divergences.size()},
                                   {"first", form(side[0])},
                                   {"second", form(side[1])},
                                   {"nll_difference", difference.mean()},
                                   {"nll_difference_standard_error", difference.standard_error()},
                                   {"kl_mean", divergence.mean()},
                                   {"kl_standard_error", divergence.standard_error()},
                                   {"kl_median", quantile(divergences, 0.5)},
                                   {"kl_99", quantile(divergences, 0.99)},
                                   {"kl_max", divergences.back()},
                                   {"same_first_choice", agreement.mean()},
                                   {"same_first_choice_standard_error", agreement.standard_error()}}
                .dump(2) +
            "\n");
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->first);
  app.get_option("model")->required()->description("the first form: folder, GGUF file or org/name");
  app.add_option("second", o->second, "the other form")->required();
  add_scored_text(app, o->text);
  app.add_option("--second-kv", o->second_kv, "the second form's keys and values (default: as --kv)");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"compare", "what a second form of a model loses and gains", setup});

}  // namespace
}  // namespace cairn::app
