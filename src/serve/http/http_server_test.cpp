#include <sys/resource.h>

#include <fmt/format.h>

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

TEST(HttpServer, SaysWhatThePathMayDo) {
  RunningServer running({}, add_echo_routes);
  Client client = running.client();
  Answer answer = client.ask("HEAD", "/v1/models");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("Content-Length"), "31");
  answer = client.ask("POST", "/v1/models", "", "x");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.header("Allow"), "GET, HEAD, OPTIONS");
  client = running.client();
  answer = client.ask("OPTIONS", "/v1/chat/completions");
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.header("Allow"), "POST, OPTIONS");
  EXPECT_EQ(client.ask("OPTIONS", "*").status, 204);
  EXPECT_EQ(client.ask("OPTIONS", "/nowhere").status, 404);
  answer = client.ask("GET", "/nowhere");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.body,
            "{\"error\": {\"code\": \"not_found\", \"message\": \"There is nothing at this path.\"}}\n");
  EXPECT_EQ(client.ask("GET", "/v1/models/a/b%20c").body, "GET /v1/models/a/b c ? client= id=a/b c body=");
  EXPECT_EQ(client.ask("GET", "//v1//models/").body, "GET /v1/models ? client= body=");
  EXPECT_EQ(client.ask("GET", "http://127.0.0.1:9/v1/models?x").body, "GET /v1/models ?x client= body=");
}

// What a head, sent as it stands, is answered; the connection must end after it.
int refused(uint16_t port, std::string_view bytes) {
  Client client(port);
  client.send(bytes);
  const Answer answer = client.answer("GET");
  EXPECT_TRUE(answer.complete) << bytes;
  EXPECT_EQ(answer.header("Connection"), "close") << bytes;
  EXPECT_TRUE(client.wait_for_close()) << bytes;
  EXPECT_EQ(client.received(), "") << bytes;
  return answer.status;
}

