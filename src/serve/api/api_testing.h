// For tests only: the whole API in this process, on loopback, over the model that ships.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/model.h"
#include "serve/api/api.h"
#include "serve/http/http_testing.h"

namespace cairn::serve::testing {

// A tokenizer whose model came with another chat template.
class WithTemplate final : public text::Tokenizer {
 public:
  WithTemplate(const text::Tokenizer& tokenizer, std::optional<std::string> chat_template)
      : tokenizer_(tokenizer), template_(std::move(chat_template)) {}
  std::vector<text::TokenId> encode(std::string_view text,
                                    const text::EncodeOptions& options) const override {
    return tokenizer_.encode(text, options);
  }
  std::unique_ptr<text::DecodeStream> decode_stream(bool skip_special) const override {
    return tokenizer_.decode_stream(skip_special);
  }
  std::string piece(text::TokenId id) const override { return tokenizer_.piece(id); }
  int32_t vocabulary_size() const override { return tokenizer_.vocabulary_size(); }
  std::optional<text::TokenId> token_to_id(std::string_view text) const override {
    return tokenizer_.token_to_id(text);
  }
  bool is_special(text::TokenId id) const override { return tokenizer_.is_special(id); }
  const text::SpecialTokens& special() const override { return tokenizer_.special(); }
  std::optional<std::string> chat_template() const override { return template_; }

 private:
  const text::Tokenizer& tokenizer_;
  const std::optional<std::string> template_;
};

// The shipped model, loaded once for all tests of the program.
struct Shipped {
  Shipped() : tokenizer(text::load_tokenizer(path())), engine(models::open_model(path()), options()) {}
  static std::filesystem::path path() {
    return std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories/cairn-stories-q8_0.gguf";
  }
  static engine::EngineOptions options() {
    engine::EngineOptions o;
    o.threads = 2;
    o.place = engine::Place::cpu;
    o.context = 1024;
    o.cache_tokens = 16384;
    o.step_logits = 32;
    return o;
  }
  static Shipped& get() {
    static Shipped shipped;
    return shipped;
  }
  std::unique_ptr<text::Tokenizer> tokenizer;
  engine::Engine engine;
};

class ApiServer {
 public:
  explicit ApiServer(std::optional<std::string> chat_template = Shipped::get().tokenizer->chat_template(),
                     HttpOptions http = {}, engine::ServiceOptions service = {},
                     ApiOptions api = api_options())
      : tokenizer(*Shipped::get().tokenizer, std::move(chat_template)),
        service_(Shipped::get().engine, *Shipped::get().tokenizer, service),
        api_(service_, tokenizer, std::move(api)) {
    http.refusal_body = Api::refusal;
    running_.emplace(http, [&](HttpServer& server) { api_.add_routes(server, false); });
  }

  static ApiOptions api_options() {
    ApiOptions options;
    options.model_name = "stories";
    options.aliases = {"other-name"};
    options.page = false;
    return options;
  }

  Client client() const { return running_->client(); }
  Answer post(std::string_view path, const std::string& body, std::string_view fields = "") const {
    auto client = running_->client();
    return client.ask("POST", path, fields, body);
  }
  Answer get(std::string_view path) const {
    auto client = running_->client();
    return client.ask("GET", path);
  }
  engine::Service& service() { return service_; }

  const WithTemplate tokenizer;

 private:
  engine::Service service_;
  Api api_;
  std::optional<RunningServer> running_;  // ends first
};

inline Json parsed(const Answer& answer) {
  const Json json = Json::parse(answer.body, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << answer.status << ": " << answer.body;
  return json;
}

// The data of each event of a stream, "[DONE]" included.
inline std::vector<std::pair<std::string, std::string>> events(std::string_view body) {
  std::vector<std::pair<std::string, std::string>> found;
  while (!body.empty()) {
    const size_t end = std::min(body.find("\n\n"), body.size());
    std::string_view block = body.substr(0, end);
    body.remove_prefix(std::min(end + 2, body.size()));
    std::string name, data;
    while (!block.empty()) {
      const size_t line_end = std::min(block.find('\n'), block.size());
      const auto line = block.substr(0, line_end);
      block.remove_prefix(std::min(line_end + 1, block.size()));
      if (line.starts_with("event: ")) name = line.substr(7);
      if (line.starts_with("data: ")) data += line.substr(6);
    }
    if (!data.empty()) found.emplace_back(std::move(name), std::move(data));
  }
  return found;
}

}  // namespace cairn::serve::testing
