#include "text/jinja/value.h"

#include <algorithm>

#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

std::string to_string(Int value) {
  if (value == 0) return "0";
  std::string digits;
  const bool negative = value < 0;
  while (value != 0) {
    const int digit = int(value % 10);
    digits.push_back(char('0' + (digit < 0 ? -digit : digit)));
    value /= 10;
  }
  if (negative) digits.push_back('-');
  std::reverse(digits.begin(), digits.end());
  return digits;
}

const char* to_string(Fault fault) {
  switch (fault) {
    case Fault::type: return "TypeError";
    case Fault::value: return "ValueError";
    case Fault::lookup: return "LookupError";
    case Fault::undefined: return "UndefinedError";
    case Fault::security: return "SecurityError";
    case Fault::overflow: return "OverflowError";
    case Fault::zero_division: return "ZeroDivisionError";
    case Fault::assertion: return "AssertionError";
    case Fault::runtime: return "TemplateRuntimeError";
    case Fault::raised: return "TemplateError";
    case Fault::unsupported: return "unsupported";
    case Fault::limit: return "limit";
  }
  return "error";
}

namespace {

int deepest(const std::vector<Value>& items) {
  int nesting = 0;
  for (const Value& v : items) nesting = std::max(nesting, v.nesting());
  return nesting + 1;
}

int deepest(const std::vector<std::pair<Value, Value>>& items) {
  int nesting = 0;
  for (const auto& [k, v] : items) nesting = std::max({nesting, k.nesting(), v.nesting()});
  return nesting + 1;
}

std::string owner_name(const Value& owner) {
  if (owner.is(Kind::none)) return "None";
  const std::string name = owner.type_name();
  return (name == "_GroupTuple" ? "jinja2.filters._GroupTuple"
          : name == "Markup"    ? "markupsafe.Markup"
                                : name) +
         " object";
}

}  // namespace

std::string Object::printed() const {
  raise(Fault::unsupported, "printing a {}: Python writes an address of memory there", type_name());
}

String::String(std::string t, bool markup)
    : Object(t.size(), 0), text(std::move(t)), points(code_points(text)), safe(markup) {}

Sequence::Sequence(std::vector<Value> v, bool is_tuple, bool is_group)
    : Object(v.size() * sizeof(Value), deepest(v)), items(std::move(v)), tuple(is_tuple), group(is_group) {}

Value Value::string(std::string text, bool safe) {
  return object(std::make_shared<String>(std::move(text), safe), Kind::string);
}
Value Value::list(std::vector<Value> items) {
  return object(std::make_shared<Sequence>(std::move(items), false), Kind::list);
}
Value Value::tuple(std::vector<Value> items) {
  return object(std::make_shared<Sequence>(std::move(items), true), Kind::tuple);
}
Value Value::group(Value grouper, Value items) {
  std::vector<Value> pair{std::move(grouper), std::move(items)};
  return object(std::make_shared<Sequence>(std::move(pair), true, true), Kind::tuple);
}

Value Value::undefined_name(std::string_view name) {
  return object(std::make_shared<Undefined>("", "", string(std::string(name)), false), Kind::undefined);
}
Value Value::undefined_hint(std::string hint) {
  return object(std::make_shared<Undefined>(std::move(hint), "", Value(), false), Kind::undefined);
}
Value Value::undefined_of(const Value& owner, const Value& name) {
  return object(std::make_shared<Undefined>("", owner_name(owner), name, false), Kind::undefined);
}
Value Value::unsafe(const Value& owner, std::string_view name) {
  return object(std::make_shared<Undefined>(fmt::format("access to attribute '{}' of '{}' object is unsafe.",
                                                        name, owner.type_name()),
                                            "", string(std::string(name)), true),
                Kind::undefined);
}

void Undefined::fail() const {
  const Fault fault = security ? Fault::security : Fault::undefined;
  if (!hint.empty()) raise(fault, "{}", hint);
  if (owner.empty()) raise(fault, "{} is undefined", repr(name));
  if (!name.is(Kind::string)) raise(fault, "{} has no element {}", owner, repr(name));
  raise(fault, "'{}' has no attribute {}", owner, repr(name));
}

const std::string& Value::text() const { return static_cast<const String&>(*object_).text; }
const String& Value::str() const { return static_cast<const String&>(*object_); }
bool Value::is_safe() const { return is(Kind::string) && str().safe; }
const std::vector<Value>& Value::items() const { return static_cast<const Sequence&>(*object_).items; }
const Dict& Value::dict() const { return static_cast<const Dict&>(*object_); }
const Undefined& Value::undefined() const { return static_cast<const Undefined&>(*object_); }

const char* Value::type_name() const {
  switch (kind_) {
    case Kind::missing: return "missing";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::real: return "float";
    default: return object_->type_name();
  }
}

Dict::Dict(std::vector<std::pair<Value, Value>> pairs)
    : Object(pairs.size() * (2 * sizeof(Value) + 32), deepest(pairs)) {
  items.reserve(pairs.size());
  for (auto& [key, value] : pairs) {
    const size_t h = hash(key);
    auto [at, end] = index_.equal_range(h);
    while (at != end && !equal(items[at->second].first, key)) ++at;
    if (at != end) {
      items[at->second].second = std::move(value);
    } else {
      index_.emplace(h, uint32_t(items.size()));
      items.emplace_back(std::move(key), std::move(value));
    }
  }
}

const Value* Dict::find(const Value& key) const {
  auto [at, end] = index_.equal_range(hash(key));
  for (; at != end; ++at)
    if (equal(items[at->second].first, key)) return &items[at->second].second;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  auto [at, end] = index_.equal_range(std::hash<std::string_view>()(key));
  for (; at != end; ++at) {
    const Value& candidate = items[at->second].first;
    if (candidate.is(Kind::string) && candidate.text() == key) return &items[at->second].second;
  }
  return nullptr;
}

Value Dict::of(std::vector<std::pair<Value, Value>> pairs) {
  return Value::object(std::make_shared<Dict>(std::move(pairs)), Kind::dict);
}

Range::Range(int64_t a, int64_t b, int64_t s) : Object(0, 0), start(a), stop(b), step(s) {
  const Int span = s > 0 ? Int(b) - a : Int(a) - b;
  const Int stride = s > 0 ? Int(s) : -Int(s);
  const Int n = span <= 0 ? 0 : (span + stride - 1) / stride;
  constexpr int kMost = 100'000;  // jinja2's sandbox refuses longer ranges
  if (n > kMost)
    raise(Fault::overflow, "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMost);
  count = int64_t(n);
}

Value DictView::at(size_t i) const {
  const auto& [key, value] = dict.dict().items[i];
  if (part == keys) return key;
  if (part == values) return value;
  return Value::tuple({key, value});
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [n, v] : names)
    if (n == name) return &v;
  return nullptr;
}

void Namespace::set(const std::string& name, Value value) {
  if (name.starts_with('_'))
    raise(Fault::security,
          "chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'", name);
  for (auto& [n, v] : names)
    if (n == name) {
      v = std::move(value);
      return;
    }
  charge_more(name.size() + sizeof(Value) + 32);
  names.emplace_back(name, std::move(value));
}

}  // namespace cairn::text::jinja
