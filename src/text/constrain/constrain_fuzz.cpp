// The first byte chooses the notation, the second seeds the walk; the rest is the grammar. Whatever it says,
// compiling works or throws Error; what compiles has masks that are what accept() does, and texts that it
// made are texts that it reads.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/fuzzing.h"
#include "text/constrain/grammar.h"
#include "text/constrain/piece_tokenizer_testing.h"

using namespace cairn::text;

namespace {

const testing::PieceTokenizer& tokenizer() {
  static const auto made = testing::PieceTokenizer::bytes_and(
      {"the", "\":", "{\"", "],", "12", "true", "ab", "aaa", "\xc3\xa9", "\xe2\x82"}, {"<|s|>"});
  return made;
}

void check(bool holds, int line = __builtin_LINE()) {
  if (holds) return;
  std::fprintf(stderr, "the check in line %d does not hold\n", line);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  GrammarCompiler compiler(tokenizer(), tokenizer().vocabulary_size());
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  try {
    GrammarPtr grammar;
    if (data[0] % 6 == 5) {
      const size_t half = text.size() / 2;
      grammar =
          compiler.tagged({{text.substr(0, half), {GrammarSource::Kind::regex, text.substr(half)}, "<|s|>"}},
                          data[0] & 8, data[0] & 16);
    } else {
      grammar = compiler.compile({GrammarSource::Kind(data[0] % 5), text});
    }
    GrammarMatcher matcher(grammar);
    uint32_t random = data[1] * 2654435761u + 1;
    std::vector<uint32_t> bits((size_t(tokenizer().vocabulary_size()) + 31) / 32);
    std::string written;
    bool special = false;
    for (int step = 0; step < 40; ++step) {
      matcher.fill_mask(bits);
      std::vector<TokenId> fits;
      for (TokenId id = 0; id < tokenizer().vocabulary_size(); ++id) {
        const bool accepted = matcher.accept(id);
        if (accepted) matcher.rollback(1);
        check(accepted == (bits[size_t(id) / 32] >> (id % 32) & 1));
        if (accepted && id != tokenizer().end()) fits.push_back(id);
      }
      matcher.forced();
      check(!fits.empty() || matcher.at_end());  // no dead ends: every byte is a token
      check(matcher.must_end() == (fits.empty() && matcher.at_end()));
      if (fits.empty()) break;
      random = random * 1664525 + 1013904223;
      const TokenId id = fits[random / 65536 % fits.size()];
      check(matcher.accept(id));
      special |= tokenizer().is_special(id);
      written += tokenizer().piece(id);
    }
    if (!special) {
      GrammarMatcher again(grammar);
      check(again.accept_text(written) && again.at_end() == matcher.at_end());
    }
  } catch (const cairn::Error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned random) {
  static const std::vector<std::string> seeds = {
      std::string("\0\1", 2) +
          R"({"type":"object","properties":{"a":{"type":"string","maxLength":3},"b":{"$ref":"#/$defs/x"}},
        "required":["b"],"additionalProperties":false,"$defs":{"x":{"anyOf":[{"type":"integer","minimum":-3,"maximum":120},
        {"type":"array","items":{"$ref":"#"},"minItems":1}]}}})",
      std::string("\0\2", 2) +
          R"({"type":"string","pattern":"^[a-c]{2,5}(x|y)*$","minLength":2,"format":"date"})",
      std::string("\0\3", 2) +
          R"({"type":"object","patternProperties":{"^a":{"const":1}},"propertyNames":{"maxLength":4},
        "minProperties":1,"maxProperties":3,"additionalProperties":{"enum":[1,"x",null]}})",
      std::string("\2\1", 2) + "(?:a|[b-d]{2,100}\\w+)*\\p{Lu}?x{3,}",
      std::string("\3\1", 2) +
          "root ::= s (\",\" s)*\ns ::= s \"+\" t | t\nt ::= [0-9]{1,3} | \"(\" s \")\" # end\n",
      std::string("\4\1", 2) +
          "start: item+\nitem: NAME \"=\" (NUMBER | \"a\"..\"f\"~2..5) -> x\n%import common.NUMBER\nNAME: "
          "/[a-z]+/i\n%ignore \" \"\n",
      std::string("\5\1", 2) + "<call>[a-z]+",
  };
  return cairn::formats::mutate_from(seeds, data, size, max_size, random);
}
