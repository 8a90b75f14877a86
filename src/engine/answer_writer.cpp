#include "engine/answer_writer.h"

#include <algorithm>

namespace cairn::engine {
namespace {

bool contains(const std::vector<text::TokenId>& ids, text::TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

bool ends_turn(const text::Tokenizer& tokenizer, text::TokenId token) {
  const auto& special = tokenizer.special();
  return (special.eos && *special.eos == token) || contains(special.end_of_turn, token);
}

}  // namespace

const char* to_string(Finish finish) {
  switch (finish) {
    case Finish::end_of_turn: return "end of turn";
    case Finish::stop_string: return "stop string";
    case Finish::length: return "length";
    case Finish::cancelled: return "cancelled";
  }
  return "?";
}

AnswerWriter::AnswerWriter(const text::Tokenizer& tokenizer, const text::SamplingParams& sampling,
                           int32_t vocabulary_size, int stream, AnswerLimits limits)
    : tokenizer_(tokenizer),
      limits_(std::move(limits)),
      sampler_(sampling, vocabulary_size, stream),
      decoder_(tokenizer, limits_.visible_special.empty()),
      stops_(sampling.stop) {}

std::string AnswerWriter::decode(text::TokenId token) {
  // With visible special tokens the decoder shows all that it gets.
  if (!limits_.visible_special.empty() && tokenizer_.is_special(token) &&
      !contains(limits_.visible_special, token))
    return {};
  return decoder_.add(token);
}

AnswerWriter::Step AnswerWriter::next(std::span<float> logits) { return go_on(sampler_.sample(logits)); }
AnswerWriter::Step AnswerWriter::next_drawn(int32_t token) { return go_on(sampler_.drawn(token)); }

AnswerWriter::Step AnswerWriter::go_on(text::TokenId token) {
  Step step;
  if (!limits_.ignore_end && ends_turn(tokenizer_, token)) {
    step.finish = Finish::end_of_turn;
    step.text = cut();
    return step;
  }
  sampler_.accept(token);
  tokens_.push_back(token);
  step.token = token;
  auto matched = stops_.add(decode(token));
  step.text = std::move(matched.text);
  if (matched.stopped) {
    step.finish = Finish::stop_string;
  } else if (int64_t(tokens_.size()) >= limits_.max_tokens) {
    step.finish = Finish::length;
    step.text += cut();
  }
  return step;
}

std::string AnswerWriter::cut() {
  auto tail = stops_.add(decoder_.finish());
  return tail.stopped ? std::move(tail.text) : tail.text + stops_.finish();
}

}  // namespace cairn::engine
