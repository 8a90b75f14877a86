#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <functional>

#include "text/base64.h"
#include "text/byte_level.h"
#include "text/byte_trie.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

class FunctionNormalizer final : public Normalizer {
 public:
  using Function = std::function<std::string(std::string_view)>;
  explicit FunctionNormalizer(Function f) : f_(std::move(f)) {}
  std::string apply(std::string_view text) const override { return f_(text); }

 private:
  Function f_;
};

std::unique_ptr<Normalizer> make(FunctionNormalizer::Function f) {
  return std::make_unique<FunctionNormalizer>(std::move(f));
}

bool is_ascii(std::string_view text) {
  for (char c : text)
    if (uint8_t(c) >= 0x80) return false;
  return true;
}

// The four normalisation forms; ASCII is its own form in all of them.
std::string unicode_form(std::string_view text, int options) {
  if (is_ascii(text)) return std::string(text);
  uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()), utf8proc_ssize_t(text.size()), &result,
                   utf8proc_option_t(options));
  if (size < 0)
    fail(ErrorKind::invalid_argument, "normalising {} bytes of text failed: {}", text.size(),
         utf8proc_errmsg(size));
  std::string out(reinterpret_cast<char*>(result), size_t(size));
  std::free(result);
  return out;
}

constexpr int kNfc = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
constexpr int kNfd = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;

// f(code point, out) for every character.
template <typename F>
std::string map_characters(std::string_view text, F&& f) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    f(c.value, out);
    i += c.bytes;
  }
  return out;
}

std::string lowercase(std::string_view text) {
  return map_characters(text, [](uint32_t c, std::string& out) {
    if (c == 0x130)
      out += "i\xcc\x87";  // the only character whose lower case is two
    else
      append_utf8(out, uint32_t(utf8proc_tolower(utf8proc_int32_t(c))));
  });
}

std::string strip_white_space(std::string_view text, bool left, bool right) {
  size_t begin = 0, end = 0;
  bool seen = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    i += c.bytes;
    if (is_white_space(c.value)) {
      if (!seen) begin = i;
    } else {
      seen = true;
      end = i;
    }
  }
  if (!seen) return left || right ? std::string() : std::string(text);
  if (!left) begin = 0;
  if (!right) end = text.size();
  return std::string(text.substr(begin, end - begin));
}

std::string bert(std::string_view text, const BertRules& rules) {
  std::string out(text);
  if (rules.clean_text)
    out = map_characters(out, [](uint32_t c, std::string& cleaned) {
      const uint16_t bits = char_class(c);
      if (c == '\t' || c == '\n' || c == '\r')
        cleaned += ' ';
      else if (c == 0 || c == kReplacement || (bits & (kControl | kFormat | kPrivate)))
        return;
      else if (bits & kSpace)
        cleaned += ' ';
      else
        append_utf8(cleaned, c);
    });
  if (rules.handle_chinese_chars)
    out = map_characters(out, [](uint32_t c, std::string& spaced) {
      const bool ideograph = is_cjk_ideograph(c);
      if (ideograph) spaced += ' ';
      append_utf8(spaced, c);
      if (ideograph) spaced += ' ';
    });
  if (rules.strip_accents)
    out = map_characters(unicode_form(out, kNfd), [](uint32_t c, std::string& stripped) {
      if (!(char_class(c) & kNonspacing)) append_utf8(stripped, c);
    });
  return rules.lowercase ? lowercase(out) : out;
}

// Control characters vanish, unusual spaces become a space: the part of nmt_nfkc beside NFKC.
std::string nmt(std::string_view text) {
  return map_characters(text, [](uint32_t c, std::string& out) {
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f)
      return;
    const bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 ||
                       (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xfeff || c == 0xfffd;
    append_utf8(out, space ? ' ' : c);
  });
}

