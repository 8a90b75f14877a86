#include "load/chaos.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <optional>
#include <random>
#include <set>
#include <unordered_set>

#include "base/error.h"
#include "formats/untrusted_text.h"
#include "load/random.h"

namespace cairn::load {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr const char* kNames[kMischiefs] = {"leave",     "half_head", "half_body",
                                            "malformed", "garbage",   "slow"};
constexpr auto kSlowStep = std::chrono::milliseconds(50);
constexpr size_t kSlowBytes = 64;

// Bodies that are no valid request. What a server takes nevertheless stays short.
std::vector<std::string> malformed_bodies() {
  const auto chat = [](const std::string& members) {
    return R"({"messages":[{"role":"user","content":"hi"}],"prompt":"hi",)" + members + "}";
  };
  std::vector<std::string> bodies{
      "",
      "{",
      "[]",
      "null",
      "\"text\"",
      "\xff\xfe\x00\x01",
      "{}",
      std::string(100'000, '['),
      R"({"max_tokens":2,"messages":[],"prompt":[]})",
      R"({"max_tokens":2,"messages":"x","prompt":{}})",
      R"({"max_tokens":2,"messages":[{"role":"user"}],"prompt":null})",
      R"({"max_tokens":2,"messages":[{"role":7,"content":[7]}],"prompt":[[[1]]]})",
      "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}],\"prompt\":\"\xff\"}",
      R"({"max_tokens":2,"messages":[{"role":"user","content":"\ud800"}],"prompt":"\ud800"})",
      chat(R"("max_tokens":-1)"),
      chat(R"("max_tokens":1e300)"),
      chat(R"("max_tokens":"many")"),
      chat(R"("max_tokens":NaN)"),
      chat(R"("max_tokens":2,"temperature":-5)"),
      chat(R"("max_tokens":2,"temperature":1e400)"),
      chat(R"("max_tokens":2,"top_p":7)"),
      chat(R"("max_tokens":2,"n":1000000000)"),
      chat(R"("max_tokens":2,"n":-1)"),
      chat(R"("max_tokens":2,"stop":{"a":1})"),
      chat(R"("max_tokens":2,"logit_bias":{"-1":1e9})"),
      chat(R"("max_tokens":2,"seed":"x")"),
      chat(R"("max_tokens":2,"stream":"yes")"),
      chat(
          R"("max_tokens":2,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"nothing"}}})")};
  std::string deep = "1";
  for (int i = 0; i < 3000; ++i) deep = "{\"a\":" + deep + "}";
  bodies.push_back(chat("\"max_tokens\":2,\"response_format\":" + deep));
  std::string many;
  for (int i = 0; i < 20'000; ++i) many += (i ? ",\"s" : "\"s") + std::to_string(i) + "\"";
  bodies.push_back(chat("\"max_tokens\":2,\"stop\":[" + many + "]"));
  return bodies;
}

}  // namespace

const char* to_string(Mischief kind) { return kNames[int(kind)]; }

std::vector<Mischief> parse_mischiefs(const std::string& text) {
  std::vector<Mischief> kinds;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string name = text.substr(at, comma - at);
    at = comma + 1;
    const auto found = std::find(std::begin(kNames), std::end(kNames), name);
    if (found == std::end(kNames))
      fail(ErrorKind::invalid_argument,
           "--chaos-kinds {}: '{}' is none of leave, half_head, half_body, malformed, garbage and slow", text,
           name);
    kinds.push_back(Mischief(found - std::begin(kNames)));
  }
  if (kinds.empty())
    for (int i = 0; i < kMischiefs; ++i) kinds.push_back(Mischief(i));
  return kinds;
}

class Troublemaker;

struct Chaos::State : std::enable_shared_from_this<Chaos::State> {
  State(asio::io_context& context, const Client& client, const RequestStyle& like, const Alphabet& words,
        ChaosOptions chosen)
      : io(context),
        address(client.endpoint()),
        style(like),
        alphabet(words),
        options(std::move(chosen)),
        random(mix(options.seed, 21)),
        bodies(malformed_bodies()) {
    const auto& target = client.target();
    path = target.base.target + load::endpoint(style.api);
    head = "Host: " + target.base.host + ":" + target.base.port + "\r\nContent-Type: application/json\r\n";
    if (!target.api_key.empty()) head += "Authorization: Bearer " + target.api_key + "\r\n";
    style.stream = true;
  }

  void begin_one();
  void open_idle();

  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  }
  std::string request(const std::string& body) const {
    return "POST " + path + " HTTP/1.1\r\n" + head + "Content-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + body;
  }
  std::string valid_request(int64_t answer_tokens) {
    Session session;
    Turn turn;
    turn.prompt = {{random(), int64_t(uniform(5, 60))}};
    turn.answer_tokens = answer_tokens;
    return request(Conversation(style, alphabet, session).body(turn));
  }

  asio::io_context& io;
  tcp::endpoint address;
  RequestStyle style;
  const Alphabet& alphabet;
  ChaosOptions options;
  Random random;
  std::vector<std::string> bodies;
  std::string path, head;
  Tally tallies[kMischiefs];
  std::set<std::string> errors;
  std::unordered_set<std::shared_ptr<Troublemaker>> active;
  std::vector<std::shared_ptr<tcp::socket>> idle;
  int64_t long_answer = 2000;
  int64_t begun = 0, idle_begun = 0, idle_opened = 0;
  bool running = false;
};

// One misbehaving connection from its beginning to its end.
class Troublemaker : public std::enable_shared_from_this<Troublemaker> {
 public:
  Troublemaker(std::shared_ptr<Chaos::State> state, Mischief kind)
      : state_(std::move(state)), kind_(kind), socket_(state_->io), timer_(state_->io) {}

