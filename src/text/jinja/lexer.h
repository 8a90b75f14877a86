// Template source to tokens, with jinja2's whitespace rules for trim_blocks, lstrip_blocks and no
// keep_trailing_newline (https://jinja.palletsprojects.com/en/3.1.x/templates/#whitespace-control).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace cairn::text::jinja {

enum class Lexeme : uint8_t {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  Lexeme type;
  int line;
  std::string text;  // of data, names, strings and operators
  Int integer = 0;
  double real = 0;
};

// What does not lex or parse. The template's constructor turns it into an Error.
struct SyntaxError {
  int line;
  std::string message;
};

std::vector<Token> tokenize(std::string_view source);  // throws SyntaxError

}  // namespace cairn::text::jinja
