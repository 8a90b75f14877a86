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
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-"
    "Ᏽᏸ-"
    "ᏽᲐ-"
    "ᲺᲽ-"
    "Ჿᴀ-"
    "ᴫᵫ-"
    "ᵷᵹ-"
    "ᶚḀ-"
    "ἕἘ-"
    "Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-"
    "ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-"
    "ꞇꞋ-"
    "ꞎꭰ-"
    "ꮿﬀ-"
    "ﬆﬓ-"
    "ﬗＡ-"
    "Ｚａ-"
    "ｚ𐐀-"
    "𐑏𐒰-"
    "𐓓𐓘-"
    "𐓻𐲀-"
    "𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
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
