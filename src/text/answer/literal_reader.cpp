#include "text/answer/literal_reader.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

namespace cairn::text::answer {

namespace {

constexpr std::string_view kGemmaQuote = "<|\"|>";

bool is_digit(char c, int base) {
  if (base == 8) return c >= '0' && c <= '7';
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

bool is_json_number(std::string_view word) {
  if (word.empty() || !(word[0] == '-' || (word[0] >= '0' && word[0] <= '9'))) return false;
  return nlohmann::json::accept(word);
}

}  // namespace

void append_utf8(unsigned long code, std::string& out) {
  if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) code = 0xFFFD;
  if (code < 0x80) {
    out += char(code);
  } else if (code < 0x800) {
    out += char(0xC0 | (code >> 6));
    out += char(0x80 | (code & 63));
  } else if (code < 0x10000) {
    out += char(0xE0 | (code >> 12));
    out += char(0x80 | ((code >> 6) & 63));
    out += char(0x80 | (code & 63));
  } else {
    out += char(0xF0 | (code >> 18));
    out += char(0x80 | ((code >> 12) & 63));
    out += char(0x80 | ((code >> 6) & 63));
    out += char(0x80 | (code & 63));
  }
}

void append_escaped(std::string_view text, std::string& out) {
  for (char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", c);
        else
          out += c;
    }
  }
}

void LiteralReader::put(std::string_view text, std::string& out) {
  out += comma_;
  comma_.clear();
  out += text;
}

bool LiteralReader::read(Cursor& in, std::string& out) {
  while (!complete_ && in.at < in.text.size()) {
    const char c = in.text[in.at];
    switch (state_) {
      case State::value:
        if (quoted_ > 0 && c != kGemmaQuote[quoted_]) {  // it was no quote after all
          word_ = kGemmaQuote.substr(0, quoted_);
          quoted_ = 0;
          state_ = State::word;
          continue;
        }
        if (!value(c, out)) return complete_ = true;
        break;
      case State::string: string(c, out); break;
      case State::escape: escape(c, out); break;
      case State::code:
        if (!code(c, out)) continue;  // c is read again as text
        break;
      case State::word:
        if (is_space(c) || std::string_view(",:()[]{}\"'").find(c) != std::string_view::npos) {
          end_word(out);
          if (brackets_.empty()) return complete_ = true;
          continue;
        }
        word_ += c;
        break;
    }
    ++in.at;
  }
  if (in.last && !complete_) {
    if (state_ == State::value && quoted_ > 0) {
      word_ = kGemmaQuote.substr(0, quoted_);
      state_ = State::word;
    }
    if (state_ == State::word) {
      end_word(out);
      if (brackets_.empty()) complete_ = true;
    } else if (state_ == State::string && quoted_ > 0) {
      append_escaped(std::string_view(quote_).substr(0, quoted_), out);
      quoted_ = 0;
    }
    out += comma_;
    comma_.clear();
  }
  return complete_;
}

bool LiteralReader::value(char c, std::string& out) {
  if (quoted_ > 0) {  // inside Gemma's opening quote
    if (++quoted_ < kGemmaQuote.size()) return true;
    quoted_ = 0;
    quote_ = kGemmaQuote;
    state_ = State::string;
    put("\"", out);
    return true;
  }
  if (is_space(c)) {
    (comma_.empty() ? out : comma_) += c;
    return true;
  }
  switch (c) {
    case '{':
    case '[':
    case '(':
      brackets_ += c;
      put(c == '{' ? "{" : "[", out);
      return true;
    case '}':
    case ']':
    case ')': {
      if (brackets_.empty()) return false;
      const char open = brackets_.back();
      brackets_.pop_back();
      if (comma_.size() > 1) out += std::string_view(comma_).substr(1);  // the whitespace stays
      comma_.clear();
      out += c == ')' && open == '(' ? ']' : c;
      complete_ = brackets_.empty();
      return true;
    }
    case ',':
      if (brackets_.empty()) return false;
      put("", out);
      comma_ = c;
      return true;
    case ':':
      if (brackets_.empty()) return false;
      put(":", out);
      return true;
    case '"':
    case '\'':
      quote_ = c;
      state_ = State::string;
      put("\"", out);
      return true;
    case '<': quoted_ = 1; return true;
    default: word_ += c; state_ = State::word;
  }
  return true;
}

void LiteralReader::string(char c, std::string& out) {
  if (c == quote_[quoted_]) {
    if (++quoted_ < quote_.size()) return;
    quoted_ = 0;
    out += '"';
    state_ = State::value;
    complete_ = brackets_.empty();
    return;
  }
  if (quoted_ > 0) {  // it was not Gemma's closing quote after all
    append_escaped(std::string_view(quote_).substr(0, quoted_), out);
    quoted_ = 0;
    return string(c, out);
  }
  if (c == '\\' && quote_.size() == 1)
    state_ = State::escape;
  else
    append_escaped({&c, 1}, out);
}

