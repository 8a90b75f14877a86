// For tests only: an HTTP server on loopback that answers with any bytes at any pace, since a hostile server
// does not use a library.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace cairn::formats::testing {

struct LoopbackRequest {
  std::string method, target;
  std::map<std::string, std::string> fields;  // names in lower case

  std::string field(const std::string& name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? "" : found->second;
  }
};

// What goes out: pieces of bytes, each after a pause. Then the connection is closed.
struct LoopbackAnswer {
  struct Piece {
    std::string bytes;
    std::chrono::milliseconds pause{0};
  };
  std::vector<Piece> pieces;

  LoopbackAnswer(std::string bytes)
      : pieces{{std::move(bytes), {}}} {}  // NOLINT: answers are written as text
  explicit LoopbackAnswer(std::vector<Piece> parts) : pieces(std::move(parts)) {}
};

inline std::string http_answer(int status, const std::vector<std::string>& fields,
                               const std::string& body = "") {
  std::string text = "HTTP/1.1 " + std::to_string(status) + " X\r\n";
  for (const auto& field : fields) text += field + "\r\n";
  return text + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class LoopbackServer {
 public:
  using Handler = std::function<LoopbackAnswer(const LoopbackRequest&)>;

  explicit LoopbackServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept_all(); });
  }
  ~LoopbackServer() {
    stop_ = true;
    accepting_.join();
    for (auto& connection : connections_) connection.join();
    close(listener_);
  }
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  int port() const { return port_; }
  std::string address(const std::string& path = "") const {
    return "http://127.0.0.1:" + std::to_string(port_) + path;
  }
  std::vector<LoopbackRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  size_t count(std::string_view method, std::string_view part_of_target = "") const {
    size_t count = 0;
    for (const auto& request : requests())
      count += request.method == method && request.target.find(part_of_target) != std::string::npos;
    return count;
  }
  void set_handler(Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
  }

 private:
  void accept_all() {
    while (!stop_) {
      pollfd ready{listener_, POLLIN, 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (client >= 0) connections_.emplace_back([this, client] { serve(client); });
    }
  }

  void serve(int client) {
    std::string text;
    char piece[4096];
    while (text.find("\r\n\r\n") == std::string::npos && !stop_) {
      pollfd ready{client, POLLIN, 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      const ssize_t got = recv(client, piece, sizeof piece, 0);
      if (got <= 0) break;
      text.append(piece, size_t(got));
    }
    if (text.find("\r\n\r\n") != std::string::npos) answer(client, parse(text));
    shutdown(client, SHUT_WR);
    close(client);
  }

  static LoopbackRequest parse(const std::string& text) {
    LoopbackRequest request;
    request.method = text.substr(0, text.find(' '));
    const size_t target = request.method.size() + 1;
    request.target = text.substr(target, text.find(' ', target) - target);
    for (size_t line = text.find("\r\n") + 2; line < text.size() && text.compare(line, 2, "\r\n") != 0;
         line = text.find("\r\n", line) + 2) {
      const size_t colon = text.find(':', line), end = text.find("\r\n", line);
      std::string name = text.substr(line, colon - line);
      for (char& c : name) c = char(std::tolower(uint8_t(c)));
      request.fields[name] = text.substr(colon + 2, end - colon - 2);
    }
    return request;
  }

  void answer(int client, const LoopbackRequest& request) {
    Handler handler;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      handler = handler_;
    }
    for (const auto& piece : handler(request).pieces) {
      for (auto left = piece.pause; left.count() > 0 && !stop_; left -= std::chrono::milliseconds(5))
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      std::string_view bytes = piece.bytes;
      if (request.method == "HEAD") bytes = bytes.substr(0, bytes.find("\r\n\r\n") + 4);
      while (!bytes.empty() && !stop_) {
        const ssize_t sent = send(client, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) return;
        bytes.remove_prefix(size_t(sent));
      }
    }
  }

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<LoopbackRequest> requests_;
  std::vector<std::thread> connections_;
  std::thread accepting_;
};

}  // namespace cairn::formats::testing
