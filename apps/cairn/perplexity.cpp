// cairn perplexity: how surprised a model is by a text, with the standard error of the estimate.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "command.h"
#include "model_options.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  std::string file;
  int64_t window = 0, tokens = 0;
  bool json = false;
};

struct Sums {
  int64_t count = 0;
  double nll = 0, squares = 0;
  void add(double value) {
    ++count;
    nll += value;
    squares += value * value;
  }
  double mean() const { return nll / double(count); }
  // Of the mean; tokens are taken as independent, which makes it a lower bound.
  double standard_error() const {
    if (count < 2) return 0;
    const double variance =
        std::max(0.0, squares / double(count) - mean() * mean()) * double(count) / double(count - 1);
    return std::sqrt(variance / double(count));
  }
};

// -log softmax(logits)[token], summed in double.
double surprise(const float* logits, int64_t vocabulary, int32_t token) {
  float largest = logits[0];
  for (int64_t i = 1; i < vocabulary; ++i) largest = std::max(largest, logits[i]);
  double sum = 0;
  for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(logits[i] - largest);
  return std::log(sum) + largest - logits[token];
}

int run(Options options) {
  const std::string text = read_text_file(options.file, size_t{1} << 30);
  // Enough rows of scores at a time to keep products busy, few enough for a large vocabulary.
  options.model.shape.step_logits = 128;
  if (options.window != 0) options.model.load.context = options.window;
  auto model = load_model(options.model);
  auto& engine = model->engine;
  const int64_t window = options.window != 0 ? options.window : std::min<int64_t>(engine.context(), 1024);
  if (window < 2) fail(ErrorKind::invalid_argument, "--window is {}; it must be at least 2", window);

  const auto with_special = model->tokenizer->encode("");
  auto tokens = model->tokenizer->encode(text, {.add_special = false, .parse_special = false});
  if (options.tokens > 0 && int64_t(tokens.size()) > options.tokens) tokens.resize(size_t(options.tokens));
  // Every window begins with what the tokenizer puts before a text (<s>), which is given and not scored.
  const bool has_bos = !with_special.empty() && model->tokenizer->special().bos == with_special.front();
  const int64_t body = window - (has_bos ? 1 : 0);
  if (int64_t(tokens.size()) < 2)
    fail(ErrorKind::invalid_argument, "{} has {} tokens; at least 2 are needed", options.file, tokens.size());

  Sums sums;
  ProgressBar bar("scoring", tokens.size(), ProgressUnit::tokens);
  const auto start = std::chrono::steady_clock::now();
  const int64_t vocabulary = engine.model().vocabulary_size;
  kv::Sequence sequence(engine.kv());
  for (size_t begin = 0; begin + 1 < tokens.size() + (has_bos ? 1 : 0); begin += size_t(body)) {
    std::vector<int32_t> rows(with_special.begin(), with_special.begin() + (has_bos ? 1 : 0));
    const size_t end = std::min(tokens.size(), begin + size_t(body));
    rows.insert(rows.end(), tokens.begin() + int64_t(begin), tokens.begin() + int64_t(end));
    if (rows.size() < 2) break;
    sequence.truncate(0);
    const size_t piece = size_t(std::min(engine.bounds().tokens, engine.bounds().logits));
    for (size_t done = 0; done + 1 < rows.size(); done += piece) {
      const size_t count = std::min(piece, rows.size() - 1 - done);
      const auto step = engine.feed(sequence, std::span(rows).subspan(done, count), int64_t(count), window);
      std::vector<double> nll(count);
      engine.pool().split(int64_t(count), 1, [&](Range part) {
        for (int64_t r = part.begin; r < part.end; ++r)
          nll[size_t(r)] = surprise(step.logits + r * vocabulary, vocabulary, rows[done + size_t(r) + 1]);
      });
      for (const double value : nll) sums.add(value);
    }
    bar.update(end);
  }
  bar.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double perplexity = std::exp(sums.mean()), error = perplexity * sums.standard_error();
  if (options.json) {
    write_out(nlohmann::ordered_json{{"model", engine.model().file},
                                     {"file", options.file},
                                     {"window", window},
                                     {"tokens", sums.count},
                                     {"nll", sums.mean()},
                                     {"nll_standard_error", sums.standard_error()},
                                     {"perplexity", perplexity},
                                     {"standard_error", error},
                                     {"seconds", seconds}}
                  .dump(2) +
              "\n");
  } else {
    write_out(fmt::format("perplexity {:.4f} +- {:.4f} ({} tokens in windows of {}, {:.1f} tok/s)\n",
                          perplexity, error, sums.count, window, double(sums.count) / seconds));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  app.add_option("file", o->file, "the text")->required();
  app.add_option("--window", o->window,
                 "tokens per window; each is scored by itself (default: the context, up to 1024)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--tokens", o->tokens, "stop after this many tokens of the text")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", o->json, "machine-readable output");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"perplexity", "score a text, with standard error", setup});

}  // namespace
}  // namespace cairn::app
