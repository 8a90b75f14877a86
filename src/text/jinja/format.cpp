#include "text/jinja/format.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

constexpr size_t kMostWidth = 1 << 20;

struct Spec {
  char32_t fill = U' ';
  char align = 0;  // < > ^ =
  char sign = '-';
  bool alternate = false, zero = false, no_negative_zero = false;
  size_t width = 0;
  char grouping = 0;
  int precision = -1;
  char type = 0;
};

size_t parse_number(const std::u32string& s, size_t& at) {
  size_t n = 0;
  while (at < s.size() && s[at] >= '0' && s[at] <= '9') {
    n = n * 10 + (s[at++] - '0');
    if (n > kMostWidth) raise(Fault::limit, "a format wider than {}", kMostWidth);
  }
  return n;
}

Spec parse_spec(const std::string& text) {
  const std::u32string s = to_points(text);
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char32_t c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const bool fill_given = s.size() > 1 && is_align(s[1]);
  if (fill_given)
    spec.fill = s[0], spec.align = char(s[1]), at = 2;
  else if (!s.empty() && is_align(s[0]))
    spec.align = char(s[0]), at = 1;
  if (at < s.size() && (s[at] == '+' || s[at] == '-' || s[at] == ' ')) spec.sign = char(s[at++]);
  if (at < s.size() && s[at] == 'z') spec.no_negative_zero = true, ++at;
  if (at < s.size() && s[at] == '#') spec.alternate = true, ++at;
  if (at < s.size() && s[at] == '0' && !fill_given) {
    spec.fill = U'0';
    if (!spec.align) spec.align = '=', spec.zero = true;
    ++at;
  }
  spec.width = parse_number(s, at);
  if (at < s.size() && (s[at] == ',' || s[at] == '_')) spec.grouping = char(s[at++]);
  if (at < s.size() && s[at] == '.') {
    ++at;
    const size_t from = at;
    spec.precision = int(parse_number(s, at));
    if (at == from) raise(Fault::value, "Format specifier missing precision");
  }
  if (at < s.size() && s[at] < 0x80) spec.type = char(s[at++]);
  if (at != s.size()) raise(Fault::value, "Invalid format specifier '{}'", text);
  return spec;
}

std::string pad(const Spec& spec, const std::string& prefix, const std::string& body, char default_align) {
  const size_t size = code_points(prefix) + code_points(body);
  if (size >= spec.width) return prefix + body;
  const size_t missing = spec.width - size;
  std::string fill;
  append(fill, spec.fill);
  const auto filler = [&](size_t n) {
    std::string out;
    for (size_t i = 0; i < n; ++i) out += fill;
    return out;
  };
  switch (spec.align ? spec.align : default_align) {
    case '<': return prefix + body + filler(missing);
    case '>': return filler(missing) + prefix + body;
    case '^': return filler(missing / 2) + prefix + body + filler(missing - missing / 2);
    default: return prefix + filler(missing) + body;
  }
}

// Digits in groups; zero padding counts the separators it brings ('{:08,}').
std::string group(std::string digits, char separator, size_t every, size_t min_width) {
  const size_t point = digits.find_first_of(".e");
  std::string tail = point == std::string::npos ? "" : digits.substr(point);
  digits.resize(digits.size() - tail.size());
  const auto grouped_size = [&](size_t n) { return n + (n - 1) / every; };
  while (grouped_size(digits.size()) + tail.size() < min_width) digits.insert(0, "0");
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out + tail;
}

std::string sign_of(bool negative, char sign) {
  return negative ? "-" : sign == '+' ? "+" : sign == ' ' ? " " : "";
}

