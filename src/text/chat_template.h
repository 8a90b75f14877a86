// Renders a model's Jinja chat template exactly as transformers' apply_chat_template does with jinja2
// (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols; tojson without HTML escapes,
// raise_exception, strftime_now). A construct it cannot render is an Error naming line and construct.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::text {

struct TemplateLimits {
  int64_t steps = 10'000'000;  // evaluated nodes and loop turns
  int depth = 200;             // nested macro calls, recursive loops and blocks
  size_t output_bytes = size_t{64} << 20;
  size_t value_bytes = size_t{512} << 20;  // held by all values at one moment, the variables included
  double seconds = 10;
};

class ChatTemplate {
 public:
  // Throws Error(invalid_file) with the line of what does not parse. name is for messages.
  explicit ChatTemplate(std::string_view source, std::string name = "chat template");
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // variables: messages, tools, documents, add_generation_prompt, bos_token, ... as one JSON object (keys
  // keep their order). raise_exception in the template becomes Error(invalid_argument) with its message, and
  // so does whatever Python would raise; a construct that is not supported is Error(unsupported). now: what
  // strftime_now tells, the local time by default. Several threads may render at once.
  std::string render(const nlohmann::ordered_json& variables, const TemplateLimits& = {},
                     std::function<std::tm()> now = {}) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace cairn::text
