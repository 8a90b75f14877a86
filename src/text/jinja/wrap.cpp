#include "text/jinja/wrap.h"

#include <algorithm>

#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

bool is_blank(char32_t c) { return c == ' ' || (c >= 9 && c <= 13); }
bool is_word(char32_t c) { return c == '_' || is_alnum(c); }
bool is_letter(char32_t c) { return is_word(c) && !is_decimal(c); }
bool ends_word(char32_t c) {
  return is_word(c) || std::u32string_view(U"!\"'&.,?").find(c) != std::u32string_view::npos;
}

// Pieces that may stand on different lines: runs of blanks, words, parts of hyphenated words, long dashes.
std::vector<std::u32string> chunks_of(const std::u32string& s, bool break_on_hyphens) {
  const size_t n = s.size();
  const auto letter = [&](size_t i) { return i < n && is_letter(s[i]); };
  // The end of two or more dashes at i that a word follows, or i.
  const auto dashes = [&](size_t i) {
    size_t end = i;
    while (end < n && s[end] == '-') ++end;
    return end - i >= 2 && end < n && is_word(s[end]) ? end : i;
  };
  std::vector<std::u32string> chunks;
  for (size_t at = 0; at < n;) {
    size_t end = at;
    if (is_blank(s[at])) {
      while (end < n && is_blank(s[end])) ++end;
    } else if (!break_on_hyphens) {
      while (end < n && !is_blank(s[end])) ++end;
    } else if (at > 0 && ends_word(s[at - 1]) && dashes(at) > at) {
      end = dashes(at);
    } else {
      for (end = at + 1; end < n && !is_blank(s[end]); ++end) {
        if (s[end] == '-') {
          const bool before = (end >= 2 && letter(end - 2) && letter(end - 1)) ||
                              (end >= 3 && letter(end - 3) && s[end - 2] == '-' && letter(end - 1));
          const bool after =
              letter(end + 1) && (letter(end + 2) || (end + 2 < n && s[end + 2] == '-' && letter(end + 3)));
          if (before && after) {
            ++end;
            break;
          }
        }
        if (ends_word(s[end - 1]) && dashes(end) > end) break;
      }
    }
    chunks.push_back(s.substr(at, end - at));
    at = end;
  }
  return chunks;
}

bool is_blank_chunk(const std::u32string& c) { return std::all_of(c.begin(), c.end(), is_space); }

// pprint orders keys of different types by type name.
bool key_less(const Value& a, const Value& b) {
  try {
    return less(a, b);
  } catch (const Raise& r) {
    if (r.fault != Fault::type) throw;
    return std::string_view(a.type_name()) < b.type_name();
  }
}

Value sorted_dicts(const Value& v) {
  if (v.is_sequence() && std::string_view(v.type_name()) != "_GroupTuple") {
    std::vector<Value> items;
    for (const Value& i : v.items()) items.push_back(sorted_dicts(i));
    return v.is(Kind::list) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
  }
  if (!v.is(Kind::dict)) return v;
  auto pairs = v.dict().items;
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const auto& a, const auto& b) { return key_less(a.first, b.first); });
  for (auto& [k, item] : pairs) item = sorted_dicts(item);
  return Dict::of(std::move(pairs));
}

// pprint.pformat with width 80: what fits on its line is written as repr() does; otherwise a container takes
// a line per item, and a text is cut at its line ends and spaces.
class PrettyPrinter {
 public:
  explicit PrettyPrinter(Runtime& r) : runtime_(r) {}

  std::string run(const Value& v) {
    format(v, 0, 0, 0);
    return std::move(out_);
  }

 private:
  static constexpr int64_t kWidth = 80;

  // indent: the column where v starts; allowance: what must still fit behind it.
  void format(const Value& v, int64_t indent, int64_t allowance, int level) {
    const std::string rep = repr(v);
    runtime_.bytes(rep.size());
    if (out_.size() + rep.size() > runtime_.limits.output_bytes)
      raise(Fault::limit, "pprint of more than {} bytes", runtime_.limits.output_bytes);
    const bool fits = int64_t(code_points(rep)) <= kWidth - indent - allowance;
    if (!fits && v.is(Kind::dict) && !v.dict().items.empty())
      return dict(v.dict(), indent, allowance, level + 1);
    if (!fits && v.is_sequence() && std::string_view(v.type_name()) != "_GroupTuple")
      return sequence(v, indent, allowance, level + 1);
    if (!fits && v.is(Kind::string) && !v.is_safe() && !v.text().empty())
      return text(v.text(), indent, allowance, level + 1);
    out_ += rep;
  }

  void new_line(int64_t indent) { out_ += "\n" + std::string(size_t(std::max<int64_t>(indent, 0)), ' '); }

