#include "text/pre_tokenizer.h"

namespace cairn::text {

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
  json.unsupported("pre-tokenizer", json.at("type").string());
}

}  // namespace cairn::text
