#include "load/load.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <boost/asio/steady_timer.hpp>
#include <ctime>
#include <deque>

namespace cairn::load {
namespace {

constexpr auto kTick = std::chrono::milliseconds(100);
constexpr size_t kMostFaultKinds = 50;

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

class Player final : StreamObserver {
 public:
  Player(boost::asio::io_context& io, Client& client, SessionSource& source, const Alphabet& alphabet,
         const LoadOptions& options)
      : io_(io),
        client_(client),
        source_(source),
        alphabet_(alphabet),
        options_(options),
        arrivals_(io),
        ticker_(io) {}

  Run play() {
    run_.started = utc_now();
    start_ = Clock::now();
    const double cpu_before = cpu_seconds();
    const uint64_t connections_before = client_.connections_made();
    next_ = source_.next();
    if (closed_loop())
      fill();
    else
      arrive();
    tick();
    io_.restart();
    while (!over() && io_.run_one() > 0) {
    }
    arrivals_.cancel();
    ticker_.cancel();
    add_tick();
    run_.abandoned = int64_t(in_flight_);
    if (in_flight_ > 0) client_.close();
    io_.restart();
    io_.poll();  // what was cancelled ends before this object does
    run_.seconds = run_.requests.empty() ? since_start(Clock::now()) : last_end_;
    run_.cpu_seconds = cpu_seconds() - cpu_before;
    run_.connections = client_.connections_made() - connections_before;
    return std::move(run_);
  }

 private:
  struct Active {
    Active(const RequestStyle& style, const Alphabet& alphabet, Session from)
        : session(std::move(from)), conversation(style, alphabet, session) {}
    Session session;
    Conversation conversation;
    size_t turn = 0;
    Clock::time_point due;
  };
  using ActivePtr = std::shared_ptr<Active>;

  bool closed_loop() const { return options_.concurrency > 0; }
  double since_start(Clock::time_point time) const { return seconds_between(start_, time); }
  bool may_start() const {
    return !run_.stopped && (options_.duration <= 0 || since_start(Clock::now()) < options_.duration);
  }
  bool over() const {
    return run_.stopped || (sessions_ == 0 && waiting_.empty() && (!next_ || !may_start()));
  }
  size_t most() const {
    if (closed_loop()) return size_t(options_.concurrency);
    return options_.most_in_flight > 0 ? size_t(options_.most_in_flight) : SIZE_MAX;
  }

  // Closed loop: as many sessions as there is room for.
  void fill() {
    while (sessions_ < most() && next_ && may_start()) {
      begin(std::move(*next_), Clock::now());
      next_ = source_.next();
    }
  }

  // Open loop: the sessions that are due, then sleep until the next.
  void arrive() {
    while (next_ && may_start()) {
      const auto due =
          start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(next_->at));
      if (due > Clock::now()) {
        arrivals_.expires_at(due);
        arrivals_.async_wait([this](boost::system::error_code error) {
          if (!error) arrive();
        });
        return;
      }
      if (sessions_ < most())
        begin(std::move(*next_), due);
      else
        waiting_.emplace_back(std::move(*next_), due);
      next_ = source_.next();
    }
  }

  void begin(Session session, Clock::time_point due) {
    ++sessions_;
    auto active = std::make_shared<Active>(options_.style, alphabet_, std::move(session));
    active->due = due;
    send(active);
  }

  void send(const ActivePtr& active) {
    const Turn& turn = active->session.turns[active->turn];
    Order order;
    order.path = endpoint(options_.style.api);
    order.body = active->conversation.body(turn);
    order.wants_body =
        active->turn + 1 < active->session.turns.size() || !options_.style.response_format.is_null();
    order.timeout = options_.timeout;
    order.observer = this;
    ++in_flight_;
    client_.send(std::move(order), [this, active](Answer&& answer) { done(active, std::move(answer)); });
  }

  void on_text(Clock::time_point, double gap) override {
    ++events_in_tick_;
    ++run_.events;
    if (gap >= 0) run_.gaps.add(gap);
  }

