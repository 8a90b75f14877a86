#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

constexpr const char* kChat = R"json({
  "TextPart": {"type": "object", "required": ["type", "text"], "properties": {
    "type": {"const": "text", "x-cairn-reason": "the model reads text only"}, "text": {"type": "string"}}},
  "TextContent": {"anyOf": [
    {"type": "string"},
    {"type": "array", "maxItems": 4096, "items": {"$ref": "#/components/schemas/TextPart"}}]},
  "ToolCall": {"type": "object", "required": ["function"], "properties": {
    "id": {"type": "string", "maxLength": 256},
    "type": {"type": "string", "enum": ["function"]},
    "function": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string", "minLength": 1, "maxLength": 256},
      "arguments": {"type": "string", "description": "A JSON object as text."}}}}},
  "ChatMessage": {"anyOf": [
    {"type": "object", "required": ["role", "content"], "title": "System", "properties": {
      "role": {"const": "system"}, "content": {"$ref": "#/components/schemas/TextContent"},
      "name": {"type": "string", "maxLength": 256}}},
    {"type": "object", "required": ["role", "content"], "title": "Developer",
      "description": "Given to the template as a system message when it knows no developer.", "properties": {
      "role": {"const": "developer"}, "content": {"$ref": "#/components/schemas/TextContent"},
      "name": {"type": "string", "maxLength": 256}}},
    {"type": "object", "required": ["role", "content"], "title": "User", "properties": {
      "role": {"const": "user"}, "content": {"$ref": "#/components/schemas/TextContent"},
      "name": {"type": "string", "maxLength": 256}}},
    {"type": "object", "required": ["role"], "title": "Assistant", "properties": {
      "role": {"const": "assistant"}, "content": {"$ref": "#/components/schemas/TextContent"},
      "name": {"type": "string", "maxLength": 256},
      "reasoning_content": {"type": "string", "description": "What an earlier answer's reasoning_content said."},
      "refusal": {"type": "string"},
      "audio": {"type": "null", "x-cairn-reason": "audio is not supported"},
      "function_call": {"type": "null", "x-cairn-reason": "deprecated; use tool_calls"},
      "tool_calls": {"type": "array", "maxItems": 128, "items": {"$ref": "#/components/schemas/ToolCall"}}}},
    {"type": "object", "required": ["role", "content"], "title": "Tool", "properties": {
      "role": {"const": "tool"}, "content": {"$ref": "#/components/schemas/TextContent"},
      "name": {"type": "string", "maxLength": 256},
      "tool_call_id": {"type": "string", "maxLength": 256}}}]},
  "Tool": {"type": "object", "required": ["type", "function"], "properties": {
    "type": {"const": "function"},
    "function": {"type": "object", "required": ["name"], "properties": {
      "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"},
      "description": {"type": "string"},
      "parameters": {"type": "object", "description": "JSON Schema; docs/serving.md lists the keywords."},
      "strict": {"type": "boolean",
        "description": "Calls always follow the schema as far as the answer format can be constrained."}}}}},
  "ToolChoice": {"anyOf": [
    {"type": "string", "enum": ["none", "auto", "required"]},
    {"type": "object", "required": ["type", "function"], "properties": {
      "type": {"const": "function"},
      "function": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}}}]},
  "ResponseFormat": {"anyOf": [
    {"type": "object", "required": ["type"], "properties": {"type": {"const": "text"}}},
    {"type": "object", "required": ["type"], "properties": {"type": {"const": "json_object"}}},
    {"type": "object", "required": ["type", "json_schema"], "properties": {
      "type": {"const": "json_schema"},
      "json_schema": {"type": "object", "required": ["schema"], "properties": {
        "name": {"type": "string", "maxLength": 256}, "description": {"type": "string"},
        "schema": {"type": "object"}, "strict": {"type": "boolean"}}}}}]},
  "TemplateArguments": {"type": "object", "additionalProperties": false,
    "x-cairn-reason": "only these names reach the template",
    "properties": {
      "enable_thinking": {"type": "boolean"}, "thinking": {"type": "boolean"},
      "preserve_thinking": {"type": "boolean"}, "clear_thinking": {"type": "boolean"},
      "thinking_budget": {"type": "integer", "minimum": 0, "maximum": 2147483647},
      "reasoning_effort": {"type": "string", "enum": ["none", "minimal", "low", "medium", "high", "xhigh"]},
      "date_string": {"type": "string", "maxLength": 64},
      "tools_in_user_message": {"type": "boolean"}}},
  "ChatRequest": {"type": "object", "required": ["messages"], "properties": {
    "model": {"type": "string", "description": "The served model's name or one of its aliases. Default: it."},
    "messages": {"type": "array", "minItems": 1, "maxItems": 16384,
      "items": {"$ref": "#/components/schemas/ChatMessage"}},
    "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647,
      "description": "Of each answer. Default: as many as the context has room for."},
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647,
      "description": "The older name of max_completion_tokens."},
    "n": {"type": "integer", "minimum": 1, "maximum": 128, "default": 1,
      "description": "Answers, which share the prompt's computation."},
    "stream": {"type": "boolean", "default": false},
    "stream_options": {"$ref": "#/components/schemas/StreamOptions"},
    "logprobs": {"type": "boolean", "default": false},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20, "default": 0},
    "response_format": {"$ref": "#/components/schemas/ResponseFormat"},
    "tools": {"type": "array", "maxItems": 256, "items": {"$ref": "#/components/schemas/Tool"}},
    "tool_choice": {"$ref": "#/components/schemas/ToolChoice",
      "description": "none: the tools are not shown to the model. Default: auto with tools, else none."},
    "parallel_tool_calls": {"type": "boolean", "default": true},
    "reasoning_effort": {"type": "string", "enum": ["none", "minimal", "low", "medium", "high", "xhigh"],
      "description": "Given to the template."},
    "chat_template_kwargs": {"$ref": "#/components/schemas/TemplateArguments"},
    "store": {"type": "boolean", "description": "Accepted and ignored: nothing is stored."},
    "metadata": {"type": "object", "description": "Accepted and ignored."},
    "service_tier": {"type": "string", "description": "Accepted and ignored."},
    "safety_identifier": {"type": "string", "description": "Accepted and ignored."},
    "prompt_cache_key": {"type": "string", "description": "Accepted and ignored: prefixes are found by content."},

    "modalities": {"type": "array", "items": {"type": "string", "enum": ["text"],
      "x-cairn-reason": "this model writes text only"}},
    "audio": {"type": "null", "x-cairn-reason": "audio is not supported"},
    "prediction": {"type": "null", "x-cairn-reason": "predicted outputs are not supported"},
    "web_search_options": {"type": "null", "x-cairn-reason": "the server searches nothing"},
    "functions": {"type": "null", "x-cairn-reason": "deprecated; use tools"},
    "function_call": {"type": "null", "x-cairn-reason": "deprecated; use tool_choice"},
    "verbosity": {"type": "string", "enum": ["medium"], "x-cairn-reason": "verbosity is not supported"},
    "chat_template": {"type": "null", "x-cairn-reason": "templates from requests are not executed"},
    "echo": {"type": "boolean", "enum": [false], "x-cairn-reason": "use /v1/completions"},
    "add_generation_prompt": {"type": "boolean",
      "description": "false only together with continue_final_message."},
    "continue_final_message": {"type": "boolean", "default": false,
      "description": "The last message is an assistant's; the answer goes on with it."}}},

  "TokenLogprob": {"type": "object", "required": ["token", "logprob", "bytes"], "properties": {
    "token": {"type": "string"}, "logprob": {"type": "number"},
    "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}}},
  "ChatLogprobs": {"type": "object", "properties": {
    "content": {"type": "array", "items": {"type": "object", "required": ["token", "logprob", "bytes", "top_logprobs"],
      "properties": {
        "token": {"type": "string"}, "logprob": {"type": "number"},
        "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
        "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenLogprob"}}}}}}},
  "FinishReason": {"type": "string", "enum": ["stop", "length", "tool_calls"]},
  "ChatResponse": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
      "id": {"type": "string"}, "object": {"const": "chat.completion"}, "created": {"type": "integer"},
      "model": {"type": "string"}, "system_fingerprint": {"type": "string"},
      "choices": {"type": "array", "items": {"type": "object", "required": ["index", "message", "finish_reason"],
        "properties": {
          "index": {"type": "integer"}, "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
          "logprobs": {"$ref": "#/components/schemas/ChatLogprobs"},
          "message": {"type": "object", "required": ["role", "content"], "properties": {
            "role": {"const": "assistant"}, "content": {"type": ["string", "null"]},
            "refusal": {"type": "null"},
            "reasoning_content": {"type": "string",
              "description": "What the model thought before its answer, where its template marks it."},
            "tool_calls": {"type": "array", "items": {"$ref": "#/components/schemas/ToolCall"}}}}}}},
      "usage": {"$ref": "#/components/schemas/Usage"}}}
})json";

}  // namespace

Json chat_schemas() {
  Json schemas = Json::parse(kChat);
  merge_properties(schemas["ChatRequest"]["properties"], sampling_properties());
  return schemas;
}

}  // namespace cairn::serve