TEST(HttpServer, RefusesWhatItCannotReadAndHangsUp) {
  std::atomic<int> handled{0};
  HttpOptions options;
  options.body_bytes = 1000;
  options.header_bytes = 1024;
  RunningServer running(options, [&](HttpServer& server) {
    server.route("POST", "/x", [&](HttpRequest, std::shared_ptr<Reply> reply) {
      ++handled;
      reply->respond({});
    });
  });
  const auto post = [](std::string_view rest) {
    return "POST /x HTTP/1.1\r\nHost: localhost\r\n" + std::string(rest);
  };
  const struct {
    int status;
    std::string bytes;
  } cases[] = {
      {400, post("Content-Length: 1\r\nContent-Length: 1\r\n\r\na")},
      {400, post("Content-Length: 1, 1\r\n\r\na")},
      {400, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
      {400, post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")},
      {400, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
      {400, post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")},
      {400, post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")},
      {501, post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")},
      {400, "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {400, post("Content-Length: -1\r\n\r\n")},
      {400, post("Content-Length: +1\r\n\r\na")},
      {400, post("Content-Length: 0x1\r\n\r\na")},
      {400, post("Content-Length:\r\n\r\n")},
      {400, post("Content-Length : 1\r\n\r\na")},
      {400, post("Content-Length: 1\n\r\na")},
      {400, post("X: a\r\n folded\r\nContent-Length: 1\r\n\r\na")},
      {400, post("X: a\rY: b\r\n\r\n")},
      {400, post(std::string("X: a\0b\r\n\r\n", 10))},
      {400, post("X\x80: a\r\n\r\n")},
      {400, post(": a\r\n\r\n")},
      {400, post("X\r\n\r\n")},
      {400, post("Host: localhost\r\nContent-Length: 1\r\n\r\na")},
      {400, "POST /x HTTP/1.1\r\nContent-Length: 1\r\n\r\na"},
      {400, "POST /x HTTP/1.1\r\nHost: local host\r\nContent-Length: 1\r\n\r\na"},
      {400, "POST /x HTTP/1.1\r\nHost: \r\nContent-Length: 1\r\n\r\na"},
      {400, "POST  /x HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "POST /x  HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "POST /x\r\nHost: localhost\r\n\r\n"},
      {400, "POST /x HTTP/1.1 \r\nHost: localhost\r\n\r\n"},
      {400, "POST /x http/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "POST x HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "POST /\xc3\xa4 HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {400, "\x16\x03\x01\x02"},
      {400, "\r\n\r\n\r\nPOST"},
      {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {505, "POST /x HTTP/1.2\r\nHost: localhost\r\n\r\n"},
      {400, post("Transfer-Encoding: chunked\r\n\r\nx\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n-1\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n1\nab")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n1;a=\"\n\"\r\na\r\n0\r\n\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n1\r\nabcdefg")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\na\r\n")},
      {400, post("Transfer-Encoding: chunked\r\n\r\n1;" + std::string(20'000, 'a'))},
      {413, post("Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'a') + "\r\n0\r\n\r\n")},
      {413, post("Content-Length: 1001\r\n\r\n")},
      {400, post("Content-Length: 18446744073709551616\r\n\r\n")},
      {413, post("Content-Length: 18446744073709551615\r\n\r\n")},
      {414, "POST /" + std::string(10'000, 'x')},
      {431, post("X: " + std::string(2000, 'x'))},
      {431,
       [&] {
         std::string many;
         for (int i = 0; i < 200; ++i) many += "a:\r\n";
         return post(many);
       }()},
      {417, post("Content-Length: 1\r\nExpect: a-miracle\r\n\r\na")},
  };
  for (const auto& one : cases)
    EXPECT_EQ(refused(running.port(), one.bytes), one.status) << one.bytes.substr(0, 300);
  EXPECT_EQ(handled, 0);
  Client client = running.client();  // and it still serves
  EXPECT_EQ(client.ask("POST", "/x", "", std::string(1000, 'a')).status, 200);
  EXPECT_EQ(running.server().stats().malformed, std::size(cases) - 1);  // 417 is well-formed
  client.send(post("\r\n"));
  EXPECT_EQ(client.answer().status, 411);
  EXPECT_EQ(client.ask("BREW", "/x").status, 501);
}

TEST(HttpServer, TakesBodiesInAnyPieces) {
  RunningServer running({}, add_echo_routes);
  const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
  const std::string chunked = head +
                              "Transfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n1\r\n "
                              "\r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n";
  Client client = running.client();
  for (const size_t piece : {size_t{1}, size_t{7}, chunked.size()}) {
    for (size_t at = 0; at < chunked.size(); at += piece) {
      client.send(chunked.substr(at, piece));
      if (piece == 1) std::this_thread::sleep_for(100us);
    }
    EXPECT_EQ(client.answer("POST").body, "POST /v1/chat/completions ? client= body=hello world");
  }
  for (const char c :
       head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n") {  // Beast's assertions do not like this
    client.send({&c, 1});
    std::this_thread::sleep_for(100us);
  }
  EXPECT_EQ(client.answer("POST").body, "POST /v1/chat/completions ? client= body=");
  const std::string large(3 << 20, 'z');
  const Answer answer = client.ask("POST", "/v1/chat/completions", "", large);
  EXPECT_EQ(answer.body.size(), large.size() + 41);
  EXPECT_TRUE(answer.complete);
  EXPECT_TRUE(eventually([&] { return running.server().stats().body_bytes == 0; }));
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  std::mutex mutex;
  std::vector<std::pair<std::string, std::shared_ptr<Reply>>> waiting;
  RunningServer running({}, [&](HttpServer& server) {
    server.route("GET", "/{n}", [&](HttpRequest request, std::shared_ptr<Reply> reply) {
      const std::lock_guard lock(mutex);
      waiting.emplace_back(request.param("n"), reply);
    });
  });
  Client client = running.client();
  constexpr int kRequests = 5000;  // more than is read ahead: the rest waits in the kernel
  std::thread sender([&] {
    std::string all;
    for (int i = 0; i < kRequests; ++i)
      all += "GET /" + std::to_string(i) +
             " HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + std::string(40, 'p') + "\r\n\r\n";
    client.send(all);
  });
  std::atomic<int> answered{0};
  std::thread answerer([&] {
    while (answered < kRequests) {
      std::vector<std::pair<std::string, std::shared_ptr<Reply>>> ready;
      {
        const std::lock_guard lock(mutex);
        EXPECT_LE(waiting.size(), 1u);  // one at a time
        ready.swap(waiting);
      }
      for (auto& [name, reply] : ready) {
        reply->respond({200, "text/plain", name});
        ++answered;
      }
    }
  });
  sender.join();
  for (int i = 0; i < kRequests; ++i) ASSERT_EQ(client.answer().body, std::to_string(i));
  answerer.join();
}

TEST(HttpServer, AsksForTheBodyWhenTheClientWaitsForThat) {
  HttpOptions options;
  options.body_bytes = 10;
  RunningServer running(options, add_echo_routes);
  Client client = running.client();
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
      "2\r\n\r\n");
  ASSERT_TRUE(client.wait_for("HTTP/1.1 100 Continue\r\n\r\n"));
  client.send("ok");
  EXPECT_TRUE(client.answer("POST").body.ends_with("body=ok"));
  client.send(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: "
      "11\r\n\r\n");
  EXPECT_EQ(client.answer("POST").status, 413);
  EXPECT_EQ(client.received().find("100"), std::string::npos);
}

TEST(HttpServer, SpeaksHttp10) {
  RunningServer running({}, [](HttpServer& server) {
    add_echo_routes(server);
    server.route("GET", "/stream", [](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->start(200, "text/plain");
      reply->write("a");
      reply->write("b");
      reply->finish();
    });
  });
  Client client = running.client();
  client.send("GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(client.answer().header("Connection"), "keep-alive");
  client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const Answer answer = client.answer();  // until the end of the connection
  EXPECT_EQ(answer.body, "ab");
  EXPECT_EQ(answer.header("Connection"), "close");
  EXPECT_TRUE(answer.complete);
}

TEST(HttpServer, ClosesWhenAsked) {
  RunningServer running({}, add_echo_routes);
  Client client = running.client();
  client.send(
      "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\nGET /evil HTTP/1.1\r\n\r\n");
  EXPECT_EQ(client.answer().status, 200);
  EXPECT_TRUE(client.wait_for_close());
  EXPECT_EQ(client.received(), "");
}

TEST(HttpServer, EndsSlowRequestsAndIdleConnections) {
  HttpOptions options;
  options.head_timeout = 150ms;
  options.body_timeout = 150ms;
  options.idle_timeout = 300ms;
  RunningServer running(options, add_echo_routes);
  Client half = running.client(), drip = running.client(), body = running.client(), idle = running.client(),
         alive = running.client();
  half.send("GET /health HTTP/1.1\r\nHost: loc");
  body.send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
  const auto began = std::chrono::steady_clock::now();
  for (const char c : std::string_view("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")) {  // slow loris
    if (!drip.send({&c, 1}) || drip.more(15ms)) break;
  }
  EXPECT_EQ(drip.answer().status, 408);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 600ms);
  EXPECT_EQ(half.answer().status, 408);
  EXPECT_EQ(body.answer().status, 408);
  EXPECT_TRUE(half.wait_for_close());
  EXPECT_TRUE(idle.wait_for_close());
  EXPECT_EQ(idle.received(), "");
  EXPECT_GT(std::chrono::steady_clock::now() - began, 290ms);
  for (Client* client : {&half, &drip, &body}) client->kill();
  EXPECT_TRUE(eventually([&] { return running.server().stats().connections == 0; }));
  EXPECT_EQ(running.server().stats().timeouts, 3u);
}

TEST(HttpServer, TellsWhoComesPastTheLimit) {
  HttpOptions options;
  options.connections = 3;
  RunningServer running(options, add_echo_routes);
  std::vector<Client> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(running.client());
    EXPECT_EQ(clients.back().ask("GET", "/health").status, 200);
  }
  Client extra = running.client();
  extra.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const Answer answer = extra.answer();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.header("Retry-After"), "1");
  EXPECT_TRUE(extra.wait_for_close());
  extra.kill();
  clients.pop_back();
  EXPECT_TRUE(eventually([&] { return running.client().ask("GET", "/health").status == 200; }));
  EXPECT_EQ(clients[0].ask("GET", "/health").status, 200);
  EXPECT_GE(running.server().stats().refused_connections, 1u);
}

TEST(HttpServer, BoundsTheBodiesOfAllRequestsTogether) {
  HttpOptions options;
  options.body_bytes = 1000;
  options.all_bodies_bytes = 1500;
  RunningServer running(options, add_echo_routes);
  const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
  Client first = running.client(), second = running.client(), third = running.client();
  first.send(head + "Content-Length: 1000\r\n\r\n" + std::string(999, 'a'));
  EXPECT_TRUE(eventually([&] { return running.server().stats().body_bytes == 999; }));
  second.send(head + "Content-Length: 600\r\n\r\n");
  EXPECT_EQ(second.answer("POST").status, 503);
  third.send(head + "Transfer-Encoding: chunked\r\n\r\n258\r\n" + std::string(600, 'a') + "\r\n");
  EXPECT_EQ(third.answer("POST").status, 503);
  first.send("a");
  EXPECT_EQ(first.answer("POST").status, 200);
  EXPECT_TRUE(eventually([&] { return running.server().stats().body_bytes == 0; }));
}

TEST(HttpServer, SurvivesWhenNoFileIsLeft) {
  RunningServer running({}, add_echo_routes);
  Client before = running.client();
  EXPECT_EQ(before.ask("GET", "/health").status, 200);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  // A socket for the client, none for the server's end of it.
  const int next = dup(0);
  close(next);
  const rlimit few{rlim_t(next) + 1, files.rlim_max};
  setrlimit(RLIMIT_NOFILE, &few);
  Client during = running.client();
  during.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_TRUE(eventually([&] { return running.server().stats().accept_errors > 0; }));
  EXPECT_EQ(before.ask("GET", "/health").status, 200);
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(running.server().stats().accept_errors, 10u);  // it does not spin
  setrlimit(RLIMIT_NOFILE, &files);
  EXPECT_EQ(during.answer().status, 200);
}

TEST(HttpServer, HandlersThatFailFailAlone) {
  std::mutex mutex;
  std::vector<std::string> faults;
  std::vector<std::string> log;
  HttpOptions options;
  options.on_fault = [&](std::string_view id, std::string_view what) {
    const std::lock_guard lock(mutex);
    faults.push_back(std::string(id) + ": " + std::string(what));
  };
  options.on_access = [&](const AccessRecord& record) {
    const std::lock_guard lock(mutex);
    log.push_back(
        fmt::format("{} {} {} {} {}", record.id, record.method, record.path, record.status, record.client));
  };
  options.refusal_body = [](const Refusal& refusal) {
    return HttpResponse{200, "application/json", "{\"code\":\"" + std::string(refusal.code) + "\"}"};
  };
  RunningServer running(options, [](HttpServer& server) {
    server.route("GET", "/throw",
                 [](HttpRequest, std::shared_ptr<Reply>) { throw std::runtime_error("/secret/path"); });
    server.route("GET", "/drop", [](HttpRequest, std::shared_ptr<Reply>) {});
    server.route("GET", "/inject", [](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->respond(
          {200, "text/plain\r\nA: b", "", {{"X", "1\r\nEvil: 1"}, {"Content-Length", "7"}, {"a b", "c"}}});
    });
  });
  Client client = running.client();
  Answer answer = client.ask("GET", "/throw?key=hidden", "X-Request-Id: r1\r\n");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body, "{\"code\":\"internal_error\"}");
  answer = client.ask("GET", "/drop", "X-Request-Id: r2\r\n");
  EXPECT_EQ(answer.status, 500);
  answer = client.ask("GET", "/inject");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("Evil"), "");
  EXPECT_EQ(answer.header("A"), "");
  EXPECT_EQ(answer.header("Content-Length"), "0");
  client.send("nonsense\r\n\r\n");
  EXPECT_EQ(client.answer().status, 400);
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return log.size() == 4;
  }));
  const std::lock_guard lock(mutex);
  EXPECT_EQ(faults, (std::vector<std::string>{"r1: /secret/path",
                                              "r2: a handler dropped its reply without answering"}));
  ASSERT_EQ(log.size(), 4u);
  EXPECT_EQ(log[0], "r1 GET /throw 500 ");
  EXPECT_TRUE(log[3].ends_with(" - - 400 ")) << log[3];
}

}  // namespace
}  // namespace cairn::serve
