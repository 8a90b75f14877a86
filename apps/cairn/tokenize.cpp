// cairn tokenize: text on stdin to token ids, and back with --decode.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>

#include "base/error.h"
#include "command.h"
#include "input.h"
#include "model_path.h"
#include "output.h"
#include "terminal.h"
#include "text/tokenizer.h"

namespace cairn::app {
namespace {

struct Options {
  std::string model;
  bool ids = false, special = false, plain = false, decode = false;
};

std::vector<text::TokenId> read_ids(int32_t vocabulary_size) {
  const std::string input = read_in();
  std::vector<text::TokenId> ids;
  constexpr std::string_view kBlank = " \t\r\n,";
  for (size_t at = input.find_first_not_of(kBlank); at != input.npos;
       at = input.find_first_not_of(kBlank, at)) {
    const size_t end = std::min(input.find_first_of(kBlank, at), input.size());
    text::TokenId id = 0;
    const auto [stop, error] = std::from_chars(input.data() + at, input.data() + end, id);
    if (error != std::errc() || stop != input.data() + end)
      fail(ErrorKind::invalid_argument, "'{}' on standard input is not a token id",
           input.substr(at, end - at));
    if (id < 0 || id >= vocabulary_size)
      fail(ErrorKind::invalid_argument,
           "token id {} on standard input is outside of the vocabulary (0 to {})", id, vocabulary_size - 1);
    ids.push_back(id);
    at = end;
  }
  return ids;
}

int run(const Options& options) {
  const auto tokenizer = text::load_tokenizer(resolve_model(options.model));
  if (options.decode) {
    write_out(tokenizer->decode(read_ids(tokenizer->vocabulary_size()), /*skip_special=*/!options.special));
    return 0;
  }
  const auto ids =
      tokenizer->encode(read_in(), {.add_special = options.special, .parse_special = !options.plain});
  if (options.ids) {
    write_out(fmt::format("{}\n", fmt::join(ids, " ")));
    return 0;
  }
  for (const auto id : ids) {
    // Quotes show where spaces are; bytes that are half a character show as such.
    const std::string piece = tokenizer->piece(id);
    write_out(fmt::format("{:>7}  {}\n", id, quoted_text(piece)));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model,
                 "a model, or its tokenizer.json, tokenizer.model, *.tiktoken or *.gguf")
      ->required();
  app.add_flag("--ids", options->ids, "print the ids on one line, separated by spaces");
  app.add_flag("--special", options->special,
               "add what the model expects around a text (<s>, [CLS] ... [SEP]); with --decode: show it");
  app.add_flag("--plain", options->plain, "a special token's name in the text is text and not that token");
  app.add_flag("--decode", options->decode, "the other way: ids on stdin, text on stdout");
  app.footer(
      "Text comes from stdin and is not changed: a line break at its end is part of it.\n"
      "Example: printf 'Once upon a time' | cairn tokenize MODEL --ids");
  return [options] { return run(*options); };
}

const RegisterCommand registered({"tokenize", "turn text on stdin into token ids", setup});

}  // namespace
}  // namespace cairn::app
