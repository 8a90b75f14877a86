// Ten thousand connections, held by a second process since one may not have so many files.
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>

#include "serve/http/http_testing.h"

namespace cairn::serve {
namespace {

using namespace testing;

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * size_t(sysconf(_SC_PAGESIZE));
}

// Runs `act(port)` in a process of its own, which stays until it is told to go.
class ClientProcess {
 public:
  explicit ClientProcess(const std::function<bool(uint16_t)>& act) {
    if (pipe(to_) != 0 || pipe(from_) != 0) std::abort();
    child_ = fork();
    if (child_ != 0) return;
    uint16_t port = 0;
    char done = 0;
    if (read(to_[0], &port, sizeof port) != sizeof port) std::_Exit(1);
    done = char(act(port));
    if (write(from_[1], &done, 1) != 1 || read(to_[0], &done, 1) != 1) std::_Exit(1);
    std::_Exit(0);
  }
  bool connect(uint16_t port) {
    char done = 0;
    return write(to_[1], &port, sizeof port) == sizeof port && read(from_[0], &done, 1) == 1 && done == 1;
  }
  void go() {
    const char byte = 1;
    if (write(to_[1], &byte, 1) == 1) waitpid(child_, nullptr, 0);
  }

 private:
  int to_[2], from_[2];
  pid_t child_;
};

TEST(ManyConnections, TenThousandIdleOnesDisturbNobody) {
  constexpr int kIdle = 10'000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < kIdle + 1000) GTEST_SKIP() << "the system allows " << files.rlim_max << " files";
  ClientProcess others([](uint16_t port) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    static std::vector<Client> clients;
    for (int i = 0; i < kIdle; ++i) {
      clients.emplace_back(port);
      if (!clients.back().connected()) return false;
      if (i % 4 == 1 && clients.back().ask("GET", "/health").status != 200) return false;
      if (i % 4 == 2) clients.back().send("POST /v1/chat HTTP/1.1\r\nHost: loc");  // half a request
    }
    return true;
  });
  HttpOptions options;
  options.connections = kIdle + 100;
  options.idle_timeout = options.head_timeout = std::chrono::minutes(10);
  std::shared_ptr<Reply> stream;
  std::atomic<bool> streaming{false};
  RunningServer running(options, [&](HttpServer& server) {
    server.route("GET", "/health", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
    server.route("GET", "/stream", [&](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->start(200, "text/event-stream");
      stream = std::move(reply);
      streaming = true;
    });
  });
  EXPECT_EQ(running.client().ask("GET", "/health").status, 200);
  const size_t before = resident_bytes();
  ASSERT_TRUE(others.connect(running.port()));
  ASSERT_TRUE(eventually([&] { return running.server().stats().connections >= kIdle; }));
  const size_t each = (resident_bytes() - before) / kIdle;
  std::printf("%zu bytes for each of %d connections, a quarter of them in the middle of a head\n", each,
              kIdle);
  EXPECT_LT(each, 4096u);
  Client client = running.client();
  client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_TRUE(eventually([&] { return streaming.load(); }));
  std::vector<double> took;
  for (int i = 0; i < 200; ++i) {
    const auto began = std::chrono::steady_clock::now();
    stream->write("data: " + std::to_string(i) + "\n\n");
    ASSERT_TRUE(client.wait_for("data: " + std::to_string(i) + "\n\n"));
    took.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count());
  }
  std::sort(took.begin(), took.end());
  EXPECT_LT(took[100], 2) << "ms for a token beside them";
  stream->finish();
  client.kill();
  others.go();  // ten thousand clients vanish at once
  EXPECT_TRUE(eventually([&] { return running.server().stats().connections == 0; }));
  EXPECT_EQ(running.client().ask("GET", "/health").status, 200);
}

