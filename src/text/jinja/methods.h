// The methods of Python's builtin types that a sandboxed template may call.
#pragma once

#include <initializer_list>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace cairn::text::jinja {

// The arguments of a call by the parameters of a signature. An absent one is null.
class Bound {
 public:
  // names: in order; the first `required` have no default, the first `positional_only` take no keyword.
  Bound(const char* function, const Args& args, std::initializer_list<const char*> names, size_t required = 0,
        size_t positional_only = 0);
  const Value* operator[](size_t i) const { return values_[i]; }
  const Value& at(size_t i) const { return *values_[i]; }
  bool given(size_t i) const { return values_[i] != nullptr; }
  Value get(size_t i, Value otherwise) const { return values_[i] ? *values_[i] : otherwise; }
  bool flag(size_t i, bool otherwise) const;
  int64_t integer(size_t i, int64_t otherwise) const;  // raises TypeError when it is not an int

 private:
  std::vector<const Value*> values_;
  const char* function_;
};

using Method = Value (*)(Runtime&, const Value& self, Args&);

struct BoundMethod final : Callable {
  BoundMethod(Value s, std::string n, Method m)
      : Callable(0, s.nesting() + 1), self(std::move(s)), name(std::move(n)), method(m) {}
  Value call(Runtime& runtime, Args& args) override;
  Value self;
  std::string name;
  Method method;  // null: exists in Python, not here
};

// getattr(owner, name) among the methods and fields of a builtin type; unsafe (an undefined) for what the
// sandbox forbids; nullopt for what Python does not have.
std::optional<Value> builtin_attribute(const Value& owner, const std::string& name);

const Method* find_string_method(const std::string& name);  // pointer to null: known to Python only

// What methods and filters share.
bool is_lower_text(std::string_view);
bool is_upper_text(std::string_view);
std::string justify_text(Runtime&, const std::string& text, int side, int64_t width, const std::string& fill);
std::string replace_text(Runtime&, const std::string& text, const std::string& old, const std::string& with,
                         int64_t most);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

}  // namespace cairn::text::jinja
