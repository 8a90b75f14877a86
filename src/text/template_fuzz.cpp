// Any bytes as a template, rendered over a small conversation: an Error or a text, in bounded time and
// memory.
#include "base/error.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto variables = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Héllo <b> 🦊"},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, "y"]}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "array"}}}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "n": 3, "s": "a b-c", "l": [3, 1, 2], "d": {"k": "v"}})");
  cairn::text::TemplateLimits limits;
  limits.steps = 100'000;
  limits.output_bytes = 1 << 20;
  limits.value_bytes = 16 << 20;
  limits.seconds = 2;
  try {
    cairn::text::ChatTemplate({reinterpret_cast<const char*>(data), size}).render(variables, limits);
  } catch (const cairn::Error&) {
  }
  return 0;
}
