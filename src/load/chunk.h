// What one JSON body or one streamed chunk of an OpenAI-compatible server says, as far as a load test needs
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::load {

struct Chunk {
  size_t text_bytes = 0;      // content, reasoning, text and tool call arguments of all choices together
  std::string text;           // content or text of the first choice
  std::string finish_reason;  // empty: none yet
  std::string error;          // the message of an error object; never empty when there was one
  int64_t prompt_tokens = -1, answer_tokens = -1, cached_tokens = -1;  // -1: not said
};

// Reads chat.completion, chat.completion.chunk and text_completion objects, and error bodies. One pass, no
// tree: a few microseconds for a chunk. False when `json` is not JSON.
bool read_chunk(std::string_view json, Chunk& chunk);

}  // namespace cairn::load
