#include "text/pre_tokenizer.h"

#include <functional>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

using Spans = std::vector<Regex::Span>;
using Cut = std::function<Spans(std::string_view)>;

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// Matches of single characters, and what lies between.
template <typename F>
Spans cut_characters(std::string_view text, F&& is_match) {
  Spans spans;
  size_t done = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode_utf8(text.substr(i));
    if (is_match(c.value)) {
      if (done < i) spans.push_back({done, i, false});
      spans.push_back({i, i + c.bytes, true});
      done = i + c.bytes;
    }
    i += c.bytes;
  }
  if (done < text.size()) spans.push_back({done, text.size(), false});
  return spans;
}

// Hugging Face's five ways to treat what matched; afterwards `match` means: to be removed.
Spans arrange(Spans spans, Behavior behavior) {
  if (behavior == Behavior::removed) return spans;
  Spans out;
  bool previous = false;
  if (behavior == Behavior::merged_with_next) {
    for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
      if (span->match && !previous && !out.empty())
        out.back().begin = span->begin;
      else
        out.push_back({span->begin, span->end, false});
      previous = span->match;
    }
    return {out.rbegin(), out.rend()};
  }
  for (const Regex::Span& span : spans) {
    const bool joins = behavior == Behavior::contiguous             ? span.match == previous
                       : behavior == Behavior::merged_with_previous ? span.match && !previous
                                                                    : false;
    if (joins && !out.empty())
      out.back().end = span.end;
    else
      out.push_back({span.begin, span.end, false});
    previous = span.match;
  }
  return out;
}

class CutStep final : public PreTokenizer {
 public:
  CutStep(Cut cut, Behavior behavior) : cut_(std::move(cut)), behavior_(behavior) {}
  void apply(std::vector<Word>& words) const override {
    std::vector<Word> out;
    for (const Word& word : words) {
      for (const Regex::Span& span : arrange(cut_(word.text), behavior_))
        if (!span.match && span.begin < span.end)
          out.push_back(
              {word.text.substr(span.begin, span.end - span.begin), word.at_start && span.begin == 0});
    }
    words = std::move(out);
  }

 private:
  Cut cut_;
  Behavior behavior_;
};

class EachStep final : public PreTokenizer {
 public:
  explicit EachStep(std::function<void(Word&)> f) : f_(std::move(f)) {}
  void apply(std::vector<Word>& words) const override {
    for (Word& word : words) f_(word);
  }

 private:
  std::function<void(Word&)> f_;
};

class SequenceStep final : public PreTokenizer {
 public:
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  void apply(std::vector<Word>& words) const override {
    for (const auto& step : steps) {
      step->apply(words);
      size_t bytes = 0;
      for (const Word& word : words) bytes += word.text.size();
      check_text_size(bytes);
    }
  }
};

template <typename F>
std::unique_ptr<PreTokenizer> character_step(F is_match, Behavior behavior) {
  return std::make_unique<CutStep>(
      [is_match](std::string_view text) { return cut_characters(text, is_match); }, behavior);
}

Cut scanner_cut(std::unique_ptr<Scanner> scanner) {
  return [shared = std::shared_ptr<Scanner>(std::move(scanner))](std::string_view text) {
    Spans spans;
    const char *begin = text.data(), *end = begin + text.size();
    for (const char* p = begin; p < end;) {
      const char* next = shared->word_end(p, end);
      spans.push_back({size_t(p - begin), size_t(next - begin), true});
      p = next;
    }
    return spans;
  };
}