std::string in_base(Int value, unsigned base, bool capital) {
  if (value < 0) value = -value;
  if (value == 0) return "0";
  std::string digits;
  for (; value > 0; value /= Int(base))
    digits.push_back((capital ? "0123456789ABCDEF" : "0123456789abcdef")[int(value % Int(base))]);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// |d| in the manner of Python's 'e', 'f', 'g' and their capitals.
std::string real_digits(double d, char type, int precision, bool alternate) {
  const bool capital = type >= 'A' && type <= 'Z';
  if (std::isnan(d)) return capital ? "NAN" : "nan";
  if (std::isinf(d)) return capital ? "INF" : "inf";
  const std::string format = fmt::format("%{}.{}{}", alternate ? "#" : "", precision, type);
  const int n = std::snprintf(nullptr, 0, format.c_str(), std::abs(d));
  std::string out(size_t(n), '\0');
  std::snprintf(out.data(), out.size() + 1, format.c_str(), std::abs(d));
  return out;
}

std::string format_integer(const Value& v, const Spec& spec) {
  const Int value = v.as_int();
  if (spec.precision >= 0) raise(Fault::value, "Precision not allowed in integer format specifier");
  std::string digits, prefix = sign_of(value < 0, spec.sign);
  size_t every = 3;
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n': digits = in_base(value, 10, false); break;
    case 'b': digits = in_base(value, 2, false), every = 4; break;
    case 'o': digits = in_base(value, 8, false), every = 4; break;
    case 'x':
    case 'X': digits = in_base(value, 16, spec.type == 'X'), every = 4; break;
    case 'c': {
      if (spec.sign != '-') raise(Fault::value, "Sign not allowed with integer format specifier 'c'");
      if (value < 0 || value > 0x10FFFF) raise(Fault::overflow, "%c arg not in range(0x110000)");
      std::string c;
      append(c, char32_t(value));
      return pad(spec, "", c, '<');
    }
    default: raise(Fault::value, "Unknown format code '{}' for object of type 'int'", spec.type);
  }
  if (spec.grouping == ',' && every == 4) raise(Fault::value, "Cannot specify ',' with '{}'.", spec.type);
  if (spec.alternate && every == 4) prefix += std::string("0") + spec.type;
  if (spec.grouping) {
    const bool fill = spec.align == '=' && spec.fill == U'0' && spec.width > prefix.size();
    digits = group(digits, spec.grouping, every, fill ? spec.width - prefix.size() : 0);
  }
  return pad(spec, prefix, digits, '>');
}

std::string format_real(double d, const Spec& spec) {
  std::string digits;
  bool negative = std::signbit(d) && !std::isnan(d);
  switch (spec.type) {
    case 0:
      if (spec.precision < 0) {
        digits = repr_real(std::abs(d));
      } else {
        // Like 'g', but a whole number keeps one digit after the point.
        const int precision = std::max(spec.precision, 1);
        const std::string sci = real_digits(d, 'e', precision - 1, false);
        const size_t e = sci.find('e');
        const int exponent = e == std::string::npos ? 0 : std::atoi(sci.c_str() + e + 1);
        digits = real_digits(d, 'g', precision, spec.alternate);
        if (std::isfinite(d) && exponent >= precision - 1 && exponent < precision &&
            digits.find('.') == std::string::npos) {
          digits = sci.substr(
              0, e);  // as wide as the precision: Python switches to the exponent one digit earlier
          while (digits.find('.') != std::string::npos && (digits.back() == '0' || digits.back() == '.')) {
            const bool point = digits.back() == '.';
            digits.pop_back();
            if (point) break;
          }
          digits += sci.substr(e);
        } else if (std::isfinite(d) && digits.find_first_of(".e") == std::string::npos) {
          digits += ".0";
        }
      }
      break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case 'n': {
      const char type = spec.type == 'n' ? 'g' : spec.type;
      digits = real_digits(d, type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
      break;
    }
    case '%':
      digits = real_digits(d * 100, 'f', spec.precision < 0 ? 6 : spec.precision, spec.alternate) + "%";
      break;
    default: raise(Fault::value, "Unknown format code '{}' for object of type 'float'", spec.type);
  }
  if (spec.no_negative_zero && digits.find_first_of("123456789infa") == std::string::npos) negative = false;
  const std::string prefix = sign_of(negative, spec.sign);
  if (spec.grouping && std::isfinite(d)) {
    const bool fill = spec.align == '=' && spec.fill == U'0' && spec.width > prefix.size();
    digits = group(digits, spec.grouping, 3, fill ? spec.width - prefix.size() : 0);
  }
  return pad(spec, prefix, digits, '>');
}

// --- "%(name)-5.2f" ---

struct Directive {
  bool left = false, plus = false, space = false, alternate = false, zero = false;
  size_t width = 0;
  int precision = -1;
};

std::string pad_percent(const Directive& d, const std::string& prefix, const std::string& body, bool number) {
  const size_t size = code_points(prefix) + code_points(body);
  if (size >= d.width) return prefix + body;
  const size_t missing = d.width - size;
  if (d.left) return prefix + body + std::string(missing, ' ');
  if (d.zero && number) return prefix + std::string(missing, '0') + body;
  return std::string(missing, ' ') + prefix + body;
}

std::string ascii(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    if (c < 0x80)
      out.push_back(char(c));
    else
      out += c <= 0xFF     ? fmt::format("\\x{:02x}", uint32_t(c))
             : c <= 0xFFFF ? fmt::format("\\u{:04x}", uint32_t(c))
                           : fmt::format("\\U{:08x}", uint32_t(c));
  }
  return out;
}

