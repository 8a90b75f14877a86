// One description of every request: what /openapi.json shows is what requests are checked against, so the two
// cannot differ. The part of JSON Schema (2020-12) that our document uses: type, enum, const, minimum,
// maximum, exclusiveMinimum, minLength, maxLength, pattern, minItems, maxItems, maxProperties, items,
// properties, required, additionalProperties (false or a schema), anyOf, $ref to "#/components/schemas/...".
//
// "x-cairn-reason" beside an enum is what an error says after naming the field: why other values are refused.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "serve/api/json_text.h"
#include "text/regex.h"

namespace cairn::serve {

class Schemas {
 public:
  // name to schema. A property that is not required may also be null, which means that it was left out: that
  // is added to the schemas here, so that the document says it. An unknown keyword or a dangling $ref is a
  // bug of ours (assert).
  explicit Schemas(Json named);

  // Throws ApiError(400) naming the first field that does not fit, what it is and what it must be.
  void check(std::string_view name, const Json& value) const;

  const Json& document() const { return schemas_; }  // for components/schemas

 private:
  void prepare(Json& schema);
  const Json& resolve(const Json& schema) const;
  bool fits_type(const Json& schema, const Json& value) const;
  void check(const Json& schema, const Json& value, const std::string& place) const;
  void check_any(const Json& schema, const Json& value, const std::string& place) const;
  void check_number(const Json& schema, const Json& value, const std::string& place) const;
  void check_string(const Json& schema, const Json& value, const std::string& place) const;
  void check_array(const Json& schema, const Json& value, const std::string& place) const;
  void check_object(const Json& schema, const Json& value, const std::string& place) const;

  Json schemas_;
  std::map<std::string, text::Regex, std::less<>> patterns_;
};

}  // namespace cairn::serve
