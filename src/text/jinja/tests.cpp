// The tests behind `is`, and how filters and tests are found by name.
#include <cmath>
#include <unordered_map>

#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"

namespace cairn::text::jinja {

namespace {

template <bool (*holds)(const Value&)>
bool plain(Runtime&, const Value& v, Args& args) {
  Bound("test", args, {});
  return holds(v);
}

template <bool (*holds)(const Value&, const Value&)>
bool binary(Runtime&, const Value& v, Args& args) {
  const Bound b("test", args, {"other"}, 1);
  return holds(v, b.at(0));
}

bool remainder_is(Runtime& runtime, const Value& v, const Value& divisor, int rest) {
  return equal(modulo(runtime, v, divisor), Value::integer(rest));
}
bool odd(Runtime& runtime, const Value& v, Args& args) {
  Bound("odd", args, {});
  return remainder_is(runtime, v, Value::integer(2), 1);
}
bool even(Runtime& runtime, const Value& v, Args& args) {
  Bound("even", args, {});
  return remainder_is(runtime, v, Value::integer(2), 0);
}
bool divisibleby(Runtime& runtime, const Value& v, Args& args) {
  const Bound b("divisibleby", args, {"num"}, 1);
  return remainder_is(runtime, v, b.at(0), 0);
}
bool in(Runtime& runtime, const Value& v, Args& args) {
  const Bound b("in", args, {"seq"}, 1);
  return contains(runtime, b.at(0), v);
}

bool is_defined(const Value& v) { return !v.is(Kind::undefined); }
bool is_undefined(const Value& v) { return v.is(Kind::undefined); }
bool is_none(const Value& v) { return v.is(Kind::none); }
bool is_boolean(const Value& v) { return v.is(Kind::boolean); }
bool is_true(const Value& v) { return v.is(Kind::boolean) && v.as_bool(); }
bool is_false(const Value& v) { return v.is(Kind::boolean) && !v.as_bool(); }
bool is_integer(const Value& v) { return v.is(Kind::integer); }
bool is_float(const Value& v) { return v.is(Kind::real); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is(Kind::string); }
bool is_mapping(const Value& v) { return v.is(Kind::dict); }
bool is_lower(const Value& v) { return is_lower_text(print(v)); }
bool is_upper(const Value& v) { return is_upper_text(print(v)); }
bool is_escaped(const Value& v) { return v.is_safe(); }
bool is_sequence(const Value& v) {
  return v.is(Kind::string) || v.is_sequence() || v.is(Kind::dict) || v.is(Kind::undefined) || v.as<Range>();
}
bool is_callable(const Value& v) { return v.is(Kind::undefined) || v.as<Callable>(); }
bool is_filter(const Value& v) {
  hash(v);
  return v.is(Kind::string) && find_filter(v.text());
}
bool is_test(const Value& v) {
  hash(v);
  return v.is(Kind::string) && find_test(v.text());
}

bool not_equal(const Value& a, const Value& b) { return !equal(a, b); }
bool greater(const Value& a, const Value& b) { return less(b, a); }
bool greater_equal(const Value& a, const Value& b) { return less(b, a) || equal(a, b); }
bool less_equal(const Value& a, const Value& b) { return less(a, b) || equal(a, b); }

const std::unordered_map<std::string, Test>& tests() {
  static const std::unordered_map<std::string, Test> table = {
      {"odd", {odd}},
      {"even", {even}},
      {"divisibleby", {divisibleby}},
      {"defined", {plain<is_defined>}},
      {"undefined", {plain<is_undefined>}},
      {"filter", {plain<is_filter>}},
      {"test", {plain<is_test>}},
      {"none", {plain<is_none>}},
      {"boolean", {plain<is_boolean>}},
      {"false", {plain<is_false>}},
      {"true", {plain<is_true>}},
      {"integer", {plain<is_integer>}},
      {"float", {plain<is_float>}},
      {"lower", {plain<is_lower>}},
      {"upper", {plain<is_upper>}},
      {"string", {plain<is_string>}},
      {"mapping", {plain<is_mapping>}},
      {"number", {plain<is_number>}},
      {"sequence", {plain<is_sequence>}},
      {"iterable", {plain<is_iterable>}},
      {"callable", {plain<is_callable>}},
      {"sameas", {binary<same_object>}},
      {"escaped", {plain<is_escaped>}},
      {"in", {in}},
      {"==", {binary<equal>}},
      {"eq", {binary<equal>}},
      {"equalto", {binary<equal>}},
      {"!=", {binary<not_equal>}},
      {"ne", {binary<not_equal>}},
      {">", {binary<greater>}},
      {"gt", {binary<greater>}},
      {"greaterthan", {binary<greater>}},
      {">=", {binary<greater_equal>}},
      {"ge", {binary<greater_equal>}},
      {"<", {binary<less>}},
      {"lt", {binary<less>}},
      {"lessthan", {binary<less>}},
      {"<=", {binary<less_equal>}},
      {"le", {binary<less_equal>}},
  };
  return table;
}

const std::unordered_map<std::string, Filter>& filters() {
  static const auto table = [] {
    std::unordered_map<std::string, Filter> all;
    for (const auto* group : {&kTextFilters, &kSequenceFilters, &kNumberFilters})
      for (const auto& f : *group) all.emplace(f.name, f.filter);
    return all;
  }();
  return table;
}

}  // namespace

const Filter* find_filter(const std::string& name) {
  const auto found = filters().find(name);
  return found == filters().end() ? nullptr : &found->second;
}

const Test* find_test(const std::string& name) {
  const auto found = tests().find(name);
  return found == tests().end() ? nullptr : &found->second;
}

Value apply_filter(Runtime& runtime, const std::string& name, const Value& value, Args& args) {
  const Filter* filter = find_filter(name);
  if (!filter) raise(Fault::runtime, "No filter named '{}'.", name);
  runtime.check_stack();
  return filter->apply(runtime, value, args);
}

bool apply_test(Runtime& runtime, const std::string& name, const Value& value, Args& args) {
  const Test* test = find_test(name);
  if (!test) raise(Fault::runtime, "No test named '{}'.", name);
  return test->holds(runtime, value, args);
}

}  // namespace cairn::text::jinja
