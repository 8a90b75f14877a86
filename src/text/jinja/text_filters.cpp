#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/format.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"
#include "text/jinja/wrap.h"

namespace cairn::text::jinja {

namespace {

// soft_str: text as it is, Markup staying Markup, anything else printed.
Value soft(const Value& v) { return v.is(Kind::string) ? v : Value::string(print(v)); }

Value like(const Value& model, std::string text) { return Value::string(std::move(text), model.is_safe()); }

template <std::string (*map)(std::string_view)>
Value mapped(Runtime& runtime, const Value& value, Args& args) {
  Bound("filter", args, {});
  const Value text = soft(value);
  runtime.bytes(text.text().size());
  return like(text, map(text.text()));
}

Value center(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("center", args, {"width"});
  const Value text = soft(value);
  return like(text, justify_text(runtime, text.text(), 0, b.integer(0, 80), " "));
}

Value escape(Runtime& runtime, const Value& value, Args& args) {
  Bound("escape", args, {});
  if (value.is_safe()) return value;
  const std::string text = print(value);
  runtime.bytes(text.size());
  return Value::string(escape_html(text), true);
}

Value forceescape(Runtime&, const Value& value, Args& args) {
  Bound("forceescape", args, {});
  return Value::string(escape_html(print(value)), true);
}

Value format(Runtime& runtime, const Value& value, Args& args) {
  if (!args.positional.empty() && !args.named.empty())
    raise(Fault::runtime, "can't handle positional and keyword arguments at the same time");
  const Value text = soft(value);
  if (args.named.empty()) return percent_format(runtime, text, Value::tuple(args.positional));
  std::vector<std::pair<Value, Value>> pairs;
  for (const auto& [name, v] : args.named) pairs.emplace_back(Value::string(name), v);
  return percent_format(runtime, text, Dict::of(std::move(pairs)));
}

Value indent(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("indent", args, {"width", "first", "blank"});
  if (value.is(Kind::undefined)) value.undefined().fail();
  if (!value.is(Kind::string)) raise(Fault::type, "indent needs a string, not {}", value.type_name());
  std::string indentation;
  if (b.given(0) && b.at(0).is(Kind::string))
    indentation = b.at(0).text();
  else
    indentation = justify_text(runtime, "", -1, b.integer(0, 4), " ");
  runtime.bytes(value.text().size());
  const std::string text = value.text() + "\n";
  const auto lines = split_lines(text);
  const bool blank = b.flag(2, false);
  std::string out = b.flag(1, false) ? indentation : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i) {
      out += '\n';
      if (blank || !lines[i].empty()) out += indentation;
    }
    out += lines[i];
    if (out.size() > runtime.limits.output_bytes)
      raise(Fault::limit, "indenting to more than {} bytes", runtime.limits.output_bytes);
  }
  runtime.bytes(out.size());
  return like(value, std::move(out));
}

Value replace(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("replace", args, {"old", "new", "count"}, 2);
  const bool all = !b.given(2) || b.at(2).is(Kind::none);
  return Value::string(
      replace_text(runtime, print(value), print(b.at(0)), print(b.at(1)), all ? -1 : b.integer(2, -1)));
}

Value safe(Runtime&, const Value& value, Args& args) {
  Bound("safe", args, {});
  return Value::string(print(value), true);
}

Value to_string_filter(Runtime&, const Value& value, Args& args) {
  Bound("string", args, {});
  return soft(value);
}

// Entities of HTML that we know; another name is refused rather than left standing.
std::string unescape_html(std::string_view text) {
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"amp;", "&"}, {"lt;", "<"}, {"gt;", ">"}, {"quot;", "\""}, {"apos;", "'"}, {"nbsp;", "\u00a0"}};
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '&') {
      out += text[at++];
      continue;
    }
    const std::string_view rest = text.substr(at + 1);
    const auto* known = std::find_if(std::begin(kNames), std::end(kNames),
                                     [&](const auto& n) { return rest.starts_with(n.first); });
    if (known != std::end(kNames)) {
      out += known->second;
      at += 1 + known->first.size();
    } else if (rest.starts_with('#')) {
      const bool hex = rest.size() > 1 && (rest[1] | 0x20) == 'x';
      size_t i = hex ? 2 : 1;
      const size_t from = i;
      uint32_t point = 0;
      for (; i < rest.size(); ++i) {
        const char c = rest[i];
        const int digit = c >= '0' && c <= '9'                            ? c - '0'
                          : hex && (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                          : -1;
        if (digit < 0) break;
        point = std::min<uint32_t>(point * (hex ? 16 : 10) + uint32_t(digit), 0x110000);
      }
      if (i == from) {
        out += text[at++];
        continue;
      }
      const bool invalid = point == 0 || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000);
      if (!invalid && (point < 0x20 || (point >= 0x7F && point < 0xA0)))
        raise(Fault::unsupported, "striptags of the character reference &#{};", point);
      append(out, invalid ? U'\uFFFD' : char32_t(point));
      at += 1 + i + (i < rest.size() && rest[i] == ';' ? 1 : 0);
    } else {
      if (!rest.empty() && is_alpha(char32_t(static_cast<unsigned char>(rest[0]))) &&
          static_cast<unsigned char>(rest[0]) < 0x80)
        raise(Fault::unsupported, "striptags of the HTML entity at '&{}'", rest.substr(0, 12));
      out += text[at++];
    }
  }
  return out;
}

