#include "load/chunk.h"

#include <array>
#include <nlohmann/json.hpp>

namespace cairn::load {
namespace {

enum class Key : uint8_t {
  other,
  choices,
  delta,
  content,
  text,
  reasoning,
  tool_calls,
  arguments,
  finish_reason,
  usage,
  prompt_tokens,
  answer_tokens,
  prompt_details,
  cached_tokens,
  error,
  message,
};

Key key_of(std::string_view name) {
  switch (name.size()) {
    case 4: return name == "text" ? Key::text : Key::other;
    case 5:
      if (name == "delta") return Key::delta;
      if (name == "usage") return Key::usage;
      return name == "error" ? Key::error : Key::other;
    case 7:
      if (name == "choices") return Key::choices;
      if (name == "content") return Key::content;
      return name == "message" ? Key::message : Key::other;
    case 9:
      if (name == "reasoning") return Key::reasoning;
      return name == "arguments" ? Key::arguments : Key::other;
    case 10: return name == "tool_calls" ? Key::tool_calls : Key::other;
    case 13:
      if (name == "finish_reason") return Key::finish_reason;
      if (name == "prompt_tokens") return Key::prompt_tokens;
      return name == "cached_tokens" ? Key::cached_tokens : Key::other;
    case 17:
      if (name == "reasoning_content") return Key::reasoning;
      return name == "completion_tokens" ? Key::answer_tokens : Key::other;
    case 21: return name == "prompt_tokens_details" ? Key::prompt_details : Key::other;
    default: return Key::other;
  }
}

// The way down to the current value: path_[d] is the key that led into the object at depth d; an array's
// elements stand under the array's own key.
class Reader {
 public:
  explicit Reader(Chunk& chunk) : chunk_(chunk) {}

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(int64_t value) { return number(value); }
  bool number_unsigned(uint64_t value) { return number(value > INT64_MAX ? INT64_MAX : int64_t(value)); }
  bool number_float(double, const std::string&) { return true; }
  bool binary(std::vector<uint8_t>&) { return true; }

  bool string(std::string& value) {
    // choices: [ { delta: { content } } ]: the array stands at depth 1, its element at 2.
    if (at(0) == Key::choices) {
      const Key holder = depth_ > 3 ? at(2) : Key::other;
      const bool in_message = holder == Key::delta || holder == Key::message;
      if (depth_ == 3 && key_ == Key::finish_reason) {
        chunk_.finish_reason = value;
      } else if ((depth_ == 3 && key_ == Key::text) || (depth_ == 4 && in_message && key_ == Key::content)) {
        chunk_.text_bytes += value.size();
        if (choice_ <= 1) chunk_.text += value;
      } else if (in_message && ((depth_ == 4 && key_ == Key::reasoning) ||
                                (depth_ > 4 && at(3) == Key::tool_calls && key_ == Key::arguments))) {
        chunk_.text_bytes += value.size();
      }
    } else if (key_ == Key::error && depth_ == 1) {
      chunk_.error = value.empty() ? "error" : value;
    } else if (depth_ == 2 && at(0) == Key::error && key_ == Key::message && !value.empty()) {
      chunk_.error = value;
    }
    return true;
  }

  bool key(std::string& name) {
    key_ = key_of(name);
    return true;
  }
  bool start_object(size_t) {
    if (depth_ == 2 && at(0) == Key::choices) ++choice_;
    if (depth_ == 1 && key_ == Key::error && chunk_.error.empty()) chunk_.error = "error";
    return enter();
  }
  bool end_object() { return leave(); }
  bool start_array(size_t) { return enter(); }
  bool end_array() { return leave(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) { return false; }

 private:
  // The key under which the value at depth d + 1 stands.
  Key at(size_t d) const { return d + 1 < path_.size() && d + 1 < depth_ ? path_[d + 1] : Key::other; }
  bool enter() {
    if (depth_ < path_.size()) path_[depth_] = key_;
    ++depth_;
    return true;
  }
  bool leave() {
    --depth_;
    key_ = depth_ < path_.size() ? path_[depth_] : Key::other;
    return true;
  }
  bool number(int64_t value) {
    if (at(0) != Key::usage) return true;
    if (depth_ == 2 && key_ == Key::prompt_tokens) chunk_.prompt_tokens = value;
    if (depth_ == 2 && key_ == Key::answer_tokens) chunk_.answer_tokens = value;
    if (depth_ == 3 && at(1) == Key::prompt_details && key_ == Key::cached_tokens)
      chunk_.cached_tokens = value;
    return true;
  }

  Chunk& chunk_;
  std::array<Key, 8> path_{};
  size_t depth_ = 0;
  Key key_ = Key::other;
  int choice_ = 0;
};

}  // namespace

bool read_chunk(std::string_view json, Chunk& chunk) {
  Reader reader(chunk);
  return nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
}

}  // namespace cairn::load
