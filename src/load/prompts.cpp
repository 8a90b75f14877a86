#include "load/prompts.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::load {
namespace {

using Json = nlohmann::ordered_json;

// A part shortened by what the server adds around the prompt.
std::vector<Part> shortened(std::vector<Part> parts, int64_t tokens) {
  for (auto part = parts.rbegin(); part != parts.rend() && tokens > 0; ++part) {
    const int64_t cut = std::min(tokens, part->tokens - (part + 1 == parts.rend() ? 1 : 0));
    part->tokens -= cut;
    tokens -= cut;
  }
  return parts;
}

std::string text_of(const std::vector<Part>& parts, const Alphabet& alphabet) {
  std::string text;
  for (const auto& part : parts) append_text(part, alphabet, text);
  return text;
}

}  // namespace

Alphabet uncalibrated_alphabet() {
  Alphabet alphabet;
  alphabet.words.assign(common_words().begin(), common_words().end());
  return alphabet;
}

void append_text(const Part& part, const Alphabet& alphabet, std::string& text) {
  const auto count = int64_t(std::llround(double(part.tokens) / alphabet.tokens_per_word));
  for (int64_t i = 0; i < count; ++i) {
    text += ' ';
    text += alphabet.words[mix(part.key, uint64_t(i)) % alphabet.words.size()];
  }
}

void append_ids(const Part& part, const Alphabet& alphabet, std::vector<int32_t>& ids) {
  for (int64_t i = 0; i < part.tokens; ++i)
    ids.push_back(alphabet.ids[mix(part.key, uint64_t(i)) % alphabet.ids.size()]);
}

std::string endpoint(Api api) { return api == Api::chat ? "/v1/chat/completions" : "/v1/completions"; }

Conversation::Conversation(const RequestStyle& style, const Alphabet& alphabet, const Session& session)
    : style_(style), alphabet_(alphabet) {
  if (style_.api == Api::chat) {
    if (!session.system.empty())
      messages_.push_back(Json{{"role", "system"}, {"content", text_of(session.system, alphabet_)}});
  } else if (style_.token_ids) {
    for (const auto& part : session.system) append_ids(part, alphabet_, ids_);
  } else {
    text_ = text_of(session.system, alphabet_);
  }
}

std::string Conversation::body(const Turn& turn) {
  const auto prompt = shortened(turn.prompt, begun_ ? 0 : alphabet_.overhead_tokens);
  begun_ = true;
  Json body;
  body["model"] = style_.model;
  if (style_.api == Api::chat) {
    messages_.push_back(Json{{"role", "user"}, {"content", text_of(prompt, alphabet_)}});
    body["messages"] = messages_;
  } else if (style_.token_ids) {
    for (const auto& part : turn.prompt) append_ids(part, alphabet_, ids_);
    body["prompt"] = ids_;
  } else {
    text_ += text_of(prompt, alphabet_);
    body["prompt"] = text_;
  }
  body["max_tokens"] = turn.answer_tokens;
  body["temperature"] = style_.temperature;
  body["stream"] = style_.stream;
  if (style_.stream) body["stream_options"] = Json{{"include_usage", true}};
  if (style_.ignore_end) body["ignore_eos"] = true;
  if (!style_.response_format.is_null()) body["response_format"] = style_.response_format;
  if (style_.extra.is_object())
    for (const auto& [name, value] : style_.extra.items()) body[name] = value;
  return body.dump();
}

void Conversation::add_answer(std::string_view text) {
  const std::string valid = formats::valid_utf8(text);
  if (style_.api == Api::chat)
    messages_.push_back(Json{{"role", "assistant"}, {"content", valid}});
  else
    text_ += valid;
}

}  // namespace cairn::load