  void begin() {
    ++tally().tried;
    prepare();
    error_code error;
    socket_.open(state_->address.protocol(), error);
    // Before connecting, so that the window that is offered is small from the start.
    if (kind_ == Mischief::slow) socket_.set_option(tcp::socket::receive_buffer_size(2048), error);
    socket_.async_connect(state_->address, [self = shared_from_this()](error_code failed) {
      if (self->over_) return;
      if (failed) {
        ++self->tally().refused;
        return self->end();
      }
      self->act();
    });
    timer_.expires_after(std::chrono::milliseconds(int64_t(stay_ * 1e3)));
    timer_.async_wait([self = shared_from_this()](error_code cancelled) {
      if (!cancelled) self->leave();
    });
  }

  void stop() {
    over_ = true;
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  Tally& tally() { return state_->tallies[int(kind_)]; }

  void prepare() {
    auto& s = *state_;
    stay_ = s.options.patience;
    switch (kind_) {
      case Mischief::leave:
        bytes_ = s.valid_request(s.long_answer);
        stay_ = s.uniform(0, 0.5) * s.options.patience;
        break;
      case Mischief::slow:
        bytes_ = s.valid_request(s.long_answer);
        stay_ = 3 * s.options.patience;
        break;
      case Mischief::half_head:
      case Mischief::half_body: {
        const std::string whole = s.valid_request(4);
        const size_t body = whole.find("\r\n\r\n") + 4;
        const bool in_head = kind_ == Mischief::half_head;
        bytes_ = whole.substr(0, in_head ? size_t(s.uniform(1, double(body - 1)))
                                         : size_t(s.uniform(double(body), double(whole.size() - 1))));
        break;
      }
      case Mischief::malformed:
        malformed_ = size_t(s.random() % s.bodies.size());
        bytes_ = s.request(s.bodies[malformed_]);
        stay_ = 15 * s.options.patience;  // its answer is what counts, even behind a queue
        break;
      case Mischief::garbage:
        bytes_.resize(size_t(s.uniform(1, 5000)));
        for (char& c : bytes_) c = char(s.random());
        if (s.random() % 2) bytes_ = "GET / HTTP/1.1\r\n" + bytes_ + "\r\n\r\n";
        break;
    }
  }

  void act() {
    asio::async_write(socket_, asio::buffer(bytes_), [self = shared_from_this()](error_code, size_t) {
      // A server may have closed meanwhile; reading tells.
    });
    read();
  }

  void read() {
    const size_t most = kind_ == Mischief::slow ? kSlowBytes : buffer_.size();
    socket_.async_read_some(asio::buffer(buffer_.data(), most),
                            [self = shared_from_this()](error_code error, size_t n) {
                              if (!self->over_) self->received(error, n);
                            });
  }

  void received(error_code error, size_t bytes) {
    if (error) {
      if (status_ == 0) ++tally().closed;
      return end();
    }
    if (line_.size() < 12) {  // "HTTP/1.1 400"
      line_.append(buffer_.data(), std::min(bytes, 12 - line_.size()));
      if (line_.size() == 12) note_status();
    }
    if (status_ != 0 && (kind_ == Mischief::malformed || kind_ == Mischief::garbage)) return end();
    if (kind_ != Mischief::slow) return read();
    pause_.emplace(state_->io, kSlowStep);
    pause_->async_wait([self = shared_from_this()](error_code) {
      if (!self->over_) self->read();
    });
  }

  void note_status() {
    status_ = std::atoi(line_.c_str() + 9);
    if (status_ < 100 || status_ > 599) status_ = 0;
    ++tally().answered[status_ / 100];
    // Too long for this model's context: what is to be left must be an answer, not a refusal.
    if (status_ == 400 && (kind_ == Mischief::leave || kind_ == Mischief::slow))
      state_->long_answer = std::max<int64_t>(16, state_->long_answer / 2);
    if (kind_ == Mischief::malformed && status_ / 100 == 5 && state_->errors.size() < 50)
      state_->errors.insert(std::to_string(status_) + ": " + formats::shown(state_->bodies[malformed_], 100));
  }

  void leave() {
    if (over_) return;
    if (status_ == 0 || kind_ == Mischief::leave || kind_ == Mischief::slow) ++tally().left;
    if (state_->random() % 2) {  // a reset instead of a polite end
      error_code ignored;
      socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    }
    end();
  }

  void end() {
    stop();
    const auto self = shared_from_this();
    state_->active.erase(self);
    if (state_->running) asio::post(state_->io, [state = state_] { state->begin_one(); });
  }

  std::shared_ptr<Chaos::State> state_;
  const Mischief kind_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::optional<asio::steady_timer> pause_;
  std::string bytes_, line_;
  std::array<char, 4096> buffer_;
  size_t malformed_ = 0;
  int status_ = 0;
  double stay_ = 0;
  bool over_ = false;
};

void Chaos::State::begin_one() {
  if (!running) return;
  const auto kind = options.kinds[size_t(begun++) % options.kinds.size()];
  auto maker = std::make_shared<Troublemaker>(shared_from_this(), kind);
  active.insert(maker);
  maker->begin();
}

// A few at a time: a burst of thousands would overflow the listening queue, which is not what is tested.
void Chaos::State::open_idle() {
  if (!running || idle_begun == options.idle) return;
  ++idle_begun;
  auto socket = std::make_shared<tcp::socket>(io);
  socket->async_connect(address, [state = shared_from_this(), socket](error_code error) {
    if (!state->running) return;
    if (!error) {
      ++state->idle_opened;
      state->idle.push_back(socket);
    }
    state->open_idle();
  });
}

Chaos::Chaos(asio::io_context& io, const Client& client, const RequestStyle& style, const Alphabet& alphabet,
             ChaosOptions options)
    : state_(std::make_shared<State>(io, client, style, alphabet, std::move(options))) {
  if (client.target().base.scheme != "http")
    fail(ErrorKind::unsupported, "{}: misbehaving clients speak plain http only",
         client.target().base.origin());
  if (state_->options.kinds.empty()) state_->options.kinds = parse_mischiefs("");
}

Chaos::~Chaos() { stop(); }

void Chaos::start() {
  state_->running = true;
  for (int64_t i = 0; i < state_->options.clients; ++i) state_->begin_one();
  for (int i = 0; i < 64; ++i) state_->open_idle();
}

void Chaos::stop() {
  state_->running = false;
  for (const auto& maker : std::exchange(state_->active, {})) maker->stop();
  state_->idle.clear();
}

const Tally& Chaos::tally(Mischief kind) const { return state_->tallies[int(kind)]; }
int64_t Chaos::idle_opened() const { return state_->idle_opened; }

int64_t Chaos::idle_open() const {
  return std::count_if(state_->idle.begin(), state_->idle.end(), [](const auto& socket) {
    char byte;
    return ::recv(socket->native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -1 &&
           (errno == EAGAIN || errno == EWOULDBLOCK);
  });
}

std::vector<std::string> Chaos::server_errors() const {
  return {state_->errors.begin(), state_->errors.end()};
}

}  // namespace cairn::load
