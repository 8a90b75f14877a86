// The client against servers that break the protocol in every way a byte stream can.
#include "load/client.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/loopback_testing.h"
#include "load/load_testing.h"
#include "load/plot.h"
#include "load/report.h"

namespace cairn::load {
namespace {

using formats::testing::http_answer;
using formats::testing::LoopbackAnswer;
using formats::testing::LoopbackServer;
using namespace std::chrono_literals;

Answer ask(const LoopbackServer& server, std::chrono::milliseconds timeout = 5s, std::string body = "{}") {
  boost::asio::io_context io;
  Client client(io, parse_target(server.address()));
  Order order;
  order.path = "/v1/chat/completions";
  order.body = std::move(body);
  order.timeout = timeout;
  order.wants_body = true;
  return exchange(io, client, std::move(order));
}

Answer ask(const LoopbackAnswer& answer, std::chrono::milliseconds timeout = 5s) {
  LoopbackServer server([&](const auto&) { return answer; });
  return ask(server, timeout);
}

const std::string kSseHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
std::string event(const std::string& data) { return "data: " + data + "\n\n"; }
std::string chunk(const std::string& bytes) { return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes); }
const std::string kEnd = event(R"({"choices":[{"delta":{},"finish_reason":"stop"}]})") + event("[DONE]");

TEST(LoadClient, ReadsStreamsInEveryFraming) {
  const std::string text =
      event(testing::text_chunk("one")) + ": note\n\n" + event(testing::text_chunk("two")) + kEnd;
  for (const std::string& answer :
       {kSseHead + "Transfer-Encoding: chunked\r\n\r\n" + chunk(text) + "0\r\n\r\n",
        kSseHead + "Transfer-Encoding: chunked\r\n\r\n" + chunk(text.substr(0, 40)) + chunk(text.substr(40)) +
            "0\r\n\r\n",
        kSseHead + "Content-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text,
        kSseHead + "Connection: close\r\n\r\n" + text,
        "HTTP/1.1 100 Continue\r\n\r\n" + kSseHead + "\r\n" + text}) {
    const auto got = ask(LoopbackAnswer(answer));
    EXPECT_EQ(got.fault, Fault::none) << got.detail << "\n" << answer;
    EXPECT_EQ(got.events, 2);
    EXPECT_EQ(got.body, "onetwo");
    EXPECT_EQ(got.finish_reason, "stop");
  }
}

TEST(LoadClient, EverySplitGivesTheSameAnswer) {
  const std::string text = event(testing::text_chunk("one")) + event(testing::text_chunk("two")) + kEnd;
  const std::string whole = kSseHead + "Transfer-Encoding: chunked\r\n\r\n" + chunk(text.substr(0, 50)) +
                            chunk(text.substr(50)) + "0\r\n\r\n";
  for (size_t at = 1; at < whole.size(); at += 7) {
    const auto got = ask(LoopbackAnswer({{whole.substr(0, at), 0ms}, {whole.substr(at), 5ms}}));
    ASSERT_EQ(got.fault, Fault::none) << got.detail << " split at " << at;
    ASSERT_EQ(got.body, "onetwo");
  }
}

TEST(LoadClient, TimesAreThoseOfArrival) {
  const auto got =
      ask(LoopbackAnswer({{kSseHead + "\r\n", 0ms},
                          {event(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})"), 20ms},
                          {event(testing::text_chunk("a")), 80ms},
                          {event(testing::text_chunk("b")), 150ms},
                          {kEnd, 50ms}}));
  ASSERT_EQ(got.fault, Fault::none) << got.detail;
  EXPECT_GE(seconds_between(got.sent, got.first), 0.095) << "the role chunk is no token";
  EXPECT_GE(seconds_between(got.first, got.last), 0.145);
  EXPECT_GE(seconds_between(got.last, got.end), 0.045);
}

TEST(LoadClient, NamesWhatIsBroken) {
  const auto fault = [](const std::string& answer) { return ask(LoopbackAnswer(answer)).fault; };
  EXPECT_EQ(fault(""), Fault::closed);
  EXPECT_EQ(fault("HTTP/1.1 200"), Fault::closed);
  EXPECT_EQ(fault("nonsense\r\n\r\n"), Fault::protocol);
  EXPECT_EQ(fault("HTTP/1.1 200 OK\r\n" + std::string(100'000, 'a') + ": b\r\n\r\n"), Fault::protocol);
  EXPECT_EQ(fault(kSseHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), Fault::protocol);
  EXPECT_EQ(fault(kSseHead + "\r\n" + event("not json")), Fault::protocol);
  EXPECT_EQ(fault(kSseHead + "\r\ndata: " + std::string(6 << 20, 'x')), Fault::protocol);
  EXPECT_EQ(fault(kSseHead + "\r\n" + event(testing::text_chunk("cut"))), Fault::closed);
  EXPECT_EQ(fault(kSseHead + "Content-Length: 9999\r\n\r\n" + event(testing::text_chunk("cut")) + kEnd),
            Fault::closed);
  EXPECT_EQ(fault(kSseHead + "\r\n" + kEnd), Fault::empty);
  EXPECT_EQ(fault(kSseHead + "\r\nevent: error\ndata: {}\n\n"), Fault::in_stream);
  EXPECT_EQ(fault(http_answer(503, {}, "busy")), Fault::status);
  EXPECT_EQ(ask(LoopbackAnswer(http_answer(503, {}, "busy \x1b[31m"))).detail.find('\x1b'),
            std::string::npos);
  EXPECT_EQ(fault(http_answer(200, {"Content-Type: application/json"}, "{}")), Fault::empty);
  EXPECT_EQ(fault(http_answer(200, {"Content-Type: application/json"}, "<html>")), Fault::protocol);
  EXPECT_EQ(ask(LoopbackAnswer({{kSseHead + "\r\n", 0ms}, {kEnd, 2000ms}}), 150ms).fault, Fault::timeout);
}

TEST(LoadClient, HearsARefusalWhileItStillSends) {
  // The server answers after the head and closes without reading 30 MB of body.
  LoopbackServer server([](const auto&) { return http_answer(413, {"Connection: close"}, "too long"); });
  const auto got = ask(server, 5s, std::string(30 << 20, 'x'));
  EXPECT_TRUE(got.fault == Fault::status || got.fault == Fault::closed) << to_string(got.fault);
}

TEST(LoadClient, AKeptConnectionThatEndedIsReplaced) {
  // Each connection serves one request although it promises more.
  LoopbackServer server([](const auto&) {
    return http_answer(200, {"Content-Type: application/json"},
                       R"({"choices":[{"message":{"content":"x"}}]})");
  });
  boost::asio::io_context io;
  Client client(io, parse_target(server.address()));
  for (int i = 0; i < 5; ++i) {
    Order order;
    order.path = "/";
    EXPECT_EQ(exchange(io, client, order).fault, Fault::none);
  }
  EXPECT_EQ(client.connections_made(), 5u);
}

TEST(LoadClient, SendsTheKeyAndTheHost) {
  LoopbackServer server([](const auto&) { return http_answer(200, {}, "{}"); });
  boost::asio::io_context io;
  auto target = parse_target(server.address("/base/v1/"));
  target.api_key = "secret";
  Client client(io, target);
  Order order;
  order.path = "/v1/x";
  exchange(io, client, order);
  const auto request = server.requests().at(0);
  EXPECT_EQ(request.target, "/base/v1/x");
  EXPECT_EQ(request.field("authorization"), "Bearer secret");
  EXPECT_EQ(request.field("host"), "127.0.0.1:" + std::to_string(server.port()));
}

TEST(LoadClient, RefusesAddressesWithoutAServer) {
  boost::asio::io_context io;
  EXPECT_THROW(Client(io, parse_target("127.0.0.1:1")), Error);
  EXPECT_THROW(Client(io, parse_target("http://does-not-exist.invalid")), Error);
  EXPECT_THROW(parse_target("ftp://x"), Error);
  EXPECT_THROW(parse_target("http://x/?a=b"), Error);
}

TEST(Report, FiguresAreThoseOfTheRecords) {
  load::Run run;
  for (int i = 1; i <= 5; ++i) {  // due at i, first text 20 i ms later, then 4 more tokens in 40 ms
    RequestRecord request;
    request.due = i;
    request.sent = i + 0.001;
    request.first = i + 0.020 * i;
    request.last = request.end = request.first + 0.040;
    request.events = 3;
    request.answer_tokens = 5;
    request.prompt_tokens = 100;
    request.cached_tokens = 40;
    request.asked_answer = i == 5 ? 6 : 5;
    run.requests.push_back(request);
  }
  run.requests.push_back({});
  run.requests.back().fault = Fault::timeout;
  run.seconds = 10;
  const auto summary = summarise(run, parse_slo("ttft=75,tpot=11"), true);
  EXPECT_NEAR(summary.ttft.quantile(0.5), 0.060, 1e-6);
  EXPECT_NEAR(summary.ttft.quantile(0.9), 0.092, 1e-6);
  EXPECT_NEAR(summary.ttft.max(), 0.100, 1e-6);
  EXPECT_NEAR(summary.tpot.quantile(0.99), 0.010, 1e-6);
  EXPECT_NEAR(summary.latency.quantile(0), 0.060, 1e-6);
  EXPECT_NEAR(summary.late.quantile(0.5), 0.001, 1e-6);
  EXPECT_EQ(summary.good, 3);
  EXPECT_EQ(summary.failed, 1);
  EXPECT_EQ(summary.short_answers, 1);
  const auto json = to_json(summary, parse_slo("ttft=75,tpot=11"));
  EXPECT_NEAR(json["per_second"]["output_tokens"].get<double>(), 2.5, 1e-9);
  EXPECT_NEAR(json["per_second"]["total_tokens"].get<double>(), 52.5, 1e-9);
  EXPECT_NEAR(json["goodput"]["requests_per_second"].get<double>(), 0.3, 1e-9);
  EXPECT_EQ(json["tokens"]["cached"], 200);
  EXPECT_NEAR(json["milliseconds"]["ttft"]["p50"].get<double>(), 60, 1e-3);
  EXPECT_NE(
      table(summary, parse_slo("ttft=75")).find("goodput                   0.30 requests/s (50.0% of all)"),
      std::string::npos);
}

TEST(Slo, ReadsUnits) {
  const auto slo = parse_slo("ttft=500ms,tpot=50,e2e=2s");
  EXPECT_NEAR(*slo.ttft, 0.5, 1e-12);
  EXPECT_NEAR(*slo.tpot, 0.05, 1e-12);
  EXPECT_NEAR(*slo.latency, 2, 1e-12);
  EXPECT_FALSE(parse_slo("").any());
  for (const char* bad : {"x", "ttft", "ttft=", "ttft=0", "ttft=-1", "ttft=1h", "ttft=nan", "itl=5"})
    EXPECT_THROW(parse_slo(bad), Error) << bad;
}

TEST(Plot, IsCompleteWhateverTheRun) {
  load::Run run;
  EXPECT_NE(plot(run, summarise(run, {}, false), "<a&b>", "\"c\"").find("&lt;a&amp;b&gt;"),
            std::string::npos);
  for (int i = 0; i < 3; ++i) {
    RequestRecord request;
    request.due = request.sent = i;
    request.first = i + 0.1;
    request.last = request.end = i + 0.5;
    request.events = 5;
    request.fault = i == 2 ? Fault::timeout : Fault::none;
    run.requests.push_back(request);
    run.gaps.add(0.1);
    run.ticks.push_back({i + 0.5, 1, 5});
  }
  run.events = 15;
  run.seconds = 2.5;
  const auto svg = plot(run, summarise(run, {}, false), "t", "s");
  EXPECT_EQ(svg.find("nothing to show"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_NE(svg.find("1 failed"), std::string::npos);
}

}  // namespace
}  // namespace cairn::load
