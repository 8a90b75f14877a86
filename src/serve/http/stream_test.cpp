// Answers that come piece by piece, from other threads, to clients that are slow, silent or gone.
#include <atomic>
#include <deque>
#include <future>

#include "base/steady_seconds.h"
#include "serve/http/http_testing.h"

namespace cairn::serve {
namespace {

using namespace testing;

// Hands the replies of GET /stream over to the test, as an engine thread would get them.
struct Streams {
  explicit Streams(bool through) : write_through(through) {}
  const bool write_through;
  std::mutex mutex;
  std::deque<std::shared_ptr<Reply>> replies;
  std::atomic<int> gone{0};

  void add_route(HttpServer& server) {
    server.write_through(write_through);
    server.route("GET", "/stream", [this](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->on_gone([this] { ++gone; });
      reply->start(200, "text/event-stream");
      const std::lock_guard lock(mutex);
      replies.push_back(std::move(reply));
    });
    server.route("GET", "/wait", [this](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->on_gone([this] { ++gone; });
      const std::lock_guard lock(mutex);
      replies.push_back(std::move(reply));
    });
    server.route("GET", "/health", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
  }
  std::shared_ptr<Reply> next() {
    std::shared_ptr<Reply> reply;
    eventually([&] {
      const std::lock_guard lock(mutex);
      if (replies.empty()) return false;
      reply = std::move(replies.front());
      replies.pop_front();
      return true;
    });
    return reply;
  }
};

// With and without HttpServer::write_through().
class Stream : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Writes, Stream, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Through" : "Queued"; });

class Drain : public Stream {};
INSTANTIATE_TEST_SUITE_P(Writes, Drain, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "Through" : "Queued"; });

constexpr std::string_view kStream = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
constexpr std::string_view kWait = "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";

TEST_P(Stream, ArrivesPieceByPieceAndEnds) {
  Streams streams{GetParam()};
  RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
  Client client = running.client();
  client.send(kStream);
  const auto reply = streams.next();
  ASSERT_TRUE(reply);
  ASSERT_TRUE(client.wait_for("\r\n\r\n"));
  EXPECT_TRUE(reply->write(sse_event("one\ntwo", "message")));
  ASSERT_TRUE(client.wait_for("event: message\ndata: one\ndata: two\n\n"));
  EXPECT_TRUE(reply->write(""));
  EXPECT_TRUE(reply->write("data: [DONE]\n\n"));
  reply->finish();
  reply->finish();  // twice does nothing
  EXPECT_FALSE(reply->write("late"));
  const Answer answer = client.answer();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.header("Cache-Control"), "no-cache");
  EXPECT_EQ(answer.body, "event: message\ndata: one\ndata: two\n\ndata: [DONE]\n\n");
  EXPECT_EQ(client.ask("GET", "/health").status, 200);  // and the connection lives on
  EXPECT_EQ(streams.gone, 0);
  EXPECT_EQ(running.server().stats().gone, 0u);
  client.send("HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const auto head = streams.next();
  EXPECT_TRUE(head->write("not sent"));
  head->finish();
  EXPECT_EQ(client.answer("HEAD").status, 200);
  EXPECT_EQ(client.ask("GET", "/health").status, 200);
}

TEST_P(Stream, BreaksOffVisiblyWhenItsReplyIsDropped) {
  Streams streams{GetParam()};
  RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
  Client client = running.client();
  client.send(kStream);
  auto reply = streams.next();
  reply->write("data: half\n\n");
  reply.reset();
  const Answer answer = client.answer();
  EXPECT_EQ(answer.body, "data: half\n\n");
  EXPECT_FALSE(answer.complete);
  client.send(kWait);
}

TEST_P(Stream, SilenceIsFilledWithComments) {
  Streams streams{GetParam()};
  HttpOptions options;
  options.comment_interval = 40ms;
  RunningServer running(options, [&](HttpServer& server) { streams.add_route(server); });
  Client client = running.client();
  client.send(kStream);
  const auto reply = streams.next();
  ASSERT_TRUE(client.wait_for(": keep-alive\n\n"));
  client.received().clear();
  ASSERT_TRUE(client.wait_for(": keep-alive\n\n"));
  reply->finish();
}

TEST(WriteThrough, NeedsNoIoThread) {
  Streams streams{true};
  std::promise<void> busy, go;
  RunningServer running({}, [&](HttpServer& server) {
    streams.add_route(server);
    server.route("GET", "/block", [&](HttpRequest, std::shared_ptr<Reply> reply) {
      busy.set_value();
      go.get_future().wait();
      reply->respond({});
    });
  });
  Client client = running.client(), other = running.client();
  client.send(kStream);
  const auto reply = streams.next();
  ASSERT_TRUE(reply);
  ASSERT_TRUE(client.wait_for("\r\n\r\n"));
  other.send("GET /block HTTP/1.1\r\nHost: localhost\r\n\r\n");
  busy.get_future().wait();
  EXPECT_TRUE(reply->write("data: one\n\n", steady_seconds()));
  EXPECT_TRUE(client.wait_for("data: one\n\n"));
  EXPECT_EQ(running.server().stats().delivered.count(), 1u);
  // What the socket does not take waits for the I/O thread, in order.
  const std::string piece(100'000, 'x');
  for (int i = 0; i < 9; ++i) EXPECT_TRUE(reply->write(piece));
  reply->finish();
  go.set_value();
  EXPECT_EQ(other.answer().status, 200);
  const Answer answer = client.answer();
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.body.size(), 11 + 9 * piece.size());
}

TEST_P(Stream, NoticesClientsThatGo) {
  Streams streams{GetParam()};
  RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
  int gone = 0;
  for (const bool reset : {false, true})
    for (const auto request : {kStream, kWait}) {
      Client client = running.client();
      client.send(request);
      const auto reply = streams.next();
      EXPECT_FALSE(reply->gone());
      client.kill(reset);
      ++gone;
      EXPECT_TRUE(eventually([&] { return streams.gone == gone; }));
      EXPECT_TRUE(reply->gone());
      if (request == kStream) {
        EXPECT_FALSE(reply->write("data: x\n\n"));
        reply->finish();
      } else {
        reply->respond({});
      }
      bool told = false;
      reply->on_gone([&] { told = true; });
      EXPECT_TRUE(told);
    }
  // Also when it has sent more than the server reads ahead, so that nothing is read any more.
  Client client = running.client();
  client.send(kWait);
  const auto reply = streams.next();
  client.send("GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(100'000, 'x'));
  std::this_thread::sleep_for(50ms);
  client.kill();
  EXPECT_TRUE(eventually([&] { return streams.gone == gone + 1; }));
  EXPECT_TRUE(eventually([&] { return running.server().stats().running == 0; }));
  EXPECT_EQ(running.server().stats().gone, uint64_t(gone) + 1);
}

TEST_P(Stream, ASlowClientWaitsAlone) {
  Streams streams{GetParam()};
  HttpOptions options;
  options.write_queue_bytes = 256 << 10;
  RunningServer running(options, [&](HttpServer& server) { streams.add_route(server); });
  Client slow(running.port(), 4096), other = running.client();
  slow.send(kStream);
  const auto to_slow = streams.next();
  other.send(kStream);
  const auto to_other = streams.next();
  const std::string event = "data: " + std::string(1000, 'x') + "\n\n";
  size_t written = 0;
  const auto began = std::chrono::steady_clock::now();
  while (to_slow->write(event)) {
    written += event.size();
    ASSERT_LE(to_slow->queued(), options.write_queue_bytes);
    ASSERT_LT(written, size_t{64} << 20);
    ASSERT_TRUE(to_other->write("data: quick\n\n"));
    if (written % (64 * event.size()) == 0) std::this_thread::sleep_for(1ms);
    if (to_slow->queued() > 0 && other.received().size() > 1 << 20) other.received().clear();
    other.more(0ms);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, 20s);
  EXPECT_TRUE(to_slow->gone());
  EXPECT_TRUE(eventually([&] { return streams.gone == 1; }));
  EXPECT_EQ(running.server().stats().overflowed, 1u);
  to_other->finish();
  EXPECT_TRUE(other.wait_for("0\r\n\r\n"));
  // The slow client learns that its stream is not complete.
  while (slow.more())
    slow.received().erase(0, slow.received().size() - std::min<size_t>(slow.received().size(), 8));
  EXPECT_EQ(slow.received().find("0\r\n\r\n"), std::string::npos);
}

TEST_P(Stream, AClientThatStopsReadingIsCutOff) {
  Streams streams{GetParam()};
  HttpOptions options;
  options.write_timeout = 200ms;
  options.write_queue_bytes = 64 << 20;
  RunningServer running(options, [&](HttpServer& server) { streams.add_route(server); });
  Client stuck(running.port(), 4096);
  stuck.send(kStream);
  const auto reply = streams.next();
  const std::string event(32 << 10, 'x');
  for (int i = 0; i < 1000; ++i) reply->write(event);
  EXPECT_TRUE(eventually([&] { return streams.gone == 1; }));
  EXPECT_GE(running.server().stats().timeouts, 1u);
}

TEST_P(Stream, ManyThreadsWriteWhileClientsComeAndGo) {
  Streams streams{GetParam()};
  HttpOptions options;
  options.io_threads = 2;
  RunningServer running(options, [&](HttpServer& server) { streams.add_route(server); });
  constexpr int kClients = 60;
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int w = 0; w < 3; ++w)
    writers.emplace_back([&] {
      std::vector<std::pair<std::shared_ptr<Reply>, int>> mine;
      while (!stop) {
        {
          const std::lock_guard lock(streams.mutex);
          while (!streams.replies.empty()) {
            mine.emplace_back(std::move(streams.replies.front()), 0);
            streams.replies.pop_front();
          }
        }
        for (auto& [reply, count] : mine) {
          if (++count < 200) reply->write("data: " + std::to_string(count) + "\n\n");
          if (count == 200) reply->finish();
          if (count == 210) reply.reset();
        }
        std::erase_if(mine, [](const auto& one) { return !one.first; });
      }
    });
  std::atomic<int> complete{0}, killed{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t)
    clients.emplace_back([&, t] {
      for (int i = t; i < kClients; i += 4) {
        Client client = running.client();
        client.send(kStream);
        if (i % 3 == 0) {
          client.wait_for("data: 5\n\n");
          client.kill(i % 2 == 0);
          ++killed;
        } else {
          const Answer answer = client.answer();
          complete += answer.complete && answer.body.ends_with("data: 199\n\n");
        }
      }
    });
  for (auto& thread : clients) thread.join();
  EXPECT_EQ(complete, kClients - killed);
  EXPECT_TRUE(eventually([&] { return running.server().stats().connections == 0; }));
  EXPECT_EQ(running.server().stats().running, 0);
  stop = true;
  for (auto& thread : writers) thread.join();
}

TEST_P(Drain, LetsRunningAnswersEndAndTakesNoNewOnes) {
  Streams streams{GetParam()};
  RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
  Client idle = running.client(), streaming = running.client(), waiting = running.client();
  EXPECT_EQ(idle.ask("GET", "/health").status, 200);
  streaming.send(kStream);
  const auto stream = streams.next();
  waiting.send(kWait);
  const auto wait = streams.next();
  running.server().drain(30s);
  EXPECT_TRUE(idle.wait_for_close());
  EXPECT_TRUE(eventually([&] { return !running.client().connected(); }));
  EXPECT_TRUE(running.server().draining());
  EXPECT_TRUE(stream->write("data: last\n\n"));
  stream->finish();
  EXPECT_TRUE(streaming.answer().complete);
  wait->respond({200, "text/plain", "done"});
  const Answer answer = waiting.answer();
  EXPECT_EQ(answer.body, "done");
  EXPECT_EQ(answer.header("Connection"), "close");
  streaming.kill();
  waiting.kill();
  running.join();  // run() has returned
  EXPECT_EQ(streams.gone, 0);
}

TEST_P(Drain, EndsAtItsDeadline) {
  Streams streams{GetParam()};
  RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
  Client client = running.client();
  client.send(kStream);
  const auto reply = streams.next();
  const auto began = std::chrono::steady_clock::now();
  running.server().drain(200ms);
  running.join();
  EXPECT_GE(std::chrono::steady_clock::now() - began, 190ms);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s);
  EXPECT_EQ(streams.gone, 1);
  EXPECT_FALSE(reply->write("data: x\n\n"));
}

TEST_P(Drain, RepliesOutliveTheServer) {
  std::shared_ptr<Reply> stream, wait;
  {
    Streams streams{GetParam()};
    RunningServer running({}, [&](HttpServer& server) { streams.add_route(server); });
    Client first = running.client(), second = running.client();
    first.send(kStream);
    stream = streams.next();
    second.send(kWait);
    wait = streams.next();
    stream->write("data: x\n\n");
  }
  EXPECT_TRUE(stream->gone());
  EXPECT_FALSE(stream->write("data: x\n\n"));
  stream->finish();
  wait->respond({});
  EXPECT_EQ(stream->queued(), 0u);
}

}  // namespace
}  // namespace cairn::serve
