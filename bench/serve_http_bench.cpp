// What the HTTP server costs per token and per connection, without a model. The clients are a second process.
//   serve_http_bench [--clients N] [--steps N] [--pace MS] [--bytes N] [--io-threads N] [--idle N]
// A step writes one event to every stream from one thread, as the engine does after a step. First paced steps
// (the load of a real engine: latencies), then steps as fast as the clients read (the ceiling: events per
// second), then idle connections (memory of each, and how long a request takes beside them). Links:
// cairn_serve_http
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/http/server.h"

namespace {

using Clock = std::chrono::steady_clock;
using namespace cairn::serve;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

double cpu_seconds(int who) {
  rusage usage{};
  getrusage(who, &usage);
  const auto seconds = [](timeval t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * size_t(sysconf(_SC_PAGESIZE));
}

struct Percentiles {
  double p50 = 0, p99 = 0, most = 0;
};

template <typename T>
Percentiles percentiles(std::vector<T> values, double scale) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double part) {
    return double(values[size_t(part * double(values.size() - 1))]) * scale;
  };
  return {at(0.5), at(0.99), at(1)};
}

int connect_to(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror("client");
    std::_Exit(1);
  }
  return fd;
}

void send_text(int fd, const std::string& text) {
  if (send(fd, text.data(), text.size(), MSG_NOSIGNAL) != ssize_t(text.size())) std::_Exit(1);
}

struct ClientReport {
  int64_t events = 0, complete = 0;
  Percentiles latency_us;
};

