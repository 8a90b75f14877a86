// For tests only: a server that answers chat requests with streams of scripted timing.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "load/client.h"
#include "serve/http/server.h"

namespace cairn::load::testing {

using namespace std::chrono_literals;

struct Script {
  std::vector<std::chrono::milliseconds> pauses;  // before each chunk of text
  int64_t prompt_tokens = 10, cached_tokens = -1;
  int status = 200;
  bool usage = true, breaks_off = false;  // breaks_off: cuts the connection after the last chunk
  std::string text = " word", finish_reason = "length", error;  // error: an error object after the last chunk
};

inline std::string text_chunk(const std::string& text) {
  return R"({"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":)" +
         nlohmann::json(text).dump() + R"(},"finish_reason":null}]})";
}

// One thread per request, since pauses are slept through. The n-th request meets script(n, body).
class ScriptedServer {
 public:
  using Scripting = std::function<Script(int, const nlohmann::json&)>;

  explicit ScriptedServer(Scripting scripting) : scripting_(std::move(scripting)), server_(options()) {
    const auto chat = [this](serve::HttpRequest request, std::shared_ptr<serve::Reply> reply) {
      const int number = count_++;
      const std::lock_guard lock(mutex_);
      bodies_.push_back(request.body);
      threads_.emplace_back([this, number, body = request.body, reply] { answer(number, body, *reply); });
    };
    server_.route("POST", "/v1/chat/completions", chat);
    server_.route("POST", "/v1/completions", chat);
    server_.route("GET", "/v1/models", [](serve::HttpRequest, std::shared_ptr<serve::Reply> reply) {
      reply->respond(
          {200, "application/json", R"({"object":"list","data":[{"id":"scripted","owned_by":"test"}]})", {}});
    });
    // One token per word behind a begin of text; words with an 'x' are two.
    server_.route("POST", "/tokenize",
                  [this](serve::HttpRequest request, std::shared_ptr<serve::Reply> reply) {
                    const auto body = nlohmann::json::parse(request.body);
                    if (!tokenizes || !body.contains("content"))
                      return reply->respond({404, "application/json", "{}", {}});
                    nlohmann::json ids{1};
                    const auto& text = body["content"].get_ref<const std::string&>();
                    for (size_t i = 0; i < text.size(); ++i)
                      if (text[i] == ' ' || text[i] == 'x') ids.push_back(100 + text[i + 1]);
                    reply->respond({200, "application/json", nlohmann::json{{"tokens", ids}}.dump(), {}});
                  });
    port_ = server_.listen();
    running_ = std::thread([this] { server_.run(); });
  }
  ~ScriptedServer() {
    server_.stop();
    running_.join();
    const std::lock_guard lock(mutex_);
    for (auto& thread : threads_) thread.join();
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int count() const { return count_; }
  std::vector<nlohmann::json> bodies() const {
    const std::lock_guard lock(mutex_);
    std::vector<nlohmann::json> all;
    for (const auto& body : bodies_) all.push_back(nlohmann::json::parse(body));
    return all;
  }
  serve::HttpServer& server() { return server_; }
  std::atomic<bool> tokenizes{false};

 private:
  static serve::HttpOptions options() {
    serve::HttpOptions options;
    options.io_threads = 1;
    return options;
  }

  void answer(int number, const std::string& body, serve::Reply& reply) {
    const auto request = nlohmann::json::parse(body, nullptr, false);  // discarded when it is no JSON
    const Script script = scripting_(number, request);
    if (script.status != 200)
      return reply.respond(
          {script.status, "application/json", R"({"error":{"message":"scripted","code":1}})", {}});
    const nlohmann::json usage{{"prompt_tokens", script.prompt_tokens},
                               {"completion_tokens", script.pauses.size()},
                               {"prompt_tokens_details", {{"cached_tokens", script.cached_tokens}}}};
    if (!request.is_object() || !request.value("stream", false)) {
      for (const auto pause : script.pauses) std::this_thread::sleep_for(pause);
      nlohmann::json whole{
          {"choices", {{{"message", {{"content", script.text}}}, {"finish_reason", "stop"}}}}};
      if (script.usage) whole["usage"] = usage;
      return reply.respond({200, "application/json", whole.dump(), {}});
    }
    reply.start(200, "text/event-stream");
    reply.write(serve::sse_event(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"));
    for (const auto pause : script.pauses) {
      std::this_thread::sleep_for(pause);
      reply.write(serve::sse_event(text_chunk(script.text)));
    }
    if (!script.error.empty())
      reply.write(serve::sse_event(R"({"error":{"message":")" + script.error + "\"}}"));
    if (script.breaks_off) return;  // dropping the reply cuts the connection
    reply.write(
        serve::sse_event(R"({"choices":[{"delta":{},"finish_reason":")" + script.finish_reason + "\"}]}"));
    if (script.usage)
      reply.write(
          serve::sse_event(nlohmann::json{{"choices", nlohmann::json::array()}, {"usage", usage}}.dump()));
    reply.write(serve::sse_event("[DONE]"));
    reply.finish();
  }

  Scripting scripting_;
  serve::HttpServer server_;
  uint16_t port_ = 0;
  std::atomic<int> count_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> bodies_;
  std::vector<std::thread> threads_;
  std::thread running_;
};

}  // namespace cairn::load::testing
