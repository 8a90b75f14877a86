// cairn embed: texts to vectors.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "command.h"
#include "engine/embed.h"
#include "input.h"
#include "model_options.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  std::vector<std::string> texts;
  bool similarity = false;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

void print_similarities(const std::vector<std::vector<float>>& embeddings) {
  for (const auto& a : embeddings) {
    std::string line;
    for (const auto& b : embeddings) {
      double cosine = 0;
      for (size_t i = 0; i < a.size(); ++i) cosine += double(a[i]) * double(b[i]);
      line += fmt::format("{}{:7.4f}", line.empty() ? "" : " ", cosine);
    }
    write_out(line + "\n");
  }
}

int run(Options options) {
  if (options.texts.empty()) options.texts = lines_of(read_in());
  if (options.texts.empty()) fail(ErrorKind::invalid_argument, "there is no text to embed");
  options.model.shape.encoders = true;
  const auto model = load_model(options.model);
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& text : options.texts) tokens.push_back(model->tokenizer->encode(text));
  ProgressBar bar("embedding", tokens.size(), ProgressUnit::items);
  const auto embeddings =
      engine::embed(model->engine, tokens, [&](size_t done) { bar.update(done, tokens.size()); });
  bar.finish();
  if (options.similarity) {
    print_similarities(embeddings);
    return 0;
  }
  for (const auto& embedding : embeddings) write_out(fmt::format("[{}]\n", fmt::join(embedding, ",")));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  app.get_option("model")->required();
  app.add_option("text", o->texts, "texts to embed (default: the lines of standard input)");
  app.add_flag("--similarity", o->similarity, "print the cosines between all texts instead of the vectors");
  app.footer(
      "Prints one line a text: the model's embedding, scaled to length 1, as a JSON array.\n"
      "Encoders (BERT and its kin) read many texts at once; any other model gives the mean of its last\n"
      "hidden states.");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"embed", "turn texts into vectors", setup});

}  // namespace
}  // namespace cairn::app