Cut pattern_cut(const JsonView& pattern) {
  if (const auto text = pattern.find("String")) {
    if (text->string().empty()) return [](std::string_view whole) { return Spans{{0, whole.size(), false}}; };
    return [literal = text->string()](std::string_view whole) {
      Spans spans;
      size_t done = 0;
      for (size_t at; (at = whole.find(literal, done)) != whole.npos; done = at + literal.size()) {
        if (done < at) spans.push_back({done, at, false});
        spans.push_back({at, at + literal.size(), true});
      }
      if (done < whole.size()) spans.push_back({done, whole.size(), false});
      return spans;
    };
  }
  const JsonView expression = pattern.at("Regex");
  if (auto scanner = scanner_for_pattern(expression.string())) return scanner_cut(std::move(scanner));
  return [regex = Regex(expression.string(), expression.place())](std::string_view text) {
    return regex.cut(text);
  };
}

Behavior parse_behavior(const JsonView& json) {
  const std::string& name = json.string();
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  json.unsupported("split behavior", name);
}

std::unique_ptr<PreTokenizer> parse_split(const JsonView& json) {
  Cut cut = pattern_cut(json.at("pattern"));
  if (json.boolean_or("invert", false))
    cut = [inner = std::move(cut)](std::string_view text) {
      Spans spans = inner(text);
      for (Regex::Span& span : spans) span.match = !span.match;
      return spans;
    };
  return std::make_unique<CutStep>(std::move(cut), parse_behavior(json.at("behavior")));
}

bool is_punctuation(uint32_t c) {
  return (c < 128 && (kAsciiClass[c] & kSymbol)) || (char_class(c) & kPunctuation);
}

std::unique_ptr<PreTokenizer> byte_level_step(bool add_prefix_space, bool use_regex) {
  auto sequence = std::make_unique<SequenceStep>();
  if (add_prefix_space)
    sequence->steps.push_back(std::make_unique<EachStep>([](Word& word) {
      if (!word.text.starts_with(' ')) word.text.insert(word.text.begin(), ' ');
    }));
  if (use_regex)
    sequence->steps.push_back(
        std::make_unique<CutStep>(scanner_cut(scanner_for_pattern(patterns::kGpt2)), Behavior::isolated));
  sequence->steps.push_back(
      std::make_unique<EachStep>([](Word& word) { word.text = to_visible(word.text); }));
  return sequence;
}

std::unique_ptr<PreTokenizer> parse_metaspace(const JsonView& json) {
  const std::string mark = json.string_or("replacement", "\xe2\x96\x81");
  const CodePoint c = mark.empty() ? CodePoint{kInvalid, 0} : decode_utf8(mark);
  if (c.bytes != mark.size() || c.value == kInvalid) json.at("replacement").wrong("one character");
  std::string scheme = json.string_or("prepend_scheme", "always");
  if (!json.boolean_or("add_prefix_space", true)) scheme = "never";
  if (scheme != "always" && scheme != "first" && scheme != "never")
    json.unsupported("prepend scheme", scheme);
  auto sequence = std::make_unique<SequenceStep>();
  sequence->steps.push_back(std::make_unique<EachStep>([mark, scheme](Word& word) {
    word.text = replace_all(word.text, " ", mark);
    if ((scheme == "always" || (scheme == "first" && word.at_start)) && !word.text.starts_with(mark))
      word.text.insert(0, mark);
  }));
  if (json.boolean_or("split", true))
    sequence->steps.push_back(
        character_step([value = c.value](uint32_t x) { return x == value; }, Behavior::merged_with_next));
  return sequence;
}

// \w+|[^\w\s]+ , the rest removed.
std::unique_ptr<PreTokenizer> whitespace_step() {
  const auto kind = [](uint32_t c) { return is_word(c) ? 1 : is_white_space(c) ? 0 : 2; };
  return std::make_unique<CutStep>(
      [kind](std::string_view text) {
        Spans spans;
        int current = -1;
        for (size_t i = 0; i < text.size();) {
          const CodePoint c = decode_utf8(text.substr(i));
          const int k = kind(c.value);
          if (k == current)
            spans.back().end = i + c.bytes;
          else
            spans.push_back({i, i + c.bytes, k == 0});
          current = k;
          i += c.bytes;
        }
        return spans;
      },
      Behavior::removed);
}