// Opens `clients` streams and reads them to their ends. Events carry the time at which they were written.
ClientReport read_streams(uint16_t port, int clients) {
  const int poller = epoll_create1(EPOLL_CLOEXEC);
  struct Stream {
    int fd;
    std::string rest;
  };
  std::vector<Stream> streams;
  for (int i = 0; i < clients; ++i) {
    streams.push_back({connect_to(port), ""});
    send_text(streams.back().fd, "GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    epoll_event event{EPOLLIN, {}};
    event.data.u32 = uint32_t(i);
    epoll_ctl(poller, EPOLL_CTL_ADD, streams.back().fd, &event);
  }
  ClientReport report;
  std::vector<int32_t> latencies;  // us
  std::vector<char> buffer(1 << 20);
  epoll_event ready[256];
  for (int open = clients; open > 0;) {
    const int count = epoll_wait(poller, ready, 256, -1);
    for (int r = 0; r < count; ++r) {
      Stream& stream = streams[ready[r].data.u32];
      const ssize_t got = recv(stream.fd, buffer.data(), buffer.size(), 0);
      if (got <= 0) {
        report.complete += stream.rest.ends_with("0\r\n\r\n");
        close(stream.fd);
        --open;
        continue;
      }
      const int64_t now = now_ns();
      stream.rest.append(buffer.data(), size_t(got));
      size_t used = 0;
      for (size_t at = stream.rest.find("t="); at != stream.rest.npos; at = stream.rest.find("t=", at + 2)) {
        const size_t end = stream.rest.find(' ', at);
        if (end == stream.rest.npos) break;
        latencies.push_back(int32_t((now - std::atoll(stream.rest.c_str() + at + 2)) / 1000));
        used = end;
      }
      stream.rest.erase(0, used > 0 ? used : stream.rest.size() - std::min<size_t>(stream.rest.size(), 64));
    }
  }
  report.events = int64_t(latencies.size());
  report.latency_us = percentiles(std::move(latencies), 1);
  return report;
}

struct Server {
  std::mutex mutex;
  std::vector<std::shared_ptr<Reply>> replies;
  HttpServer http;
  uint16_t port;

  static HttpOptions options(int io_threads, int connections) {
    HttpOptions options;
    options.io_threads = io_threads;
    options.connections = connections;
    options.idle_timeout = std::chrono::hours(1);
    return options;
  }
  Server(int io_threads, int connections) : http(options(io_threads, connections)) {
    http.route("GET", "/stream", [this](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->start(200, "text/event-stream");
      const std::lock_guard lock(mutex);
      replies.push_back(std::move(reply));
    });
    http.route("GET", "/health", [](HttpRequest, std::shared_ptr<Reply> reply) { reply->respond({}); });
    port = http.listen();
  }
};

void stream(int clients, int steps, int pace_ms, int bytes, int io_threads) {
  Server server(io_threads, clients + 100);
  int answer[2];
  if (pipe(answer) != 0) std::abort();
  const pid_t child = fork();  // before this process has a thread
  if (child == 0) {
    const ClientReport report = read_streams(server.port, clients);
    const bool told = write(answer[1], &report, sizeof report) == sizeof report;
    std::_Exit(told ? 0 : 1);
  }
  std::thread io([&] { server.http.run(); });
  std::vector<std::shared_ptr<Reply>> replies;
  while (replies.size() < size_t(clients)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::lock_guard lock(server.mutex);
    replies.insert(replies.end(), server.replies.begin(), server.replies.end());
    server.replies.clear();
  }
  const std::string padding(size_t(std::max(0, bytes - 40)), 'x');
  std::vector<int64_t> cost_ns;  // per write, of a step
  const uint64_t sends_before = server.http.stats().sends;
  const double cpu_before = cpu_seconds(RUSAGE_SELF);
  const int64_t began = now_ns();
  double writing = 0;
  for (int step = 0; step < steps; ++step) {
    const int64_t start = now_ns();
    const std::string event = "data: t=" + std::to_string(start) + " " + padding + "\n\n";
    for (const auto& reply : replies)
      if (!reply->write(event)) std::abort();
    const int64_t took = now_ns() - start;
    cost_ns.push_back(took / clients);
    writing += double(took) * 1e-9;
    if (pace_ms > 0) {
      std::this_thread::sleep_until(Clock::time_point(std::chrono::nanoseconds(start)) +
                                    std::chrono::milliseconds(pace_ms));
    } else {
      // As an engine would find it: no step before the last one's bytes have left.
      while (replies[size_t(step) % replies.size()]->queued() > 0) std::this_thread::yield();
    }
  }
  for (const auto& reply : replies) reply->finish();
  ClientReport report;
  if (read(answer[0], &report, sizeof report) != sizeof report) std::abort();
  const double seconds = double(now_ns() - began) * 1e-9;
  const double cpu = cpu_seconds(RUSAGE_SELF) - cpu_before;
  waitpid(child, nullptr, 0);
  const auto sends = double(server.http.stats().sends - sends_before);
  server.http.stop();
  io.join();
  const Percentiles cost = percentiles(cost_ns, 1);
  const double events = double(clients) * steps;
  std::printf(
      "%d streams, %s: %lld of %d complete, %lld of %.0f events; write() %.0f ns (p99 step %.0f, worst "
      "%.0f); ",
      clients,
      pace_ms > 0 ? ("a step each " + std::to_string(pace_ms) + " ms").c_str() : "as fast as they go",
      static_cast<long long>(report.complete), clients, static_cast<long long>(report.events), events,
      cost.p50, cost.p99, cost.most);
  std::printf(
      "to the client p50 %.2f ms, p99 %.2f ms, worst %.2f ms; %.0f events/s; %.2f sends and %.2f us of CPU "
      "per event\n",
      report.latency_us.p50 / 1e3, report.latency_us.p99 / 1e3, report.latency_us.most / 1e3,
      events / seconds, sends / events, (cpu - (pace_ms > 0 ? 0 : writing)) / events * 1e6);
}

void idle(int connections) {
  Server server(1, connections + 10);
  int ready[2], go[2];
  if (pipe(ready) != 0 || pipe(go) != 0) std::abort();
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    if (read(go[0], &byte, 1) != 1) std::_Exit(1);
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    std::vector<int> open;
    const int64_t began = now_ns();
    // Half of them have already been served once.
    char piece[4096];
    for (int i = 0; i < connections; ++i) {
      open.push_back(connect_to(server.port));
      if (i % 2 == 0) continue;
      send_text(open.back(), "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
      if (recv(open.back(), piece, sizeof piece, 0) <= 0) std::_Exit(1);
    }
    const double connecting = double(now_ns() - began) * 1e-9;
    std::vector<int64_t> took;
    for (int i = 0; i < 2000; ++i) {
      const int64_t start = now_ns();
      send_text(open[1], "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
      if (recv(open[1], piece, sizeof piece, 0) <= 0) std::_Exit(1);
      took.push_back(now_ns() - start);
    }
    const Percentiles latency = percentiles(took, 1e-3);
    std::printf("%d idle connections made in %.2f s; beside them a request takes p50 %.0f us, p99 %.0f us; ",
                connections, connecting, latency.p50, latency.p99);
    std::fflush(stdout);
    if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) std::_Exit(1);
    std::_Exit(0);
  }
  std::thread io([&] { server.http.run(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const size_t before = resident_bytes();
  char byte = 1;
  if (write(go[1], &byte, 1) != 1 || read(ready[0], &byte, 1) != 1) std::abort();
  const size_t after = resident_bytes();
  const double cpu_before = cpu_seconds(RUSAGE_SELF);
  std::this_thread::sleep_for(std::chrono::seconds(2));
  const double cpu = (cpu_seconds(RUSAGE_SELF) - cpu_before) / 2;
  std::printf("%.0f bytes each, %.2f %% of a core to watch them (%lld open)\n",
              double(after - before) / connections, cpu * 100,
              static_cast<long long>(server.http.stats().connections));
  if (write(go[1], &byte, 1) != 1) std::abort();
  waitpid(child, nullptr, 0);
  server.http.stop();
  io.join();
}

}  // namespace

int main(int count, char** arguments) {
  int clients = 1000, steps = 200, pace = 50, bytes = 220, io_threads = 1, idles = 9000;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string name = arguments[i];
    const int value = std::atoi(arguments[i + 1]);
    if (name == "--clients") clients = value;
    if (name == "--steps") steps = value;
    if (name == "--pace") pace = value;
    if (name == "--bytes") bytes = value;
    if (name == "--io-threads") io_threads = value;
    if (name == "--idle") idles = value;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (clients > 0) {
    stream(clients, steps, pace, bytes, io_threads);
    stream(clients, steps, 0, bytes, io_threads);
  }
  if (idles > 0) idle(idles);
  return 0;
}
