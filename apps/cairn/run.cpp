// cairn run: one answer, or a conversation at a terminal.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>

#include "api/model_impl.h"
#include "base/error.h"
#include "command.h"
#include "exit_code.h"
#include "interrupt.h"
#include "line_editor.h"
#include "model_options.h"
#include "output.h"
#include "program/trace.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  Parameters parameters;
  std::string prompt, system, trace;
  bool has_prompt = false, raw = false, verbose = false;
  int n = 1;
  CLI::Option *temperature_flag = nullptr, *top_p_flag = nullptr, *seed_flag = nullptr;
};

// What -v prints: the speed, and how much of the machine it used.
void print_speed(Model::Impl& model, const engine::Generated& g, uint64_t seed) {
  const auto& program = model.engine.program();
  const auto per_second = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0; };
  program::StepSizes sizes;
  sizes.context = g.prompt_tokens + int64_t(g.tokens.size()) / 2;
  const double bytes = double(program::work(program, sizes).bytes());
  fmt::print(stderr,
             "prompt {} tokens ({} cached), {:.3f} s, {:.1f} tok/s; answer {} tokens, {:.3f} s, {:.1f} "
             "tok/s, {:.1f} GB/s; "
             "{}; seed {}; stopped by {}\n",
             g.prompt_tokens, g.reused_tokens, g.prefill_seconds,
             per_second(double(g.prompt_tokens - g.reused_tokens), g.prefill_seconds), g.tokens.size(),
             g.decode_seconds, per_second(double(g.decode_steps), g.decode_seconds),
             per_second(double(g.decode_steps) * bytes, g.decode_seconds) / 1e9, model.engine.device_name(),
             seed, to_string(g.finish));
  for (size_t i = 0; i < g.logprobs.size(); ++i) {
    fmt::print(stderr, "{:>5}", i);
    for (const auto& alternative : g.logprobs[i])
      fmt::print(stderr, "  {} {:.3f}", quoted_text(model.tokenizer->piece(alternative.token)),
                 alternative.logprob);
    fmt::print(stderr, "\n");
  }
}

engine::Generated answer(Model::Impl& model, const std::vector<int32_t>& prompt, const Options& options,
                         int stream, program::Trace* trace, const Interruptible& interruptible) {
  auto generate = generate_options(options.parameters);
  generate.trace = trace;
  generate.cancelled = [&] { return interruptible.requested(); };
  ProgressBar reading("reading the prompt", prompt.size(), ProgressUnit::tokens);
  generate.on_prefill = [&](int64_t done, int64_t total) {
    reading.update(uint64_t(done), uint64_t(total));
    if (done == total) reading.finish();
  };
  return model.session.generate(prompt, generate, stream, [](std::string_view text) {
    write_out(text);
    flush_out();
    return true;
  });
}

std::vector<int32_t> encode(const Model::Impl& model, const Options& options,
                            std::span<const Message> messages, const std::string& text) {
  // The template writes its own special tokens; raw text gets what the tokenizer adds.
  if (options.raw || !model.chat_template) return model.tokenizer->encode(text);
  return model.tokenizer->encode(model.render(messages), {.add_special = false});
}

int converse(Model::Impl& model, const Options& options, program::Trace* trace) {
  fmt::print(stderr, "{} ({}). Ctrl-C stops an answer, Ctrl-D ends; /clear forgets the conversation.\n",
             model.engine.model().family, model.path.filename().string());
  LineEditor editor;
  std::vector<Message> messages;
  const auto reset = [&] {
    messages.clear();
    if (!options.system.empty()) messages.push_back({"system", options.system});
  };
  reset();
  while (const auto line = editor.read("> ")) {
    if (line->empty()) continue;
    if (*line == "/clear") {
      reset();
      continue;
    }
    messages.push_back({"user", *line});
    const Interruptible interruptible;
    try {
      const auto g = answer(model, encode(model, options, messages, *line), options, 0, trace, interruptible);
      messages.push_back({"assistant", g.text});
      write_out("\n");
      flush_out();
      if (options.verbose) print_speed(model, g, options.parameters.seed);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::cancelled && error.kind() != ErrorKind::invalid_argument) throw;
      messages.pop_back();  // the turn that could not be answered
      fmt::print(stderr, "{}: {}\n", to_string(error.kind()), error.what());
    }
  }
  return 0;
}

