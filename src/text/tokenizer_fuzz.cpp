// The first byte chooses a reader; the rest is a vocabulary file, three zero bytes, and a text to encode.
// Whatever the file says, reading it either works or throws Error, and what works encodes to ids that exist
// and streams what it decodes.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/loaders.h"
#include "text/sentencepiece.h"
#include "text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::text;
  if (size < 1) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t mark = all.rfind(std::string_view("\0\0\0", 3));
  const std::string_view file = all.substr(0, mark);
  const std::string_view text = mark == all.npos ? "Hello w\xc3\xb6rld  123\n<s>" : all.substr(mark + 3);
  try {
    Pipeline pipeline;
    switch (data[0] % 4) {
      case 0: pipeline = parse_tokenizer_json(file, "fuzz"); break;
      case 1: pipeline = sentencepiece_pipeline(parse_sentencepiece_model(file, "fuzz"), "fuzz"); break;
      case 2: pipeline = parse_llama2c_tokenizer(file, "fuzz"); break;
      default: pipeline = parse_tiktoken(file, "fuzz", {}); break;
    }
    complete_special_tokens(pipeline);
    const PipelineTokenizer tokenizer(std::move(pipeline));
    for (const bool special : {true, false}) {
      const auto ids = tokenizer.encode(text, {.add_special = special, .parse_special = special});
      for (const TokenId id : ids) {
        if (id < 0 || id >= tokenizer.vocabulary_size()) std::abort();
        tokenizer.piece(id);
      }
      StreamDecoder stream(tokenizer, special);
      std::string joined;
      for (const TokenId id : ids) {
        const std::string part = stream.add(id);
        if (!is_valid_utf8(part)) std::abort();
        joined += part;
      }
      joined += stream.finish();
      if (joined != tokenizer.decode(ids, special)) std::abort();
    }
  } catch (const cairn::Error&) {
  }
  return 0;
}
