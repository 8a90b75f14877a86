#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::engine {
namespace {

// Steps of one sequence that were enqueued and not finished: the token that each feeds, and whether the
// executor draws from it. Those nobody waits for any more are waited for at the end.
class UnderWay {
 public:
  UnderWay(Engine& engine, kv::Sequence& sequence, int64_t rope_length)
      : engine_(engine), sequence_(sequence), rope_length_(rope_length) {}
  ~UnderWay() {
    while (!draws_.empty()) try {
        finish();
      } catch (const Error&) {  // of a step whose result is not wanted
      }
  }

  size_t count() const { return draws_.size(); }
  bool draws() const { return !draws_.empty() && draws_.back(); }  // the one enqueued last

  // Feeds a token, or what the step enqueued last draws. draw: absent: the scores are wanted.
  void enqueue(std::optional<int32_t> token, const std::optional<text::Draw>& draw) {
    const int32_t id = token.value_or(0);
    backends::SequenceStep s;
    s.sequence = &sequence_;
    s.tokens = {&id, 1};
    s.logit_rows = 1;
    s.rope_length = rope_length_;
    s.row_class = backends::RowClass::decode;
    s.drawn_row = token ? -1 : 0;
    s.draw = draw ? &*draw : nullptr;
    engine_.enqueue({&s, 1});
    draws_.push_back(draw.has_value());
  }

  struct Finished {
    backends::StepResult result;
    bool drawn;
  };
  Finished finish() {
    const bool drawn = draws_.front();
    draws_.erase(draws_.begin());
    return {engine_.finish(), drawn};
  }

 private:
  Engine& engine_;
  kv::Sequence& sequence_;
  int64_t rope_length_;
  std::vector<bool> draws_;  // oldest first
};

}  // namespace

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
  const bool overlap = options.overlap.value_or(engine_.overlaps()) && !options.trace;
  const auto next_draw = [&](int ahead) {
    auto draw = overlap ? writer.next_draw(ahead) : std::nullopt;
    return draw && engine_.draws(*draw) ? std::move(draw) : std::nullopt;
  };
  UnderWay steps(engine_, sequence_, rope_length);
  auto written = writer.next({step.logits, vocabulary});
  for (;;) {
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
    if (options.trace) {
      step =
          engine_.feed(sequence_, {&token, 1}, 1, rope_length, {}, options.trace, backends::RowClass::decode);
      written = writer.next({step.logits, vocabulary});
    } else {
      if (steps.count() == 0) steps.enqueue(token, next_draw(0));
      // The one after it, unless the token that is being drawn is the last in any case.
      if (steps.draws() && int64_t(writer.tokens().size()) + 1 < limit)
        if (const auto draw = next_draw(1)) steps.enqueue(std::nullopt, draw);
      const auto [scores, drawn] = steps.finish();
      written = drawn ? writer.next_drawn(scores.tokens[0]) : writer.next({scores.logits, vocabulary});
    }
    cached_.push_back(token);
    ++result.decode_steps;
  }
  sequence_.truncate(int64_t(cached_.size()));  // without what was fed ahead
  result.tokens = writer.tokens();
  result.decode_seconds = steady_seconds() - first;
  return result;
}

}  // namespace cairn::engine