  void dict(const Dict& d, int64_t indent, int64_t allowance, int level) {
    out_ += "{";
    ++indent;
    for (size_t i = 0; i < d.items.size(); ++i) {
      const bool last = i + 1 == d.items.size();
      const std::string key = repr(d.items[i].first);
      out_ += key + ": ";
      format(d.items[i].second, indent + int64_t(code_points(key)) + 2, last ? allowance + 1 : 1, level);
      if (!last) out_ += ",", new_line(indent);
    }
    out_ += "}";
  }

  void sequence(const Value& v, int64_t indent, int64_t allowance, int level) {
    const bool list = v.is(Kind::list);
    const std::string end = list ? "]" : v.items().size() == 1 ? ",)" : ")";
    out_ += list ? "[" : "(";
    ++indent;
    for (size_t i = 0; i < v.items().size(); ++i) {
      const bool last = i + 1 == v.items().size();
      format(v.items()[i], indent, last ? allowance + int64_t(end.size()) : 1, level);
      if (!last) out_ += ",", new_line(indent);
    }
    out_ += end;
  }

  void text(const std::string& s, int64_t indent, int64_t allowance, int level) {
    if (level == 1) ++indent, ++allowance;
    const auto length = [](const std::string& rep) { return int64_t(code_points(rep)); };
    std::vector<std::string> chunks;
    const auto lines = split_lines(s, true);
    const int64_t width = kWidth - indent;
    for (size_t i = 0; i < lines.size(); ++i) {
      const bool last_line = i + 1 == lines.size();
      const std::string whole = repr_text(lines[i]);
      if (length(whole) <= width - (last_line ? allowance : 0)) {
        chunks.push_back(whole);
        continue;
      }
      std::string current;
      for (std::string_view rest = lines[i]; !rest.empty();) {
        size_t end = 0;  // a word and the spaces after it
        bool spaces = false;
        for (size_t next = 0; end < rest.size(); end = next) {
          const bool space = is_space(decode(rest, next));
          if (spaces && !space) break;
          spaces = space;
        }
        const std::string part(rest.substr(0, end));
        rest.remove_prefix(end);
        runtime_.bytes(current.size() + part.size());
        if (length(repr_text(current + part)) > width - (rest.empty() && last_line ? allowance : 0)) {
          if (!current.empty()) chunks.push_back(repr_text(current));
          current = part;
        } else {
          current += part;
        }
      }
      if (!current.empty()) chunks.push_back(repr_text(current));
    }
    if (chunks.size() == 1) {
      out_ += repr_text(lines.back());
      return;
    }
    if (level == 1) out_ += "(";
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (i) new_line(indent);
      out_ += chunks[i];
    }
    if (level == 1) out_ += ")";
  }

  Runtime& runtime_;
  std::string out_;
};

}  // namespace

std::vector<std::string> wrap_line(Runtime& runtime, std::string_view line, int64_t width,
                                   bool break_long_words, bool break_on_hyphens) {
  if (width <= 0) raise(Fault::value, "invalid width {} (must be > 0)", width);
  runtime.bytes(line.size());
  auto chunks = chunks_of(to_points(line), break_on_hyphens);
  std::reverse(chunks.begin(), chunks.end());
  const auto limit = size_t(width);
  std::vector<std::string> lines;
  while (!chunks.empty()) {
    runtime.step();
    std::vector<std::u32string> current;
    size_t used = 0;
    if (!lines.empty() && is_blank_chunk(chunks.back())) chunks.pop_back();
    while (!chunks.empty() && used + chunks.back().size() <= limit) {
      used += chunks.back().size();
      current.push_back(std::move(chunks.back()));
      chunks.pop_back();
    }
    if (!chunks.empty() && chunks.back().size() > limit) {
      std::u32string& chunk = chunks.back();
      const size_t space = limit - used;
      if (break_long_words) {
        size_t end = space;
        if (break_on_hyphens && chunk.size() > space && space > 0) {
          const size_t hyphen = chunk.rfind(U'-', space - 1);
          if (hyphen != std::u32string::npos && hyphen > 0 && chunk.find_first_not_of(U'-') < hyphen)
            end = hyphen + 1;
        }
        current.push_back(chunk.substr(0, end));
        chunk.erase(0, end);
      } else if (current.empty()) {
        current.push_back(std::move(chunk));
        chunks.pop_back();
      }
    }
    if (!current.empty() && is_blank_chunk(current.back())) current.pop_back();
    if (current.empty()) continue;
    std::string out;
    for (const auto& c : current) out += from_points(c);
    lines.push_back(std::move(out));
  }
  return lines;
}

std::string pretty(Runtime& runtime, const Value& v) { return PrettyPrinter(runtime).run(sorted_dicts(v)); }

}  // namespace cairn::text::jinja
