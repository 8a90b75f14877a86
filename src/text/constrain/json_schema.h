// JSON Schema as a grammar. A value is described by a set of schemas that must all hold (a conjunction): $ref
// and allOf add to the set, anyOf and oneOf split it into alternatives; each alternative is a list of schemas
// whose own keywords are then taken together, type by type. What a keyword means is decided in one place for
// the grammar and for the values of enum and const, which must fit the rest (holds).
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/constrain/json_numbers.h"
#include "text/constrain/json_text.h"
#include "text/constrain/syntax.h"

namespace cairn::text::constrain {

class SchemaCompiler {
 public:
  using Json = nlohmann::ordered_json;
  using Schema = const Json*;
  using Conjunction = std::vector<Schema>;  // by address, none twice
  using Plain = std::vector<Schema>;  // schemas whose own keywords hold, beside $ref, allOf, anyOf, oneOf

  SchemaCompiler(Syntax&, const Json& root);
  RuleId compile();

 private:
  // json_schema.cpp: what to do with each keyword, references, alternatives, values.
  [[noreturn]] void wrong(Schema, std::string_view keyword, std::string_view what,
                          ErrorKind = ErrorKind::invalid_argument) const;
  [[noreturn]] void refuse(Schema, std::string_view keyword, std::string_view why = "is not supported") const;
  Schema child(Schema parent, const std::string& keyword, const std::string& name = {}, bool named = false);
  Schema item(Schema parent, const std::string& keyword, size_t index);
  void check_keywords(Schema);
  Schema resolve(Schema, const std::string& reference);
  static Conjunction conjunction(std::vector<Schema>);
  std::vector<Plain> alternatives(const Conjunction&);
  std::vector<Plain> expand(Schema, std::vector<Schema>& open);
  std::vector<Plain> product(const std::vector<Plain>&, const std::vector<Plain>&, Schema);
  void check_one_of(Schema, const std::vector<std::vector<Plain>>& branches);
  NodeId value(const Conjunction&);
  NodeId plain_value(const Plain&);
  RuleId rule_of(NodeId, const std::string& name);
  std::optional<std::vector<Json>> listed(const Plain&);  // the values of enum and const that fit
  unsigned types(const Plain&);
  bool holds(const Json& value, const Conjunction&);
  bool holds_plain(const Json& value, const Plain&, bool with_lists);
  bool impossible(const Plain&, int depth);
  bool nothing_fits(const Conjunction&, int depth);

  // json_scalars.cpp
  NumberRange range(const Plain&, bool whole);
  NodeId number(const Plain&, bool whole);
  struct StringLimits {
    uint32_t minimum = 0, maximum = kUnbounded;
    bool patterns = false;
    Schema place = nullptr;
  };
  StringLimits string_limits(const Plain&);
  NodeId string(const Plain&);
  const Machine& string_machine(const Plain&);  // of the content, in the one form
  const Machine& pattern_machine(Schema, const std::string& keyword, const std::string& pattern);
  NodeId pattern_node(Schema, const std::string& keyword, const std::string& pattern);
  static bool is_format(std::string_view keyword) { return keyword == "format"; }

  // json_containers.cpp
  struct Object {
    std::vector<std::string> names;  // in the order they are written
    std::map<std::string, size_t> index;
    std::vector<char> required;
    uint32_t minimum = 0, maximum = kUnbounded;
  };
  Object object_shape(const Plain&);
  Conjunction property(const Plain&, const std::string& name);
  Conjunction property_names(const Plain&);
  NodeId object(const Plain&);
  NodeId extra_member(const Plain&, const Object&);
  Conjunction element(const Plain&, size_t index);
  size_t prefix_size(const Plain&);
  NodeId array(const Plain&);
  bool holds_object(const Json&, const Plain&);
  bool holds_array(const Json&, const Plain&);
  const Json* prefix_of(Schema);

  uint32_t count(Schema, const char* keyword);  // a whole number >= 0
  uint32_t largest(const Plain&, const char* keyword);
  uint32_t smallest(const Plain&, const char* keyword);

  Syntax& syntax_;
  JsonText text_;
  const Json& root_;
  std::unordered_map<Schema, std::string> paths_;
  std::unordered_map<Schema, bool> checked_, checked_one_of_;
  std::map<Conjunction, RuleId> rules_;
  std::map<std::string, Machine> patterns_;  // by keyword and text
  std::map<Plain, Machine> string_machines_;
  int depth_ = 0;
};

}  // namespace cairn::text::constrain
