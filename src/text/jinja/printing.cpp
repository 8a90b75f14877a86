#include "text/jinja/printing.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/operators.h"
#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

std::string repr_real(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  std::string_view text(buffer, size_t(end - buffer));
  std::string sign;
  if (text.front() == '-') sign = "-", text.remove_prefix(1);
  const size_t e = text.find('e');
  std::string digits(text.substr(0, e));
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  const std::string_view exponent_text = text.substr(text[e + 1] == '+' ? e + 2 : e + 1);
  int exponent = 0;
  std::from_chars(exponent_text.data(), exponent_text.data() + exponent_text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    if (digits.size() > 1) digits.insert(1, ".");
    return fmt::format("{}{}e{}{:02}", sign, digits, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(size_t(-exponent - 1), '0') + digits;
  if (digits.size() <= size_t(exponent) + 1)
    return sign + digits + std::string(size_t(exponent) + 1 - digits.size(), '0') + ".0";
  return sign + digits.insert(size_t(exponent) + 1, ".");
}

std::string repr_text(std::string_view text) {
  const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const char32_t c = decode(text, at);
    if (c == char32_t(quote) || c == '\\')
      out.push_back('\\'), out.push_back(char(c));
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (c < ' ' || c == 0x7F || (c > 0x7F && !is_printable(c)))
      out += c <= 0xFF     ? fmt::format("\\x{:02x}", uint32_t(c))
             : c <= 0xFFFF ? fmt::format("\\u{:04x}", uint32_t(c))
                           : fmt::format("\\U{:08x}", uint32_t(c));
    else
      append(out, c);
  }
  out.push_back(quote);
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) switch (c) {
      case '&': out += "&amp;"; break;
      case '>': out += "&gt;"; break;
      case '<': out += "&lt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out.push_back(c);
    }
  return out;
}

namespace {

// A shared value can stand in a list many times over: what is printed is bounded, not only what is stored.
constexpr size_t kMostPrinted = size_t{256} << 20;

void add_repr(std::string& out, const Value& v);

void add_items(std::string& out, const std::vector<Value>& items) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out += ", ";
    first = false;
    add_repr(out, item);
  }
}

void add_repr(std::string& out, const Value& v) {
  if (out.size() > kMostPrinted) raise(Fault::limit, "printed value is longer than {} bytes", kMostPrinted);
  switch (v.kind()) {
    case Kind::missing: out += "missing"; return;
    case Kind::undefined: out += "Undefined"; return;
    case Kind::none: out += "None"; return;
    case Kind::boolean: out += v.as_bool() ? "True" : "False"; return;
    case Kind::integer: out += to_string(v.as_int()); return;
    case Kind::real: out += repr_real(v.as_real()); return;
    case Kind::string:
      out += v.is_safe() ? "Markup(" + repr_text(v.text()) + ")" : repr_text(v.text());
      return;
    case Kind::list:
      out += "[";
      add_items(out, v.items());
      out += "]";
      return;
    case Kind::tuple:
      out += "(";
      add_items(out, v.items());
      out += v.items().size() == 1 ? ",)" : ")";
      return;
    case Kind::dict: {
      out += "{";
      bool first = true;
      for (const auto& [key, value] : v.dict().items) {
        if (!first) out += ", ";
        first = false;
        add_repr(out, key);
        out += ": ";
        add_repr(out, value);
      }
      out += "}";
      return;
    }
    case Kind::object: break;
  }
  if (const auto range = v.as<Range>()) {
    out += range->step == 1 ? fmt::format("range({}, {})", range->start, range->stop)
                            : fmt::format("range({}, {}, {})", range->start, range->stop, range->step);
  } else if (const auto view = v.as<DictView>()) {
    out += std::string(view->type_name()) + "([";
    for (size_t i = 0; i < view->dict.dict().items.size(); ++i) {
      if (i) out += ", ";
      add_repr(out, view->at(i));
    }
    out += "])";
  } else if (const auto names = v.as<Namespace>()) {
    // Written out only to a depth: a namespace can hold itself.
    static thread_local int depth = 0;
    struct Depth {
      Depth() { ++depth; }
      ~Depth() { --depth; }
    } deeper;
    if (depth > 50) raise(Fault::limit, "printing a namespace that holds itself");
    out += "<Namespace {";
    bool first = true;
    for (const auto& [name, value] : names->names) {
      if (!first) out += ", ";
      first = false;
      out += repr_text(name) + ": ";
      add_repr(out, value);
    }
    out += "}>";
  } else {
    out += v.object()->printed();
  }
}

