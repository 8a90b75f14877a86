// Attributes, items, slices, iteration and calls.
#include <algorithm>
#include <array>

#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

// Attributes every Python object has: there, but not for a sandboxed template.
bool is_object_dunder(std::string_view name) {
  static constexpr std::array<std::string_view, 26> kNames = {
      "__class__",   "__delattr__", "__dir__",           "__doc__",          "__eq__",
      "__format__",  "__ge__",      "__getattribute__",  "__getstate__",     "__gt__",
      "__hash__",    "__init__",    "__init_subclass__", "__le__",           "__lt__",
      "__ne__",      "__new__",     "__reduce__",        "__reduce_ex__",    "__repr__",
      "__setattr__", "__sizeof__",  "__str__",           "__subclasshook__", "__getitem__",
      "__len__"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

struct Slice {
  int64_t start, count, step;
};

// PySlice_AdjustIndices: which of `length` items a[start:stop:step] takes.
Slice resolve(const Value& start, const Value& stop, const Value& step, int64_t length) {
  const auto index = [](const Value& v) {
    if (!v.is_integral()) {
      raise(Fault::type, "slice indices must be integers or None or have an __index__ method");
    }
    return std::clamp<int64_t>(clamp(v.as_int()), -(int64_t{1} << 62), int64_t{1} << 62);
  };
  Slice s{0, 0, step.is(Kind::none) ? 1 : index(step)};
  if (s.step == 0) raise(Fault::value, "slice step cannot be zero");
  const int64_t low = s.step < 0 ? -1 : 0, high = s.step < 0 ? length - 1 : length;
  const auto place = [&](const Value& v, int64_t otherwise) {
    if (v.is(Kind::none)) return otherwise;
    const int64_t i = index(v);
    return std::clamp(i < 0 ? i + length : i, low, high);
  };
  s.start = place(start, s.step < 0 ? high : low);
  const int64_t end = place(stop, s.step < 0 ? low : high);
  if (s.step > 0 && s.start < end) s.count = (end - s.start - 1) / s.step + 1;
  if (s.step < 0 && s.start > end) s.count = (s.start - end - 1) / -s.step + 1;
  return s;
}

// obj[key] of Python; nullopt where that raises TypeError or LookupError.
std::optional<Value> subscript(Runtime& runtime, const Value& owner, const Value& key) {
  if (owner.is(Kind::undefined)) owner.undefined().fail();
  if (owner.is(Kind::dict)) {
    if (key.is(Kind::list) || key.is(Kind::dict)) return std::nullopt;
    const Value* found = nullptr;
    try {
      found = owner.dict().find(key);
    } catch (const Raise& raised) {
      if (raised.fault != Fault::type) throw;  // a tuple with a list in it: unhashable, so not there
    }
    return found ? std::optional<Value>(*found) : std::nullopt;
  }
  if (!key.is_integral()) return std::nullopt;
  const auto range = owner.as<Range>();
  if (!owner.is(Kind::string) && !owner.is_sequence() && !range) return std::nullopt;
  const int64_t n = *length(owner);
  int64_t i = clamp(key.as_int());
  if (i < 0) i += n;
  if (i < 0 || i >= n) return std::nullopt;
  if (range) return range->at(i);
  if (owner.is_sequence()) return owner.items()[size_t(i)];
  const String& s = owner.str();
  if (s.ascii()) return Value::string(s.text.substr(size_t(i), 1), s.safe);
  runtime.bytes(s.text.size());
  const size_t from = byte_offset(s.text, size_t(i));
  size_t to = from;
  decode(s.text, to);
  return Value::string(s.text.substr(from, to - from), s.safe);
}

struct VectorIterator final : Iterator {
  explicit VectorIterator(std::vector<Value> v)
      : Iterator(v.size() * sizeof(Value), 1), values(std::move(v)) {}
  std::optional<Value> next(Runtime&) override {
    if (at >= values.size()) return std::nullopt;
    return values[at++];
  }
  std::vector<Value> values;
  size_t at = 0;
};

// Over what has a length and does not change: sequences, dicts, views, ranges.
struct SequenceIterator final : Iterator {
  explicit SequenceIterator(Value v)
      : Iterator(0, v.nesting() + 1),
        values(std::move(v)),
        range(values.as<Range>()),
        view(values.as<DictView>()) {}
  std::optional<Value> next(Runtime&) override {
    const size_t i = at;
    if (values.is_sequence()) {
      if (i >= values.items().size()) return std::nullopt;
      ++at;
      return values.items()[i];
    }
    if (values.is(Kind::dict)) {
      if (i >= values.dict().items.size()) return std::nullopt;
      ++at;
      return values.dict().items[i].first;
    }
    if (int64_t(i) >= *length(values)) return std::nullopt;
    ++at;
    return range ? range->at(int64_t(i)) : view->at(i);
  }
  Value values;
  std::shared_ptr<Range> range;
  std::shared_ptr<DictView> view;
  size_t at = 0;
};

struct TextIterator final : Iterator {
  explicit TextIterator(Value v) : Iterator(0, 1), value(std::move(v)) {}
  std::optional<Value> next(Runtime&) override {
    const std::string& text = value.text();
    if (at >= text.size()) return std::nullopt;
    const size_t from = at;
    decode(text, at);
    return Value::string(text.substr(from, at - from));  // characters of Markup are plain strings
  }
  Value value;
  size_t at = 0;
};

struct Generator final : Iterator {
  Generator(int nesting, std::function<std::optional<Value>(Runtime&)> s)
      : Iterator(64, nesting), step(std::move(s)) {}
  std::optional<Value> next(Runtime& runtime) override {
    if (!step) return std::nullopt;
    runtime.check_stack();
    auto v = step(runtime);
    if (!v) step = nullptr;
    return v;
  }
  std::function<std::optional<Value>(Runtime&)> step;
};

}  // namespace

std::optional<Value> python_attribute(Runtime&, const Value& owner, const std::string& name) {
  if (owner.is(Kind::undefined)) {
    if (is_object_dunder(name)) return Value::unsafe(owner, name);
    owner.undefined().fail();
  }
  if (const auto names = owner.as<Namespace>()) {
    const Value* found = names->find(name);
    if (!found) return name == "__class__" ? std::optional(Value::unsafe(owner, name)) : std::nullopt;
    return *found;
  }
  if (name.starts_with("__") && is_object_dunder(name)) return Value::unsafe(owner, name);
  if (owner.is(Kind::object))
    if (auto* fields = dynamic_cast<Fields*>(owner.object().get())) return fields->field(owner, name);
  return builtin_attribute(owner, name);
}

Value attribute(Runtime& runtime, const Value& owner, const std::string& name) {
  if (auto found = python_attribute(runtime, owner, name)) return *found;
  const Value key = Value::string(name);
  if (auto found = subscript(runtime, owner, key)) return *found;
  return Value::undefined_of(owner, key);
}

Value item(Runtime& runtime, const Value& owner, const Value& key) {
  if (auto found = subscript(runtime, owner, key)) return *found;
  if (key.is(Kind::string))
    if (auto found = python_attribute(runtime, owner, key.text())) return *found;
  return Value::undefined_of(owner, key);
}

Value slice(Runtime& runtime, const Value& owner, const Value& start, const Value& stop, const Value& step) {
  if (owner.is(Kind::undefined)) owner.undefined().fail();
  const auto range = owner.as<Range>();
  if (!owner.is(Kind::string) && !owner.is_sequence() && !range) {
    if (owner.is(Kind::dict)) raise(Fault::type, "unhashable type: 'slice'");
    raise(Fault::type, "'{}' object is not subscriptable", owner.type_name());
  }
  const Slice s = resolve(start, stop, step, *length(owner));
  if (range)
    return Value::object(std::make_shared<Range>(
        int64_t(range->start + s.start * range->step),
        int64_t(range->start + (s.start + s.count * s.step) * range->step), range->step * s.step));
  if (owner.is_sequence()) {
    runtime.step(size_t(s.count));
    std::vector<Value> items;
    items.reserve(size_t(s.count));
    for (int64_t i = 0; i < s.count; ++i) items.push_back(owner.items()[size_t(s.start + i * s.step)]);
    return owner.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
  }
  const String& text = owner.str();
  runtime.bytes(text.text.size());
  if (s.step == 1) {
    if (text.ascii()) return Value::string(text.text.substr(size_t(s.start), size_t(s.count)), text.safe);
    const size_t from = byte_offset(text.text, size_t(s.start));
    const std::string_view rest = std::string_view(text.text).substr(from);
    return Value::string(std::string(rest.substr(0, byte_offset(rest, size_t(s.count)))), text.safe);
  }
  const auto points = to_points(text.text);
  std::u32string taken;
  for (int64_t i = 0; i < s.count; ++i) taken.push_back(points[size_t(s.start + i * s.step)]);
  return Value::string(from_points(taken), text.safe);
}

bool is_iterable(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::string:
    case Kind::list:
    case Kind::tuple:
    case Kind::dict: return true;
    case Kind::object: return v.as<Range>() || v.as<DictView>() || v.as<Iterator>();
    default: return false;
  }
}

