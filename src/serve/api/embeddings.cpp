// POST /v1/embeddings
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "serve/api/endpoints.h"
#include "serve/api/facade.h"
#include "serve/api/prompt.h"

namespace cairn::serve {
namespace {

std::string base64(std::string_view bytes) {
  static constexpr std::string_view kLetters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (i + j < bytes.size() ? uint8_t(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out += i + j <= bytes.size() ? kLetters[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

class EmbeddingFacade final : public ReplyFacade {
 public:
  EmbeddingFacade(const Serving& serving, std::shared_ptr<Reply> reply, size_t count, bool as_base64,
                  std::string request_id)
      : ReplyFacade(std::move(reply), false, ErrorShape::openai, std::move(request_id)),
        model_(serving.options.model_name),
        base64_(as_base64),
        rows_(count) {}

  void delta(int, const AnswerDelta&, const TokenLogprobs*) override {}
  void choice_ended(int choice, ChoiceEnd end) override { rows_[size_t(choice)] = std::move(end.embedding); }
  void all_ended(const Usage& usage) override {
    std::string body = "{\"object\":\"list\",\"data\":[";
    for (size_t i = 0; i < rows_.size(); ++i) {
      fmt::format_to(std::back_inserter(body),
                     "{}{{\"object\":\"embedding\",\"index\":{},\"embedding\":", i == 0 ? "" : ",", i);
      append_row(body, rows_[i]);
      body += '}';
    }
    body += "],\"model\":";
    append_json_string(body, model_);
    fmt::format_to(std::back_inserter(body), ",\"usage\":{{\"prompt_tokens\":{},\"total_tokens\":{}}}}}",
                   usage.prompt_tokens, usage.prompt_tokens);
    respond(std::move(body));
  }

 private:
  void append_row(std::string& out, const std::vector<float>& row) const {
    if (base64_) {  // little-endian floats
      static_assert(std::endian::native == std::endian::little);
      out += '"';
      out += base64({reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float)});
      out += '"';
      return;
    }
    out += '[';
    for (size_t i = 0; i < row.size(); ++i)
      fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",", row[i]);
    out += ']';
  }

  const std::string model_;
  const bool base64_;
  std::vector<std::vector<float>> rows_;
};

}  // namespace

void embeddings(Serving& serving, const HttpRequest& http, Json body, const std::shared_ptr<Reply>& reply) {
  serving.check_model(member(body, "model"));
  GenerationPlan plan;
  plan.id = http.id;
  plan.path = http.path;
  for (auto& input : read_prompts(serving, *member(body, "input"), "input")) {
    engine::GenerateRequest request;
    request.id = http.id;
    request.client = client_of(http);
    request.prompt = std::move(input.tokens);
    request.priority = int(whole(body, "priority", 0));
    request.embed = true;
    plan.prompts.push_back(std::move(request));
  }
  const size_t count = plan.prompts.size();
  generate(serving, std::move(plan),
           std::make_unique<EmbeddingFacade>(serving, reply, count,
                                             text_of(body, "encoding_format") == "base64", http.id),
           reply);
}

}  // namespace cairn::serve
