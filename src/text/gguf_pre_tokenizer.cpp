#include "text/gguf_pre_tokenizer.h"

#include <vector>

#include "base/error.h"
#include "text/scanner.h"

namespace cairn::text {
namespace {

using Json = nlohmann::json;

Json split(const char* pattern, const char* behavior = "Isolated") {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", false}};
}

Json digits(bool individual) { return {{"type", "Digits"}, {"individual_digits", individual}}; }

Json bytes(bool gpt2_pattern) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", gpt2_pattern}};
}

Json sequence(std::vector<Json> steps) { return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}}; }

Json one_pattern(const char* pattern) { return sequence({split(pattern), bytes(false)}); }

// The sets of DeepSeek's first tokenizers: scripts with case, CJK.
constexpr const char* kCasedLetters =
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293})"
    R"(\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a})"
    R"(\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556})"
    R"(\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf})"
    R"(\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d})"
    R"(\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d})"
    R"(\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4})"
    R"(\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4})"
    R"(\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124})"
    R"(\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f})"
    R"(\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4})"
    R"(\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f})"
    R"(\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17})"
    R"(\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3})"
    R"(\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df})"
    R"(\x{1e900}-\x{1e943}]+)";
constexpr const char* kOldCjk = "[一-龥ࠀ-一가-퟿]+";
constexpr const char* kDeepseek3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kBloom = " ?[^(\\s|.,!?…。，、।۔،)]+";
constexpr const char* kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr const char* kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Row {
  std::vector<std::string_view> names;
  Json (*make)();
  bool ignore_merges = false;
  bool add_bos = false;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> table = {
      {{"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es", "jina-de",
        "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0",
        "mellum", "modern-bert"},
       [] { return bytes(true); }},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       [] { return one_pattern(patterns::kCl100k); },
       true,
       true},
      {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, [] { return one_pattern(patterns::kCl100k); }},
      {{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2", "kormo", "solar-open"},
       [] { return one_pattern(patterns::kQwen2); }},
      {{"qwen35"}, [] { return one_pattern(patterns::kQwen35); }},
      {{"gpt-4o", "llama4", "kanana2"}, [] { return one_pattern(patterns::kO200k); }},
      {{"tekken"}, [] { return one_pattern(patterns::kTekken); }, true, true},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"},
       [] {
         return sequence({digits(true), bytes(true)});
       }},
      {{"falcon"},
       [] {
         return sequence({split("[\\p{P}\\$\\+<=>\\^~\\|`]+", "Contiguous"), bytes(true), digits(false),
                          split("[0-9][0-9][0-9]")});
       }},
      {{"default"},
       [] {
         return sequence({split("[\\p{P}\\$\\+<=>\\^~\\|]+"), split(patterns::kGpt2), split("\\p{N}+"),
                          split("[0-9][0-9][0-9]"), bytes(false)});
       }},
      {{"deepseek-llm"},
       [] {
         return sequence({split("[\r\n]"), split(kCasedLetters), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                          split("\\s+$"), split(kOldCjk), digits(true), bytes(false)});
       }},
      {{"deepseek-coder"},
       [] {
         return sequence({split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(kOldCjk),
                          digits(true), bytes(false)});
       }},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm"},
       [] {
         return sequence(
             {split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(kDeepseek3), bytes(false)});
       }},
      {{"bloom", "poro-chat", "gpt3-finnish"}, [] { return one_pattern(kBloom); }},
      {{"viking"},
       [] {
         return sequence({split(kBloom), digits(true), bytes(false)});
       }},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, [] { return one_pattern(kBailing); }},
      {{"seed-coder"}, [] { return one_pattern(kSeedCoder); }}};
  return table;
}

}  // namespace

GgufPreTokenizer gguf_pre_tokenizer(std::string_view name, const std::string& file) {
  for (const Row& row : rows())
    for (std::string_view known : row.names)
      if (known == name) return {row.make(), row.ignore_merges, row.add_bos};
  std::string names;
  for (const Row& row : rows())
    for (std::string_view known : row.names) (names += names.empty() ? "" : ", ") += known;
  fail(ErrorKind::unsupported,
       "{}: tokenizer.ggml.pre is \"{}\", a way to split text that is not known here (known: {}); a "
       "tokenizer.json beside "
       "the model can be used instead",
       file, name, names);
}

}  // namespace cairn::text