  void done(const ActivePtr& active, Answer&& answer) {
    --in_flight_;
    const Turn& turn = active->session.turns[active->turn];
    RequestRecord record;
    record.due = since_start(active->due);
    record.sent = since_start(answer.sent);
    record.end = last_end_ = since_start(answer.end);
    if (answer.events > 0) {
      record.first = since_start(answer.first);
      record.last = since_start(answer.last);
    }
    record.asked_prompt = total_tokens(turn.prompt);
    if (active->turn == 0) record.asked_prompt += total_tokens(active->session.system);
    record.asked_answer = turn.answer_tokens;
    record.prompt_tokens = answer.prompt_tokens;
    record.answer_tokens = answer.answer_tokens;
    record.cached_tokens = answer.cached_tokens;
    record.events = answer.events;
    record.turn = int(active->turn);
    record.fault = answer.fault;
    record.status = answer.status;
    record.finish_reason = answer.finish_reason;
    const bool good = answer.fault == Fault::none;
    if (good && !options_.style.response_format.is_null()) record.json = judge(answer);
    if (!good) count_fault(answer);
    run_.requests.push_back(std::move(record));
    if (good && ++active->turn < active->session.turns.size() && may_start())
      return next_turn(active, answer);
    --sessions_;
    if (closed_loop()) return fill();
    while (!waiting_.empty() && sessions_ < most()) {
      auto [session, due] = std::move(waiting_.front());
      waiting_.pop_front();
      begin(std::move(session), due);
    }
  }

  void next_turn(const ActivePtr& active, const Answer& answer) {
    active->conversation.add_answer(answer.body);
    const double pause = active->session.turns[active->turn].pause;
    active->due =
        answer.end + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(pause));
    if (pause <= 0) return send(active);
    auto timer = std::make_shared<boost::asio::steady_timer>(io_, active->due);
    timer->async_wait([this, timer, active, alive = std::weak_ptr(alive_)](boost::system::error_code error) {
      if (!alive.expired() && !error && !run_.stopped) send(active);
    });
  }

  RequestRecord::Json judge(const Answer& answer) const {
    if (answer.finish_reason != "stop") return RequestRecord::Json::cut;
    return nlohmann::json::accept(answer.body) ? RequestRecord::Json::valid : RequestRecord::Json::invalid;
  }

  void count_fault(const Answer& answer) {
    std::string kind = to_string(answer.fault);
    if (answer.fault == Fault::status) kind = fmt::format("status {}", answer.status);
    if (!answer.detail.empty()) kind += ": " + answer.detail;
    if (run_.faults.size() >= kMostFaultKinds && !run_.faults.contains(kind)) kind = "others";
    ++run_.faults[kind];
  }

  void add_tick() {
    run_.ticks.push_back({since_start(Clock::now()), int64_t(in_flight_), events_in_tick_});
    events_in_tick_ = 0;
  }

  void tick() {
    ticker_.expires_after(kTick);
    ticker_.async_wait([this](boost::system::error_code error) {
      if (error) return;
      add_tick();
      if (options_.stop && *options_.stop) run_.stopped = true;
      if (options_.progress) options_.progress(int64_t(run_.requests.size()), int64_t(in_flight_));
      tick();
    });
  }

  boost::asio::io_context& io_;
  Client& client_;
  SessionSource& source_;
  const Alphabet& alphabet_;
  const LoadOptions& options_;
  boost::asio::steady_timer arrivals_, ticker_;
  Clock::time_point start_;
  std::optional<Session> next_;
  std::deque<std::pair<Session, Clock::time_point>> waiting_;
  size_t sessions_ = 0, in_flight_ = 0;
  int64_t events_in_tick_ = 0;
  double last_end_ = 0;
  Run run_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);  // for timers that outlive a stopped run
};

}  // namespace

Run run_load(boost::asio::io_context& io, Client& client, SessionSource& source, const Alphabet& alphabet,
             const LoadOptions& options) {
  return Player(io, client, source, alphabet, options).play();
}

}  // namespace cairn::load
