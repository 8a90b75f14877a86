// How Python prints values: str(), repr(), json.dumps and the number forms beneath them.
#pragma once

#include <string>

#include "text/jinja/value.h"

namespace cairn::text::jinja {

std::string print(const Value&);  // str(): what {{ }} writes
std::string repr(const Value&);
std::string repr_real(double);  // shortest digits that read back the same, in Python's layout
std::string repr_text(std::string_view);
std::string escape_html(std::string_view);

struct JsonStyle {
  bool ascii = false;
  bool pretty = false;
  std::string indent;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(Runtime&, const Value&, const JsonStyle&);

}  // namespace cairn::text::jinja