Value striptags(Runtime& runtime, const Value& value, Args& args) {
  Bound("striptags", args, {});
  std::string text = print(value);
  // What a removal joins can be another tag, so the search steps back a little each time.
  const auto drop = [&](std::string_view begin, std::string_view end) {
    for (size_t from = text.find(begin); from != std::string::npos;
         from = text.find(begin, from < begin.size() ? 0 : from - begin.size())) {
      const size_t to = text.find(end, from);
      if (to == std::string::npos) return;
      runtime.bytes(text.size() - to);
      text.erase(from, to + end.size() - from);
    }
  };
  runtime.bytes(text.size());
  drop("<!--", "-->");
  drop("<", ">");
  std::string out;
  for (std::string_view rest = strip(text); !rest.empty();) {
    size_t end = 0;
    for (size_t next = 0; end < rest.size(); end = next)
      if (is_space(decode(rest, next))) break;
    if (!out.empty()) out += ' ';
    out += rest.substr(0, end);
    rest = strip(rest.substr(end));
  }
  return Value::string(unescape_html(out));
}

// Words begin after any of - ( { [ < and space; the rest of each is lowered.
Value title_filter(Runtime& runtime, const Value& value, Args& args) {
  Bound("title", args, {});
  const std::u32string text = to_points(soft(value).text());
  runtime.bytes(text.size());
  const auto is_break = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  std::string out;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && is_break(text[end]) == is_break(text[at])) ++end;
    out += upper(from_points(text.substr(at, 1)));
    out += lower(from_points(text.substr(at + 1, end - at - 1)));
    at = end;
  }
  return Value::string(std::move(out));
}

Value tojson(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = b.flag(0, false);
  style.sort_keys = b.flag(3, false);
  if (b.given(1) && !b.at(1).is(Kind::none)) {
    style.pretty = true;
    style.item_separator = ",";
    style.indent =
        b.at(1).is(Kind::string) ? b.at(1).text() : justify_text(runtime, "", -1, b.integer(1, 0), " ");
  }
  if (b.given(2) && !b.at(2).is(Kind::none)) {
    const auto parts = to_vector(runtime, b.at(2));
    if (parts.size() != 2) raise(Fault::value, "separators must be two strings");
    for (const Value& p : parts)
      if (!p.is(Kind::string)) raise(Fault::type, "separators must be strings, not {}", p.type_name());
    style.item_separator = parts[0].text();
    style.key_separator = parts[1].text();
  }
  return Value::string(to_json(runtime, value, style));
}

Value trim(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("trim", args, {"chars"});
  Args inner;
  if (b.given(0)) inner.positional.push_back(b.at(0));
  return (*find_string_method("strip"))(runtime, soft(value), inner);
}

Value truncate(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t length = b.integer(0, 255);
  const Value end = b.get(2, Value::string("..."));
  const int64_t leeway = b.given(3) && !b.at(3).is(Kind::none) ? b.integer(3, 5) : 5;
  const int64_t end_length = length_or_raise(end);
  if (length < end_length) raise(Fault::assertion, "expected length >= {}, got {}", end_length, length);
  if (leeway < 0) raise(Fault::assertion, "expected leeway >= 0, got {}", leeway);
  if (length_or_raise(value) <= length + leeway) return value;
  if (!value.is(Kind::string)) raise(Fault::type, "truncate needs a string, not {}", value.type_name());
  Value cut = slice(runtime, value, Value(), Value::integer(length - end_length), Value());
  if (!b.flag(1, false))
    if (const size_t space = cut.text().rfind(' '); space != std::string::npos)
      cut = like(cut, cut.text().substr(0, space));
  return add(runtime, cut, end);
}