TEST(ManyConnections, DrainUnderLoadLosesNoAnswerItBegan) {
  std::mutex mutex;
  std::vector<std::shared_ptr<Reply>> replies;
  HttpOptions options;
  options.io_threads = 2;
  RunningServer running(options, [&](HttpServer& server) {
    server.route("POST", "/stream", [&](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->start(200, "text/event-stream");
      const std::lock_guard lock(mutex);
      replies.push_back(std::move(reply));
    });
  });
  std::atomic<bool> stop{false};
  std::thread engine([&] {
    std::vector<std::pair<std::shared_ptr<Reply>, int>> mine;
    while (!stop) {
      {
        const std::lock_guard lock(mutex);
        for (auto& reply : replies) mine.emplace_back(std::move(reply), 0);
        replies.clear();
      }
      for (auto& [reply, tokens] : mine) {
        reply->write("data: " + std::to_string(tokens) + "\n\n");
        if (++tokens == 50) reply->finish();
      }
      std::erase_if(mine, [](const auto& one) { return one.second == 50; });
      std::this_thread::sleep_for(1ms);
    }
  });
  std::atomic<int> complete{0}, broken{0}, refused{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 32; ++t)
    clients.emplace_back([&] {
      for (;;) {
        Client client = running.client();
        if (!client.connected()) return;
        const Answer answer = client.ask("POST", "/stream", "", "{}");
        if (answer.status == 0) {  // closed before it answered: this client may try another server
          ++refused;
          return;
        }
        if (answer.complete && answer.body.ends_with("data: 49\n\n"))
          ++complete;
        else
          ++broken;
      }
    });
  std::this_thread::sleep_for(500ms);
  const auto began = std::chrono::steady_clock::now();
  running.server().drain(20s);
  running.join();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 10s);
  for (auto& thread : clients) thread.join();
  stop = true;
  engine.join();
  std::printf("%d complete, %d not begun when the server drained\n", complete.load(), refused.load());
  EXPECT_EQ(broken, 0);
  EXPECT_GT(complete, 32);
}

TEST(ManyConnections, AHundredThousandRequestsLeaveNothingBehind) {
  RunningServer running({}, [](HttpServer& server) {
    server.route("POST", "/stream", [](HttpRequest request, std::shared_ptr<Reply> reply) {
      reply->start(200, "text/event-stream");
      for (int i = 0; i < 5; ++i) reply->write("data: " + request.body + "\n\n");
      reply->finish();
    });
  });
  std::atomic<int> served{0}, failed{0};
  const auto serve = [&](int requests) {
    std::vector<std::thread> clients;
    for (int t = 0; t < 8; ++t)
      clients.emplace_back([&, requests] {
        for (int i = 0; i < requests / 8;) {
          Client client =
              running.client();  // a hundred requests for each connection, of which some are killed
          for (int j = 0; j < 100; ++j, ++i)
            ++(client.ask("POST", "/stream", "", std::string(size_t(j), 'x')).complete ? served : failed);
          client.send("POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
          client.kill(i % 200 == 0);
        }
      });
    for (auto& thread : clients) thread.join();
    EXPECT_TRUE(eventually([&] { return running.server().stats().connections == 0; }));
  };
  serve(20'000);
  const size_t warm = resident_bytes();
  serve(80'000);
  const auto grown = int64_t(resident_bytes()) - int64_t(warm);
  std::printf("%d requests served, memory grew by %ld KB after the first 20,000\n", served.load(),
              long(grown / 1024));
  EXPECT_EQ(failed, 0);
  EXPECT_LT(grown, 1 << 20);
  EXPECT_EQ(running.server().stats().body_bytes, 0);
}

TEST(ManyConnections, ManySlowLorisesDoNotHoldTheServer) {
  HttpOptions options;
  options.head_timeout = 1s;
  options.connections = 600;
  RunningServer running(options, [&](HttpServer& server) {
    server.route("GET", "/health", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
  });
  std::vector<Client> lorises;
  for (int i = 0; i < 500; ++i) lorises.push_back(running.client());
  const auto began = std::chrono::steady_clock::now();
  double worst = 0;
  for (int round = 0; std::chrono::steady_clock::now() - began < 1500ms; ++round) {
    for (auto& loris : lorises) loris.send("GET /health HTTP/1.1\r\n"[round % 22] == '\n' ? "\n" : "a");
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(running.client().ask("GET", "/health").status, 200);
    worst = std::max(worst, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_LT(worst, 0.5);
  for (auto& loris : lorises) loris.kill();
  EXPECT_TRUE(eventually([&] { return running.server().stats().connections == 0; }));
}

}  // namespace
}  // namespace cairn::serve
