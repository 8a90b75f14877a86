// Python's operators and protocols over values.
#pragma once

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace cairn::text::jinja {

bool equal(const Value&, const Value&);
bool less(const Value&, const Value&);  // raises TypeError where Python does
size_t hash(const Value&);              // raises TypeError for list and dict
bool truth(const Value&);
bool same_object(const Value&, const Value&);  // the `is` of Python, as far as templates can tell
bool contains(Runtime&, const Value& container, const Value& item);
std::optional<int64_t> length(const Value&);  // nullopt: no len()
int64_t length_or_raise(const Value&);

Value add(Runtime&, const Value&, const Value&);
Value subtract(const Value&, const Value&);
Value multiply(Runtime&, const Value&, const Value&);
Value divide(const Value&, const Value&);
Value floor_divide(const Value&, const Value&);
Value modulo(Runtime&, const Value&, const Value&);  // of a string: percent formatting
Value power(const Value&, const Value&);
Value negate(const Value&);
Value positive(const Value&);

// obj.name and obj[key] by jinja2's rules (attribute first, or item first; undefined when neither is there).
Value attribute(Runtime&, const Value& owner, const std::string& name);
Value item(Runtime&, const Value& owner, const Value& key);
Value slice(Runtime&, const Value& owner, const Value& start, const Value& stop, const Value& step);
std::optional<Value> python_attribute(Runtime&, const Value& owner,
                                      const std::string& name);  // getattr alone

std::shared_ptr<Iterator> iterate(const Value&);  // iter(): raises TypeError
bool is_iterable(const Value&);
std::vector<Value> to_vector(Runtime&, const Value&);  // list(value)
Value call(Runtime&, const Value& callable, Args&);

// An integer argument of Python's C functions: int or bool, and nothing else.
int64_t as_index(const Value&, const char* what);
int64_t clamp(Int);    // to int64: far enough for any index
Int to_whole(double);  // int(d): truncates; raises for nan and infinities

std::shared_ptr<Iterator> iterate_vector(std::vector<Value>);

// A generator around other values; step gives the next item. nesting: one more than what it holds.
std::shared_ptr<Iterator> generator(int nesting, std::function<std::optional<Value>(Runtime&)> step);

template <typename F>
void for_each(Runtime& runtime, const Value& values, F&& visit) {
  const auto it = iterate(values);
  while (auto v = it->next(runtime)) {
    runtime.step();
    visit(*v);
  }
}

}  // namespace cairn::text::jinja