std::string cut(std::string text, int precision) {
  if (precision >= 0) text.resize(byte_offset(text, size_t(precision)));
  return text;
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& r, const Value& format, const Value& values)
      : runtime_(r), text_(format.text()), safe_(format.is_safe()), values_(values) {
    if (!values.is(Kind::tuple)) single_ = true;
  }

  std::string run() {
    std::string out;
    size_t at = 0;
    while (at < text_.size()) {
      if (text_[at] != '%') {
        out.push_back(text_[at++]);
        continue;
      }
      ++at;
      out += directive(at);
      if (out.size() > runtime_.limits.output_bytes)
        raise(Fault::limit, "formatting to more than {} bytes", runtime_.limits.output_bytes);
    }
    // What has items counts as a mapping, and mappings need not be used up.
    const bool mapping = values_.is(Kind::dict) || values_.is(Kind::list) || values_.is(Kind::undefined) ||
                         values_.as<Range>() != nullptr;
    const bool all = single_ ? used_ > 0 || mapping : used_ == values_.items().size();
    if (!all) raise(Fault::type, "not all arguments converted during string formatting");
    return out;
  }

 private:
  Value take() {
    if (single_) {
      if (used_++) raise(Fault::type, "not enough arguments for format string");
      return values_;
    }
    if (used_ >= values_.items().size()) raise(Fault::type, "not enough arguments for format string");
    return values_.items()[used_++];
  }

  size_t count(size_t& at) {
    if (at < text_.size() && text_[at] == '*') {
      ++at;
      const Value v = take();
      if (!v.is_integral()) raise(Fault::type, "* wants int");
      const int64_t n = clamp(v.as_int());
      if (n < 0) negative_ = true;
      if (n > int64_t(kMostWidth) || n < -int64_t(kMostWidth))
        raise(Fault::limit, "a format wider than {}", kMostWidth);
      return size_t(n < 0 ? -n : n);
    }
    size_t n = 0;
    while (at < text_.size() && text_[at] >= '0' && text_[at] <= '9') {
      n = n * 10 + size_t(text_[at++] - '0');
      if (n > kMostWidth) raise(Fault::limit, "a format wider than {}", kMostWidth);
    }
    return n;
  }

  std::string directive(size_t& at) {
    std::optional<Value> named;
    if (at < text_.size() && text_[at] == '(') {
      if (!values_.is(Kind::dict)) raise(Fault::type, "format requires a mapping");
      int depth = 1;
      const size_t from = ++at;
      while (at < text_.size() && depth > 0) {
        if (text_[at] == '(') ++depth;
        if (text_[at] == ')') --depth;
        ++at;
      }
      if (depth > 0) raise(Fault::value, "incomplete format key");
      const std::string key = text_.substr(from, at - 1 - from);
      const Value* found = values_.dict().find(std::string_view(key));
      if (!found) raise(Fault::lookup, "'{}'", key);
      named = *found;
    }
    Directive d;
    for (; at < text_.size(); ++at) {
      if (text_[at] == '-')
        d.left = true;
      else if (text_[at] == '+')
        d.plus = true;
      else if (text_[at] == ' ')
        d.space = true;
      else if (text_[at] == '#')
        d.alternate = true;
      else if (text_[at] == '0')
        d.zero = true;
      else
        break;
    }
    negative_ = false;
    d.width = count(at);
    if (negative_) d.left = true;
    if (at < text_.size() && text_[at] == '.') {
      ++at;
      negative_ = false;
      d.precision = int(count(at));
      if (negative_) d.precision = 0;
    }
    while (at < text_.size() && (text_[at] == 'h' || text_[at] == 'l' || text_[at] == 'L')) ++at;
    if (at >= text_.size()) raise(Fault::value, "incomplete format");
    const char type = text_[at++];
    if (type == '%') return "%";
    if (std::string_view("sradiuoxXeEfFgGc").find(type) == std::string_view::npos)
      raise(Fault::value, "unsupported format character '{}'", type);
    const Value v = named ? *named : take();
    return convert(d, type, v);
  }

  std::string escaped(const Value& v, std::string text) const {
    return safe_ && !v.is_safe() ? escape_html(text) : text;
  }

  std::string convert(const Directive& d, char type, const Value& v) {
    switch (type) {
      case 's': return pad_percent(d, "", cut(escaped(v, print(v)), d.precision), false);
      case 'r': return pad_percent(d, "", cut(safe_ ? escape_html(repr(v)) : repr(v), d.precision), false);
      case 'a':
        return pad_percent(d, "", cut(ascii(safe_ ? escape_html(repr(v)) : repr(v)), d.precision), false);
      case 'c': {
        if (v.is(Kind::string) && v.str().points == 1) return pad_percent(d, "", v.text(), false);
        if (!v.is_integral()) raise(Fault::type, "%c requires int or char");
        if (v.as_int() < 0 || v.as_int() > 0x10FFFF) raise(Fault::overflow, "%c arg not in range(0x110000)");
        std::string c;
        append(c, char32_t(v.as_int()));
        return pad_percent(d, "", c, false);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'o':
      case 'x':
      case 'X': {
        if (v.is(Kind::undefined)) v.undefined().fail();
        const bool decimal = type == 'd' || type == 'i' || type == 'u';
        if (!v.is_number() || (v.is(Kind::real) && !decimal))
          raise(Fault::type, "%{} format: {} is required, not {}", type,
                decimal ? "a real number" : "an integer", v.type_name());
        const Int value = v.is(Kind::real) ? to_whole(v.as_real()) : v.as_int();
        std::string digits = in_base(value, decimal ? 10 : type == 'o' ? 8 : 16, type == 'X');
        if (d.precision > int(digits.size())) digits.insert(0, size_t(d.precision) - digits.size(), '0');
        std::string prefix = sign_of(value < 0, d.plus ? '+' : d.space ? ' ' : '-');
        if (d.alternate && !decimal) prefix += std::string("0") + type;
        return pad_percent(d, prefix, digits, true);
      }
      default: {
        if (v.is(Kind::undefined)) v.undefined().fail();
        if (!v.is_number()) raise(Fault::type, "must be real number, not {}", v.type_name());
        const double value = v.as_real();
        const bool negative = std::signbit(value) && !std::isnan(value);
        return pad_percent(d,
                           sign_of(negative, d.plus    ? '+'
                                             : d.space ? ' '
                                                       : '-'),
                           real_digits(value, type, d.precision < 0 ? 6 : d.precision, d.alternate), true);
      }
    }
  }

  Runtime& runtime_;
  const std::string& text_;
  bool safe_, single_ = false, negative_ = false;
  const Value& values_;
  size_t used_ = 0;
};