void LiteralReader::escape(char c, std::string& out) {
  state_ = State::string;
  word_.clear();
  switch (c) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
      out += '\\';
      out += c;
      return;
    case '\'': out += c; return;
    case '\n': return;  // Python: the line goes on
    case 'a': return character(7, out);
    case 'v': return character(11, out);
    case 'u': digits_ = 4; break;
    case 'x': digits_ = 2; break;
    case 'U': digits_ = 8; break;
    default:
      if (is_digit(c, 8)) {
        word_ = c;
        digits_ = 3;
        base_ = 8;
        state_ = State::code;
      } else {
        out += "\\\\";
        string(c, out);
      }
      return;
  }
  base_ = 16;
  state_ = State::code;
}

bool LiteralReader::code(char c, std::string& out) {
  const bool digit = is_digit(c, base_);
  if (digit) word_ += c;
  if (digit && word_.size() < digits_) return true;
  state_ = State::string;
  if (word_.empty() || (base_ == 16 && word_.size() < digits_)) {  // not an escape after all
    out += digits_ == 2 ? "\\\\x" : digits_ == 4 ? "\\\\u" : "\\\\U";
    out += word_;
  } else if (digits_ == 4) {
    out += "\\u" + word_;  // halves of surrogate pairs stay halves, as written
  } else {
    character(std::strtoul(word_.c_str(), nullptr, base_), out);
  }
  word_.clear();
  return digit;
}

void LiteralReader::character(unsigned long code_point, std::string& out) {
  std::string text;
  append_utf8(code_point, text);
  append_escaped(text, out);
}

void LiteralReader::end_word(std::string& out) {
  state_ = State::value;
  if (word_ == "True") word_ = "true";
  if (word_ == "False") word_ = "false";
  if (word_ == "None") word_ = "null";
  put("", out);
  if (word_ == "true" || word_ == "false" || word_ == "null" || is_json_number(word_)) {
    out += word_;
  } else {
    out += '"';
    append_escaped(word_, out);
    out += '"';
  }
  word_.clear();
}

bool StringDecoder::read(Cursor& in, std::string& out) {
  while (in.at < in.text.size()) {
    const char c = in.text[in.at];
    switch (state_) {
      case State::before: state_ = State::text; break;
      case State::text:
        if (c == '\\') {
          state_ = State::escape;
          break;
        }
        if (high_ != 0) character(0, out);
        if (c == '"') {
          ++in.at;
          return true;
        }
        out += c;
        break;
      case State::escape: {
        constexpr std::string_view kNames = "bfnrt", kCodes = "\b\f\n\r\t";
        if (c == 'u') {
          digits_.clear();
          state_ = State::code;
          break;
        }
        state_ = State::text;
        if (high_ != 0) character(0, out);
        const size_t name = kNames.find(c);
        if (name != std::string_view::npos) {
          out += kCodes[name];
        } else {
          if (c != '"' && c != '\\' && c != '/') out += '\\';
          out += c;
        }
        break;
      }
      case State::code:
        if (!is_digit(c, 16)) {  // not an escape after all
          state_ = State::text;
          if (high_ != 0) character(0, out);
          out += "\\u" + digits_;
          continue;
        }
        digits_ += c;
        if (digits_.size() == 4) {
          state_ = State::text;
          character(std::strtoul(digits_.c_str(), nullptr, 16), out);
        }
        break;
    }
    ++in.at;
  }
  if (in.last && state_ == State::code) out += "\\u" + digits_;
  return false;
}

// 0: no second half came
void StringDecoder::character(unsigned long code_unit, std::string& out) {
  if (high_ != 0) {
    const bool pair = code_unit >= 0xDC00 && code_unit <= 0xDFFF;
    append_utf8(pair ? 0x10000 + ((high_ - 0xD800) << 10) + (code_unit - 0xDC00) : 0xFFFD, out);
    high_ = 0;
    if (pair || code_unit == 0) return;
  }
  if (code_unit >= 0xD800 && code_unit <= 0xDBFF)
    high_ = code_unit;
  else
    append_utf8(code_unit, out);
}

std::string json_value(std::string_view text, unsigned types) {
  const auto quoted = [&] {
    std::string out = "\"";
    append_escaped(text, out);
    return out + '"';
  };
  if (types == kString) return quoted();
  const std::string_view bare = trim(text);
  std::string json;
  if (nlohmann::json::accept(bare)) {
    json = bare;
  } else if (!bare.empty() && (bare == "True" || bare == "False" || bare == "None" ||
                               std::string_view("{[(").find(bare[0]) != std::string_view::npos)) {
    size_t at = 0;
    Cursor in{bare, at, true};
    if (!LiteralReader().read(in, json) || at != bare.size() || !nlohmann::json::accept(json)) json.clear();
  }
  if (json.empty()) return quoted();
  const unsigned type = json[0] == '"'                     ? kString
                        : json[0] == '{'                   ? kObject
                        : json[0] == '['                   ? kArray
                        : json[0] == 't' || json[0] == 'f' ? kBoolean
                        : json[0] == 'n'                   ? kNull
                                                           : kNumber;
  // Where a string may stand, only what another named type asks for is anything else.
  if ((types & kString) != 0 && ((types & type) == 0 || type == kString)) return quoted();
  return json;
}

}  // namespace cairn::text::answer