std::unique_ptr<PreTokenizer> fixed_length_step(size_t length) {
  return std::make_unique<CutStep>(
      [length](std::string_view text) {
        Spans spans;
        size_t count = 0;
        for (size_t i = 0; i < text.size(); ++count) {
          const size_t bytes = decode_utf8(text.substr(i)).bytes;
          if (count % length == 0) spans.push_back({i, i, true});
          i += bytes;
          spans.back().end = i;
        }
        return spans;
      },
      Behavior::isolated);
}

}  // namespace

bool maps_bytes(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "ByteLevel") return true;
  if (type != "Sequence") return false;
  const JsonView list = json.at("pretokenizers");
  for (size_t i = 0; i < list.size(); ++i)
    if (maps_bytes(list[i])) return true;
  return false;
}

std::unique_ptr<Scanner> parse_byte_level_scanner(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "ByteLevel") {
    if (json.boolean_or("add_prefix_space", true) || !json.boolean_or("use_regex", true)) return nullptr;
    return scanner_for_pattern(patterns::kGpt2);
  }
  if (type != "Sequence") return nullptr;
  const JsonView list = json.at("pretokenizers");
  if (list.size() == 1) return parse_byte_level_scanner(list[0]);
  if (list.size() != 2 || list[0].at("type").string() != "Split" ||
      list[1].at("type").string() != "ByteLevel" || list[1].boolean_or("use_regex", true) ||
      list[1].boolean_or("add_prefix_space", true))
    return nullptr;
  const JsonView split = list[0];
  const auto regex = split.at("pattern").find("Regex");
  // These patterns match every character, so isolating matches and removing what lies between are the same.
  const std::string& behavior = split.at("behavior").string();
  const bool invert = split.boolean_or("invert", false);
  if (!regex || !((behavior == "Isolated" && !invert) || (behavior == "Removed" && invert))) return nullptr;
  return scanner_for_pattern(regex->string());
}

std::unique_ptr<PreTokenizer> parse_pre_tokenizer(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    auto sequence = std::make_unique<SequenceStep>();
    const JsonView list = json.at("pretokenizers");
    list.check_steps();
    for (size_t i = 0; i < list.size(); ++i) sequence->steps.push_back(parse_pre_tokenizer(list[i]));
    return sequence;
  }
  if (type == "ByteLevel")
    return byte_level_step(json.boolean_or("add_prefix_space", true), json.boolean_or("use_regex", true));
  if (type == "Split") return parse_split(json);
  if (type == "Metaspace") return parse_metaspace(json);
  if (type == "Whitespace") return whitespace_step();
  if (type == "WhitespaceSplit") return character_step(is_white_space, Behavior::removed);
  if (type == "Digits")
    return character_step(
        [](uint32_t c) { return (char_class(c) & kNumber) != 0; },
        json.boolean_or("individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
  if (type == "Punctuation") {
    const auto behavior = json.find("behavior");
    return character_step(is_punctuation, behavior ? parse_behavior(*behavior) : Behavior::isolated);
  }
  if (type == "BertPreTokenizer") {
    auto sequence = std::make_unique<SequenceStep>();
    sequence->steps.push_back(character_step(is_white_space, Behavior::removed));
    sequence->steps.push_back(character_step(is_punctuation, Behavior::isolated));
    return sequence;
  }
  if (type == "CharDelimiterSplit") {
    const std::string& text = json.at("delimiter").string();
    const CodePoint c = text.empty() ? CodePoint{kInvalid, 0} : decode_utf8(text);
    if (c.bytes != text.size() || c.value == kInvalid) json.at("delimiter").wrong("one character");
    return character_step([value = c.value](uint32_t x) { return x == value; }, Behavior::removed);
  }
  if (type == "FixedLength") {
    const int64_t length = json.integer_or("length", 5);
    if (length < 1) json.at("length").wrong("a length from 1");
    return fixed_length_step(size_t(length));
  }
  json.unsupported("pre-tokenizer", type);
}

}  // namespace cairn::text
