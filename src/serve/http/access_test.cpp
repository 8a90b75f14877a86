#include "serve/http/access.h"

#include <atomic>

#include "base/error.h"
#include "serve/http/http_testing.h"
#include "serve/http/target.h"

namespace cairn::serve {
namespace {

using namespace testing;

TEST(Access, FindsTheKeyAmongAll) {
  HttpOptions options;
  options.api_keys = {{"ann", "sk-one"}, {"bob", "sk-two"}};
  const Access access(options);
  EXPECT_EQ(access.client("Bearer sk-two", ""), "bob");
  EXPECT_EQ(access.client("bearer  sk-one ", ""), "ann");
  EXPECT_EQ(access.client("", "sk-one"), "ann");
  EXPECT_EQ(access.client("Bearer wrong", "sk-two"), "bob");
  for (const char* wrong : {"", "Bearer", "Bearer ", "sk-one", "Basic sk-one", "Bearer sk-on",
                            "Bearer sk-one1", "Bearer SK-ONE", "Bearer sk-one,sk-two"})
    EXPECT_FALSE(access.client(wrong, "")) << wrong;
  options.api_keys = {{"ann", ""}};
  EXPECT_THROW(Access{options}, Error);
  options.api_keys = {{"ann", "a b"}};
  EXPECT_THROW(Access{options}, Error);
}

TEST(Access, AnswersToItsOwnNamesAndToAddresses) {
  HttpOptions options;
  options.allowed_hosts = {"Chat.Example"};
  const Access access(options);
  for (const char* good : {"localhost", "LOCALHOST:8080", "localhost.", "a.localhost", "127.0.0.1:80",
                           "10.1.2.3", "[::1]", "[fe80::1]:8080", "chat.example:1", "chat.example."})
    EXPECT_TRUE(access.host_allowed(good)) << good;
  for (const char* bad :
       {"", "evil.example", "localhost.evil.example", "chat.example.evil.com", "127.0.0.1.evil.com",
        "127.0.0.1:80:80", "[::1", "[evil]", "::1", "localhost:123456", "localhost:8a", "local host",
        "user@localhost", "1.2.3", "xn--lcalhost"})
    EXPECT_FALSE(access.host_allowed(bad)) << bad;
  options.allowed_hosts = {"*"};
  EXPECT_TRUE(Access(options).host_allowed("any.example"));
}

TEST(Access, LetsOnlyListedPagesCall) {
  HttpOptions options;
  options.allowed_origins = {"https://chat.example", "http://localhost:*"};
  const Access access(options);
  EXPECT_TRUE(access.origin_allowed("http://localhost:8080", "localhost:8080"));  // its own page
  EXPECT_TRUE(access.origin_allowed("http://127.0.0.1", "127.0.0.1:80"));
  EXPECT_TRUE(access.origin_allowed("https://chat.example", "localhost:8080"));
  EXPECT_TRUE(access.origin_allowed("HTTPS://Chat.example", "localhost:8080"));
  EXPECT_TRUE(access.origin_allowed("http://localhost:3000", "127.0.0.1:8080"));
  for (const char* bad :
       {"null", "", "http://chat.example", "https://chat.example.evil.com", "https://chat.example:444",
        "http://localhost:3000.evil.com", "http://localhost.evil.com", "file://", "https://evil.com"})
    EXPECT_FALSE(access.origin_allowed(bad, "127.0.0.1:8080")) << bad;
  for (const char* malformed : {"chat.example", "https://chat.example/", "ftp://x"}) {
    options.allowed_origins = {malformed};
    EXPECT_THROW(Access{options}, Error) << malformed;
  }
}

TEST(Target, HasOneReadingOrNone) {
  const auto read = [](std::string_view raw) {
    Target target;
    return parse_target("GET", raw, target) ? "refused" : target.path + "?" + target.query;
  };
  EXPECT_EQ(read("/"), "/?");
  EXPECT_EQ(read("/v1//models/?a=b?c"), "/v1/models?a=b?c");
  EXPECT_EQ(read("/%76%31/m%C3%BCller"), "/v1/m\xc3\xbcller?");
  EXPECT_EQ(read("http://host:1/x"), "/x?");
  EXPECT_EQ(read("HTTP://host?q"), "/?q");
  EXPECT_EQ(read("/a%2Fb/..."), "/a/b/...?");
  EXPECT_EQ(read("/%252e%252e"), "/%2e%2e?");  // decoded once
  for (const char* odd : {"",
                          "x",
                          "*",
                          "/..",
                          "/a/../b",
                          "/a/./b",
                          "/%2e%2e/b",
                          "/.%2E",
                          "/%",
                          "/%4",
                          "/%zz",
                          "/%00",
                          "/a%0d%0ab",
                          "/a\\b",
                          "/%5c..%5c",
                          "/%ff",
                          "/%c0%ae%c0%ae",
                          "http://",
                          "http://user@host/",
                          "ftp://host/"})
    EXPECT_EQ(read(odd), "refused") << odd;
  EXPECT_EQ(read("/" + std::string(200, '/')), "/?");
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "/a";
  EXPECT_EQ(read(deep), "refused");
}

TEST(Target, RoutesByWholeSegments) {
  Router router;
  std::string called;
  const auto add = [&](const char* method, const char* pattern) {
    router.add(
        method, pattern, [&called, pattern](HttpRequest, std::shared_ptr<Reply>) { called = pattern; },
        false);
  };
  add("GET", "/models/{id}/card");
  add("GET", "/models/{id*}");
  add("DELETE", "/models/{id}");
  const auto match = [&](const char* method, const char* path) {
    Target target;
    EXPECT_EQ(parse_target(method, path, target), nullptr);
    const auto found = router.match(method, target);
    called = "";
    if (found.handler) (*found.handler)({}, nullptr);
    std::string text = called.empty() ? found.allowed : called;
    for (const auto& [name, value] : found.params) text += " " + name + "=" + value;
    return text;
  };
  EXPECT_EQ(match("GET", "/models/a/card"), "/models/{id}/card id=a");
  EXPECT_EQ(match("GET", "/models/org/name"), "/models/{id*} id=org/name");
  EXPECT_EQ(match("GET", "/models/org%2Fname"), "/models/{id*} id=org/name");
  EXPECT_EQ(match("DELETE", "/models/org%2Fname"), "/models/{id} id=org/name");
  EXPECT_EQ(match("POST", "/models/a"), "GET, HEAD, DELETE, OPTIONS");
  EXPECT_EQ(match("GET", "/models"), "");
  for (const char* bad : {"", "x", "/{", "/a}", "/{}", "/{*}", "/{a*}/b"})
    EXPECT_THROW(router.add(
                     "GET", bad, [](HttpRequest, std::shared_ptr<Reply>) {}, false),
                 Error)
        << bad;
}

// CVE-2026-48746 and its like: no path, method or header goes round the key.
TEST(Access, NoOddPathGoesRoundTheKey) {
  std::atomic<int> handled{0};
  HttpOptions options;
  options.api_keys = {{"ann", "sk-1"}};
  RunningServer running(options, [&](HttpServer& server) {
    const auto count = [&](HttpRequest request, std::shared_ptr<Reply> reply) {
      ++handled;
      EXPECT_EQ(request.header("Authorization"), "");
      EXPECT_EQ(request.header("x-api-key"), "");
      reply->respond({200, "text/plain", request.client});
    };
    server.route(
        "GET", "/health", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); }, true);
    server.route("GET", "/v1/models", count);
    server.route("GET", "/v1/models/{id*}", count);
    server.route("POST", "/v1/chat/completions", count);
    server.route("DELETE", "/admin/model", count);
  });
  const auto status = [&](std::string_view method, std::string_view target, std::string_view fields = "") {
    return running.client().ask(method, target, fields).status;
  };
  for (const char* target : {"/v1/models",
                             "/v1/models/",
                             "//v1/models",
                             "/v1//models",
                             "/%761/models",
                             "/v1%2Fmodels",
                             "/v1/models/x",
                             "/V1/MODELS",
                             "/v1/models?x=/health",
                             "/v1/models;/health",
                             "/health/v1/models",
                             "/unknown",
                             "/unknown/%2f",
                             "http://localhost/v1/models",
                             "http://localhost//v1/models",
                             "/v1/models%20",
                             "/health;x",
                             "/admin/model",
                             "/healthz",
                             "/favicon.ico"})
    for (const char* method :
         {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "TRACE", "get"})
      EXPECT_EQ(status(method, target), 401) << method << " " << target;
  for (const char* target : {"/health/../v1/models", "/v1/./models", "/health/%2e%2e/v1/models",
                             "/v1\\models", "/v1/models%00", "/v1/models%0a", "/%c0%af"})
    EXPECT_EQ(status("GET", target), 400) << target;
  for (const char* fields :
       {"Authorization: Bearer\r\n", "Authorization: Bearer sk-\r\n", "Authorization: Bearer sk-11\r\n",
        "Authorization: sk-1\r\n", "X-Api-Key: \r\n", "X-Api-Key: sk\r\n", "Cookie: key=sk-1\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n", "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Original-URL: /health\r\n", "X-HTTP-Method-Override: GET\r\n"})
    EXPECT_EQ(status("GET", "/v1/models", fields), 401) << fields;
  EXPECT_EQ(status("GET", "/v1/models", "Authorization: Bearer sk-1\r\nAuthorization: Bearer x\r\n"), 400);
  EXPECT_EQ(status("OPTIONS", "*"), 401);
  EXPECT_EQ(handled, 0);
  EXPECT_EQ(status("GET", "/health"), 200);
  EXPECT_EQ(status("HEAD", "/health"), 200);
  EXPECT_EQ(status("POST", "/health"), 401);  // what is public is a method of a path
  EXPECT_EQ(status("GET", "/unknown", "X-Api-Key: sk-1\r\n"), 404);
  Client client = running.client();
  const Answer refused = client.ask("GET", "/v1/models");
  EXPECT_EQ(refused.header("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(client.ask("GET", "/v1/models", "Authorization: Bearer sk-1\r\n").body, "ann");
  EXPECT_EQ(client.ask("POST", "/v1/chat/completions", "x-api-key: sk-1\r\n", "{}").body, "ann");
  // No body is read for who has no key.
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: "
      "100-continue\r\n\r\n");
  EXPECT_EQ(client.answer("POST").status, 401);
  EXPECT_TRUE(client.wait_for_close());
}

TEST(Access, RefusesStrangeNamesAndPages) {
  HttpOptions options;
  options.allowed_origins = {"https://chat.example"};
  RunningServer running(options, [](HttpServer& server) {
    server.route("POST", "/x", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
  });
  const auto post = [&](std::string_view fields, std::string_view target = "/x") {
    Client client = running.client();
    client.send("POST " + std::string(target) + " HTTP/1.1\r\n" + std::string(fields) +
                "Content-Length: 0\r\n\r\n");
    return client.answer("POST");
  };
  EXPECT_EQ(post("Host: localhost\r\n").status, 200);
  EXPECT_EQ(post("Host: evil.example\r\n").status, 421);
  EXPECT_EQ(post("Host: evil.example:80\r\nOrigin: http://evil.example\r\n").status, 421);
  EXPECT_EQ(post("Host: localhost\r\n", "http://evil.example/x").status, 421);
  EXPECT_EQ(post("Host: evil.example\r\n", "http://localhost/x").status, 421);
  EXPECT_EQ(post("Host: localhost\r\nOrigin: http://evil.example\r\n").status, 403);
  EXPECT_EQ(post("Host: localhost\r\nOrigin: null\r\n").status, 403);
  Answer answer = post("Host: localhost\r\nOrigin: https://chat.example\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("Access-Control-Allow-Origin"), "https://chat.example");
  EXPECT_EQ(answer.header("Vary"), "Origin");
  Client client = running.client();
  answer = client.ask("OPTIONS", "/x",
                      "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
                      "Access-Control-Request-Headers: content-type,authorization\r\n");
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.header("Access-Control-Allow-Headers"), "content-type,authorization");
  EXPECT_EQ(
      client.ask("OPTIONS", "/x", "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n")
          .status,
      403);
  EXPECT_EQ(running.server().stats().denied, 7u);
}

TEST(Access, RefusesToServeOthersWithoutAKey) {
  for (const char* host : {"0.0.0.0", "::", "192.0.2.7"}) {
    HttpOptions options;
    options.host = host;
    try {
      HttpServer(options).listen();
      ADD_FAILURE() << host;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
      EXPECT_NE(std::string(error.what()).find("hint: set an API key, or listen on 127.0.0.1"),
                std::string::npos);
    }
  }
  HttpOptions options;
  options.host = "0.0.0.0";
  options.api_keys = {{"ann", "sk-1"}};
  RunningServer running(options, [](HttpServer& server) {
    server.route("GET", "/", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
  });
  EXPECT_EQ(running.client().ask("GET", "/", "x-api-key: sk-1\r\n").status, 200);
  options.host = "127.0.0.1";
  options.port = running.port();
  try {
    HttpServer(options).listen();
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::io);
  }
}

}  // namespace
}  // namespace cairn::serve