int run(Options options) {
  if (options.n < 1 || options.n > 1000)
    fail(ErrorKind::invalid_argument, "--n-answers is {}; it must lie between 1 and 1000", options.n);
  Interruptible interruptible;
  if (options.verbose)
    options.model.load.on_weight_cache = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const auto start = std::chrono::steady_clock::now();
  auto model = load_model(options.model);
  if (options.verbose)
    fmt::print(stderr, "loaded in {:.3f} s, weights {}\n",
               std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
               model->engine.weights_origin());
  // What the model's authors recommend, where the user says nothing.
  const auto recommended = recommended_parameters(*model);
  if (options.temperature_flag->count() == 0) options.parameters.temperature = recommended.temperature;
  if (options.top_p_flag->count() == 0) options.parameters.top_p = recommended.top_p;
  if (options.seed_flag->count() == 0) options.parameters.seed = std::random_device{}();
  program::Trace trace;
  program::Trace* recording = options.trace.empty() ? nullptr : &trace;
  int code = 0;
  if (!options.has_prompt && isatty(0)) {
    code = converse(*model, options, recording);
  } else {
    if (!options.has_prompt)
      options.prompt.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
    std::vector<Message> messages;
    if (!options.system.empty()) messages.push_back({"system", options.system});
    messages.push_back({"user", options.prompt});
    const auto prompt = encode(*model, options, messages, options.prompt);
    for (int i = 0; i < options.n; ++i) {
      const auto g = answer(*model, prompt, options, i, recording, interruptible);
      write_out("\n");
      flush_out();
      if (options.verbose) print_speed(*model, g, options.parameters.seed);
      if (g.finish == engine::Finish::cancelled) {
        code = kExitCancelled;
        break;
      }
    }
  }
  if (recording) {
    write_chrome_trace(trace, model->engine.program(), options.trace);
    fmt::print(stderr, "{}wrote {}\n", options.verbose ? summarize(trace, model->engine.program()) : "",
               options.trace);
  }
  return code;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  auto* prompt =
      app.add_option("-p,--prompt", o->prompt, "the prompt; without it: standard input, or a conversation");
  app.add_option("--system", o->system, "system message");
  app.add_flag("--raw", o->raw, "no chat template: continue the text as it is");
  app.add_option("-n,--tokens", o->parameters.max_tokens, "most tokens of the answer (default: what fits)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--n-answers", o->n, "answers to the same prompt");
  auto& p = o->parameters;
  o->temperature_flag =
      app.add_option("--temp", p.temperature, "temperature; 0: always the most likely token");
  o->seed_flag =
      app.add_option("--seed", p.seed, "same seed, same text (default: another one each time; -v prints it)");
  app.add_option("--top-k", p.top_k, "draw from the k most likely tokens (0: all)");
  o->top_p_flag =
      app.add_option("--top-p", p.top_p, "draw from the most likely tokens that together reach this");
  app.add_option("--min-p", p.min_p, "leave out tokens below this share of the most likely one");
  app.add_option("--typical-p", p.typical_p, "locally typical sampling (1: off)");
  app.add_option("--repeat-penalty", p.repetition_penalty,
                 "divide the scores of tokens seen before (1: off)");
  app.add_option("--presence-penalty", p.presence_penalty, "take this off once from tokens of the answer");
  app.add_option("--frequency-penalty", p.frequency_penalty, "and this for each time they occurred");
  app.add_option("--logprobs", p.logprobs, "with -v: print the likeliest tokens at each place");
  app.add_option("--stop", o->parameters.stop, "end the answer before this text (repeatable)");
  app.add_option("--trace", o->trace, "write a Chrome/Perfetto trace of every instruction");
  app.add_flag("-v,--verbose", o->verbose, "print speed at the end");
  return [o, prompt] {
    o->has_prompt = prompt->count() > 0;
    return run(*o);
  };
}

const RegisterCommand registered({"run", "answer a prompt, or talk with a model", setup});

}  // namespace
}  // namespace cairn::app
