// The values of a template while it renders: Python's, as far as a chat template can meet them.
// Containers are immutable after construction (the sandbox forbids mutation); what is mutable (namespaces,
// loops, closures) is kept alive by the Runtime until the render ends, so cycles cost nothing and destructors
// stay shallow.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cairn::text::jinja {

// Wider than the 64 bits templates need, so that uint64 limits in tool schemas survive. Overflow is an Error.
__extension__ typedef __int128 Int;
std::string to_string(Int);

// What Python would raise. The interpreter adds name and line.
enum class Fault {
  type,
  value,
  lookup,
  undefined,
  security,
  overflow,
  zero_division,
  assertion,
  runtime,
  raised,
  unsupported,
  limit
};
const char* to_string(Fault);

struct Raise {
  Fault fault;
  std::string message;
};

template <typename... Args>
[[noreturn]] void raise(Fault fault, fmt::format_string<Args...> message, Args&&... args) {
  throw Raise{fault, fmt::format(message, std::forward<Args>(args)...)};
}

// Bytes held by live values of the render on this thread.
class MemoryMeter {
 public:
  explicit MemoryMeter(size_t limit) : limit_(limit), outer_(current) { current = this; }
  ~MemoryMeter() { current = outer_; }
  MemoryMeter(const MemoryMeter&) = delete;
  void charge(size_t bytes) {
    if (bytes > limit_ - live_) raise(Fault::limit, "values need more than {} bytes of memory", limit_);
    live_ += bytes;
  }
  void release(size_t bytes) { live_ -= bytes; }
  static inline thread_local MemoryMeter* current = nullptr;

 private:
  size_t limit_, live_ = 0;
  MemoryMeter* outer_;
};

// How deep values may contain one another: destructors, printing and comparison recurse that far.
inline constexpr int kMaxNesting = 400;

class Object {
 public:
  Object(size_t bytes, int nesting) : meter_(MemoryMeter::current), bytes_(bytes + 64), nesting_(nesting) {
    if (nesting > kMaxNesting) raise(Fault::limit, "values nest deeper than {}", kMaxNesting);
    if (meter_) meter_->charge(bytes_);
  }
  virtual ~Object() {
    if (meter_) meter_->release(bytes_);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual const char* type_name() const = 0;  // Python's, for messages
  virtual std::string printed() const;        // repr; raises where Python would write a memory address
  int nesting() const { return nesting_; }
  void charge_more(size_t bytes) {
    if (meter_) meter_->charge(bytes), bytes_ += bytes;
  }

 private:
  MemoryMeter* meter_;
  size_t bytes_;
  int nesting_;
};

enum class Kind : uint8_t {
  missing,
  undefined,
  none,
  boolean,
  integer,
  real,
  string,
  list,
  tuple,
  dict,
  object
};

struct String;
struct Sequence;
struct Dict;
struct Undefined;

class Value {
 public:
  Value() : kind_(Kind::none), int_(0) {}
  static Value missing() { return Value(Kind::missing); }
  static Value undefined_name(std::string_view name);
  static Value undefined_hint(std::string hint);
  static Value undefined_of(const Value& owner, const Value& name);
  static Value unsafe(const Value& owner, std::string_view name);
  static Value boolean(bool b) {
    Value v(Kind::boolean);
    v.int_ = b;
    return v;
  }
  static Value integer(Int i) {
    Value v(Kind::integer);
    v.int_ = i;
    return v;
  }
  static Value real(double d) {
    Value v(Kind::real);
    v.real_ = d;
    return v;
  }
  static Value string(std::string text, bool safe = false);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value group(Value grouper, Value items);  // groupby's named tuple
  static Value object(std::shared_ptr<Object> o, Kind kind = Kind::object) {
    Value v(kind);
    v.object_ = std::move(o);
    return v;
  }

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_number() const { return is(Kind::boolean) || is(Kind::integer) || is(Kind::real); }
  bool is_integral() const { return is(Kind::boolean) || is(Kind::integer); }
  bool is_sequence() const { return is(Kind::list) || is(Kind::tuple); }
  bool as_bool() const { return int_ != 0; }
  Int as_int() const { return int_; }  // of a bool too
  double as_real() const { return is(Kind::real) ? real_ : double(int_); }
  const std::string& text() const;
  const String& str() const;
  bool is_safe() const;  // Markup
  const std::vector<Value>& items() const;
  const Dict& dict() const;
  const Undefined& undefined() const;
  const std::shared_ptr<Object>& object() const { return object_; }
  template <typename T>
  std::shared_ptr<T> as() const {
    return is(Kind::object) ? std::dynamic_pointer_cast<T>(object_) : nullptr;
  }
  int nesting() const { return object_ ? object_->nesting() : 0; }
  const char* type_name() const;

