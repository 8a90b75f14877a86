#include "serve/api/user_text.h"

#include <algorithm>

#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

constexpr uint32_t kFirst = 0xf0000, kCodes = 0xfffe;  // plane 15 without its two noncharacters
constexpr std::string_view kPlaneLead = "\xf3";  // the first byte of plane 15 (F3 B0..BF), and of 12 to 14

size_t character_length(std::string_view text) {
  const auto first = uint8_t(text[0]);
  return std::min<size_t>(text.size(), first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4);
}

bool in_plane(std::string_view character) {
  return character.size() == 4 && character[0] == kPlaneLead[0] && uint8_t(character[1]) >= 0xb0;
}

// What a template's own code may look at or rewrite: left as it is. A special token has other characters too.
bool is_plain(std::string_view character) {
  if (character.size() != 1) return false;
  const auto c = uint8_t(character[0]);
  return c <= 0x20 || c == '"' || c == '\\' || c == 0x7f;
}

bool is_word(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

void append_code(std::string& out, uint32_t c) {
  out += char(0xf0 | (c >> 18));
  out += char(0x80 | ((c >> 12) & 0x3f));
  out += char(0x80 | ((c >> 6) & 0x3f));
  out += char(0x80 | (c & 0x3f));
}

}  // namespace

SpecialTexts::SpecialTexts(const text::Tokenizer& tokenizer) {
  for (text::TokenId id = 0; id < tokenizer.vocabulary_size(); ++id)
    if (tokenizer.is_special(id)) {
      std::string text = tokenizer.piece(id);
      // One that is written in white space only cannot be hidden, and is no control token of a template.
      if (!text.empty()) texts_.push_back(std::move(text));
    }
  for (size_t i = 0; i < texts_.size(); ++i) {
    whole_.insert(texts_[i], int32_t(i));
    longest_ = std::max(longest_, texts_[i].size());
    for (size_t cut = 1; cut < texts_[i].size(); ++cut)
      if ((uint8_t(texts_[i][cut]) & 0xc0) != 0x80)
        ends_.insert(std::string_view(texts_[i]).substr(cut), int32_t(i));
  }
}

std::vector<text::ByteRange> SpecialTexts::dangerous(std::string_view text) const {
  std::vector<text::ByteRange> found;
  if (text.empty()) return found;
  for (size_t i = 0; i < text.size(); ++i) {  // (1), and (2) where the text ends inside a token
    if (!whole_.starts(text[i])) continue;
    if (const auto match = whole_.longest(text.substr(i)); match.length > 0)
      found.push_back({i, i + match.length});
    if (text.size() - i >= longest_) continue;
    int32_t node = text::ByteTrie::kRoot;
    for (size_t j = i; j < text.size() && node >= 0; ++j) node = whole_.step(node, uint8_t(text[j]));
    if (node >= 0) found.push_back({i, text.size()});
  }
  if (const auto match = ends_.longest(text); match.length > 0) found.push_back({0, match.length});  // (3)
  if (text.size() < longest_ && !is_word(text) &&                                                    // (4)
      std::any_of(texts_.begin(), texts_.end(),
                  [&](const std::string& special) { return special.find(text) != std::string::npos; }))
    found.push_back({0, text.size()});
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.begin < b.begin; });
  std::vector<text::ByteRange> merged;
  for (const auto& range : found)
    if (!merged.empty() && range.begin <= merged.back().end)
      merged.back().end = std::max(merged.back().end, range.end);
    else
      merged.push_back(range);
  return merged;
}

void UserText::append_hidden(std::string& out, std::string_view character) {
  auto found = codes_.find(character);
  if (found == codes_.end()) {
    // No text has so many different characters outside of attacks.
    if (characters_.size() >= kCodes)
      refuse(400, "messages", "invalid_value",
             "the messages hold more than {} different private-use characters", kCodes);
    found = codes_.emplace(std::string(character), uint32_t(characters_.size())).first;
    characters_.emplace_back(character);
  }
  append_code(out, kFirst + found->second);
}

void UserText::hide(std::string& text) {
  auto ranges = special_.dangerous(text);
  const bool has_plane = text.find(kPlaneLead) != std::string::npos;  // our own characters, written by a user
  if (ranges.empty() && !has_plane) return;
  std::string out;
  out.reserve(text.size() + 64);
  auto range = ranges.begin();
  const std::string_view view = text;
  for (size_t i = 0; i < view.size();) {
    const auto character = view.substr(i, character_length(view.substr(i)));
    while (range != ranges.end() && range->end <= i) ++range;
    const bool dangerous = range != ranges.end() && range->begin < i + character.size();
    if ((dangerous && !is_plain(character)) || in_plane(character))
      append_hidden(out, character);
    else
      out += character;
    i += character.size();
  }
  text = std::move(out);
}

void UserText::hide(Json& value) {
  if (value.is_string()) {
    hide(value.get_ref<std::string&>());
  } else if (value.is_array()) {
    for (auto& item : value) hide(item);
  } else if (value.is_object()) {
    Json renamed = Json::object();
    bool changed = false;
    for (const auto& [key, member] : value.items()) {
      (void)member;
      std::string name = key;
      hide(name);
      changed = changed || name != key;
    }
    for (auto it = value.begin(); it != value.end(); ++it) {
      hide(it.value());
      if (!changed) continue;
      std::string name = it.key();
      hide(name);
      renamed[name] = std::move(it.value());
    }
    if (changed) value = std::move(renamed);
  }
}

RenderedPrompt UserText::reveal(std::string_view rendered) const {
  RenderedPrompt prompt;
  if (characters_.empty()) {
    prompt.text = rendered;
    return prompt;
  }
  prompt.text.reserve(rendered.size());
  for (size_t i = 0; i < rendered.size();) {
    const auto character = rendered.substr(i, character_length(rendered.substr(i)));
    i += character.size();
    if (!in_plane(character)) {
      prompt.text += character;
      continue;
    }
    const uint32_t code = ((uint32_t(uint8_t(character[1])) & 0x3f) << 12) |
                          ((uint32_t(uint8_t(character[2])) & 0x3f) << 6) |
                          (uint32_t(uint8_t(character[3])) & 0x3f);
    const uint32_t index = code - (kFirst & 0x3ffff);
    if (index >= characters_.size()) {  // the template's own
      prompt.text += character;
      continue;
    }
    const size_t begin = prompt.text.size();
    prompt.text += characters_[index];
    if (!prompt.user.empty() && prompt.user.back().end == begin)
      prompt.user.back().end = prompt.text.size();
    else
      prompt.user.push_back({begin, prompt.text.size()});
  }
  return prompt;
}

}  // namespace cairn::serve