// Hugging Face's reading of the rules: a grapheme cluster of fewer than six bytes is tried as a whole, else
// each character, and the shortest rule that fits replaces all of it.
std::string precompiled(std::string_view text, const CharsMap& rules) {
  std::string out;
  const auto cluster = [&](std::string_view part) {
    if (part.size() < 6) {
      if (const auto rule = rules.shortest(part)) {
        out += rule->replacement;
        return;
      }
    }
    for (size_t i = 0; i < part.size();) {
      const size_t bytes = decode_utf8(part.substr(i)).bytes;
      const std::string_view character = part.substr(i, bytes);
      const auto rule = rules.shortest(character);
      out += rule ? rule->replacement : character;
      i += bytes;
    }
  };
  utf8proc_int32_t state = 0, previous = -1;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    if (previous >= 0 && utf8proc_grapheme_break_stateful(previous, utf8proc_int32_t(c.value), &state)) {
      cluster(text.substr(begin, i - begin));
      begin = i;
    }
    previous = utf8proc_int32_t(c.value);
    i += c.bytes;
  }
  if (begin < text.size()) cluster(text.substr(begin));
  return out;
}

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581

std::string spm(std::string_view text, const SpmRules& rules, const ByteTrie& user_defined) {
  // What the next step consumes, and what it becomes.
  const auto prefix = [&](std::string_view rest) -> std::pair<std::string_view, size_t> {
    if (const auto match = user_defined.longest(rest); match.length > 0)
      return {rest.substr(0, match.length), match.length};
    if (const auto rule = rules.rules.longest(rest)) return {rule->replacement, rule->length};
    const CodePoint c = decode_utf8(rest);
    if (c.value == kInvalid) return {kReplacementUtf8, 1};
    return {rest.substr(0, c.bytes), c.bytes};
  };
  const std::string_view space = rules.escape_whitespaces ? kSpaceMark : " ";
  size_t at = 0;
  if (rules.remove_extra_whitespaces) {
    while (at < text.size()) {
      const auto [becomes, bytes] = prefix(text.substr(at));
      if (becomes != " ") break;
      at += bytes;
    }
  }
  std::string out;
  if (at == text.size()) return out;
  if (rules.add_dummy_prefix && !rules.whitespace_as_suffix) out += space;
  bool after_space = rules.remove_extra_whitespaces;
  while (at < text.size()) {
    auto [becomes, bytes] = prefix(text.substr(at));
    at += bytes;
    while (after_space && becomes.starts_with(' ')) becomes.remove_prefix(1);
    for (char c : becomes) {
      if (c == ' ')
        out += space;
      else
        out += c;
    }
    if (!becomes.empty()) after_space = becomes.ends_with(' ');
    if (!rules.remove_extra_whitespaces) after_space = false;
  }
  if (rules.remove_extra_whitespaces)
    while (out.ends_with(space)) out.resize(out.size() - space.size());
  if (rules.add_dummy_prefix && rules.whitespace_as_suffix) out += space;
  // A rule may cut a text inside a character only in a broken file.
  return is_valid_utf8(out) ? out : replace_invalid_utf8(out);
}

std::unique_ptr<Normalizer> parse_replace(const JsonView& json) {
  const JsonView pattern = json.at("pattern");
  const std::string content = json.at("content").string();
  if (const auto text = pattern.find("String")) return replace_normalizer(text->string(), content);
  const JsonView expression = pattern.at("Regex");
  return make([regex = Regex(expression.string(), expression.place()), content](std::string_view text) {
    std::string out;
    for (const Regex::Span& span : regex.cut(text)) {
      if (span.match)
        out += content;
      else
        out += text.substr(span.begin, span.end - span.begin);
      check_text_size(out.size());
    }
    return out;
  });
}

}  // namespace

namespace {
thread_local size_t text_budget = size_t{1} << 20;
}

TextBudget::TextBudget(size_t bytes) : before_(text_budget) { text_budget = bytes; }

TextBudget::~TextBudget() { text_budget = before_; }

