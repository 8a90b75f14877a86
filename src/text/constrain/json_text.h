// The pieces that JSON texts are made of, as grammar nodes.
//
// White space: where it may stand (after { [ , : and before } ]) there is nothing, one space, or a line end
// and up to 80 spaces or tabs: what compact, ordinary and indenting writers produce. No endless blanks.
// Strings: without further conditions any escape may be used, in whole characters (no halves of surrogate
// pairs). With conditions (patterns, formats, names of properties) each character has one form: as it is, or
// \" \\ \b \f \n \r \t, or \u00XX for other control characters; so that the condition holds for the text that
// a reader gets.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

class JsonText {
 public:
  explicit JsonText(Syntax& syntax) : syntax_(syntax) {}

  NodeId space();
  NodeId string(uint32_t minimum = 0, uint32_t maximum = kUnbounded);  // of so many characters
  NodeId string_of(Machine content);                                   // content: in the one form
  NodeId number();
  NodeId integer();
  NodeId any();     // any value
  NodeId object();  // any object
  NodeId array();
  // The value itself, with white space where a writer may put it. Whole numbers are written without a
  // fraction.
  NodeId literal(const nlohmann::ordered_json&);
  NodeId comma() { return syntax_.sequence({syntax_.text(","), space()}); }
  NodeId colon() { return syntax_.sequence({syntax_.text(":"), space()}); }

 private:
  NodeId shared(RuleId& rule, const char* name, NodeId (JsonText::*body)());
  NodeId space_body();
  NodeId any_body();
  NodeId object_body();
  NodeId array_body();
  NodeId number_body();
  NodeId integer_body();

  Syntax& syntax_;
  RuleId space_ = -1, any_ = -1, object_ = -1, array_ = -1, number_ = -1, integer_ = -1;
  std::map<std::pair<uint32_t, uint32_t>, RuleId> strings_;
};

// How a set of characters is written inside a string, in the one form.
NodeId json_characters(Syntax&, CodePoints);
// A string in the one form, without its quotes; and the whole.
std::string json_content(std::string_view);

// The names of nlohmann's value kinds as JSON Schema has them, for errors.
std::string_view json_kind(const nlohmann::ordered_json&);

}  // namespace cairn::text::constrain