class JsonWriter {
 public:
  JsonWriter(Runtime& r, const JsonStyle& s) : runtime_(r), style_(s) {}

  void write(const Value& v, size_t depth) {
    runtime_.step();
    if (out.size() > runtime_.limits.output_bytes)
      raise(Fault::limit, "JSON is longer than {} bytes", runtime_.limits.output_bytes);
    switch (v.kind()) {
      case Kind::none: out += "null"; return;
      case Kind::boolean: out += v.as_bool() ? "true" : "false"; return;
      case Kind::integer: out += to_string(v.as_int()); return;
      case Kind::real: out += real(v.as_real()); return;
      case Kind::string: text(v.text()); return;
      case Kind::list:
      case Kind::tuple: {
        if (v.items().empty()) {
          out += "[]";
          return;
        }
        out += "[";
        bool first = true;
        for (const Value& item : v.items()) {
          separate(first, depth + 1);
          write(item, depth + 1);
        }
        line(depth);
        out += "]";
        return;
      }
      case Kind::dict: dict(v.dict(), depth); return;
      default: raise(Fault::type, "Object of type {} is not JSON serializable", v.type_name());
    }
  }
  std::string out;

 private:
  static std::string real(double d) {
    return std::isnan(d) ? "NaN" : std::isinf(d) ? (d < 0 ? "-Infinity" : "Infinity") : repr_real(d);
  }

  void line(size_t depth) {
    if (!style_.pretty) return;
    out += "\n";
    for (size_t i = 0; i < depth; ++i) out += style_.indent;
  }

  void separate(bool& first, size_t depth) {
    if (!first) out += style_.item_separator;
    first = false;
    line(depth);
  }

  void dict(const Dict& d, size_t depth) {
    if (d.items.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& item : d.items) order.push_back(&item);
    if (style_.sort_keys) {
      // sorted(items): by key, equal keys do not occur.
      std::stable_sort(order.begin(), order.end(), [&](auto* a, auto* b) {
        runtime_.step();
        return less(a->first, b->first);
      });
    }
    out += "{";
    bool first = true;
    for (const auto* item : order) {
      separate(first, depth + 1);
      const Value& key = item->first;
      switch (key.kind()) {
        case Kind::string: text(key.text()); break;
        case Kind::none: text("null"); break;
        case Kind::boolean: text(key.as_bool() ? "true" : "false"); break;
        case Kind::integer: text(to_string(key.as_int())); break;
        case Kind::real: text(real(key.as_real())); break;
        default: raise(Fault::type, "keys must be str, int, float, bool or None, not {}", key.type_name());
      }
      out += style_.key_separator;
      write(item->second, depth + 1);
    }
    line(depth);
    out += "}";
  }

  void text(std::string_view s) {
    runtime_.bytes(s.size());
    out += '"';
    for (size_t at = 0; at < s.size();) {
      const char byte = s[at];
      if (static_cast<unsigned char>(byte) >= 0x80 && style_.ascii) {
        char32_t c = decode(s, at);
        if (c >= 0x10000) {
          c -= 0x10000;
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + uint32_t(c >> 10), 0xDC00 + uint32_t(c & 0x3FF));
        } else {
          out += fmt::format("\\u{:04x}", uint32_t(c));
        }
        continue;
      }
      ++at;
      switch (byte) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        case '\f': out += "\\f"; break;
        case '\b': out += "\\b"; break;
        default:
          if (static_cast<unsigned char>(byte) < 0x20 || (byte == 0x7F && style_.ascii))
            out += fmt::format("\\u{:04x}", int(byte));
          else
            out += byte;
      }
    }
    out += '"';
  }

  Runtime& runtime_;
  const JsonStyle& style_;
};

}  // namespace

std::string repr(const Value& v) {
  std::string out;
  add_repr(out, v);
  return out;
}

std::string print(const Value& v) {
  if (v.is(Kind::string)) return v.text();
  if (v.is(Kind::undefined)) return "";
  return repr(v);
}

std::string to_json(Runtime& runtime, const Value& v, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  writer.write(v, 0);
  return std::move(writer.out);
}

}  // namespace cairn::text::jinja
