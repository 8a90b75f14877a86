#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/format.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

constexpr double kExactInt = 0x1p126;  // below, a whole double converts to Int without loss

std::partial_ordering compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral())
    return a.as_int() < b.as_int()   ? std::partial_ordering::less
           : a.as_int() > b.as_int() ? std::partial_ordering::greater
                                     : std::partial_ordering::equivalent;
  if (a.is(Kind::real) && b.is(Kind::real)) return a.as_real() <=> b.as_real();
  if (a.is(Kind::real)) {
    const auto reversed = compare_numbers(b, a);
    return reversed == std::partial_ordering::less      ? std::partial_ordering::greater
           : reversed == std::partial_ordering::greater ? std::partial_ordering::less
                                                        : reversed;
  }
  // int against float, exactly: whole parts first.
  const double d = b.as_real();
  if (std::isnan(d)) return std::partial_ordering::unordered;
  if (d >= kExactInt) return std::partial_ordering::less;
  if (d <= -kExactInt) return std::partial_ordering::greater;
  const Int whole = Int(std::floor(d));
  if (a.as_int() != whole)
    return a.as_int() < whole ? std::partial_ordering::less : std::partial_ordering::greater;
  return d > std::floor(d) ? std::partial_ordering::less : std::partial_ordering::equivalent;
}

[[noreturn]] void unsupported(const char* op, const Value& a, const Value& b) {
  if (a.is(Kind::undefined)) a.undefined().fail();
  if (b.is(Kind::undefined)) b.undefined().fail();
  raise(Fault::type, "unsupported operand type(s) for {}: '{}' and '{}'", op, a.type_name(), b.type_name());
}

[[noreturn]] void too_big() { raise(Fault::unsupported, "an integer beyond 128 bits"); }

Int whole(double d) {
  if (std::isnan(d)) raise(Fault::value, "cannot convert float NaN to integer");
  if (std::isinf(d)) raise(Fault::overflow, "cannot convert float infinity to integer");
  if (std::abs(d) >= kExactInt) too_big();
  return Int(d);
}

Value repeat(Runtime& runtime, const Value& value, Int times) {
  const size_t size = value.is(Kind::string) ? value.text().size() : value.items().size() * sizeof(Value);
  if (times <= 0 || size == 0)
    return value.is(Kind::string)  ? Value::string("", value.is_safe())
           : value.is(Kind::tuple) ? Value::tuple({})
                                   : Value::list({});
  if (times > Int(runtime.limits.output_bytes / size))
    raise(Fault::limit, "repeating to more than {} bytes", runtime.limits.output_bytes);
  runtime.bytes(size * size_t(times));
  if (value.is(Kind::string)) {
    std::string out;
    out.reserve(size * size_t(times));
    for (Int i = 0; i < times; ++i) out += value.text();
    return Value::string(std::move(out), value.is_safe());
  }
  std::vector<Value> out;
  out.reserve(value.items().size() * size_t(times));
  for (Int i = 0; i < times; ++i) out.insert(out.end(), value.items().begin(), value.items().end());
  return value.is(Kind::tuple) ? Value::tuple(std::move(out)) : Value::list(std::move(out));
}

double float_modulo(double a, double b) {
  double m = std::fmod(a, b);
  if (m != 0) {
    if ((b < 0) != (m < 0)) m += b;
  } else {
    m = std::copysign(0.0, b);
  }
  return m;
}

double float_floor_divide(double a, double b) {
  const double m = std::fmod(a, b);
  double quotient = (a - m) / b;
  if (m != 0 && (b < 0) != (m < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == std::partial_ordering::equivalent;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::missing:
    case Kind::none:
    case Kind::undefined: return true;
    case Kind::string: return a.text() == b.text();
    case Kind::list:
    case Kind::tuple:
      return a.items().size() == b.items().size() &&
             std::equal(a.items().begin(), a.items().end(), b.items().begin(),
                        [](const Value& x, const Value& y) { return equal(x, y); });
    case Kind::dict: {
      if (a.object() == b.object()) return true;
      if (a.dict().items.size() != b.dict().items.size()) return false;
      for (const auto& [key, value] : a.dict().items) {
        const Value* other = b.dict().find(key);
        if (!other || !equal(value, *other)) return false;
      }
      return true;
    }
    default: break;
  }
  if (a.object() == b.object()) return true;
  const auto x = a.as<Range>(), y = b.as<Range>();
  if (x && y)
    return x->count == y->count &&
           (x->count == 0 || (x->start == y->start && (x->count == 1 || x->step == y->step)));
  const auto v = a.as<DictView>(), w = b.as<DictView>();
  if (v && w && v->part != DictView::values && w->part != DictView::values) {
    const auto &left = v->dict.dict().items, &right = w->dict.dict().items;
    if (left.size() != right.size()) return false;
    if (left.empty()) return true;
    if (v->part != w->part) return false;
    for (const auto& [key, value] : left) {
      const Value* other = w->dict.dict().find(key);
      if (!other || (v->part == DictView::items && !equal(value, *other))) return false;
    }
    return true;
  }
  return false;
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == std::partial_ordering::less;
  if (a.is(Kind::string) && b.is(Kind::string)) return a.text() < b.text();  // UTF-8 sorts by code point
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i])) return less(x[i], y[i]);
    return x.size() < y.size();
  }
  if (a.is(Kind::undefined)) a.undefined().fail();
  if (b.is(Kind::undefined)) b.undefined().fail();
  raise(Fault::type, "'<' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name());
}

