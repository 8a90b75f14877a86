#include "text/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

constexpr uint32_t kMatchLimit = 1'000'000;  // steps of backtracking for one match
constexpr uint32_t kHeapLimitKib = 256 * 1024;

// White_Space; PCRE2's own \s would add U+180E.
constexpr std::string_view kSpaceSet =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{"
    "3000}";
// Oniguruma's \w: its table for Latin-1 adds the superscript digits and fractions there. Alphabetic without
// its name, which PCRE2 knows from 10.40 on: letters, letter numbers, marks, circled and squared Latin
// letters.
constexpr std::string_view kWordSet =
    "\\p{L}\\p{Nl}\\p{M}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
    "\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
// The script of a character itself. Before 10.40 PCRE2 asks for nothing else and knows no prefix.
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
constexpr std::string_view kScriptItself = "sc:";
#else
constexpr std::string_view kScriptItself = "";
#endif

bool is_script(std::string_view name) {
  static constexpr std::array<std::string_view, 24> kScripts = {
      "Arabic",   "Armenian", "Bengali",  "Bopomofo", "Cyrillic",  "Devanagari", "Ethiopic", "Georgian",
      "Greek",    "Gujarati", "Gurmukhi", "Han",      "Hangul",    "Hebrew",     "Hiragana", "Kannada",
      "Katakana", "Khmer",    "Lao",      "Latin",    "Malayalam", "Tamil",      "Telugu",   "Thai"};
  return std::find(kScripts.begin(), kScripts.end(), name) != kScripts.end();
}

}  // namespace

std::string translate_pattern(std::string_view pattern) {
  std::string out;
  int depth = 0;  // of nested character classes
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '[') ++depth;
    if (c == ']' && depth > 0) --depth;
    if (c != '\\' || i + 1 == pattern.size()) {
      out += c;
      // A bracket right after [ or [^ is literal.
      if (c == '[') {
        if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
        if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];
      }
      continue;
    }
    const char kind = pattern[++i];
    const bool in_class = depth > 0;
    const auto set = [&](std::string_view members) {
      if (!in_class) out += '[';
      out += members;
      if (!in_class) out += ']';
    };
    if (kind == 's') {
      set(kSpaceSet);
    } else if (kind == 'w') {
      set(kWordSet);
    } else if (kind == 'h') {
      set("0-9a-fA-F");
    } else if (kind == 'S' && !in_class) {
      (out += "[^").append(kSpaceSet) += ']';
    } else if (kind == 'W' && !in_class) {
      (out += "[^").append(kWordSet) += ']';
    } else if (kind == 'H' && !in_class) {
      out += "[^0-9a-fA-F]";
    } else if ((kind == 'p' || kind == 'P') && i + 1 < pattern.size() && pattern[i + 1] == '{') {
      const size_t close = std::min(pattern.find('}', i), pattern.size());
      std::string_view name = pattern.substr(i + 2, close - i - 2);
      (out += '\\') += kind;
      out += '{';
      if (name.starts_with('^')) out += '^', name.remove_prefix(1);
      if (is_script(name)) out += kScriptItself;  // PCRE2 alone would mean Script_Extensions
      out += name;
      i = close - 1;
    } else {
      (out += '\\') += kind;
    }
  }
  return out;
}

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* limits = nullptr;
  bool jit = false;
  ~Code() {
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::string_view pattern, std::string place) : place_(std::move(place)) {
  if (pattern.size() > 65536)
    fail(ErrorKind::unsupported, "{}: a pattern of {} bytes is longer than the supported 65536", place_,
         pattern.size());
  const std::string translated = translate_pattern(pattern);
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (!code->code) {
    char message[256] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    fail(ErrorKind::unsupported, "{}: the pattern \"{}\" is not understood at offset {}: {}", place_,
         translated, offset, message);
  }
  code->jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  code->limits = pcre2_match_context_create(nullptr);
  pcre2_set_match_limit(code->limits, kMatchLimit);
  pcre2_set_heap_limit(code->limits, kHeapLimitKib);
  code_ = std::move(code);
}

std::vector<Regex::Span> Regex::cut(std::string_view text) const {
  struct FreeData {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  const std::unique_ptr<pcre2_match_data, FreeData> data(pcre2_match_data_create(1, nullptr));
  std::vector<Span> spans;
  size_t at = 0, done = 0;
  bool any = false;
  while (at <= text.size()) {
    const auto match = [&](uint32_t options) {
      return pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                         options | PCRE2_NO_UTF_CHECK, data.get(), code_->limits);
    };
    int found = match(0);
    // The compiled form has a small stack; the interpreter uses the heap.
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(PCRE2_NO_JIT);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      char message[256] = {};
      pcre2_get_error_message(found, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
      fail(ErrorKind::invalid_argument, "{}: matching the pattern at byte {} of the text failed: {}", place_,
           at, message);
    }
    const size_t begin = pcre2_get_ovector_pointer(data.get())[0],
                 end = pcre2_get_ovector_pointer(data.get())[1];
    // An empty match right after the previous one is skipped, as Oniguruma's iterator does. \K and
    // look-behind could also move a match back; then there is no progress to make from it.
    if ((begin == end && any && end == done) || begin < done || end < begin) {
      if (at == text.size()) break;
      at += decode_utf8(text.substr(at)).bytes;
      continue;
    }
    if (done < begin) spans.push_back({done, begin, false});
    spans.push_back({begin, end, true});
    any = true;
    done = at = end;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

}  // namespace cairn::text
