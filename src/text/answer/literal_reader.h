// Reads one value as models write it, JSON or a Python literal, and writes it as JSON while it arrives.
#pragma once

#include <string>
#include <string_view>

#include "text/answer/tag_pattern.h"

namespace cairn::text::answer {

// Valid JSON comes out as it went in. What models also write becomes JSON: 'single quotes', <|"|>Gemma's
// quotes<|"|>, True / False / None, (tuples), keys without quotes, a comma before a closing bracket, line
// breaks inside strings, escapes that JSON lacks. A bare word that is no number becomes a string. Brackets
// that do not pair are passed on as they are.
class LiteralReader {
 public:
  // Reads on from in.at and appends JSON to out. True when the value is complete (in.at is behind it); a
  // value without brackets or quotes ends before the first of , ) ] } : or whitespace. At in.last everything
  // held back is written, complete or not.
  bool read(Cursor& in, std::string& out);

 private:
  enum class State { value, string, escape, code, word };

  bool value(char c, std::string& out);  // false: c belongs to what follows the value
  void string(char c, std::string& out);
  void escape(char c, std::string& out);
  bool code(char c, std::string& out);  // false: c is not part of the code
  void end_word(std::string& out);
  void put(std::string_view text, std::string& out);
  void character(unsigned long code_point, std::string& out);

  State state_ = State::value;
  std::string brackets_;  // open ones
  std::string word_;      // of a bare word, or the digits of an escape
  std::string comma_;     // a comma and the whitespace behind it: dropped before a closing bracket
  std::string quote_;     // what ends the string
  size_t quoted_ = 0;     // how much of quote_ has come
  size_t digits_ = 0;     // an escape's most digits
  int base_ = 16;
  bool complete_ = false;
};

// Reads a JSON string, opening quote included, and writes the text it stands for.
class StringDecoder {
 public:
  bool read(Cursor& in, std::string& out);  // true: the closing quote has been read

 private:
  enum class State { before, text, escape, code };
  void character(unsigned long code_unit, std::string& out);

  State state_ = State::before;
  std::string digits_;
  unsigned long high_ = 0;  // first half of a surrogate pair
};

// Appends text as the inside of a JSON string.
void append_escaped(std::string_view text, std::string& out);
void append_utf8(unsigned long code_point, std::string& out);  // U+FFFD for what is no character

// What is known of a value's type from its JSON schema; 0: anything.
enum ValueType : unsigned {
  kString = 1,
  kNumber = 2,
  kBoolean = 4,
  kNull = 8,
  kObject = 16,
  kArray = 32,
};

// A value written as plain text, as XML-like formats do, as JSON of a type that fits; a string when no other.
std::string json_value(std::string_view text, unsigned types);

}  // namespace cairn::text::answer
