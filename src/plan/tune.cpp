#include "plan/tune.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>

#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::plan {
namespace {

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, size_t(q * double(values.size())))];
}

// All clients of a load, as listeners; what they hear is noted with its time.
class Clients {
 public:
  Clients(engine::Service& service, const Load& load, int64_t vocabulary)
      : service_(service), load_(load), vocabulary_(vocabulary), open_(load.clients) {
    for (int i = 0; i < load.clients; ++i) clients_.push_back(std::make_shared<Client>(*this, uint32_t(i)));
  }

  void run() {
    for (auto& client : clients_) client->send();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return answering_ == load_.clients || open_ == 0; });
    began = steady_seconds();
    changed_.wait_for(lock, std::chrono::duration<double>(load_.seconds), [&] { return open_ == 0; });
    ended = steady_seconds();
    over_ = true;
    lock.unlock();
    for (auto& client : clients_) service_.cancel(client->id);
    lock.lock();
    changed_.wait(lock, [&] { return open_ == 0; });
    if (error_) throw Error(*error_);
  }

  double began = 0, ended = 0;
  std::vector<double> tokens;        // when each token of an answer came
  std::vector<double> first_tokens;  // seconds from a request to its first token, within the time
  std::vector<double> gaps;
  std::vector<std::pair<double, int64_t>> prompts;  // when a prompt was read, and its computed tokens

 private:
  struct Client : engine::Listener, std::enable_shared_from_this<Client> {
    Client(Clients& of, uint32_t seed) : all(of), random(seed) {}
    void send() {
      engine::GenerateRequest r;
      r.client = std::to_string(reinterpret_cast<uintptr_t>(this));
      r.max_tokens = all.load_.answer_tokens;
      r.ignore_end = true;
      std::mt19937 shared(1);
      for (int64_t i = 0; i < all.load_.prompt_tokens; ++i) {
        auto& source = i < all.load_.shared_tokens ? shared : random;
        r.prompt.push_back(int32_t(source() % uint32_t(all.vocabulary_)));
      }
      sent = steady_seconds(), last = 0;
      id = all.service_.submit(std::move(r), shared_from_this());
    }
    void on_piece(const engine::Piece& piece) override {
      if (piece.tokens.empty()) return;
      const double now = steady_seconds();
      const std::lock_guard lock(all.mutex_);
      all.tokens.push_back(now);
      if (last == 0) {
        all.first_tokens.push_back(now - sent);
        all.prompts.push_back({now, all.load_.prompt_tokens});
        if (!answered) {
          answered = true;
          ++all.answering_;
          all.changed_.notify_all();
        }
      } else {
        all.gaps.push_back(now - last);
      }
      last = now;
    }
    void on_end(const engine::Ended& end) override {
      {
        const std::lock_guard lock(all.mutex_);
        if (end.error && !all.error_) all.error_.emplace(*end.error, end.message);
        if (all.over_ || end.error || end.finish == engine::Finish::cancelled) {
          --all.open_;
          all.changed_.notify_all();
          return;
        }
      }
      send();
    }
    Clients& all;
    std::mt19937 random;
    double sent = 0, last = 0;
    bool answered = false;
    engine::RequestId id = 0;
  };

  engine::Service& service_;
  Load load_;
  int64_t vocabulary_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int open_ = 0, answering_ = 0;
  bool over_ = false;
  std::optional<Error> error_;
  std::vector<std::shared_ptr<Client>> clients_;
};

}  // namespace

Measured measure(const std::filesystem::path& path, const ServerSettings& settings, const Load& load,
                 const engine::EngineOptions& base) {
  Measured result;
  try {
    auto options = base;
    options.threads = settings.threads;
    options.step_tokens = settings.step_tokens;
    options.page_tokens = settings.page_tokens;
    options.context = load.prompt_tokens + load.answer_tokens;
    options.sequences = options.step_logits = std::max<int64_t>(1, settings.max_sequences);
    for (const auto form : {kv::KvForm::f32, kv::KvForm::f16, kv::KvForm::bf16, kv::KvForm::q8_0})
      if (to_string(form) == settings.kv) options.kv_form = form;
    engine::Engine engine(models::open_model(path), options);
    result.planned_bytes = engine.memory().total();
    const auto tokenizer = text::load_tokenizer(path);
    engine::ServiceOptions serving;
    serving.scheduling.max_token_gap = settings.max_token_gap;
    engine::Service service(engine, *tokenizer, serving);
    Clients clients(service, load, engine.model().vocabulary_size);
    const auto before = service.stats();
    clients.run();
    const auto after = service.stats();

    const double seconds = clients.ended - clients.began;
    std::vector<double> parts(size_t(std::max(1, load.parts)), 0.0);
    for (const double t : clients.tokens)
      if (t >= clients.began && t < clients.ended)
        parts[std::min(parts.size() - 1, size_t((t - clients.began) / seconds * double(parts.size())))] +=
            double(parts.size()) / seconds;
    result.answer_tokens_per_second = quantile(parts, 0.5);
    result.quartile_low = quantile(parts, 0.25);
    result.quartile_high = quantile(parts, 0.75);
    for (const auto& [when, tokens] : clients.prompts)
      if (when >= clients.began && when < clients.ended)
        result.prompt_tokens_per_second += double(tokens) / seconds;
    result.first_token_p95 = quantile(clients.first_tokens, 0.95);
    result.between_tokens_p50 = quantile(clients.gaps, 0.5);
    result.between_tokens_p95 = quantile(clients.gaps, 0.95);
    const auto steps = double(after.steps - before.steps);
    result.mean_rows = steps > 0 ? double(after.answer_tokens - before.answer_tokens) / steps : 0;
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::out_of_memory && e.kind() != ErrorKind::invalid_argument) throw;
    result = {};
    result.refused = e.what();
  }
  return result;
}

void set(ServerSettings& settings, const std::string& dimension, const std::string& value) {
  double number = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == value.data() + value.size();
  const auto whole = [&](double low, double high) {
    if (!is_number || number < low || number > high || number != double(int64_t(number)))
      fail(ErrorKind::invalid_argument, "{} is '{}'; it must be a whole number from {} to {}", dimension,
           value, int64_t(low), int64_t(high));
    return int64_t(number);
  };
  if (dimension == "threads") {
    settings.threads = int(whole(1, 1024));
  } else if (dimension == "sequences") {
    settings.max_sequences = whole(1, 65536);
  } else if (dimension == "step") {
    settings.step_tokens = whole(1, 65536);
  } else if (dimension == "page") {
    settings.page_tokens = int(whole(1, 1024));
  } else if (dimension == "gap") {
    if (!is_number || !(number >= 1) || !(number <= 1e6))
      fail(ErrorKind::invalid_argument, "gap is '{}'; it must be milliseconds from 1 to 1000000", value);
    settings.max_token_gap = number / 1000;
  } else if (dimension == "kv") {
    if (value != "f32" && value != "f16" && value != "bf16" && value != "q8_0")
      fail(ErrorKind::invalid_argument, "kv is '{}'; it must be f32, f16, bf16 or q8_0", value);
    settings.kv = value;
  } else {
    fail(ErrorKind::invalid_argument,
         "there is no setting '{}'; there are threads, sequences, step, gap, page and kv", dimension);
  }
}

ServerSettings settings_at(const Search& search, const Point& point) {
  ServerSettings settings;
  for (size_t d = 0; d < point.size(); ++d)
    set(settings, search.dimensions()[d].name, search.dimensions()[d].values[size_t(point[d])]);
  return settings;
}

}  // namespace cairn::plan