 private:
  explicit Value(Kind k) : kind_(k), int_(0) {}
  Kind kind_;
  union {
    Int int_;
    double real_;
  };
  std::shared_ptr<Object> object_;
};

// Text is UTF-8 (lone surrogates from "\ud800" escapes in their three-byte form); lengths and indices are
// code points.
struct String final : Object {
  String(std::string t, bool markup);
  const char* type_name() const override { return safe ? "Markup" : "str"; }
  bool ascii() const { return points == text.size(); }
  std::string text;
  size_t points;
  bool safe;
};

struct Sequence final : Object {
  Sequence(std::vector<Value> v, bool is_tuple, bool is_group = false);
  const char* type_name() const override { return group ? "_GroupTuple" : tuple ? "tuple" : "list"; }
  std::vector<Value> items;
  bool tuple, group;
};

struct Dict final : Object {
  explicit Dict(
      std::vector<std::pair<Value, Value>> pairs);  // later keys replace the values of equal earlier ones
  const char* type_name() const override { return "dict"; }
  const Value* find(const Value& key) const;  // raises TypeError for an unhashable key
  const Value* find(std::string_view key) const;
  std::vector<std::pair<Value, Value>> items;
  static Value of(std::vector<std::pair<Value, Value>> pairs);

 private:
  std::unordered_multimap<size_t, uint32_t> index_;
};

struct Undefined final : Object {
  Undefined(std::string h, std::string o, Value n, bool s)
      : Object(h.size(), n.nesting() + 1),
        hint(std::move(h)),
        owner(std::move(o)),
        name(std::move(n)),
        security(s) {}
  const char* type_name() const override { return "Undefined"; }
  [[noreturn]] void fail() const;  // what every operation on it raises
  std::string hint, owner;         // owner: the type it was looked up in, empty for a variable
  Value name;
  bool security;
};

class Runtime;

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Python's generators and iterators: consumed once.
struct Iterator : Object {
  Iterator(size_t bytes, int nesting) : Object(bytes, nesting) {}
  const char* type_name() const override { return "generator"; }
  virtual std::optional<Value> next(Runtime&) = 0;
};

struct Callable : Object {
  Callable(size_t bytes, int nesting) : Object(bytes, nesting) {}
  const char* type_name() const override { return "builtin_function_or_method"; }
  virtual Value call(Runtime&, Args&) = 0;
};

// An object with attributes of its own.
struct Fields {
  virtual ~Fields() = default;
  virtual std::optional<Value> field(const Value& self, const std::string& name) = 0;
};

// An object with a len() of its own.
struct Sized {
  virtual ~Sized() = default;
  virtual int64_t length() = 0;
};

struct Range final : Object {
  Range(int64_t a, int64_t b, int64_t s);
  const char* type_name() const override { return "range"; }
  int64_t start, stop, step, count;
  Value at(int64_t i) const { return Value::integer(Int(start) + Int(i) * step); }
};

struct DictView final : Object {
  enum Part { keys, values, items };
  DictView(Value d, Part p) : Object(0, d.nesting() + 1), dict(std::move(d)), part(p) {}
  const char* type_name() const override {
    return part == keys ? "dict_keys" : part == values ? "dict_values" : "dict_items";
  }
  Value at(size_t i) const;
  Value dict;
  Part part;
};

// What can change after it was made. The Runtime keeps each until the render ends and then empties them all.
struct Mutable {
  virtual ~Mutable() = default;
  virtual void clear() = 0;
};

struct Namespace final : Object, Mutable {
  Namespace() : Object(0, 1) {}
  const char* type_name() const override { return "jinja2.utils.Namespace"; }
  void clear() override { names.clear(); }
  const Value* find(std::string_view name) const;
  void set(const std::string& name,
           Value value);  // names that start with _ are refused, as transformers does
  std::vector<std::pair<std::string, Value>> names;
};

}  // namespace cairn::text::jinja
