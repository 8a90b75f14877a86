// What the API adds to a token on the engine's thread: reading the answer, writing the event, handing it to
// the I/O thread. A client on loopback takes the events meanwhile. Prints medians of 7 rounds.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "models/model.h"
#include "serve/api/chat.h"
#include "serve/http/server.h"
#include "text/answer/answer_parser.h"

using namespace cairn;

namespace {

constexpr int kTokens = 20'000;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Asks for /stream and reads until the end.
void take(uint16_t port) {
  const int s = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(s, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return;
  const std::string request = "GET /stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  (void)!send(s, request.data(), request.size(), 0);
  char piece[65536];
  while (recv(s, piece, sizeof piece, 0) > 0) {
  }
  close(s);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "models/cairn-stories";
  const auto tokenizer = text::load_tokenizer(path);
  engine::EngineOptions options;
  options.place = engine::Place::cpu;
  options.context = 128;
  engine::Engine engine(models::open_model(path), options);
  engine::Service service(engine, *tokenizer);
  serve::ApiOptions api;
  api.model_name = "bench";
  serve::Serving serving(service, *tokenizer, api);

  serve::HttpOptions http;
  http.write_queue_bytes = 1 << 30;
  serve::HttpServer server(http);
  std::mutex mutex;
  std::condition_variable wake;
  std::shared_ptr<serve::Reply> reply;
  server.route("GET", "/stream", [&](const serve::HttpRequest&, std::shared_ptr<serve::Reply> r) {
    const std::lock_guard lock(mutex);
    reply = std::move(r);
    wake.notify_one();
  });
  const uint16_t port = server.listen();
  std::thread io([&] { server.run(); });

  const auto format = text::AnswerFormat::detect("<think> </think> <tool_call> {{ tools }}");
  for (const bool logprobs : {false, true}) {
    for (const bool parse : {false, true}) {
      std::vector<double> rounds;
      for (int round = 0; round < 7; ++round) {
        std::thread client([&] { take(port); });
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return reply != nullptr; });
        auto facade = serve::chat_facade(serving, std::move(reply),
                                         {.stream = true, .logprobs = logprobs, .top_logprobs = 5}, "bench");
        reply = nullptr;
        lock.unlock();
        text::AnswerParser parser(format, "<|assistant|>\n", {}, true, true);
        const std::vector<text::TokenLogprob> likeliest = {
            {300, -0.1f}, {301, -1.f}, {302, -2.f}, {303, -3.f}, {304, -4.f}};
        const serve::TokenLogprobs token{300, likeliest};
        facade->started();
        const double began = seconds();
        for (int i = 0; i < kTokens; ++i) {
          serve::AnswerDelta delta;
          if (parse)
            delta = parser.add(i % 7 ? " word" : ", \"quoted\"\n");
          else
            delta.content = i % 7 ? " word" : ", \"quoted\"\n";
          facade->delta(0, delta, logprobs ? &token : nullptr);
        }
        rounds.push_back((seconds() - began) / kTokens * 1e6);
        facade->all_ended({});
        client.join();
      }
      std::sort(rounds.begin(), rounds.end());
      fmt::print("{} {}: {:.2f} us a token (from {:.2f} to {:.2f})\n", parse ? "parsed" : "plain ",
                 logprobs ? "with 5 log probabilities" : "text only               ", rounds[3], rounds[0],
                 rounds[6]);
    }
  }
  server.stop();
  io.join();
}
