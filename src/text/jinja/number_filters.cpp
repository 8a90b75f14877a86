#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

// What int(text, base) accepts; nullopt where it raises ValueError.
std::optional<Int> parse_int(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  const std::u32string s = to_points(strip(text));
  size_t at = 0;
  bool negative = false;
  if (at < s.size() && (s[at] == '+' || s[at] == '-')) negative = s[at++] == '-';
  const auto prefix = [&](char32_t letter) {
    return at + 1 < s.size() && s[at] == '0' && (s[at + 1] | 0x20) == letter;
  };
  const bool guess = base == 0;
  bool prefixed = true;
  if ((guess || base == 16) && prefix('x'))
    base = 16;
  else if ((guess || base == 8) && prefix('o'))
    base = 8;
  else if ((guess || base == 2) && prefix('b'))
    base = 2;
  else
    prefixed = false;
  if (prefixed) {
    at += 2;
    if (at < s.size() && s[at] == '_') ++at;
  } else if (guess) {
    base = 10;
  }
  if (at >= s.size()) return std::nullopt;
  const bool leading_zero = guess && !prefixed && s[at] == '0';
  Int value = 0;
  bool digit_before = false;
  for (; at < s.size(); ++at) {
    if (s[at] == '_') {
      if (!digit_before) return std::nullopt;
      digit_before = false;
      continue;
    }
    int digit = decimal_value(s[at]);
    if (digit < 0 && s[at] < 0x80 && (s[at] | 0x20) >= 'a' && (s[at] | 0x20) <= 'z')
      digit = int((s[at] | 0x20) - 'a') + 10;
    if (digit < 0 || digit >= base) return std::nullopt;
    digit_before = true;
    if (__builtin_mul_overflow(value, Int(base), &value) || __builtin_add_overflow(value, Int(digit), &value))
      raise(Fault::unsupported, "an integer beyond 128 bits");
  }
  if (!digit_before || (leading_zero && value != 0)) return std::nullopt;
  return negative ? -value : value;
}

// What float(text) accepts.
std::optional<double> parse_real(std::string_view text) {
  const std::u32string points = to_points(strip(text));
  std::string s;
  bool digit_before = false;
  for (size_t i = 0; i < points.size(); ++i) {
    const char32_t c = points[i];
    const int digit = decimal_value(c);
    if (c == '_') {
      if (!digit_before || i + 1 >= points.size() || decimal_value(points[i + 1]) < 0) return std::nullopt;
      continue;
    }
    digit_before = digit >= 0;
    if (digit >= 0)
      s += char('0' + digit);
    else if (c < 0x80)
      s += char(c | (c >= 'A' && c <= 'Z' ? 0x20 : 0));
    else
      return std::nullopt;
  }
  std::string_view body = s;
  const bool negative = body.starts_with('-');
  if (body.starts_with('-') || body.starts_with('+')) body.remove_prefix(1);
  double value = 0;
  if (body == "inf" || body == "infinity")
    value = HUGE_VAL;
  else if (body == "nan")
    value = NAN;
  else {
    if (body.empty() || body.find_first_not_of("0123456789.e+-") != std::string_view::npos ||
        body[0] == 'e' || body[0] == '+' || body[0] == '-')
      return std::nullopt;
    const std::string number(body);
    char* end = nullptr;
    value = std::strtod(number.c_str(), &end);
    if (end != number.c_str() + number.size()) return std::nullopt;
  }
  return negative ? -value : value;
}

Value absolute(Runtime&, const Value& v, Args& args) {
  Bound("abs", args, {});
  if (v.is(Kind::undefined)) raise(Fault::type, "bad operand type for abs(): 'Undefined'");
  if (v.is(Kind::real)) return Value::real(std::abs(v.as_real()));
  if (v.is_integral()) return v.as_int() < 0 ? negate(v) : positive(v);
  raise(Fault::type, "bad operand type for abs(): '{}'", v.type_name());
}

Value to_int(Runtime&, const Value& v, Args& args) {
  const Bound b("int", args, {"default", "base"});
  const Value otherwise = b.get(0, Value::integer(0));
  if (v.is(Kind::undefined)) v.undefined().fail();
  if (v.is_integral()) return positive(v);
  if (v.is(Kind::real)) {
    if (std::isnan(v.as_real())) return otherwise;
    return Value::integer(to_whole(v.as_real()));
  }
  if (!v.is(Kind::string)) return otherwise;
  if (b.given(1) && !b.at(1).is_integral()) {
    // int(text, base) is a TypeError then; what float() reads still counts.
  } else if (const auto i = parse_int(v.text(), b.integer(1, 10))) {
    return Value::integer(*i);
  }
  const auto d = parse_real(v.text());
  if (!d || !std::isfinite(*d)) return otherwise;
  return Value::integer(to_whole(*d));
}

