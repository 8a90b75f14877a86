// The filters, tests and global functions of jinja2 3.1, as transformers configures them.
#pragma once

#include <string>

#include "text/jinja/methods.h"
#include "text/jinja/runtime.h"

namespace cairn::text::jinja {

struct Filter {
  Value (*apply)(Runtime&, const Value& value, Args&);
};
struct Test {
  bool (*holds)(Runtime&, const Value& value, Args&);
};

const Filter* find_filter(const std::string& name);
const Test* find_test(const std::string& name);
std::optional<Value> find_global(const std::string& name);

// By name at run time, as map('upper') and select('odd') do.
Value apply_filter(Runtime&, const std::string& name, const Value& value, Args&);
bool apply_test(Runtime&, const std::string& name, const Value& value, Args&);

// The groups of filters; each table is searched in turn.
struct NamedFilter {
  const char* name;
  Filter filter;
};
extern const std::vector<NamedFilter> kTextFilters, kSequenceFilters, kNumberFilters;

// attribute="a.b.0" of map, sort, groupby ...: item lookups in turn.
class AttributeGetter {
 public:
  AttributeGetter(const Value& attribute, Value otherwise = Value());
  Value operator()(Runtime&, Value item) const;
  bool empty() const { return parts_.empty(); }

 private:
  std::vector<Value> parts_;
  Value default_;
};

}  // namespace cairn::text::jinja