std::shared_ptr<Iterator> iterate(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined: return iterate_vector({});
    case Kind::string: return std::make_shared<TextIterator>(v);
    case Kind::list:
    case Kind::tuple:
    case Kind::dict: return std::make_shared<SequenceIterator>(v);
    case Kind::object:
      if (v.as<Range>() || v.as<DictView>()) return std::make_shared<SequenceIterator>(v);
      if (auto it = v.as<Iterator>()) return it;
      break;
    default: break;
  }
  raise(Fault::type, "'{}' object is not iterable", v.type_name());
}

std::shared_ptr<Iterator> iterate_vector(std::vector<Value> values) {
  return std::make_shared<VectorIterator>(std::move(values));
}

std::shared_ptr<Iterator> generator(int nesting, std::function<std::optional<Value>(Runtime&)> step) {
  return std::make_shared<Generator>(nesting, std::move(step));
}

std::vector<Value> to_vector(Runtime& runtime, const Value& v) {
  if (v.is_sequence()) {
    runtime.step(v.items().size());
    return v.items();
  }
  std::vector<Value> items;
  for_each(runtime, v, [&](const Value& i) { items.push_back(i); });
  return items;
}

Value call(Runtime& runtime, const Value& callable, Args& args) {
  if (callable.is(Kind::undefined)) callable.undefined().fail();
  if (const auto c = callable.as<Callable>()) return c->call(runtime, args);
  raise(Fault::type, "'{}' object is not callable", callable.type_name());
}

void Runtime::check_stack() const {
  constexpr ptrdiff_t kMostStack = ptrdiff_t{3} << 20;
  const auto used = stack_base_ - static_cast<const char*>(__builtin_frame_address(0));
  if (used > kMostStack || used < -kMostStack) raise(Fault::limit, "evaluation nests too deep");
}

}  // namespace cairn::text::jinja