// --- "{0[key].name!r:>{width}}" ---

class BraceFormatter {
 public:
  BraceFormatter(Runtime& r, bool safe, const std::vector<Value>& p,
                 std::function<const Value*(const std::string&)> n)
      : runtime_(r), safe_(safe), positional_(p), named_(std::move(n)) {}

  std::string run(const std::string& text, int depth) {
    if (depth > 2) raise(Fault::value, "Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const char c = text[at++];
      if (c != '{' && c != '}') {
        out.push_back(c);
        continue;
      }
      if (at < text.size() && text[at] == c) {
        out.push_back(c);
        ++at;
        continue;
      }
      if (c == '}') raise(Fault::value, "Single '}}' encountered in format string");
      out += field(text, at, depth);
      if (out.size() > runtime_.limits.output_bytes)
        raise(Fault::limit, "formatting to more than {} bytes", runtime_.limits.output_bytes);
    }
    return out;
  }

 private:
  std::string field(const std::string& text, size_t& at, int depth) {
    if (at >= text.size()) raise(Fault::value, "Single '{{' encountered in format string");
    // The field ends at the brace that matches; inside [ ] braces do not count for the name.
    const size_t from = at;
    int open = 1;
    bool bracket = false;
    size_t name_end = std::string::npos;
    char conversion = 0;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (name_end == std::string::npos) {
        if (c == '[')
          bracket = true;
        else if (c == ']')
          bracket = false;
        else if (!bracket && (c == '!' || c == ':')) {
          name_end = at;
          continue;
        } else if (!bracket && c == '{') {
          raise(Fault::value, "unexpected '{{' in field name");
        }
        if (bracket) continue;
      }
      if (c == '{') ++open;
      if (c == '}' && --open == 0) break;
    }
    if (at >= text.size()) raise(Fault::value, "expected '}}' before end of string");
    const size_t end = at++;
    if (name_end == std::string::npos) name_end = end;
    const std::string name = text.substr(from, name_end - from);
    std::string spec;
    size_t rest = name_end;
    if (rest < end && text[rest] == '!') {
      if (rest + 1 >= end) raise(Fault::value, "end of string while looking for conversion specifier");
      conversion = text[rest + 1];
      rest += 2;
      if (rest < end && text[rest] != ':') raise(Fault::value, "expected ':' after conversion specifier");
    }
    if (rest < end) spec = text.substr(rest + 1, end - rest - 1);
    Value v = lookup(name);
    if (conversion == 's')
      v = Value::string(print(v), false);
    else if (conversion == 'r')
      v = Value::string(repr(v));
    else if (conversion == 'a')
      v = Value::string(ascii(repr(v)));
    else if (conversion)
      raise(Fault::value, "Unknown conversion specifier '{}'", conversion);
    if (spec.find('{') != std::string::npos || spec.find('}') != std::string::npos)
      spec = run(spec, depth + 1);
    if (!safe_) return format_value(v, spec);
    if (v.is_safe()) {
      if (!spec.empty()) raise(Fault::value, "Unsupported format specification for Markup.");
      return v.text();
    }
    return escape_html(format_value(v, spec));
  }

  Value lookup(const std::string& name) {
    size_t at = name.find_first_of(".[");
    if (at == std::string::npos) at = name.size();
    const std::string first = name.substr(0, at);
    Value v;
    if (first.empty() || first.find_first_not_of("0123456789") == std::string::npos) {
      size_t i = 0;
      if (first.empty()) {
        if (manual_)
          raise(Fault::value, "cannot switch from manual field specification to automatic field numbering");
        automatic_ = true;
        i = next_++;
      } else {
        if (automatic_)
          raise(Fault::value, "cannot switch from automatic field numbering to manual field specification");
        manual_ = true;
        if (first.size() > 9) raise(Fault::value, "Too many decimal digits in format string");
        i = size_t(std::stoul(first));
      }
      if (i >= positional_.size())
        raise(Fault::lookup, "Replacement index {} out of range for positional args tuple", i);
      v = positional_[i];
    } else {
      const Value* found = named_(first);
      if (!found) raise(Fault::lookup, "'{}'", first);
      v = *found;
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        if (end == at + 1) raise(Fault::value, "Empty attribute in format string");
        v = attribute(runtime_, v, name.substr(at + 1, end - at - 1));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == std::string::npos) raise(Fault::value, "Missing ']' in format string");
        const std::string key = name.substr(at + 1, end - at - 1);
        if (key.empty()) raise(Fault::value, "Empty attribute in format string");
        const bool number = key.find_first_not_of("0123456789") == std::string::npos && key.size() < 10;
        v = item(runtime_, v, number ? Value::integer(std::stol(key)) : Value::string(key));
        at = end + 1;
        if (at < name.size() && name[at] != '.' && name[at] != '[')
          raise(Fault::value, "Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return v;
  }

  Runtime& runtime_;
  bool safe_;
  const std::vector<Value>& positional_;
  std::function<const Value*(const std::string&)> named_;
  size_t next_ = 0;
  bool manual_ = false, automatic_ = false;
};

}  // namespace

