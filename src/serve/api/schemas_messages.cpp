#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

constexpr const char* kMessages = R"json({
  "MessageTextBlock": {"type": "object", "required": ["type", "text"], "properties": {
    "type": {"const": "text"}, "text": {"type": "string"},
    "cache_control": {"type": "object", "description": "Accepted and ignored: prefixes are found by content."}}},
  "MessageText": {"anyOf": [
    {"type": "string"},
    {"type": "array", "maxItems": 4096, "items": {"$ref": "#/components/schemas/MessageTextBlock"}}]},
  "UserBlock": {"anyOf": [
    {"$ref": "#/components/schemas/MessageTextBlock"},
    {"type": "object", "required": ["type", "tool_use_id"], "properties": {
      "type": {"const": "tool_result"}, "tool_use_id": {"type": "string", "maxLength": 256},
      "content": {"$ref": "#/components/schemas/MessageText"}, "is_error": {"type": "boolean"}}}],
    "x-cairn-reason": "the model reads text only"},
  "AssistantBlock": {"anyOf": [
    {"$ref": "#/components/schemas/MessageTextBlock"},
    {"type": "object", "required": ["type", "id", "name", "input"], "properties": {
      "type": {"const": "tool_use"}, "id": {"type": "string", "maxLength": 256},
      "name": {"type": "string", "minLength": 1, "maxLength": 256}, "input": {"type": "object"}}},
    {"type": "object", "required": ["type", "thinking"], "properties": {
      "type": {"const": "thinking"}, "thinking": {"type": "string"}, "signature": {"type": "string"}}},
    {"type": "object", "required": ["type"], "properties": {
      "type": {"const": "redacted_thinking"}, "data": {"type": "string"}}}]},
  "MessageParam": {"anyOf": [
    {"type": "object", "required": ["role", "content"], "title": "User message", "properties": {
      "role": {"const": "user"},
      "content": {"anyOf": [{"type": "string"},
        {"type": "array", "minItems": 1, "maxItems": 4096, "items": {"$ref": "#/components/schemas/UserBlock"}}]}}},
    {"type": "object", "required": ["role", "content"], "title": "Assistant message", "properties": {
      "role": {"const": "assistant"},
      "content": {"anyOf": [{"type": "string"},
        {"type": "array", "maxItems": 4096, "items": {"$ref": "#/components/schemas/AssistantBlock"}}]}}}]},
  "MessageTool": {"type": "object", "required": ["name", "input_schema"], "properties": {
    "type": {"type": "string", "enum": ["custom"], "x-cairn-reason": "the server runs no tools of its own"},
    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"},
    "description": {"type": "string"}, "input_schema": {"type": "object"},
    "cache_control": {"type": "object", "description": "Accepted and ignored."}}},
  "CountTokensRequest": {"type": "object", "required": ["messages"], "properties": {
    "model": {"type": "string"},
    "messages": {"type": "array", "minItems": 1, "maxItems": 16384,
      "items": {"$ref": "#/components/schemas/MessageParam"}},
    "system": {"$ref": "#/components/schemas/MessageText"},
    "tools": {"type": "array", "maxItems": 256, "items": {"$ref": "#/components/schemas/MessageTool"}},
    "tool_choice": {"anyOf": [
      {"type": "object", "required": ["type"], "properties": {
        "type": {"const": "auto"}, "disable_parallel_tool_use": {"type": "boolean"}}},
      {"type": "object", "required": ["type"], "properties": {
        "type": {"const": "any"}, "disable_parallel_tool_use": {"type": "boolean"}}},
      {"type": "object", "required": ["type", "name"], "properties": {
        "type": {"const": "tool"}, "name": {"type": "string"}, "disable_parallel_tool_use": {"type": "boolean"}}},
      {"type": "object", "required": ["type"], "properties": {"type": {"const": "none"}}}]},
    "thinking": {"anyOf": [
      {"type": "object", "required": ["type"], "properties": {
        "type": {"const": "enabled"},
        "budget_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647,
          "description": "Tokens of reasoning, after which it is ended."}}},
      {"type": "object", "required": ["type"], "properties": {"type": {"const": "adaptive"}}},
      {"type": "object", "required": ["type"], "properties": {"type": {"const": "disabled"}}}],
      "description": "Given to the template as enable_thinking."},
    "chat_template_kwargs": {"$ref": "#/components/schemas/TemplateArguments"}}},
  "MessagesResponse": {"type": "object",
    "required": ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"], "properties": {
      "id": {"type": "string"}, "type": {"const": "message"}, "role": {"const": "assistant"},
      "model": {"type": "string"},
      "content": {"type": "array", "items": {"$ref": "#/components/schemas/AssistantBlock"}},
      "stop_reason": {"type": "string", "enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]},
      "stop_sequence": {"type": ["string", "null"]},
      "usage": {"type": "object", "required": ["input_tokens", "output_tokens"], "properties": {
        "input_tokens": {"type": "integer", "description": "Without what the prefix cache had."},
        "cache_creation_input_tokens": {"type": "integer"}, "cache_read_input_tokens": {"type": "integer"},
        "output_tokens": {"type": "integer"}}}}},
  "CountTokensResponse": {"type": "object", "required": ["input_tokens"], "properties": {
    "input_tokens": {"type": "integer"}}},
  "MessagesError": {"type": "object", "required": ["type", "error"], "properties": {
    "type": {"const": "error"}, "request_id": {"type": "string"},
    "error": {"type": "object", "required": ["type", "message"], "properties": {
      "type": {"type": "string"}, "message": {"type": "string"}}}}}
})json";

constexpr const char* kGenerating = R"json({
  "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647,
    "description": "Default: as many as the context has room for."},
  "stop_sequences": {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1, "maxLength": 1024}},
  "stream": {"type": "boolean", "default": false},
  "metadata": {"type": "object", "description": "Accepted and ignored."},
  "service_tier": {"type": "string", "description": "Accepted and ignored."},
  "container": {"type": "null", "x-cairn-reason": "the server runs no tools of its own"},
  "mcp_servers": {"type": "array", "maxItems": 0, "x-cairn-reason": "the server runs no tools of its own"}
})json";

}  // namespace

Json message_schemas() {
  Json schemas = Json::parse(kMessages);
  // What can be counted can be asked, and more.
  Json request = schemas["CountTokensRequest"];
  merge_properties(request["properties"], Json::parse(kGenerating));
  Json sampling = sampling_properties();
  for (const char* other : {"stop", "user"}) sampling.erase(other);  // stop_sequences and metadata here
  merge_properties(request["properties"], sampling);
  schemas["MessagesRequest"] = std::move(request);
  return schemas;
}

}  // namespace cairn::serve