size_t hash(const Value& v) {
  switch (v.kind()) {
    case Kind::missing:
    case Kind::none: return 0x9e37;
    case Kind::undefined: return 0x7f4a;
    case Kind::boolean:
    case Kind::integer: return std::hash<uint64_t>()(uint64_t(v.as_int()));
    case Kind::real: {
      const double d = v.as_real();
      if (std::abs(d) < kExactInt && d == std::floor(d)) return std::hash<uint64_t>()(uint64_t(Int(d)));
      return std::hash<double>()(d);
    }
    case Kind::string: return std::hash<std::string_view>()(v.text());
    case Kind::tuple: {
      size_t h = 0x345678;
      for (const Value& item : v.items()) h = (h ^ hash(item)) * 1000003;
      return h;
    }
    case Kind::list:
    case Kind::dict: raise(Fault::type, "unhashable type: '{}'", v.type_name());
    case Kind::object: break;
  }
  if (const auto range = v.as<Range>())
    return std::hash<int64_t>()(range->count) * 31 + std::hash<int64_t>()(range->start);
  if (const auto view = v.as<DictView>(); view && view->part != DictView::values)
    raise(Fault::type, "unhashable type: '{}'", v.type_name());
  return std::hash<const void*>()(v.object().get());
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::missing:
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return v.as_int() != 0;
    case Kind::real: return v.as_real() != 0;
    case Kind::string: return !v.text().empty();
    case Kind::list:
    case Kind::tuple: return !v.items().empty();
    case Kind::dict: return !v.dict().items.empty();
    case Kind::object: break;
  }
  if (const auto range = v.as<Range>()) return range->count != 0;
  if (const auto view = v.as<DictView>()) return !view->dict.dict().items.empty();
  return true;
}

bool same_object(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.object() || b.object()) {
    if (a.is(Kind::string)) return a.text() == b.text() && a.is_safe() == b.is_safe();
    if (a.is(Kind::tuple) && a.items().empty() && b.items().empty()) return true;
    return a.object() == b.object();
  }
  return a.is(Kind::real) ? a.as_real() == b.as_real() : a.as_int() == b.as_int();
}

std::optional<int64_t> length(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined: return 0;
    case Kind::string: return int64_t(v.str().points);
    case Kind::list:
    case Kind::tuple: return int64_t(v.items().size());
    case Kind::dict: return int64_t(v.dict().items.size());
    case Kind::object: break;
    default: return std::nullopt;
  }
  if (const auto range = v.as<Range>()) return range->count;
  if (const auto view = v.as<DictView>()) return int64_t(view->dict.dict().items.size());
  if (const auto sized = v.as<Sized>()) return sized->length();
  return std::nullopt;
}

int64_t length_or_raise(const Value& v) {
  if (const auto n = length(v)) return *n;
  raise(Fault::type, "object of type '{}' has no len()", v.type_name());
}

bool contains(Runtime& runtime, const Value& container, const Value& wanted) {
  switch (container.kind()) {
    case Kind::string:
      if (!wanted.is(Kind::string)) {
        raise(Fault::type, "'in <string>' requires string as left operand, not {}", wanted.type_name());
      }
      runtime.bytes(container.text().size());
      return container.text().find(wanted.text()) != std::string::npos;
    case Kind::dict: return container.dict().find(wanted) != nullptr;
    case Kind::object:
      if (const auto view = container.as<DictView>(); view && view->part == DictView::keys)
        return view->dict.dict().find(wanted) != nullptr;
      break;
    default: break;
  }
  if (!is_iterable(container))
    raise(Fault::type, "argument of type '{}' is not iterable", container.type_name());
  const auto it = iterate(container);
  while (const auto v = it->next(runtime)) {
    runtime.step();
    if (equal(*v, wanted)) return true;
  }
  return false;
}

Value add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    Int sum = 0;
    if (__builtin_add_overflow(a.as_int(), b.as_int(), &sum)) too_big();
    return Value::integer(sum);
  }
  if (a.is_number() && b.is_number()) return Value::real(a.as_real() + b.as_real());
  if (a.is(Kind::string) && b.is(Kind::string)) {
    runtime.bytes(a.text().size() + b.text().size());
    if (!a.is_safe() && !b.is_safe()) return Value::string(a.text() + b.text());
    return Value::string(
        (a.is_safe() ? a.text() : escape_html(a.text())) + (b.is_safe() ? b.text() : escape_html(b.text())),
        true);
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    std::vector<Value> items = a.items();
    runtime.step(items.size() + b.items().size());
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.is(Kind::tuple) ? Value::tuple(std::move(items)) : Value::list(std::move(items));
  }
  unsupported("+", a, b);
}