std::string format_value(const Value& v, const std::string& spec_text) {
  if (spec_text.empty()) return print(v);
  if (!v.is_number() && !v.is(Kind::string)) {
    raise(Fault::type, "unsupported format string passed to {}.__format__", v.type_name());
  }
  const Spec spec = parse_spec(spec_text);
  if (v.is(Kind::string)) {
    if (spec.type && spec.type != 's')
      raise(Fault::value, "Unknown format code '{}' for object of type 'str'", spec.type);
    if (spec.sign != '-' || spec.alternate || spec.grouping || (spec.align == '=' && !spec.zero))
      raise(Fault::value, "not allowed in string format specifier");
    Spec text_spec = spec;
    if (spec.zero) text_spec.align = '<';
    return pad(text_spec, "", cut(v.text(), spec.precision), '<');
  }
  const bool real_type = spec.type && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (v.is_integral() && !real_type) return format_integer(v, spec);
  return format_real(v.as_real(), spec);
}

Value percent_format(Runtime& runtime, const Value& format, const Value& values) {
  runtime.bytes(format.text().size());
  return Value::string(PercentFormatter(runtime, format, values).run(), format.is_safe());
}

Value brace_format(Runtime& runtime, const Value& format, const Args& args) {
  runtime.bytes(format.text().size());
  const auto named = [&](const std::string& name) -> const Value* {
    for (const auto& [n, v] : args.named)
      if (n == name) return &v;
    return nullptr;
  };
  return Value::string(
      BraceFormatter(runtime, format.is_safe(), args.positional, named).run(format.text(), 0),
      format.is_safe());
}

Value brace_format_map(Runtime& runtime, const Value& format, const Value& mapping) {
  if (!mapping.is(Kind::dict))
    raise(Fault::type, "format_map() argument must be a mapping, not {}", mapping.type_name());
  const auto named = [&](const std::string& name) { return mapping.dict().find(std::string_view(name)); };
  const std::vector<Value> none;
  return Value::string(BraceFormatter(runtime, format.is_safe(), none, named).run(format.text(), 0),
                       format.is_safe());
}

}  // namespace cairn::text::jinja
