#include "serve/api/json_text.h"

#include <fmt/format.h>

#include <cmath>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

// Before parsing, so that no recursion of a JSON library ever sees more.
void check_depth(std::string_view body) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson)
        refuse(400, "", "invalid_json", "the body nests arrays and objects deeper than {} at byte {}",
               kDeepestJson, i);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

// Bytes that may stand in a JSON string as they are. Those from 0x80 on are checked afterwards.
struct PlainBytes {
  bool plain[256];
  constexpr PlainBytes() : plain() {
    for (int c = 0; c < 256; ++c) plain[c] = c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != 0x7f;
  }
};
constexpr PlainBytes kPlain;

}  // namespace

Json parse_body(std::string_view body) {
  check_depth(body);
  try {
    return Json::parse(body);
  } catch (const Json::parse_error& error) {
    if (body.empty()) refuse(400, "", "invalid_json", "the body is empty; it must be a JSON object");
    refuse(400, "", "invalid_json", "the body is not valid JSON (UTF-8, RFC 8259) near byte {} of {}",
           error.byte, body.size());
  } catch (const Json::out_of_range&) {
    refuse(400, "", "invalid_json", "the body holds a number that no 64-bit float can express");
  }
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  size_t done = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = uint8_t(text[i]);
    if (kPlain.plain[c]) continue;
    if (c >= 0x80) {
      // The run of non-ASCII bytes at once; valid_utf8 replaces what is broken.
      size_t end = i + 1;
      while (end < text.size() && uint8_t(text[end]) >= 0x80) ++end;
      out.append(text, done, i - done);
      out += formats::valid_utf8(text.substr(i, end - i));
      done = end;
      i = end - 1;
      continue;
    }
    out.append(text, done, i - done);
    done = i + 1;
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default: fmt::format_to(std::back_inserter(out), "\\u{:04x}", c);
    }
  }
  out.append(text, done);
  out += '"';
}

std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

void append_json_number(std::string& out, double value) {
  if (std::isfinite(value))
    fmt::format_to(std::back_inserter(out), "{}", value);
  else
    out += "null";
}

}  // namespace cairn::serve
