// Methods and fields of list, tuple, dict, range and numbers; what mutates is there but unsafe.
#include <algorithm>
#include <array>
#include <cmath>

#include "text/jinja/methods.h"
#include "text/jinja/operators.h"

namespace cairn::text::jinja {

Bound::Bound(const char* function, const Args& args, std::initializer_list<const char*> names,
             size_t required, size_t positional_only)
    : values_(names.size(), nullptr), function_(function) {
  if (args.positional.size() > names.size())
    raise(Fault::type, "{}() takes at most {} arguments ({} given)", function, names.size(),
          args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    const auto i = size_t(at - names.begin());
    if (at == names.end() || i < positional_only)
      raise(Fault::type, "{}() got an unexpected keyword argument '{}'", function, name);
    if (values_[i]) raise(Fault::type, "{}() got multiple values for argument '{}'", function, name);
    values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) raise(Fault::type, "{}() missing required argument '{}'", function, names.begin()[i]);
}

bool Bound::flag(size_t i, bool otherwise) const { return values_[i] ? truth(*values_[i]) : otherwise; }
int64_t Bound::integer(size_t i, int64_t otherwise) const {
  return values_[i] ? as_index(*values_[i], function_) : otherwise;
}

Value BoundMethod::call(Runtime& runtime, Args& args) {
  if (!method) raise(Fault::unsupported, "the method {}.{}()", self.type_name(), name);
  return method(runtime, self, args);
}

namespace {

Value index(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("index", args, {"value", "start", "stop"}, 1, 3);
  const int64_t n = *length(self);
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t v = b.integer(i, otherwise);
    return v < 0 ? std::max<int64_t>(v + n, 0) : v;
  };
  const int64_t from = place(1, 0), to = std::min(place(2, n), n);
  const auto range = self.as<Range>();
  for (int64_t i = from; i < to; ++i) {
    runtime.step();
    if (equal(range ? range->at(i) : self.items()[size_t(i)], b.at(0))) return Value::integer(i);
  }
  raise(Fault::value, "value is not in {}", self.type_name());
}

Value count(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("count", args, {"value"}, 1, 1);
  int64_t n = 0;
  for_each(runtime, self, [&](const Value& v) { n += equal(v, b.at(0)); });
  return Value::integer(n);
}

Value copy(Runtime&, const Value& self, Args& args) {
  Bound("copy", args, {});
  return self.is(Kind::list) ? Value::list(self.items()) : Dict::of(self.dict().items);
}

Value get(Runtime&, const Value& self, Args& args) {
  const Bound b("get", args, {"key", "default"}, 1, 2);
  const Value* found = self.dict().find(b.at(0));
  return found ? *found : b.get(1, Value());
}

template <DictView::Part part>
Value view(Runtime&, const Value& self, Args& args) {
  Bound("items", args, {});
  return Value::object(std::make_shared<DictView>(self, part));
}

Value self_value(Runtime&, const Value& self, Args& args) {
  Bound("conjugate", args, {});
  return positive(self);
}

Value is_integer(Runtime&, const Value& self, Args& args) {
  Bound("is_integer", args, {});
  return Value::boolean(std::isfinite(self.as_real()) && self.as_real() == std::floor(self.as_real()));
}

Value bit_length(Runtime&, const Value& self, Args& args) {
  Bound("bit_length", args, {});
  Int v = self.as_int() < 0 ? -self.as_int() : self.as_int();
  int64_t n = 0;
  for (; v > 0; v /= 2) ++n;
  return Value::integer(n);
}

Value bit_count(Runtime&, const Value& self, Args& args) {
  Bound("bit_count", args, {});
  Int v = self.as_int() < 0 ? -self.as_int() : self.as_int();
  int64_t n = 0;
  for (; v > 0; v /= 2) n += int64_t(v % 2);
  return Value::integer(n);
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value bound(const Value& self, const std::string& name, Method method) {
  return Value::object(std::make_shared<BoundMethod>(self, name, method));
}

}  // namespace

std::optional<Value> builtin_attribute(const Value& owner, const std::string& name) {
  switch (owner.kind()) {
    case Kind::string:
      if (const Method* m = find_string_method(name)) return bound(owner, name, *m);
      if (owner.is_safe() && is_one_of(name, {"striptags", "unescape", "escape"}))
        return bound(owner, name, nullptr);
      return std::nullopt;
    case Kind::list:
    case Kind::tuple:
      if (name == "index") return bound(owner, name, index);
      if (name == "count") return bound(owner, name, count);
      if (owner.is(Kind::list)) {
        if (name == "copy") return bound(owner, name, copy);
        if (is_one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"}))
          return Value::unsafe(owner, name);
      } else if (static_cast<const Sequence&>(*owner.object()).group) {
        if (name == "grouper") return owner.items()[0];
        if (name == "list") return owner.items()[1];
      }
      return std::nullopt;
    case Kind::dict:
      if (name == "get") return bound(owner, name, get);
      if (name == "items") return bound(owner, name, view<DictView::items>);
      if (name == "keys") return bound(owner, name, view<DictView::keys>);
      if (name == "values") return bound(owner, name, view<DictView::values>);
      if (name == "copy") return bound(owner, name, copy);
      if (name == "fromkeys") return bound(owner, name, nullptr);
      if (is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"}))
        return Value::unsafe(owner, name);
      return std::nullopt;
    case Kind::boolean:
    case Kind::integer:
      if (name == "real" || name == "numerator") return positive(owner);
      if (name == "imag") return Value::integer(0);
      if (name == "denominator") return Value::integer(1);
      if (name == "conjugate") return bound(owner, name, self_value);
      if (name == "bit_length") return bound(owner, name, bit_length);
      if (name == "bit_count") return bound(owner, name, bit_count);
      if (is_one_of(name, {"as_integer_ratio", "to_bytes", "from_bytes"})) return bound(owner, name, nullptr);
      return std::nullopt;
    case Kind::real:
      if (name == "real") return owner;
      if (name == "imag") return Value::real(0);
      if (name == "conjugate") return bound(owner, name, self_value);
      if (name == "is_integer") return bound(owner, name, is_integer);
      if (is_one_of(name, {"as_integer_ratio", "hex", "fromhex"})) return bound(owner, name, nullptr);
      return std::nullopt;
    case Kind::object: break;
    default: return std::nullopt;
  }
  if (const auto range = owner.as<Range>()) {
    if (name == "start") return Value::integer(range->start);
    if (name == "stop") return Value::integer(range->stop);
    if (name == "step") return Value::integer(range->step);
    if (name == "index") return bound(owner, name, index);
    if (name == "count") return bound(owner, name, count);
  } else if (const auto dict_view = owner.as<DictView>()) {
    if (name == "mapping" || (name == "isdisjoint" && dict_view->part != DictView::values))
      return bound(owner, name, nullptr);
  }
  return std::nullopt;
}

}  // namespace cairn::text::jinja
