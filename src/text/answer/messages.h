// A request's messages as one chat template expects them. Clients send OpenAI's shape; templates differ in
// what they read: arguments as an object or as text, one call or several, ids of nine characters, content as
// a string or in parts. What a template does is found out by rendering small conversations, not by its name.
#pragma once

#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "text/answer/answer_format.h"
#include "text/chat_template.h"

namespace cairn::text {

struct TemplateTraits {
  bool content_parts = false;       // content is a list of {"type": "text", "text"}, not a string
  bool writes_calls = false;        // an assistant's tool_calls appear in the prompt
  bool text_arguments = false;      // their arguments are JSON text, not an object
  bool null_content = false;        // a message with calls needs null content, not an empty string
  bool calls_or_content = false;    // a message with calls and content loses the calls
  bool calls_or_reasoning = false;  // ... with calls, content and reasoning is refused
  bool one_call = false;            // a message may have one call only
  bool short_ids = false;           // ids of calls have nine letters and digits
  bool tool_role = false;           // messages of role "tool" appear in the prompt
  bool developer_role = false;      // "developer" is known; else it becomes "system"
  bool described_tools = false;     // every tool needs a description
  bool functions = false;           // reads the tools as JSON text from `functions`, and `datetime`
  bool operator==(const TemplateTraits&) const = default;
};

// Renders about a dozen small conversations. Never throws for what the template refuses.
TemplateTraits probe_template(const ChatTemplate&);

// Errors of both are invalid_argument and name the place: "messages[2].tool_calls[0].function.arguments:
// ..."; unsupported for parts of other types than text.

// Roles: system, developer, user, assistant, tool (and OpenAI's former function). Text parts are joined by a
// line break. Reasoning is read from reasoning_content, thinking or reasoning, and given as the first two, as
// transformers does. Other fields stay. Calls that the template would not write are written into the content
// as the model writes them (AnswerFormat::write_calls).
nlohmann::ordered_json prepare_messages(const nlohmann::ordered_json& messages, const TemplateTraits&,
                                        const AnswerFormat&);

// [{"type": "function", "function": {name, description, parameters}}] from that, from the functions alone, or
// from Anthropic's {name, description, input_schema}. Null when there are none.
nlohmann::ordered_json prepare_tools(const nlohmann::ordered_json& tools, const TemplateTraits&);

// One model's chat prompts: template, traits and special tokens together. Safe to use from many threads.
class ChatPrompts {
 public:
  // The template has to outlive this.
  ChatPrompts(const ChatTemplate&, AnswerFormat, std::string bos_text, std::string eos_text);

  struct Request {
    nlohmann::ordered_json messages = {};
    nlohmann::ordered_json tools = {};      // null: none
    nlohmann::ordered_json variables = {};  // further ones for the template: enable_thinking, documents, ...
    // The last message is an assistant's whose content goes on, instead of a new answer.
    bool continue_last = false;
  };
  // What the template refuses is Error(invalid_argument) with its words.
  std::string render(const Request&, const TemplateLimits& = {}, std::function<std::tm()> now = {}) const;

  const TemplateTraits& traits() const { return traits_; }
  const AnswerFormat& format() const { return format_; }

 private:
  const ChatTemplate& template_;
  AnswerFormat format_;
  std::string bos_, eos_;
  TemplateTraits traits_;
};

}  // namespace cairn::text
