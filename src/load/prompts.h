// Text and token ids for parts of prompts, and the request bodies that carry them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "load/session.h"

namespace cairn::load {

// Common English words: with a blank before them most tokenizers give each one token of its own.
std::span<const std::string_view> common_words();

// What prompts are made of, as far as it is known of the server's tokenizer (calibrate.h).
struct Alphabet {
  std::vector<std::string> words;
  std::vector<int32_t> ids;     // tokens of the server's vocabulary; empty: not known
  double tokens_per_word = 1;   // in the middle of a text
  int64_t overhead_tokens = 0;  // what the server puts around a prompt: chat template, begin of text
};
Alphabet uncalibrated_alphabet();

// " river stone ...": words of the part's own random sequence, `tokens` tokens long by the alphabet's
// measure.
void append_text(const Part&, const Alphabet&, std::string& text);
void append_ids(const Part&, const Alphabet&, std::vector<int32_t>& ids);

enum class Api { chat, completions };

struct RequestStyle {
  Api api = Api::chat;
  std::string model;
  bool token_ids = false;  // prompts as arrays of ids; completions only
  bool stream = true;
  bool ignore_end = false;  // the extension ignore_eos of vLLM, SGLang and llama.cpp
  double temperature = 0;
  nlohmann::ordered_json response_format;  // null: none
  nlohmann::ordered_json extra;            // an object whose members go into every body; null: none
};

std::string endpoint(Api);  // "/v1/chat/completions"

// The request bodies of one session, turn by turn.
class Conversation {
 public:
  Conversation(const RequestStyle&, const Alphabet&, const Session&);
  // Of turn `t`, which must follow the one before.
  std::string body(const Turn&);
  void add_answer(std::string_view text);  // what the next turn's prompt goes on from

 private:
  const RequestStyle& style_;
  const Alphabet& alphabet_;
  bool begun_ = false;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
  std::string text_;          // completions: the whole conversation
  std::vector<int32_t> ids_;  // with token_ids
};

}  // namespace cairn::load
