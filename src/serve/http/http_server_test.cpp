#include <sys/resource.h>

#include <atomic>

#include "base/error.h"
#include "serve/http/http_testing.h"

namespace cairn::serve {
namespace {

using namespace testing;

void echo(HttpRequest request, std::shared_ptr<Reply> reply) {
  std::string text = request.method + " " + request.path + " ?" + request.query + " client=" + request.client;
  for (const auto& [name, value] : request.params) text += " " + name + "=" + value;
  reply->respond({200, "text/plain", text + " body=" + request.body});
}

void add_echo_routes(HttpServer& server) {
  server.route("GET", "/", echo, true);
  server.route("GET", "/health", echo, true);
  server.route("GET", "/v1/models", echo);
  server.route("GET", "/v1/models/{id*}", echo);
  server.route("POST", "/v1/chat/completions", echo);
}

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  RunningServer running({}, add_echo_routes);
  Client client = running.client();
  Answer answer = client.ask("GET", "/v1/models?limit=3");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "GET /v1/models ?limit=3 client= body=");
  EXPECT_EQ(answer.header("Content-Type"), "text/plain");
  EXPECT_FALSE(answer.header("Date").empty());
  EXPECT_TRUE(answer.header("X-Request-Id").starts_with("req-"));
  answer = client.ask("POST", "/v1/chat/completions", "X-Request-Id: mine-1\r\n", "hello");
  EXPECT_EQ(answer.body, "POST /v1/chat/completions ? client= body=hello");
  EXPECT_EQ(answer.header("X-Request-Id"), "mine-1");
  answer = client.ask("GET", "/v1/models", "X-Request-Id: a b\r\n");
  EXPECT_TRUE(answer.header("X-Request-Id").starts_with("req-"));
  EXPECT_EQ(running.server().stats().accepted, 1u);
}

}  // namespace
}  // namespace cairn::serve