Value to_real(Runtime&, const Value& v, Args& args) {
  const Bound b("float", args, {"default"});
  if (v.is(Kind::undefined)) v.undefined().fail();
  if (v.is_number()) return Value::real(v.as_real());
  if (v.is(Kind::string))
    if (const auto d = parse_real(v.text())) return Value::real(*d);
  return b.get(0, Value::real(0));
}

// round(d, digits): the decimal nearest to the exact binary value, ties to even.
double round_real(double d, int64_t digits) {
  if (!std::isfinite(d) || digits > 323) return d;
  if (digits >= 0) {
    const std::string format = fmt::format("%.{}f", digits);
    std::string text(size_t(std::snprintf(nullptr, 0, format.c_str(), d)), '\0');
    std::snprintf(text.data(), text.size() + 1, format.c_str(), d);
    return std::strtod(text.c_str(), nullptr);
  }
  if (digits < -308) return std::copysign(0.0, d);
  // To tens, hundreds ...: as many significant digits as stand before that place.
  const int exponent = d == 0 ? 0 : int(std::floor(std::log10(std::abs(d))));
  const double unit = std::pow(10.0, double(-digits));
  if (exponent + digits < -1) return std::copysign(0.0, d);
  if (exponent + digits < 0) return std::abs(d) > unit / 2 ? std::copysign(unit, d) : std::copysign(0.0, d);
  char text[64];
  std::snprintf(text, sizeof text, "%.*e", int(exponent + digits), d);
  return std::strtod(text, nullptr);
}

Int round_int(Int value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -37) return 0;
  Int unit = 1;
  for (int64_t i = 0; i < -digits; ++i) unit *= 10;
  const Int half = unit / 2;
  Int rest = value % unit;
  if (rest < 0) rest += unit;
  const Int down = value - rest;
  if (rest > half || (rest == half && (down / unit) % 2 != 0)) return down + unit;
  return down;
}

Value round_filter(Runtime& runtime, const Value& v, Args& args) {
  const Bound b("round", args, {"precision", "method"});
  const std::string method = b.given(1) ? print(b.at(1)) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    raise(Fault::runtime, "method must be common, ceil or floor");
  if (!v.is_number()) {
    if (v.is(Kind::undefined)) v.undefined().fail();
    raise(Fault::type, "type {} doesn't define __round__ method", v.type_name());
  }
  if (method == "common") {
    if (b.given(0) && b.at(0).is(Kind::none))
      return v.is_integral() ? positive(v) : Value::integer(to_whole(round_real(v.as_real(), 0)));
    const int64_t precision = b.integer(0, 0);
    return v.is_integral() ? Value::integer(round_int(v.as_int(), precision))
                           : Value::real(round_real(v.as_real(), precision));
  }
  const Value scale = power(Value::integer(10), b.get(0, Value::integer(0)));
  const Value scaled = multiply(runtime, v, scale);
  const Value whole = scaled.is_integral()
                          ? scaled
                          : Value::integer(to_whole(method == "ceil" ? std::ceil(scaled.as_real())
                                                                     : std::floor(scaled.as_real())));
  return divide(whole, scale);
}

Value filesizeformat(Runtime&, const Value& v, Args& args) {
  const Bound b("filesizeformat", args, {"binary"});
  double bytes = 0;
  if (v.is_number())
    bytes = v.as_real();
  else if (const auto d = v.is(Kind::string) ? parse_real(v.text()) : std::nullopt)
    bytes = *d;
  else
    raise(Fault::type, "could not convert {} to float", v.type_name());
  const bool binary = b.flag(0, false);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::string("1 Byte");
  if (bytes < base) return Value::string(to_string(to_whole(bytes)) + " Bytes");
  double unit = base * base;
  const std::string letters = binary ? "KMGTPEZY" : "kMGTPEZY";
  for (size_t i = 0;; ++i, unit *= base)
    if (bytes < unit || i + 1 == letters.size())
      return Value::string(fmt::format("{:.1f} {}{}", base * bytes / unit, letters[i], binary ? "iB" : "B"));
}

}  // namespace

const std::vector<NamedFilter> kNumberFilters = {
    {"abs", {absolute}},       {"filesizeformat", {filesizeformat}}, {"float", {to_real}}, {"int", {to_int}},
    {"round", {round_filter}},
};

}  // namespace cairn::text::jinja
