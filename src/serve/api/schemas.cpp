#include "serve/api/schemas.h"

namespace cairn::serve {
namespace {

// How tokens are drawn, on every endpoint that generates; OpenAI's names, then those that users of vLLM and
// llama.cpp know.
constexpr const char* kSampling = R"json({
  "temperature": {"type": "number", "minimum": 0, "maximum": 100,
    "description": "0: always the likeliest token. Default: what the model's authors recommend, else 1."},
  "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1,
    "description": "Draw from the likeliest tokens that together reach this. Default: the model's recommendation, else 1."},
  "top_k": {"type": "integer", "minimum": -1, "maximum": 2147483647, "default": 0,
    "description": "Draw from the k likeliest tokens; 0 and -1: all. Not of OpenAI."},
  "min_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 0,
    "description": "Leave out tokens below this share of the likeliest one. Not of OpenAI."},
  "typical_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1,
    "description": "Locally typical sampling. Not of OpenAI."},
  "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
  "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
  "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 100, "default": 1,
    "description": "Divides the scores of tokens seen in prompt or answer. Not of OpenAI."},
  "logit_bias": {"type": "object", "maxProperties": 1024,
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    "description": "Token id (as text) to what is added to its score."},
  "seed": {"type": "integer", "minimum": -9223372036854775808, "maximum": 9223372036854775807,
    "description": "The same request with the same seed gives the same bytes. Default: another one each time."},
  "stop": {"anyOf": [
      {"type": "string", "minLength": 1, "maxLength": 1024},
      {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1, "maxLength": 1024}}],
    "description": "The answer ends before this text."},
  "ignore_eos": {"type": "boolean", "default": false,
    "description": "Go on after an end-of-turn token, for measuring. Not of OpenAI."},
  "priority": {"type": "integer", "minimum": -100, "maximum": 100, "default": 0,
    "description": "Higher runs first. Not of OpenAI."},
  "cache_prompt": {"type": "boolean", "default": true,
    "description": "false: compute the whole prompt again. Not of OpenAI."},
  "user": {"type": "string", "description": "Accepted and ignored."},

  "json_schema": {"type": "object", "description": "The answer is JSON of this schema (llama.cpp's name; response_format is OpenAI's)."},
  "grammar": {"type": "string", "minLength": 1, "maxLength": 1048576, "description": "The answer follows this GBNF grammar."},
  "regex": {"type": "string", "minLength": 1, "maxLength": 65536, "description": "The whole answer matches this."},
  "lark": {"type": "string", "minLength": 1, "maxLength": 1048576, "description": "The answer follows this Lark grammar."},
  "guided_json": {"type": "object", "description": "As json_schema (vLLM)."},
  "guided_regex": {"type": "string", "minLength": 1, "maxLength": 65536, "description": "As regex (vLLM)."},
  "guided_grammar": {"type": "string", "minLength": 1, "maxLength": 1048576, "description": "As grammar (vLLM)."},
  "guided_choice": {"$ref": "#/components/schemas/Choices"},
  "structured_outputs": {"type": "object", "description": "vLLM's newer names of the same.",
    "properties": {
      "json": {"type": "object"}, "json_object": {"type": "boolean"},
      "regex": {"type": "string", "minLength": 1, "maxLength": 65536},
      "grammar": {"type": "string", "minLength": 1, "maxLength": 1048576},
      "choice": {"$ref": "#/components/schemas/Choices"}}},

  "min_tokens": {"type": "integer", "enum": [0], "x-cairn-reason": "a least number of tokens is not supported"},
  "stop_token_ids": {"type": "array", "maxItems": 0, "x-cairn-reason": "use stop"},
  "bad_words": {"type": "array", "maxItems": 0, "x-cairn-reason": "use logit_bias"},
  "use_beam_search": {"type": "boolean", "enum": [false], "x-cairn-reason": "beam search is not supported"},
  "prompt_logprobs": {"type": "null", "x-cairn-reason": "log probabilities of the prompt are not supported"},
  "truncate_prompt_tokens": {"type": "null", "x-cairn-reason": "prompts are never cut"},
  "skip_special_tokens": {"type": "boolean", "enum": [true], "x-cairn-reason": "special tokens have no text here"},
  "include_stop_str_in_output": {"type": "boolean", "enum": [false], "x-cairn-reason": "answers end before it"}
})json";

constexpr const char* kStreamOptions = R"json({
  "Choices": {"type": "array", "minItems": 1, "maxItems": 1024,
    "items": {"type": "string", "minLength": 1, "maxLength": 4096}, "description": "The answer is one of these."},
  "StreamOptions": {"type": "object", "properties": {
    "include_usage": {"type": "boolean", "default": false,
      "description": "One more event before [DONE], with usage and no choices."},
    "include_obfuscation": {"type": "boolean", "description": "Accepted and ignored: nothing is padded."}}},
  "ErrorResponse": {"type": "object", "required": ["error"], "properties": {
    "error": {"type": "object", "required": ["message", "type", "param", "code"], "properties": {
      "message": {"type": "string"}, "type": {"type": "string"},
      "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}},
  "Usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"], "properties": {
    "prompt_tokens": {"type": "integer", "minimum": 0},
    "completion_tokens": {"type": "integer", "minimum": 0},
    "total_tokens": {"type": "integer", "minimum": 0},
    "prompt_tokens_details": {"type": "object", "properties": {
      "cached_tokens": {"type": "integer", "minimum": 0,
        "description": "Of the prompt, found computed in the prefix cache."}}},
    "completion_tokens_details": {"type": "object", "properties": {
      "reasoning_tokens": {"type": "integer", "minimum": 0}}}}}
})json";

}  // namespace

Json sampling_properties() { return Json::parse(kSampling); }

void merge_properties(Json& properties, const Json& more) {
  for (const auto& [name, schema] : more.items())
    if (!properties.contains(name)) properties[name] = schema;
}

const Schemas& schemas() {
  static const Schemas all = [] {
    Json named = Json::parse(kStreamOptions);
    for (auto part : {chat_schemas, completion_schemas, response_schemas, message_schemas, service_schemas})
      merge_properties(named, part());
    return Schemas(std::move(named));
  }();
  return all;
}

}  // namespace cairn::serve
