// Tokenizes many strings in one process, for tools/tokenizer_diff.py: reads records from stdin, answers on
// stdout.
//   tokenize_pipe PATH [--plain-special] [--no-special]
// Request:  u32 kind (0 encode, 1 decode keeping special tokens, 2 decode skipping them), u32 bytes, payload
//           (UTF-8 text to encode; i32 ids to decode).
// Answer:   u32 bytes, payload (i32 ids; text). A failure answers 0xffffffff, then u32 bytes and the message.
// Links: cairn_text
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>

#include "text/tokenizer.h"

namespace {

bool read_all(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }

void write_u32(uint32_t value) { std::fwrite(&value, 4, 1, stdout); }

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr, "usage: tokenize_pipe PATH [--plain-special] [--no-special]\n");
    return 2;
  }
  cairn::text::EncodeOptions options;
  for (int i = 2; i < count; ++i) {
    if (!std::strcmp(arguments[i], "--plain-special")) options.parse_special = false;
    if (!std::strcmp(arguments[i], "--no-special")) options.add_special = false;
  }
  try {
    const auto tokenizer = cairn::text::load_tokenizer(arguments[1]);
    uint32_t header[2];
    std::string payload, answer;
    while (read_all(header, sizeof header)) {
      payload.resize(header[1]);
      if (!read_all(payload.data(), payload.size())) return 1;
      try {
        if (header[0] == 0) {
          const auto ids = tokenizer->encode(payload, options);
          answer.assign(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof ids[0]);
        } else {
          std::vector<cairn::text::TokenId> ids(payload.size() / sizeof(cairn::text::TokenId));
          std::memcpy(ids.data(), payload.data(), ids.size() * sizeof ids[0]);
          answer = tokenizer->decode(ids, header[0] == 2);
        }
      } catch (const std::exception& error) {
        write_u32(0xffffffff);
        answer = error.what();
      }
      write_u32(uint32_t(answer.size()));
      std::fwrite(answer.data(), 1, answer.size(), stdout);
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenize_pipe: %s\n", error.what());
    return 1;
  }
  return 0;
}
