// cairn perplexity: how surprised a model is by a text, with the standard error of the estimate.
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
  ModelOptions model;
  ScoredText text;
};

int run(Options options) {
  const std::string text = read_text_file(options.text.file, size_t{1} << 30);
  // Enough rows of scores at a time to keep products busy, few enough for a large vocabulary.
  options.model.shape.step_logits = 128;
  if (options.text.window != 0) options.model.load.context = options.text.window;
  auto model = load_model(options.model);
  auto& engine = model->engine;
  const int64_t window =
      options.text.window != 0 ? options.text.window : std::min<int64_t>(engine.context(), 1024);
  if (window < 2) fail(ErrorKind::invalid_argument, "--window is {}; it must be at least 2", window);

  const auto text_tokens =
      tokens_of(*model->tokenizer, text, options.text.tokens, options.text.file, options.text.special);
  const auto windows = engine::text_windows(text_tokens, window, first_token(*model->tokenizer));

  engine::RunningMean nll;
  ProgressBar bar("scoring", text_tokens.size(), ProgressUnit::tokens);
  const double start = steady_seconds();
  const auto vocabulary = size_t(engine.model().vocabulary_size);
  const auto piece = size_t(std::min(engine.bounds().tokens, engine.bounds().logits));
  kv::Sequence sequence(engine.kv());
  size_t scored = 0;
  for (const auto& rows : windows) {
    sequence.truncate(0);
    for (size_t done = 0; done + 1 < rows.size(); done += piece) {
      const size_t count = std::min(piece, rows.size() - 1 - done);
      const auto step = engine.feed(sequence, std::span(rows).subspan(done, count), int64_t(count), window);
      std::vector<double> values(count);
      engine.pool().split(int64_t(count), 1, [&](Range part) {
        for (auto r = size_t(part.begin); r < size_t(part.end); ++r)
          values[r] = engine::surprise({step.logits + r * vocabulary, vocabulary}, rows[done + r + 1]);
      });
      for (const double value : values) nll.add(value);
      bar.update(scored += count);
    }
  }
  bar.finish();
  const double seconds = steady_seconds() - start;
  const double perplexity = std::exp(nll.mean()), error = perplexity * nll.standard_error();
  if (options.text.json) {
    write_out(nlohmann::ordered_json{{"model", engine.model().file},
                                     {"file", options.text.file},
                                     {"window", window},
                                     {"tokens", nll.count()},
                                     {"nll", nll.mean()},
                                     {"nll_standard_error", nll.standard_error()},
                                     {"perplexity", perplexity},
                                     {"standard_error", error},
                                     {"seconds", seconds}}
                  .dump(2) +
              "\n");
  } else {
    write_out(fmt::format("perplexity {:.4f} +- {:.4f} ({} tokens in windows of {}, {:.1f} tok/s)\n",
                          perplexity, error, nll.count(), window, double(nll.count()) / seconds));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  add_scored_text(app, o->text);
  return [o] { return run(*o); };
}

const RegisterCommand registered({"perplexity", "score a text, with standard error", setup});

}  // namespace
}  // namespace cairn::app