Value subtract(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    Int difference = 0;
    if (__builtin_sub_overflow(a.as_int(), b.as_int(), &difference)) too_big();
    return Value::integer(difference);
  }
  if (a.is_number() && b.is_number()) return Value::real(a.as_real() - b.as_real());
  const auto view = a.as<DictView>();
  if (view && view->part != DictView::values && is_iterable(b)) raise(Fault::unsupported, "a set");
  unsupported("-", a, b);
}

Value multiply(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    Int product = 0;
    if (__builtin_mul_overflow(a.as_int(), b.as_int(), &product)) too_big();
    return Value::integer(product);
  }
  if (a.is_number() && b.is_number()) return Value::real(a.as_real() * b.as_real());
  if ((a.is(Kind::string) || a.is_sequence()) && b.is_integral()) return repeat(runtime, a, b.as_int());
  if ((b.is(Kind::string) || b.is_sequence()) && a.is_integral()) return repeat(runtime, b, a.as_int());
  unsupported("*", a, b);
}

Value divide(const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) unsupported("/", a, b);
  if (b.as_real() == 0) raise(Fault::zero_division, "division by zero");
  // Past 2^53 both operands round before they are divided; long double keeps 64-bit integers exact.
  if (a.is_integral() && b.is_integral())
    return Value::real(double(static_cast<long double>(a.as_int()) / static_cast<long double>(b.as_int())));
  return Value::real(a.as_real() / b.as_real());
}

Value floor_divide(const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) unsupported("//", a, b);
  if (b.as_real() == 0) raise(Fault::zero_division, "integer division or modulo by zero");
  if (!a.is_integral() || !b.is_integral()) return Value::real(float_floor_divide(a.as_real(), b.as_real()));
  if (b.as_int() == -1) return negate(a);
  const Int quotient = a.as_int() / b.as_int(), rest = a.as_int() % b.as_int();
  return Value::integer(rest != 0 && (rest < 0) != (b.as_int() < 0) ? quotient - 1 : quotient);
}

Value modulo(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is(Kind::string)) return percent_format(runtime, a, b);
  if (!a.is_number() || !b.is_number()) unsupported("%", a, b);
  if (b.as_real() == 0) raise(Fault::zero_division, "integer modulo by zero");
  if (!a.is_integral() || !b.is_integral()) return Value::real(float_modulo(a.as_real(), b.as_real()));
  if (b.as_int() == -1) return Value::integer(0);
  const Int rest = a.as_int() % b.as_int();
  return Value::integer(rest != 0 && (rest < 0) != (b.as_int() < 0) ? rest + b.as_int() : rest);
}

Value power(const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) unsupported("** or pow()", a, b);
  if (a.is_integral() && b.is_integral() && b.as_int() >= 0) {
    Int result = 1, base = a.as_int(), exponent = b.as_int();
    if (base == 0 || base == 1) return Value::integer(exponent == 0 ? 1 : base);
    if (base == -1) return Value::integer(exponent % 2 ? -1 : 1);
    if (exponent > 127) too_big();
    for (; exponent > 0; --exponent)
      if (__builtin_mul_overflow(result, base, &result)) too_big();
    return Value::integer(result);
  }
  const double base = a.as_real(), exponent = b.as_real();
  if (base == 0 && exponent < 0) raise(Fault::zero_division, "0.0 cannot be raised to a negative power");
  if (base < 0 && std::isfinite(base) && std::isfinite(exponent) && exponent != std::floor(exponent))
    raise(Fault::unsupported, "a power that is a complex number");
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent))
    raise(Fault::overflow, "(34, 'Numerical result out of range')");
  return Value::real(result);
}

Value negate(const Value& v) {
  if (v.is(Kind::real)) return Value::real(-v.as_real());
  if (v.is_integral()) {
    Int result = 0;
    if (__builtin_sub_overflow(Int(0), v.as_int(), &result)) too_big();
    return Value::integer(result);
  }
  if (v.is(Kind::undefined)) v.undefined().fail();
  raise(Fault::type, "bad operand type for unary -: '{}'", v.type_name());
}

Value positive(const Value& v) {
  if (v.is(Kind::real)) return v;
  if (v.is_integral()) return Value::integer(v.as_int());
  if (v.is(Kind::undefined)) v.undefined().fail();
  raise(Fault::type, "bad operand type for unary +: '{}'", v.type_name());
}

int64_t clamp(Int i) { return i > INT64_MAX ? INT64_MAX : i < INT64_MIN ? INT64_MIN : int64_t(i); }

int64_t as_index(const Value& v, const char* what) {
  if (!v.is_integral()) {
    if (v.is(Kind::undefined)) v.undefined().fail();
    raise(Fault::type, "{}: '{}' object cannot be interpreted as an integer", what, v.type_name());
  }
  return clamp(v.as_int());
}

Int to_whole(double d) { return whole(d); }

}  // namespace cairn::text::jinja
