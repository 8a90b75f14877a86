// For tests only: a server on loopback that runs on its own threads, and a client that sends any bytes at any
// pace and shows what came back.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "serve/http/server.h"
#include "serve/http/text.h"

namespace cairn::serve::testing {

using namespace std::chrono_literals;

// What a status line, headers and body say. Of a chunked body the chunks are joined.
struct Answer {
  int status = 0;  // 0: none came
  std::string head, body;
  bool complete = false;  // the body ended as its framing promises

  std::string header(std::string_view name) const {
    for (size_t at = head.find("\r\n"); at != head.npos && at + 2 < head.size();
         at = head.find("\r\n", at + 2)) {
      const std::string_view line = std::string_view(head).substr(at + 2, head.find("\r\n", at + 2) - at - 2);
      if (line.size() > name.size() && same_ignoring_case(line.substr(0, name.size()), name) &&
          line[name.size()] == ':')
        return std::string(trimmed(line.substr(name.size() + 1)));
    }
    return "";
  }
};

class Client {
 public:
  explicit Client(uint16_t port, int receive_buffer = 0) {
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0)
      setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Client() { kill(); }
  Client(Client&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)),
        connected_(other.connected_),
        got_(std::move(other.got_)) {}
  Client& operator=(Client&& other) noexcept {
    std::swap(socket_, other.socket_);
    std::swap(connected_, other.connected_);
    std::swap(closed_, other.closed_);
    std::swap(got_, other.got_);
    return *this;
  }

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(size_t(sent));
    }
    return true;
  }
  void end_sending() { shutdown(socket_, SHUT_WR); }
  void kill(bool reset = false) {
    if (socket_ < 0) return;
    const linger hard{1, 0};
    if (reset) setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(std::exchange(socket_, -1));
  }

  // Waits for more bytes; false when the server has closed or nothing came in time.
  bool more(std::chrono::milliseconds patience = 10s) {
    pollfd ready{socket_, POLLIN, 0};
    if (poll(&ready, 1, int(patience.count())) <= 0) return false;
    char piece[16384];
    const ssize_t got = recv(socket_, piece, sizeof piece, 0);
    if (got <= 0) {
      closed_ = true;
      return false;
    }
    got_.append(piece, size_t(got));
    return true;
  }
  bool wait_for(std::string_view text, std::chrono::milliseconds patience = 10s) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (got_.find(text) == got_.npos) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      if (left.count() <= 0 || !more(left)) return got_.find(text) != got_.npos;
    }
    return true;
  }
  // Nothing but the end of the connection comes.
  bool wait_for_close(std::chrono::milliseconds patience = 10s) {
    while (more(patience)) {
    }
    return closed_;
  }
  std::string& received() { return got_; }

  Answer answer(std::string_view method = "GET", std::chrono::milliseconds patience = 10s) {
    Answer answer;
    if (!wait_for("\r\n\r\n", patience)) return answer;
    const size_t end = got_.find("\r\n\r\n");
    answer.head = got_.substr(0, end + 2);
    got_.erase(0, end + 4);
    answer.status = std::atoi(answer.head.c_str() + 9);
    if (answer.status == 100) return this->answer(method, patience);
    if (method == "HEAD" || answer.status == 204) {
      answer.complete = true;
    } else if (answer.header("Transfer-Encoding") == "chunked") {
      read_chunks(answer, patience);
    } else if (const std::string length = answer.header("Content-Length"); !length.empty()) {
      const size_t size = std::stoul(length);
      while (got_.size() < size && more(patience)) {
      }
      answer.complete = got_.size() >= size;
      answer.body = got_.substr(0, size);
      got_.erase(0, answer.body.size());
    } else {
      answer.complete = wait_for_close(patience);
      answer.body = std::exchange(got_, "");
    }
    return answer;
  }

  Answer ask(std::string_view method, std::string_view target, std::string_view fields = "",
             std::string_view body = "") {
    std::string text = std::string(method) + " " + std::string(target) + " HTTP/1.1\r\nHost: localhost\r\n";
    text += fields;
    if (!body.empty() || method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    send(text + "\r\n" + std::string(body));
    return answer(method);
  }

 private:
  void read_chunks(Answer& answer, std::chrono::milliseconds patience) {
    for (;;) {
      while (got_.find("\r\n") == got_.npos)
        if (!more(patience)) return;
      const size_t size = std::stoul(got_, nullptr, 16), begin = got_.find("\r\n") + 2;
      while (got_.size() < begin + size + 2)
        if (!more(patience)) return;
      answer.body += got_.substr(begin, size);
      got_.erase(0, begin + size + 2);
      if (size == 0) {
        answer.complete = true;
        return;
      }
    }
  }

  int socket_ = -1;
  bool connected_ = false, closed_ = false;
  std::string got_;
};

// Runs until it goes out of scope. Routes are added by `prepare`.
class RunningServer {
 public:
  explicit RunningServer(HttpOptions options, const std::function<void(HttpServer&)>& prepare)
      : server_(std::move(options)) {
    prepare(server_);
    port_ = server_.listen();
    thread_ = std::thread([this] { server_.run(); });
  }
  ~RunningServer() {
    server_.stop();
    join();
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  HttpServer& server() { return server_; }
  uint16_t port() const { return port_; }
  Client client() const { return Client(port_); }

 private:
  HttpServer server_;
  uint16_t port_ = 0;
  std::thread thread_;
};

// Until it holds, or the time is over.
inline bool eventually(const std::function<bool()>& holds, std::chrono::milliseconds patience = 10s) {
  for (const auto until = std::chrono::steady_clock::now() + patience; !holds();
       std::this_thread::sleep_for(2ms))
    if (std::chrono::steady_clock::now() > until) return holds();
  return true;
}

}  // namespace cairn::serve::testing
