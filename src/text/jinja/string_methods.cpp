// str's methods. Those of Markup differ only in escaping what they take in (markupsafe).
#include <algorithm>
#include <unordered_map>

#include "text/jinja/format.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

const std::string& text_of(const Value& v, const char* what) {
  if (v.is(Kind::undefined)) v.undefined().fail();
  if (!v.is(Kind::string)) raise(Fault::type, "{} must be str, not {}", what, v.type_name());
  return v.text();
}

Value like(const Value& self, std::string text) { return Value::string(std::move(text), self.is_safe()); }

// What goes into a Markup is escaped first.
std::string taken(const Value& self, const Value& v, const char* what) {
  return self.is_safe() && !v.is_safe() ? escape_html(text_of(v, what)) : text_of(v, what);
}

void none(const char* name, const Args& args) { Bound(name, args, {}); }

std::string strip_set(const std::string& text, const Value* chars, bool left, bool right) {
  if (!chars || chars->is(Kind::none)) return std::string(strip(text, left, right));
  const std::u32string set = to_points(text_of(*chars, "strip arg"));
  const auto in_set = [&](char32_t c) { return set.find(c) != std::u32string::npos; };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!in_set(decode(text, next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
    size_t next = last;
    if (!in_set(decode(text, next))) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

template <bool left, bool right>
Value strip_method(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("strip", args, {"chars"}, 0, 1);
  runtime.bytes(self.text().size());
  return like(self, strip_set(self.text(), b[0], left, right));
}

template <std::string (*map)(std::string_view)>
Value mapped(Runtime& runtime, const Value& self, Args& args) {
  none("str method", args);
  runtime.bytes(self.text().size());
  return like(self, map(self.text()));
}

template <bool (*holds)(char32_t)>
Value all_are(Runtime& runtime, const Value& self, Args& args) {
  none("str method", args);
  runtime.bytes(self.text().size());
  for (size_t at = 0; at < self.text().size();)
    if (!holds(decode(self.text(), at))) return Value::boolean(false);
  return Value::boolean(!self.text().empty());
}

bool is_ascii(char32_t c) { return c < 0x80; }

Value isascii(Runtime&, const Value& self, Args& args) {
  none("isascii", args);
  return Value::boolean(std::all_of(self.text().begin(), self.text().end(), [](char c) {
    return is_ascii(char32_t(static_cast<unsigned char>(c)));
  }));
}

Value isprintable(Runtime&, const Value& self, Args& args) {
  none("isprintable", args);
  for (size_t at = 0; at < self.text().size();)
    if (!is_printable(decode(self.text(), at))) return Value::boolean(false);
  return Value::boolean(true);
}

Value isidentifier(Runtime&, const Value& self, Args& args) {
  none("isidentifier", args);
  size_t at = 0;
  if (self.text().empty() || !is_identifier_start(decode(self.text(), at))) return Value::boolean(false);
  while (at < self.text().size())
    if (!is_identifier_part(decode(self.text(), at))) return Value::boolean(false);
  return Value::boolean(true);
}

Value istitle(Runtime&, const Value& self, Args& args) {
  none("istitle", args);
  bool cased = false, inside = false;
  for (size_t at = 0; at < self.text().size();) {
    const char32_t c = decode(self.text(), at);
    if (is_upper(c) || is_title(c)) {
      if (inside) return Value::boolean(false);
      inside = cased = true;
    } else if (is_lower(c)) {
      if (!inside) return Value::boolean(false);
      cased = true;
    } else {
      inside = false;
    }
  }
  return Value::boolean(cased);
}

// --- searching ---

struct Window {
  std::string_view text;
  int64_t first = 0;  // index of its first code point in the whole
  bool valid = true;  // start is not past the end
};

Window window(const Value& self, const Bound& b, size_t from) {
  const String& s = self.str();
  const auto n = int64_t(s.points);
  const auto place = [&](size_t i, int64_t otherwise) {
    if (!b.given(i) || b.at(i).is(Kind::none)) return otherwise;
    const int64_t v = as_index(b.at(i), "slice indices must be integers or None");
    return v < 0 ? std::max<int64_t>(v + n, 0) : v;
  };
  Window w;
  w.first = place(from, 0);
  const int64_t last = std::min(place(from + 1, n), n);
  if (w.first > n || w.first > last) {
    w.valid = false;
    return w;
  }
  const size_t begin = s.ascii() ? size_t(w.first) : byte_offset(s.text, size_t(w.first));
  const std::string_view rest = std::string_view(s.text).substr(begin);
  w.text = rest.substr(0, s.ascii() ? size_t(last - w.first) : byte_offset(rest, size_t(last - w.first)));
  return w;
}

template <bool last, bool required>
Value find_method(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("find", args, {"sub", "start", "end"}, 1, 3);
  runtime.bytes(self.text().size());
  const Window w = window(self, b, 1);
  const std::string& sub = text_of(b.at(0), "argument");
  const size_t at = !w.valid ? std::string::npos : last ? w.text.rfind(sub) : w.text.find(sub);
  if (at == std::string::npos) {
    if (required) raise(Fault::value, "substring not found");
    return Value::integer(-1);
  }
  return Value::integer(w.first + int64_t(code_points(w.text.substr(0, at))));
}

Value count(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("count", args, {"sub", "start", "end"}, 1, 3);
  runtime.bytes(self.text().size());
  const Window w = window(self, b, 1);
  const std::string& sub = text_of(b.at(0), "argument");
  if (!w.valid) return Value::integer(0);
  if (sub.empty()) return Value::integer(int64_t(code_points(w.text)) + 1);
  int64_t n = 0;
  for (size_t at = w.text.find(sub); at != std::string::npos; at = w.text.find(sub, at + sub.size())) ++n;
  return Value::integer(n);
}

template <bool at_end>
Value affix(Runtime&, const Value& self, Args& args) {
  const Bound b(at_end ? "endswith" : "startswith", args, {"affix", "start", "end"}, 1, 3);
  const Window w = window(self, b, 1);
  const auto matches = [&](const Value& v) {
    const std::string& part = text_of(v, at_end ? "endswith first arg" : "startswith first arg");
    return w.valid && (at_end ? w.text.ends_with(part) : w.text.starts_with(part));
  };
  if (!b.at(0).is(Kind::tuple)) return Value::boolean(matches(b.at(0)));
  for (const Value& v : b.at(0).items())
    if (matches(v)) return Value::boolean(true);
  return Value::boolean(false);
}

template <bool at_end>
Value remove_affix(Runtime&, const Value& self, Args& args) {
  const Bound b("removeprefix", args, {"affix"}, 1, 1);
  const std::string& part = text_of(b.at(0), "argument");
  const std::string& text = self.text();
  if (at_end)
    return like(self,
                !part.empty() && text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text);
  return like(self, text.starts_with(part) ? text.substr(part.size()) : text);
}

Value replace(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("replace", args, {"old", "new", "count"}, 2, 3);
  return like(self, replace_text(runtime, self.text(), text_of(b.at(0), "replace() argument 1"),
                                 taken(self, b.at(1), "replace() argument 2"), b.integer(2, -1)));
}

// --- splitting ---

Value list_like(const Value& self, std::vector<std::string_view> parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (std::string_view p : parts) items.push_back(like(self, std::string(p)));
  return Value::list(std::move(items));
}

std::vector<std::string_view> split_space(std::string_view text, int64_t most) {
  std::vector<std::string_view> parts;
  text = strip(text, true, false);
  while (!text.empty()) {
    if (most >= 0 && int64_t(parts.size()) == most) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (is_space(decode(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = strip(text.substr(end), true, false);
  }
  return parts;
}

std::vector<std::string_view> rsplit_space(std::string_view text, int64_t most) {
  std::vector<std::string_view> parts;
  text = strip(text, false, true);
  while (!text.empty()) {
    if (most >= 0 && int64_t(parts.size()) == most) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      size_t last = begin - 1;
      while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
      size_t next = last;
      if (is_space(decode(text, next))) break;
      begin = last;
    }
    parts.push_back(text.substr(begin));
    text = strip(text.substr(0, begin), false, true);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

template <bool from_right>
Value split(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("split", args, {"sep", "maxsplit"});
  std::string_view text = self.text();
  runtime.bytes(text.size());
  const int64_t most = b.integer(1, -1);
  if (!b.given(0) || b.at(0).is(Kind::none))
    return list_like(self, from_right ? rsplit_space(text, most) : split_space(text, most));
  const std::string& separator = text_of(b.at(0), "sep");
  if (separator.empty()) raise(Fault::value, "empty separator");
  std::vector<std::string_view> parts;
  while (most < 0 || int64_t(parts.size()) < most) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    runtime.step();
    parts.push_back(from_right ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return list_like(self, std::move(parts));
}

Value splitlines(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("splitlines", args, {"keepends"});
  runtime.bytes(self.text().size());
  return list_like(self, split_lines(self.text(), b.flag(0, false)));
}

template <bool from_right>
Value partition(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("partition", args, {"sep"}, 1, 1);
  const std::string& separator = text_of(b.at(0), "sep");
  if (separator.empty()) raise(Fault::value, "empty separator");
  const std::string& text = self.text();
  runtime.bytes(text.size());
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return from_right ? Value::tuple({like(self, ""), like(self, ""), self})
                      : Value::tuple({self, like(self, ""), like(self, "")});
  }
  return Value::tuple({like(self, text.substr(0, at)), like(self, separator),
                       like(self, text.substr(at + separator.size()))});
}

Value join(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("join", args, {"iterable"}, 1, 1);
  std::string out;
  int64_t i = 0;
  for_each(runtime, b.at(0), [&](const Value& v) {
    if (i++) out += self.text();
    if (self.is_safe()) {
      out += v.is_safe() ? v.text() : escape_html(print(v));
    } else {
      if (!v.is(Kind::string))
        raise(Fault::type, "sequence item {}: expected str instance, {} found", i - 1, v.type_name());
      out += v.text();
    }
    runtime.bytes(v.is(Kind::string) ? v.text().size() : 0);
    if (out.size() > runtime.limits.output_bytes)
      raise(Fault::limit, "joining to more than {} bytes", runtime.limits.output_bytes);
  });
  return like(self, std::move(out));
}

// --- padding ---

template <int side>  // -1 left, 0 center, 1 right: where the text goes
Value justify(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("just", args, {"width", "fillchar"}, 1, 2);
  const int64_t width = b.integer(0, 0);
  const std::string fill = b.given(1) ? taken(self, b.at(1), "The fill character") : " ";
  if (code_points(fill) != 1) raise(Fault::type, "The fill character must be exactly one character long");
  return like(self, justify_text(runtime, self.text(), side, width, fill));
}

Value zfill(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("zfill", args, {"width"}, 1, 1);
  const int64_t missing = b.integer(0, 0) - int64_t(self.str().points);
  if (missing <= 0) return self;
  std::string text = justify_text(runtime, self.text(), 1, b.integer(0, 0), "0");
  const char sign = self.text().empty() ? 0 : self.text()[0];
  if (sign == '+' || sign == '-') text[size_t(missing)] = '0', text[0] = sign;
  return like(self, std::move(text));
}

Value expandtabs(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("expandtabs", args, {"tabsize"});
  const int64_t size = b.integer(0, 8);
  if (size > 1 << 16) raise(Fault::limit, "a tab wider than {}", 1 << 16);
  std::string out;
  int64_t column = 0;
  for (size_t at = 0; at < self.text().size();) {
    const char32_t c = decode(self.text(), at);
    if (c == '\t') {
      const int64_t n = size > 0 ? size - column % size : 0;
      runtime.bytes(size_t(n));
      out.append(size_t(n), ' ');
      column += n;
      if (out.size() > runtime.limits.output_bytes)
        raise(Fault::limit, "text longer than {} bytes", runtime.limits.output_bytes);
    } else {
      append(out, c);
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return like(self, std::move(out));
}

template <bool lower_case>
Value is_case(Runtime&, const Value& self, Args& args) {
  none("islower", args);
  return Value::boolean(lower_case ? is_lower_text(self.text()) : is_upper_text(self.text()));
}

Value format(Runtime& runtime, const Value& self, Args& args) { return brace_format(runtime, self, args); }

Value format_map(Runtime& runtime, const Value& self, Args& args) {
  const Bound b("format_map", args, {"mapping"}, 1, 1);
  return brace_format_map(runtime, self, b.at(0));
}

const std::unordered_map<std::string, Method>& table() {
  static const std::unordered_map<std::string, Method> methods = {
      {"capitalize", mapped<capitalize>},
      {"casefold", mapped<casefold>},
      {"center", justify<0>},
      {"count", count},
      {"encode", nullptr},
      {"endswith", affix<true>},
      {"expandtabs", expandtabs},
      {"find", find_method<false, false>},
      {"format", format},
      {"format_map", format_map},
      {"index", find_method<false, true>},
      {"isalnum", all_are<is_alnum>},
      {"isalpha", all_are<is_alpha>},
      {"isascii", isascii},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isidentifier", isidentifier},
      {"islower", is_case<true>},
      {"isnumeric", all_are<is_numeric>},
      {"isprintable", isprintable},
      {"isspace", all_are<is_space>},
      {"istitle", istitle},
      {"isupper", is_case<false>},
      {"join", join},
      {"ljust", justify<-1>},
      {"lower", mapped<lower>},
      {"lstrip", strip_method<true, false>},
      {"maketrans", nullptr},
      {"partition", partition<false>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace},
      {"rfind", find_method<true, false>},
      {"rindex", find_method<true, true>},
      {"rjust", justify<1>},
      {"rpartition", partition<true>},
      {"rsplit", split<true>},
      {"rstrip", strip_method<false, true>},
      {"split", split<false>},
      {"splitlines", splitlines},
      {"startswith", affix<false>},
      {"strip", strip_method<true, true>},
      {"swapcase", mapped<swapcase>},
      {"title", mapped<title>},
      {"translate", nullptr},
      {"upper", mapped<upper>},
      {"zfill", zfill},
  };
  return methods;
}

}  // namespace

bool is_lower_text(std::string_view text) {
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    if (is_upper(c) || is_title(c)) return false;
    cased |= is_lower(c);
  }
  return cased;
}

bool is_upper_text(std::string_view text) {
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    if (is_lower(c) || is_title(c)) return false;
    cased |= is_upper(c);
  }
  return cased;
}

std::string justify_text(Runtime& runtime, const std::string& text, int side, int64_t width,
                         const std::string& fill) {
  const int64_t missing = width - int64_t(code_points(text));
  if (missing <= 0) return text;
  if (size_t(missing) > runtime.limits.output_bytes / fill.size())
    raise(Fault::limit, "padding to more than {} bytes", runtime.limits.output_bytes);
  runtime.bytes(size_t(missing));
  // str.center puts the odd one to the left when the width is odd.
  const int64_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return out;
}

std::string replace_text(Runtime& runtime, const std::string& text, const std::string& old,
                         const std::string& with, int64_t most) {
  runtime.bytes(text.size());
  if (most < 0) most = INT64_MAX;
  std::string out;
  const auto put = [&](std::string_view part) {
    if (out.size() + part.size() > runtime.limits.output_bytes)
      raise(Fault::limit, "replacing to more than {} bytes", runtime.limits.output_bytes);
    out += part;
  };
  size_t at = 0;
  if (old.empty()) {
    // Between all characters and at both ends.
    while (most-- > 0) {
      put(with);
      runtime.step();
      if (at >= text.size()) return out;
      const size_t from = at;
      decode(text, at);
      put(std::string_view(text).substr(from, at - from));
    }
    put(std::string_view(text).substr(at));
    return out;
  }
  while (most-- > 0) {
    const size_t found = text.find(old, at);
    if (found == std::string::npos) break;
    runtime.step();
    put(std::string_view(text).substr(at, found - at));
    put(with);
    at = found + old.size();
  }
  put(std::string_view(text).substr(at));
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t from = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = decode(text, at);
    if (!((c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029))
      continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(from, (keep_ends ? at : end) - from));
    from = at;
  }
  if (from < text.size()) lines.push_back(text.substr(from));
  return lines;
}

const Method* find_string_method(const std::string& name) {
  const auto found = table().find(name);
  return found == table().end() ? nullptr : &found->second;
}

}  // namespace cairn::text::jinja
