#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

constexpr const char* kResponses = R"json({
  "InputText": {"type": "object", "required": ["type", "text"], "properties": {
    "type": {"const": "input_text"}, "text": {"type": "string"}}},
  "InputContent": {"anyOf": [
    {"$ref": "#/components/schemas/InputText"},
    {"type": "object", "required": ["type", "text"], "properties": {
      "type": {"const": "output_text"}, "text": {"type": "string"}}},
    {"type": "object", "required": ["type", "refusal"], "properties": {
      "type": {"const": "refusal"}, "refusal": {"type": "string"}}}],
    "x-cairn-reason": "the model reads text only"},
  "InputItem": {"anyOf": [
    {"type": "object", "required": ["role", "content"], "title": "Message", "properties": {
      "type": {"type": "string", "enum": ["message"]},
      "role": {"type": "string", "enum": ["user", "assistant", "system", "developer"]},
      "content": {"anyOf": [{"type": "string"},
        {"type": "array", "maxItems": 4096, "items": {"$ref": "#/components/schemas/InputContent"}}]}}},
    {"type": "object", "required": ["type", "call_id", "name", "arguments"], "properties": {
      "type": {"const": "function_call"}, "call_id": {"type": "string", "maxLength": 256},
      "name": {"type": "string", "minLength": 1, "maxLength": 256}, "arguments": {"type": "string"}}},
    {"type": "object", "required": ["type", "call_id", "output"], "properties": {
      "type": {"const": "function_call_output"}, "call_id": {"type": "string", "maxLength": 256},
      "output": {"anyOf": [{"type": "string"},
        {"type": "array", "maxItems": 4096, "items": {"$ref": "#/components/schemas/InputText"}}]}}},
    {"type": "object", "required": ["type"], "properties": {
      "type": {"const": "reasoning"},
      "summary": {"type": "array", "items": {"type": "object"}},
      "content": {"type": "array", "items": {"type": "object", "required": ["text"], "properties": {
        "type": {"type": "string"}, "text": {"type": "string"}}}}}}],
    "x-cairn-reason": "nothing is stored that could be referred to, and the server runs no tools of its own"},
  "ResponseTool": {"type": "object", "required": ["type", "name"], "properties": {
    "type": {"const": "function", "x-cairn-reason": "the server runs no tools of its own"},
    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"}, "description": {"type": "string"},
    "parameters": {"type": "object"}, "strict": {"type": "boolean"}}},
  "ResponsesRequest": {"type": "object", "required": ["input"], "properties": {
    "model": {"type": "string", "description": "The served model's name or one of its aliases. Default: it."},
    "input": {"anyOf": [{"type": "string", "minLength": 1},
      {"type": "array", "minItems": 1, "maxItems": 16384, "items": {"$ref": "#/components/schemas/InputItem"}}]},
    "instructions": {"type": "string", "description": "A system message before the input."},
    "max_output_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647,
      "description": "Default: as many as the context has room for."},
    "stream": {"type": "boolean", "default": false},
    "stream_options": {"type": "object", "properties": {"include_obfuscation": {"type": "boolean"}}},
    "tools": {"type": "array", "maxItems": 256, "items": {"$ref": "#/components/schemas/ResponseTool"}},
    "tool_choice": {"anyOf": [
      {"type": "string", "enum": ["none", "auto", "required"]},
      {"type": "object", "required": ["type", "name"], "properties": {
        "type": {"const": "function"}, "name": {"type": "string"}}}]},
    "parallel_tool_calls": {"type": "boolean", "default": true},
    "text": {"type": "object", "properties": {
      "format": {"anyOf": [
        {"type": "object", "required": ["type"], "properties": {"type": {"const": "text"}}},
        {"type": "object", "required": ["type"], "properties": {"type": {"const": "json_object"}}},
        {"type": "object", "required": ["type", "schema"], "properties": {
          "type": {"const": "json_schema"}, "name": {"type": "string", "maxLength": 256},
          "description": {"type": "string"}, "schema": {"type": "object"}, "strict": {"type": "boolean"}}}]},
      "verbosity": {"type": "string", "enum": ["medium"], "x-cairn-reason": "verbosity is not supported"}}},
    "reasoning": {"type": "object", "properties": {
      "effort": {"type": "string", "enum": ["none", "minimal", "low", "medium", "high", "xhigh"],
        "description": "Given to the template."},
      "summary": {"type": "string", "description": "Accepted and ignored: reasoning is shown whole."}}},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20, "default": 0},
    "include": {"type": "array", "maxItems": 16, "items": {"type": "string",
      "enum": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
      "description": "reasoning.encrypted_content is ignored: reasoning is shown as it is."},
    "chat_template_kwargs": {"$ref": "#/components/schemas/TemplateArguments"},
    "store": {"type": "boolean", "description": "Accepted and ignored: nothing is stored."},
    "metadata": {"type": "object", "description": "Given back."},
    "service_tier": {"type": "string", "description": "Accepted and ignored."},
    "safety_identifier": {"type": "string", "description": "Accepted and ignored."},
    "prompt_cache_key": {"type": "string", "description": "Accepted and ignored."},

    "previous_response_id": {"type": "null", "x-cairn-reason": "nothing is stored; send the whole input"},
    "conversation": {"type": "null", "x-cairn-reason": "nothing is stored; send the whole input"},
    "background": {"type": "boolean", "enum": [false], "x-cairn-reason": "nothing is stored"},
    "truncation": {"type": "string", "enum": ["disabled"], "x-cairn-reason": "prompts are never cut"},
    "prompt": {"type": "null", "x-cairn-reason": "no prompts are stored"},
    "max_tool_calls": {"type": "null", "x-cairn-reason": "the server runs no tools of its own"}}},

  "ResponsesUsage": {"type": "object", "required": ["input_tokens", "output_tokens", "total_tokens"], "properties": {
    "input_tokens": {"type": "integer"}, "output_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
    "input_tokens_details": {"type": "object", "properties": {"cached_tokens": {"type": "integer"}}},
    "output_tokens_details": {"type": "object", "properties": {"reasoning_tokens": {"type": "integer"}}}}},
  "Response": {"type": "object", "required": ["id", "object", "created_at", "status", "model", "output"],
    "properties": {
      "id": {"type": "string"}, "object": {"const": "response"}, "created_at": {"type": "integer"},
      "status": {"type": "string", "enum": ["in_progress", "completed", "incomplete", "failed"]},
      "model": {"type": "string"}, "error": {"type": "object"},
      "incomplete_details": {"type": "object", "properties": {"reason": {"type": "string"}}},
      "output": {"type": "array", "items": {"type": "object", "required": ["type", "id"], "properties": {
        "type": {"type": "string", "enum": ["reasoning", "message", "function_call"]}, "id": {"type": "string"},
        "status": {"type": "string"}}}},
      "usage": {"$ref": "#/components/schemas/ResponsesUsage"}}}
})json";

}  // namespace

Json response_schemas() {
  Json schemas = Json::parse(kResponses);
  merge_properties(schemas["ResponsesRequest"]["properties"], sampling_properties());
  return schemas;
}

}  // namespace cairn::serve
