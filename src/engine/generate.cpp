#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::engine {
Session::Session(Engine& engine, const text::Tokenizer& tokenizer)
    : engine_(engine), tokenizer_(tokenizer), sequence_(engine.kv()) {}

Generated Session::generate(std::span<const int32_t> prompt, const GenerateOptions& options, int stream,
                            const std::function<bool(std::string_view)>& on_text) {
  if (engine_.model().encoder())
    fail(ErrorKind::unsupported,
         "{} is an encoder, which reads texts and writes none\nhint: `cairn embed` gives a text's embedding",
         engine_.model().file);
  if (prompt.empty()) fail(ErrorKind::invalid_argument, "the prompt is empty; give it at least one token");
  const int64_t room = engine_.context() - int64_t(prompt.size());
  if (room < 1)
    fail(ErrorKind::invalid_argument,
         "the prompt has {} tokens, the context holds {} and must leave room for an answer; shorten the "
         "prompt or raise "
         "--ctx (this model goes up to {})",
         prompt.size(), engine_.context(), engine_.model().context_length);
  const int64_t limit = options.max_tokens > 0 ? std::min(options.max_tokens, room) : room;

  Generated result;
  result.prompt_tokens = int64_t(prompt.size());
  // What is cached of this prompt stays; its last token is fed again, since its scores are needed.
  const int64_t rope_length = int64_t(prompt.size()) + limit;
  size_t same = 0;
  while (same < cached_.size() && same + 1 < prompt.size() && cached_[same] == prompt[same]) ++same;
  for (const auto& rope : engine_.program().ropes)
    if (depends_on_length(rope.scaling) && rope_length != rope_length_) same = 0;
  rope_length_ = rope_length;
  sequence_.truncate(int64_t(same));
  cached_.resize(same);
  result.reused_tokens = int64_t(same);

  AnswerWriter writer(tokenizer_, options.sampling, int32_t(engine_.model().vocabulary_size), stream,
                      {limit, options.ignore_end});
  writer.prompt(prompt);

  const double start = steady_seconds();
  const auto rest = prompt.subspan(same);
  auto step = engine_.feed(
      sequence_, rest, 1, rope_length,
      [&](int64_t done) {
        cached_.assign(prompt.begin(), prompt.begin() + int64_t(same) + done);
        if (options.on_prefill) options.on_prefill(done, int64_t(rest.size()));
        if (options.cancelled && options.cancelled())
          fail(ErrorKind::cancelled, "stopped while reading the prompt");
      },
      options.trace);
  const double first = steady_seconds();
  result.prefill_seconds = first - start;

  const auto emit = [&](const std::string& text) {
    result.text += text;
    return text.empty() || !on_text || on_text(text);
  };
  const auto vocabulary = size_t(engine_.model().vocabulary_size);
  for (;;) {
    const auto written = writer.next({step.logits, vocabulary});
    if (written.token && options.sampling.logprobs > 0) result.logprobs.push_back(writer.top_logprobs());
    const bool go_on = emit(written.text);
    if (written.finish) {
      result.finish = *written.finish;
      break;
    }
    if (!go_on || (options.cancelled && options.cancelled())) {
      result.finish = Finish::cancelled;
      emit(writer.cut());
      break;
    }
    const auto token = *written.token;
    step =
        engine_.feed(sequence_, {&token, 1}, 1, rope_length, {}, options.trace, backends::RowClass::decode);
    cached_.push_back(token);
    ++result.decode_steps;
  }
  result.tokens = writer.tokens();
  result.decode_seconds = steady_seconds() - first;
  return result;
}

}  // namespace cairn::engine
