// Endless distinct schemas: the cache and the masks stay within their bytes, and so does the process.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar.h"

namespace cairn::text {
namespace {

size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

TEST(GrammarCacheSlow, HundredThousandSchemasInBoundedMemory) {
  std::vector<std::string> words;
  for (int i = 0; i < 4000; ++i) words.push_back("w" + std::to_string(i * 7919 % 100'000));
  const auto tokenizer = testing::PieceTokenizer::bytes_and(words);
  constexpr size_t kCache = 8u << 20;
  GrammarCompiler compiler(tokenizer, tokenizer.vocabulary_size(), kCache);
  std::vector<uint32_t> bits((size_t(tokenizer.vocabulary_size()) + 31) / 32);
  size_t warm = 0;
  for (int i = 0; i < 100'000; ++i) {
    const nlohmann::ordered_json schema = {
        {"type", "object"},
        {"properties",
         {{"k" + std::to_string(i), {{"type", "string"}, {"maxLength", i % 50 + 1}}},
          {"p", {{"type", "string"}, {"pattern", "^[a-f]{" + std::to_string(i % 9 + 1) + "}x"}}}}},
        {"additionalProperties", i % 2 == 0}};
    GrammarMatcher matcher(compiler.json_schema(schema));
    for (const char c : "{\"k" + std::to_string(i) + "\":\"a\",\"p\":\"") {
      if (i % 10 == 0) matcher.fill_mask(bits);
      ASSERT_TRUE(matcher.accept(TokenId(uint8_t(c)))) << i;
    }
    matcher.fill_mask(bits);
    ASSERT_LE(compiler.stats().bytes, kCache);
    if (i == 20'000) warm = resident_bytes();
  }
  EXPECT_EQ(compiler.stats().compiled, 100'000u);
  EXPECT_LT(resident_bytes(), warm + (8u << 20));
}

}  // namespace
}  // namespace cairn::text