void check_text_size(size_t bytes) {
  if (bytes > text_budget)
    fail(ErrorKind::invalid_argument, "the tokenizer's rules grow a text past {} bytes", text_budget);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  if (from.empty()) return std::string(text);
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found == text.npos ? text.npos : found - at);
    if (found == text.npos) return out;
    out += to;
    check_text_size(out.size());
    at = found + from.size();
  }
}

std::unique_ptr<Normalizer> replace_normalizer(std::string from, std::string to) {
  return make([from = std::move(from), to = std::move(to)](std::string_view text) {
    return replace_all(text, from, to);
  });
}

std::unique_ptr<Normalizer> prepend_normalizer(std::string prefix) {
  return make([prefix = std::move(prefix)](std::string_view text) {
    return text.empty() ? std::string() : prefix + std::string(text);
  });
}

std::unique_ptr<Normalizer> sequence_normalizer(std::vector<std::unique_ptr<Normalizer>> steps) {
  auto shared = std::make_shared<std::vector<std::unique_ptr<Normalizer>>>(std::move(steps));
  return make([shared](std::string_view text) {
    std::string out(text);
    for (const auto& step : *shared) {
      out = step->apply(out);
      check_text_size(out.size());
    }
    return out;
  });
}

std::unique_ptr<Normalizer> bert_normalizer(BertRules rules) {
  return make([rules](std::string_view text) { return bert(text, rules); });
}

std::unique_ptr<Normalizer> spm_normalizer(SpmRules rules) {
  ByteTrie user_defined;
  for (const std::string& piece : rules.user_defined) user_defined.insert(piece, 0);
  return make([rules = std::move(rules), user_defined = std::move(user_defined)](std::string_view text) {
    return spm(text, rules, user_defined);
  });
}

std::unique_ptr<Normalizer> parse_normalizer(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    const JsonView list = json.at("normalizers");
    list.check_steps();
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (size_t i = 0; i < list.size(); ++i) steps.push_back(parse_normalizer(list[i]));
    return sequence_normalizer(std::move(steps));
  }
  if (type == "NFC") return make([](std::string_view text) { return unicode_form(text, kNfc); });
  if (type == "NFD") return make([](std::string_view text) { return unicode_form(text, kNfd); });
  if (type == "NFKC")
    return make([](std::string_view text) { return unicode_form(text, kNfc | UTF8PROC_COMPAT); });
  if (type == "NFKD")
    return make([](std::string_view text) { return unicode_form(text, kNfd | UTF8PROC_COMPAT); });
  if (type == "Nmt") return make(nmt);
  if (type == "Lowercase") return make(lowercase);
  if (type == "Prepend") return prepend_normalizer(json.at("prepend").string());
  if (type == "Replace") return parse_replace(json);
  if (type == "Strip")
    return make([left = json.at("strip_left").boolean(), right = json.at("strip_right").boolean()](
                    std::string_view text) { return strip_white_space(text, left, right); });
  if (type == "StripAccents")
    return make([](std::string_view text) {
      return map_characters(text, [](uint32_t c, std::string& out) {
        if (!(char_class(c) & kMark)) append_utf8(out, c);
      });
    });
  if (type == "BertNormalizer") {
    BertRules rules;
    rules.clean_text = json.boolean_or("clean_text", true);
    rules.handle_chinese_chars = json.boolean_or("handle_chinese_chars", true);
    rules.lowercase = json.boolean_or("lowercase", true);
    rules.strip_accents = json.boolean_or("strip_accents", rules.lowercase);
    return bert_normalizer(rules);
  }
  if (type == "Precompiled") {
    const auto map = json.find("precompiled_charsmap");
    if (!map) return make([](std::string_view text) { return std::string(text); });
    const auto blob = decode_base64(map->string());
    if (!blob) map->wrong("base64");
    auto rules = std::make_shared<const CharsMap>(*blob, map->place());
    return make([rules](std::string_view text) { return precompiled(text, *rules); });
  }
  if (type == "ByteLevel") return make([](std::string_view text) { return to_visible(text); });
  json.unsupported("normalizer", type);
}

}  // namespace cairn::text
