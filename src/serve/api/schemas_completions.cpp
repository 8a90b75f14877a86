#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

constexpr const char* kCompletions = R"json({
  "Prompt": {"anyOf": [
    {"type": "string", "minLength": 1},
    {"type": "array", "minItems": 1, "maxItems": 1048576, "items": {"type": "integer", "minimum": 0}},
    {"type": "array", "minItems": 1, "maxItems": 256, "items": {"type": "string", "minLength": 1}},
    {"type": "array", "minItems": 1, "maxItems": 256,
      "items": {"type": "array", "minItems": 1, "maxItems": 1048576, "items": {"type": "integer", "minimum": 0}}}],
    "description": "A text, its token ids, or a list of either. Special tokens in texts are tokens here."},
  "CompletionRequest": {"type": "object", "required": ["prompt"], "properties": {
    "model": {"type": "string", "description": "The served model's name or one of its aliases. Default: it."},
    "prompt": {"$ref": "#/components/schemas/Prompt"},
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 2147483647, "default": 16},
    "n": {"type": "integer", "minimum": 1, "maximum": 128, "default": 1},
    "best_of": {"type": "integer", "minimum": 1, "maximum": 128, "description": "Only the same number as n."},
    "echo": {"type": "boolean", "default": false, "description": "The answer's text begins with the prompt."},
    "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
    "stream": {"type": "boolean", "default": false},
    "stream_options": {"$ref": "#/components/schemas/StreamOptions"},
    "response_format": {"$ref": "#/components/schemas/ResponseFormat"},
    "suffix": {"type": "null", "x-cairn-reason": "filling in before a suffix is not supported"}}},
  "CompletionResponse": {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
      "id": {"type": "string"}, "object": {"const": "text_completion"}, "created": {"type": "integer"},
      "model": {"type": "string"}, "system_fingerprint": {"type": "string"},
      "choices": {"type": "array", "items": {"type": "object", "required": ["index", "text", "finish_reason"],
        "properties": {
          "index": {"type": "integer"}, "text": {"type": "string"},
          "finish_reason": {"$ref": "#/components/schemas/FinishReason"},
          "logprobs": {"type": "object", "properties": {
            "tokens": {"type": "array", "items": {"type": "string"}},
            "token_logprobs": {"type": "array", "items": {"type": "number"}},
            "top_logprobs": {"type": "array", "items": {"type": "object"}},
            "text_offset": {"type": "array", "items": {"type": "integer"}}}}}}},
      "usage": {"$ref": "#/components/schemas/Usage"}}},

  "EmbeddingRequest": {"type": "object", "required": ["input"], "properties": {
    "model": {"type": "string"},
    "input": {"$ref": "#/components/schemas/Prompt"},
    "encoding_format": {"type": "string", "enum": ["float", "base64"], "default": "float",
      "description": "base64: little-endian 32-bit floats."},
    "dimensions": {"type": "null", "x-cairn-reason": "embeddings have the model's own size"},
    "priority": {"type": "integer", "minimum": -100, "maximum": 100, "default": 0},
    "user": {"type": "string", "description": "Accepted and ignored."}}},
  "EmbeddingResponse": {"type": "object", "required": ["object", "data", "model", "usage"], "properties": {
    "object": {"const": "list"}, "model": {"type": "string"},
    "data": {"type": "array", "items": {"type": "object", "required": ["object", "index", "embedding"],
      "properties": {
        "object": {"const": "embedding"}, "index": {"type": "integer"},
        "embedding": {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "string"}],
          "description": "The mean of the final hidden states, of length 1."}}}},
    "usage": {"type": "object", "properties": {
      "prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}}}}}
})json";

constexpr const char* kService = R"json({
  "TokenizeRequest": {"type": "object", "properties": {
    "model": {"type": "string"},
    "prompt": {"type": "string", "description": "This, or messages."},
    "content": {"type": "string", "description": "llama.cpp's name of prompt."},
    "messages": {"type": "array", "minItems": 1, "maxItems": 16384,
      "items": {"$ref": "#/components/schemas/ChatMessage"}},
    "tools": {"type": "array", "maxItems": 256, "items": {"$ref": "#/components/schemas/Tool"}},
    "chat_template_kwargs": {"$ref": "#/components/schemas/TemplateArguments"},
    "add_special_tokens": {"type": "boolean", "default": true},
    "add_special": {"type": "boolean", "description": "llama.cpp's name of add_special_tokens."},
    "parse_special": {"type": "boolean", "default": true, "description": "false: special tokens in the text are text."},
    "return_token_strs": {"type": "boolean", "default": false},
    "with_pieces": {"type": "boolean", "description": "llama.cpp's name of return_token_strs."}}},
  "TokenizeResponse": {"type": "object", "required": ["count", "max_model_len", "tokens"], "properties": {
    "count": {"type": "integer"}, "max_model_len": {"type": "integer", "description": "The server's context."},
    "tokens": {"type": "array", "items": {"type": "integer"}},
    "token_strs": {"type": "array", "items": {"type": "string"}}}},
  "DetokenizeRequest": {"type": "object", "required": ["tokens"], "properties": {
    "model": {"type": "string"},
    "tokens": {"type": "array", "maxItems": 1048576, "items": {"type": "integer", "minimum": 0}},
    "skip_special_tokens": {"type": "boolean", "default": false}}},
  "DetokenizeResponse": {"type": "object", "required": ["prompt"], "properties": {
    "prompt": {"type": "string"}, "content": {"type": "string"}}},
  "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {
    "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
    "owned_by": {"type": "string"}, "root": {"type": "string"}, "max_model_len": {"type": "integer"},
    "type": {"type": "string"}, "display_name": {"type": "string"}, "created_at": {"type": "string"}}},
  "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
    "object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    "has_more": {"type": "boolean"}, "first_id": {"type": "string"}, "last_id": {"type": "string"}}},
  "Health": {"type": "object", "required": ["status"], "properties": {
    "status": {"type": "string", "enum": ["ok", "closing", "stuck"]}, "message": {"type": "string"}}},
  "EngineView": {"type": "object", "properties": {
    "model": {"type": "string"}, "device": {"type": "string"}, "context": {"type": "integer"},
    "running": {"type": "integer"}, "waiting": {"type": "integer"},
    "pages": {"type": "object"}, "tokens": {"type": "object"}, "step_ms": {"type": "object"},
    "history": {"type": "array", "items": {"type": "object"}}}}
})json";

}  // namespace

Json completion_schemas() {
  Json schemas = Json::parse(kCompletions);
  merge_properties(schemas["CompletionRequest"]["properties"], sampling_properties());
  return schemas;
}

Json service_schemas() { return Json::parse(kService); }

}  // namespace cairn::serve
