// The endpoints as clients see them, over the shipped model. What must not work is in api_hostile_test.cpp.
#include <fmt/format.h>

#include <cstring>
#include <future>
#include <set>

#include "serve/api/api_testing.h"
#include "text/base64.h"

namespace cairn::serve {
namespace {

using namespace testing;

ApiServer& server() {
  static ApiServer running;
  return running;
}

Json post(const ApiServer& to, std::string_view path, const Json& body) {
  const auto answer = to.post(path, body.dump());
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.header("Content-Type"), "application/json");
  return parsed(answer);
}

std::vector<std::pair<std::string, std::string>> stream(const ApiServer& to, std::string_view path,
                                                        Json body) {
  body["stream"] = true;
  const auto answer = to.post(path, body.dump());
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.header("Content-Type"), "text/event-stream");
  EXPECT_TRUE(answer.complete);
  return events(answer.body);
}

Json chat(const std::string& text, int max_tokens = 12) {
  return {{"messages", Json::array({{{"role", "user"}, {"content", text}}})},
          {"max_tokens", max_tokens},
          {"temperature", 0},
          {"ignore_eos", true}};
}

TEST(Api, AStreamedChatIsTheWholeOneInPieces) {
  Json request = chat("Hello there.");
  request["n"] = 3;
  request["temperature"] = 1;
  request["seed"] = 11;
  request["logprobs"] = true;
  request["top_logprobs"] = 2;
  const Json whole = post(server(), "/v1/chat/completions", request);
  std::vector<std::string> texts(3), logprobs(3), finish(3);
  request["stream_options"] = {{"include_usage", true}};
  const auto got = stream(server(), "/v1/chat/completions", request);
  ASSERT_GT(got.size(), 8u);
  EXPECT_EQ(got.back().second, "[DONE]");
  std::string id;
  for (size_t i = 0; i + 1 < got.size(); ++i) {
    const Json chunk = Json::parse(got[i].second);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    if (id.empty()) id = chunk["id"];
    EXPECT_EQ(chunk["id"], id);
    if (i + 2 == got.size()) {
      EXPECT_TRUE(chunk["choices"].empty());
      EXPECT_EQ(chunk["usage"]["completion_tokens"], 36);
      EXPECT_EQ(chunk["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
      break;
    }
    EXPECT_TRUE(chunk["usage"].is_null());
    const Json& choice = chunk["choices"][0];
    const size_t index = choice["index"];
    if (i < 3) {
      EXPECT_EQ(choice["delta"].dump(), R"({"role":"assistant","content":""})");
    }
    if (choice["delta"].contains("content")) texts[index] += choice["delta"]["content"];
    if (!choice["logprobs"].is_null())
      for (const auto& token : choice["logprobs"]["content"]) logprobs[index] += token.dump();
    if (!choice["finish_reason"].is_null()) finish[index] = choice["finish_reason"];
  }
  std::set<std::string> different;
  for (size_t i = 0; i < 3; ++i) {
    const Json& choice = whole["choices"][i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(texts[i], choice["message"]["content"]);
    EXPECT_EQ(finish[i], "length");
    std::string all, bytes;
    for (const auto& token : choice["logprobs"]["content"]) {
      all += token.dump();
      // Special tokens are drawn (ignore_eos) and have no text.
      const auto drawn = server().tokenizer.token_to_id(token["token"].get<std::string>());
      if (!drawn || !server().tokenizer.is_special(*drawn))
        for (const int byte : token["bytes"]) bytes += char(byte);
      EXPECT_EQ(token["top_logprobs"].size(), 2u);
      EXPECT_LE(token["logprob"].get<double>(), token["top_logprobs"][0]["logprob"].get<double>());
    }
    EXPECT_EQ(logprobs[i], all);
    EXPECT_EQ(bytes, texts[i]);
    different.insert(texts[i]);
  }
  EXPECT_EQ(different.size(), 3u);
}

TEST(Api, EveryDialectGivesTheSameText) {
  const std::string text =
      post(server(), "/v1/chat/completions", chat("Hi"))["choices"][0]["message"]["content"];
  Json message = chat("Hi");
  EXPECT_EQ(post(server(), "/v1/messages", message)["content"][0]["text"], text);
  const Json response = {
      {"input", "Hi"}, {"max_output_tokens", 12}, {"temperature", 0}, {"ignore_eos", true}};
  EXPECT_EQ(post(server(), "/v1/responses", response)["output"][0]["content"][0]["text"], text);
  const Json tokens = post(server(), "/tokenize", {{"messages", message["messages"]}});
  const Json raw = {
      {"prompt", tokens["tokens"]}, {"max_tokens", 12}, {"temperature", 0}, {"ignore_eos", true}};
  EXPECT_EQ(post(server(), "/v1/completions", raw)["choices"][0]["text"], text);

  std::string streamed;
  std::string names;
  for (const auto& [name, data] : stream(server(), "/v1/messages", message)) {
    const Json event = Json::parse(data);
    EXPECT_EQ(event["type"], name);
    if (name != "content_block_delta") names += name + " ";
    if (name == "content_block_delta") streamed += event["delta"]["text"];
    if (name == "message_delta") {
      EXPECT_EQ(event["usage"]["output_tokens"], 12);
    }
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(names, "message_start ping content_block_start content_block_stop message_delta message_stop ");

  streamed.clear();
  int64_t number = 0;
  for (const auto& [name, data] : stream(server(), "/v1/responses", response)) {
    const Json event = Json::parse(data);
    EXPECT_EQ(event["type"], name);
    EXPECT_EQ(event["sequence_number"], number++);
    if (name == "response.output_text.delta") streamed += event["delta"];
    if (name == "response.output_text.done") {
      EXPECT_EQ(event["text"], text);
    }
    if (name == "response.incomplete") {
      EXPECT_EQ(event["response"]["output"][0]["content"][0]["text"], text);
    }
  }
  EXPECT_EQ(streamed, text);
}

TEST(Api, StopStringsEndAnswersAndAreNamed) {
  Json request = chat("Hi", 40);
  const std::string text =
      post(server(), "/v1/chat/completions", request)["choices"][0]["message"]["content"];
  const std::string word = text.substr(text.size() / 2, 4);
  request["stop"] = word;
  const Json stopped = post(server(), "/v1/chat/completions", request);
  EXPECT_EQ(stopped["choices"][0]["message"]["content"], text.substr(0, text.find(word)));
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");
  request.erase("stop");
  request["stop_sequences"] = {"never in there", word};
  const Json message = post(server(), "/v1/messages", request);
  EXPECT_EQ(message["stop_reason"], "stop_sequence");
  EXPECT_EQ(message["stop_sequence"], word);
}

TEST(Api, CompletionsTakeTextsTokensAndListsOfThem) {
  const Json answer = post(server(), "/v1/completions",
                           {{"prompt", {"Once upon", "The sun"}},
                            {"n", 2},
                            {"max_tokens", 5},
                            {"echo", true},
                            {"logprobs", 1},
                            {"temperature", 0}});
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const Json& choice = answer["choices"][i];
    EXPECT_EQ(choice["index"], i);
    const std::string text = choice["text"];
    EXPECT_TRUE(text.starts_with(i < 2 ? "Once upon" : "The sun")) << text;
    EXPECT_EQ(choice["logprobs"]["tokens"].size(), 5u);
    EXPECT_EQ(choice["logprobs"]["text_offset"][0], i < 2 ? 9 : 7);
  }
  EXPECT_EQ(answer["choices"][0]["text"], answer["choices"][1]["text"]);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 20);
  std::vector<std::string> texts(4);
  for (const auto& [name, data] : stream(server(), "/v1/completions",
                                         {{"prompt", {"Once upon", "The sun"}},
                                          {"n", 2},
                                          {"max_tokens", 5},
                                          {"echo", true},
                                          {"temperature", 0}})) {
    if (data == "[DONE]") break;
    const Json chunk = Json::parse(data);
    texts[chunk["choices"][0]["index"].get<size_t>()] += chunk["choices"][0]["text"].get<std::string>();
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(texts[i], answer["choices"][i]["text"]);
}

TEST(Api, EmbeddingsAreUnitVectorsInBothEncodings) {
  const Json plain = post(server(), "/v1/embeddings", {{"input", {"a cat", "a dog"}}});
  const Json coded = post(server(), "/v1/embeddings", {{"input", "a dog"}, {"encoding_format", "base64"}});
  const auto row = plain["data"][1]["embedding"].get<std::vector<float>>();
  double squares = 0;
  for (const float x : row) squares += double(x) * double(x);
  EXPECT_NEAR(squares, 1, 1e-4);
  const auto bytes = text::decode_base64(coded["data"][0]["embedding"].get<std::string>());
  ASSERT_TRUE(bytes);
  ASSERT_EQ(bytes->size(), row.size() * sizeof(float));
  std::vector<float> decoded(row.size());
  std::memcpy(decoded.data(), bytes->data(), bytes->size());
  EXPECT_EQ(decoded, row);
  EXPECT_EQ(plain["usage"]["prompt_tokens"], plain["usage"]["total_tokens"]);
}

TEST(Api, ASecondTurnFindsTheFirstComputed) {
  const std::string long_text =
      "Please tell me about the sea, the ships, the wind and the stars above them all, and about "
      "everyone who ever went there and came back to tell of it.";
  (void)post(server(), "/v1/chat/completions", chat(long_text));
  const Json again = post(server(), "/v1/chat/completions", chat(long_text));
  EXPECT_GE(again["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
  Json cold = chat(long_text);
  cold["cache_prompt"] = false;
  const Json computed = post(server(), "/v1/chat/completions", cold);
  EXPECT_EQ(computed["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_EQ(computed["choices"].dump(), again["choices"].dump());
}

TEST(Api, ModelsHealthMetricsAndDescription) {
  const Json models = parsed(server().get("/v1/models"));
  EXPECT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "stories");
  EXPECT_EQ(parsed(server().get("/v1/models/other-name"))["root"], "stories");
  EXPECT_EQ(server().get("/v1/models/nothing").status, 404);
  EXPECT_EQ(server().get("/health").status, 200);
  const auto metrics = server().get("/metrics");
  EXPECT_EQ(metrics.header("Content-Type").substr(0, 10), "text/plain");
  for (const char* name :
       {"cairn_answer_tokens_total ", "cairn_first_token_seconds_bucket{le=\"+Inf\"} ",
        "cairn_step_predicted_seconds_sum ", "cairn_http_requests_total ", "cairn_kv_pages_free ",
        "cairn_http_delivery_seconds_count ", "cairn_engine_seconds_total{in=\"drawing\"} "})
    EXPECT_NE(metrics.body.find(name), metrics.body.npos) << name;
  const Json description = parsed(server().get("/openapi.json"));
  EXPECT_EQ(description["openapi"], "3.1.0");
  for (const auto& [path, operations] : description["paths"].items())
    for (const auto& [method, operation] : operations.items())
      EXPECT_TRUE(operation.contains("responses")) << path << method;
  const Json view = parsed(server().get("/engine"));
  EXPECT_EQ(view["model"], "stories");
  EXPECT_GT(view["pages"]["total"], 0);
  EXPECT_TRUE(view["requests"].is_array());
}

// Holds the engine's thread, which tells listeners, for as long as the test wants.
struct Holds : engine::Listener {
  explicit Holds(bool in_step) : in_step_(in_step) {}
  void on_piece(const engine::Piece&) override {
    if (in_step_ && !held_.exchange(true)) hold();
  }
  void on_end(const engine::Ended&) override {
    if (!in_step_) hold();
    ended.set_value();
  }
  std::promise<void> holds, go, ended;

 private:
  void hold() {
    holds.set_value();
    go.get_future().wait();
  }
  const bool in_step_;
  std::atomic<bool> held_{false};
};

// Not the threads that do HTTP: a server whose steps do not end still says so, and nothing else.
TEST(Api, HealthIsRedWhileNoStepEndsAndGreenAfterwards) {
  for (const bool in_step : {true, false}) {
    ApiOptions options = ApiServer::api_options();
    options.stuck_seconds = 0.3;
    ApiServer impatient(Shipped::get().tokenizer->chat_template(), {}, {}, options);
    engine::GenerateRequest request;
    request.prompt = impatient.tokenizer.encode("Once upon a time", {});
    request.max_tokens = 400;
    request.ignore_end = true;
    const auto listener = std::make_shared<Holds>(in_step);
    const auto id = impatient.service().submit(request, listener);
    if (!in_step) {  // its end is told between two steps
      for (int i = 0; i < 5000 && impatient.service().stats().running == 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      impatient.service().cancel(id);
    }
    listener->holds.get_future().wait();
    const auto held = std::chrono::steady_clock::now();
    const int at_first = impatient.get("/health").status;
    const bool at_once = std::chrono::steady_clock::now() - held < std::chrono::milliseconds(250);
    EXPECT_TRUE(at_first == 200 || !at_once) << at_first;  // a step may take a moment
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    const auto red = impatient.get("/health");
    EXPECT_EQ(red.status, 503);
    const Json said = parsed(red);
    EXPECT_EQ(said["status"], "stuck");
    EXPECT_EQ(
        said.value("message", "").find(in_step ? "a step has been running for" : "no step has begun for"), 0u)
        << red.body;
    EXPECT_EQ(impatient.get("/metrics").status, 200);
    listener->go.set_value();
    listener->ended.get_future().wait();
    auto green = impatient.get("/health");
    for (int i = 0; i < 500 && green.status != 200; ++i) {  // the end is told before the loop goes on
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      green = impatient.get("/health");
    }
    EXPECT_EQ(green.status, 200) << green.body;
    EXPECT_EQ(parsed(green)["status"], "ok");
  }
}

TEST(Api, AClosingServerRefusesAndSaysSo) {
  engine::Service service(Shipped::get().engine, *Shipped::get().tokenizer);
  Api api(service, *Shipped::get().tokenizer, ApiServer::api_options());
  RunningServer running({}, [&](HttpServer& s) { api.add_routes(s, false); });
  api.close();
  auto client = running.client();
  const auto answer = client.ask("POST", "/v1/chat/completions", "", chat("Hi").dump());
  EXPECT_EQ(answer.status, 503);
  EXPECT_FALSE(answer.header("Retry-After").empty());
  EXPECT_EQ(running.client().ask("GET", "/health").status, 503);
}

TEST(Api, TooManyWaitingIs429WithRetryAfter) {
  engine::ServiceOptions few;
  few.max_running = 1;
  few.max_waiting = 0;
  ApiServer small(Shipped::get().tokenizer->chat_template(), {}, few);
  auto busy = small.client();
  Json long_one = chat("Hi", 400);
  long_one["stream"] = true;
  const std::string body = long_one.dump();
  busy.send(
      fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
                  body.size(), body));
  ASSERT_TRUE(busy.wait_for("data: "));
  for (const char* path : {"/v1/chat/completions", "/v1/messages"}) {
    const auto answer = small.post(path, chat("Hi").dump());
    EXPECT_EQ(answer.status, 429) << answer.body;
    EXPECT_FALSE(answer.header("Retry-After").empty());
    EXPECT_EQ(parsed(answer)["error"]["type"], "rate_limit_error");
  }
  busy.kill(true);
}

// The template has opened the reasoning, so all that comes before its end is reasoning.
TEST(Api, ReasoningIsApartOnEveryEndpoint) {
  const ApiServer thinking(
      "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['reasoning_content'] is "
      "defined %}"
      "<think>\n{{ message['reasoning_content'] }}\n</think>\n\n{% endif %}{{ message['content'] }}{{ "
      "'<|end|>' }}"
      "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}");
  const Json answer = post(thinking, "/v1/chat/completions", chat("Hi"));
  const Json& message = answer["choices"][0]["message"];
  EXPECT_EQ(message["content"], "");
  const std::string reasoning = message["reasoning_content"];
  EXPECT_FALSE(reasoning.empty());
  EXPECT_EQ(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 12);
  std::string streamed;
  for (const auto& [name, data] : stream(thinking, "/v1/chat/completions", chat("Hi"))) {
    if (data == "[DONE]") break;
    const Json delta = Json::parse(data)["choices"][0]["delta"];
    if (delta.contains("reasoning_content")) streamed += delta["reasoning_content"];
    if (delta.contains("content")) {
      EXPECT_EQ(delta["content"], "");
    }
  }
  EXPECT_EQ(streamed, reasoning);
  const Json blocks = post(thinking, "/v1/messages", chat("Hi"))["content"];
  EXPECT_EQ(blocks[0]["type"], "thinking");
  EXPECT_EQ(blocks[0]["thinking"], reasoning);
  const Json items =
      post(thinking, "/v1/responses",
           {{"input", "Hi"}, {"max_output_tokens", 12}, {"temperature", 0}, {"ignore_eos", true}})["output"];
  EXPECT_EQ(items[0]["type"], "reasoning");
  EXPECT_EQ(items[0]["content"][0]["text"], reasoning);
}

TEST(Api, ReasoningEndsWithItsBudget) {
  const ApiServer thinking(
      "{% for message in messages %}{{ message['content'] }}{% if message['reasoning_content'] is defined %}"
      "<think>\n{{ message['reasoning_content'] }}\n</think>\n\n{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}");
  Json body = chat("Hi", 60);
  body["temperature"] = 0;
  body["ignore_eos"] = true;
  const Json free = post(thinking, "/v1/messages", body)["content"];
  ASSERT_EQ(free.size(), 1u);  // it never ends by itself
  const std::string all = free[0]["thinking"];
  body["thinking"] = {{"type", "enabled"}, {"budget_tokens", 10}};
  const Json blocks = post(thinking, "/v1/messages", body)["content"];
  ASSERT_EQ(blocks.size(), 2u) << blocks.dump();
  EXPECT_EQ(blocks[0]["type"], "thinking");
  const std::string cut = blocks[0]["thinking"];
  EXPECT_FALSE(cut.empty());
  EXPECT_LT(cut.size(), all.size());
  EXPECT_TRUE(all.starts_with(cut)) << cut;
  EXPECT_EQ(blocks[1]["type"], "text");
  EXPECT_FALSE(blocks[1]["text"].get<std::string>().empty());
}

TEST(Api, WithoutATemplateOnlyPlainPromptsWork) {
  const ApiServer plain{std::optional<std::string>()};
  EXPECT_EQ(plain.post("/v1/chat/completions", chat("Hi").dump()).status, 400);
  EXPECT_EQ(plain.post("/v1/completions", R"({"prompt":"Hi","max_tokens":1})").status, 200);
}

}  // namespace
}  // namespace cairn::serve
