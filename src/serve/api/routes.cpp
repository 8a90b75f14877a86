#include "serve/api/routes.h"

#include "serve/api/endpoints.h"

namespace cairn::serve {
namespace {

constexpr const char* kJson = "application/json";

constexpr PostRoute kPosts[] = {
    {"/v1/chat/completions", "ChatRequest", "ChatResponse", true, "Answer a conversation (OpenAI)",
     chat_completions},
    {"/v1/completions", "CompletionRequest", "CompletionResponse", true, "Continue a text (OpenAI)",
     completions},
    {"/v1/responses", "ResponsesRequest", "Response", true,
     "Answer a conversation (OpenAI Responses, without a store)", responses},
    {"/v1/embeddings", "EmbeddingRequest", "EmbeddingResponse", false, "Embed texts (OpenAI)", embeddings},
    {"/v1/messages", "MessagesRequest", "MessagesResponse", true, "Answer a conversation (Anthropic)",
     messages},
    {"/v1/messages/count_tokens", "CountTokensRequest", "CountTokensResponse", false,
     "Count a conversation's tokens (Anthropic)", count_message_tokens},
    {"/tokenize", "TokenizeRequest", "TokenizeResponse", false, "Text or messages to token ids", tokenize},
    {"/detokenize", "DetokenizeRequest", "DetokenizeResponse", false, "Token ids to text", detokenize},
};

constexpr GetRoute kGets[] = {
    {"/v1/models", "ModelList", kJson, "The served model and its aliases"},
    {"/v1/models/{model}", "Model", kJson, "One model"},
    {"/health", "Health", kJson, "200: steps end in time; 503: closing, or a step hangs. Needs no key"},
    {"/engine", "EngineView", kJson, "What the engine does now and did in the last two minutes"},
    {"/metrics", "", "text/plain; version=0.0.4", "Counters and histograms for Prometheus"},
    {"/openapi.json", "", kJson, "This document"},
};

}  // namespace

std::span<const PostRoute> post_routes() { return kPosts; }
std::span<const GetRoute> get_routes() { return kGets; }

}  // namespace cairn::serve