std::string url_quote(const Value& v, bool query) {
  std::string out;
  for (const char c : print(v)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain)
      out += c;
    else if (c == ' ' && query)
      out += '+';
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Value urlencode(Runtime& runtime, const Value& value, Args& args) {
  Bound("urlencode", args, {});
  if (value.is(Kind::string) || !is_iterable(value)) return Value::string(url_quote(value, false));
  std::string out;
  const Value pairs =
      value.is(Kind::dict) ? Value::object(std::make_shared<DictView>(value, DictView::items)) : value;
  for_each(runtime, pairs, [&](const Value& pair) {
    const auto parts = to_vector(runtime, pair);
    if (parts.size() != 2) raise(Fault::value, "urlencode needs pairs, not {} values", parts.size());
    if (!out.empty()) out += '&';
    out += url_quote(parts[0], true) + "=" + url_quote(parts[1], true);
  });
  return Value::string(std::move(out));
}

Value wordcount(Runtime& runtime, const Value& value, Args& args) {
  Bound("wordcount", args, {});
  const std::string text = print(value);
  runtime.bytes(text.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    const bool word = c == '_' || is_alnum(c);
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

Value wordwrap(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("wordwrap", args, {"width", "break_long_words", "wrapstring", "break_on_hyphens"});
  if (!value.is(Kind::string)) raise(Fault::type, "wordwrap needs a string, not {}", value.type_name());
  const std::string separator = b.given(2) && !b.at(2).is(Kind::none) ? print(b.at(2)) : "\n";
  std::string out;
  bool first = true;
  for (std::string_view line : split_lines(value.text())) {
    if (!first) out += separator;
    first = false;
    bool first_piece = true;
    for (const auto& piece : wrap_line(runtime, line, b.integer(0, 79), b.flag(1, true), b.flag(3, true))) {
      if (!first_piece) out += separator;
      first_piece = false;
      out += piece;
    }
    if (out.size() > runtime.limits.output_bytes)
      raise(Fault::limit, "wrapping to more than {} bytes", runtime.limits.output_bytes);
  }
  return Value::string(std::move(out));
}

Value xmlattr(Runtime&, const Value& value, Args& args) {
  const Bound b("xmlattr", args, {"autospace"});
  if (value.is(Kind::undefined)) value.undefined().fail();
  if (!value.is(Kind::dict)) raise(Fault::type, "xmlattr needs a dict, not {}", value.type_name());
  std::string out;
  const auto escaped = [](const Value& v) { return v.is_safe() ? v.text() : escape_html(print(v)); };
  for (const auto& [key, v] : value.dict().items) {
    if (v.is(Kind::none) || v.is(Kind::undefined)) continue;
    if (!key.is(Kind::string))
      raise(Fault::type, "expected string or bytes-like object, got '{}'", key.type_name());
    if (key.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      raise(Fault::value, "Invalid character in attribute name: {}", repr(key));
    if (!out.empty()) out += ' ';
    out += escaped(key) + "=\"" + escaped(v) + "\"";
  }
  if (b.flag(0, true) && !out.empty()) out.insert(0, " ");
  return Value::string(std::move(out));
}

Value pprint(Runtime& runtime, const Value& value, Args& args) {
  Bound("pprint", args, {});
  return Value::string(pretty(runtime, value));
}

Value urlize(Runtime&, const Value&, Args&) { raise(Fault::unsupported, "the filter 'urlize'"); }

}  // namespace

const std::vector<NamedFilter> kTextFilters = {
    {"capitalize", {mapped<capitalize>}},
    {"center", {center}},
    {"e", {escape}},
    {"escape", {escape}},
    {"forceescape", {forceescape}},
    {"format", {format}},
    {"indent", {indent}},
    {"lower", {mapped<lower>}},
    {"pprint", {pprint}},
    {"replace", {replace}},
    {"safe", {safe}},
    {"string", {to_string_filter}},
    {"striptags", {striptags}},
    {"title", {title_filter}},
    {"tojson", {tojson}},
    {"trim", {trim}},
    {"truncate", {truncate}},
    {"upper", {mapped<upper>}},
    {"urlencode", {urlencode}},
    {"urlize", {urlize}},
    {"wordcount", {wordcount}},
    {"wordwrap", {wordwrap}},
    {"xmlattr", {xmlattr}},
};

}  // namespace cairn::text::jinja
