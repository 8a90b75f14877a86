#include "load/servegen.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"
#include "load/lines.h"
#include "load/random.h"

namespace cairn::load {
namespace {

constexpr std::string_view kTraceEnd = "-trace.csv", kDatasetEnd = "-dataset.json";
constexpr double kMostTokens = 1e9;

bool names_client(const std::string& name) {
  return name.rfind("chunk-", 0) == 0 && name.size() > kTraceEnd.size() &&
         name.compare(name.size() - kTraceEnd.size(), kTraceEnd.size(), kTraceEnd) == 0;
}

struct Window {
  double begin = 0, end = 0, rate = 0;  // seconds, requests per second
  double shape = 1;                     // of the gaps; their mean is 1 / rate
  bool weibull = false;
};

// Lengths of one longer window. A prompt of images and text is so many tokens of text here.
struct Lengths {
  Histogram text, image_tokens, image_count, answer;

  int64_t prompt(Random& random) const {
    int64_t tokens = text.draw(random);
    for (int64_t i = std::min<int64_t>(64, image_count.draw(random)); i > 0; --i)
      tokens += image_tokens.draw(random);
    return std::max<int64_t>(1, tokens);
  }
};

std::vector<Window> read_windows(const std::filesystem::path& path) {
  std::vector<Window> windows;
  const std::string text = read_text_file(path);
  each_line(text, [&](std::string_view line, size_t number) {
    if (line.empty()) return;
    const std::string where = fmt::format("{}: line {}", path.string(), number);
    const auto fields = columns(line);
    if (fields.size() != 6)
      fail(ErrorKind::invalid_file,
           "{}: it has {} columns; ServeGen's have time, rate, deviation, kind, shape "
           "and scale",
           where, fields.size());
    Window window;
    window.begin = read_number(fields[0], 0, 1e9, where, "the time");
    window.rate = read_number(fields[1], 0, 1e6, where, "the rate");
    if (window.rate > 0) {
      if (fields[3] == "Gamma" || fields[3] == "Weibull") {
        window.weibull = fields[3] == "Weibull";
        // Shapes of 0.02 occur; far below, a draw is either nothing or overflows.
        window.shape = read_number(fields[4], 1e-3, 1e6, where, "the shape");
      } else if (!fields[3].empty()) {
        fail(ErrorKind::invalid_file, "{}: gaps are of kind '{}'; Gamma and Weibull are known", where,
             formats::shown(fields[3], 40));
      }
    }
    if (!windows.empty()) {
      if (window.begin <= windows.back().begin)
        fail(ErrorKind::invalid_file, "{}: its time {} does not come after {}", where, window.begin,
             windows.back().begin);
      windows.back().end = window.begin;
    }
    windows.push_back(window);
  });
  if (windows.empty()) fail(ErrorKind::invalid_file, "{}: it is empty", path.string());
  auto& last = windows.back();
  last.end = last.begin + (windows.size() > 1 ? last.begin - windows[windows.size() - 2].begin : 600);
  return windows;
}

Histogram field_histogram(const nlohmann::json& object, const char* field, const std::string& where,
                          bool required) {
  const auto found = object.find(field);
  if (found == object.end() && !required) return {};
  if (found == object.end() || !found->is_string())
    fail(ErrorKind::invalid_file, "{}: it has no text field {}", where, field);
  return parse_histogram(found->get_ref<const std::string&>(), fmt::format("{}: {}", where, field));
}

std::map<double, Lengths> read_lengths(const std::filesystem::path& path) {
  const auto json = formats::read_json_file(path);
  std::map<double, Lengths> all;
  if (!json.is_object()) fail(ErrorKind::invalid_file, "{}: it is no JSON object", path.string());
  for (const auto& [time, object] : json.items()) {
    const std::string where = fmt::format("{}: {}", path.string(), formats::shown(time, 40));
    if (!object.is_object()) fail(ErrorKind::invalid_file, "{}: it is no JSON object", where);
    Lengths lengths;
    const bool text_only = object.contains("input_tokens");
    lengths.text = field_histogram(object, text_only ? "input_tokens" : "text_tokens", where, true);
    lengths.image_tokens = field_histogram(object, "image_tokens", where, false);
    lengths.image_count = field_histogram(object, "image_count", where, false);
    lengths.answer = field_histogram(object, "output_tokens", where, true);
    const double begin = read_number(time, 0, 1e9, where, "the time");
    // No length was seen in windows without requests; the window before stands for them.
    if (!lengths.text.values.empty() && !lengths.answer.values.empty())
      all.emplace(begin, std::move(lengths));
  }
  if (all.empty()) fail(ErrorKind::invalid_file, "{}: it describes no lengths", path.string());
  return all;
}

// The arrivals of one client.
class Client {
 public:
  Client(const std::filesystem::path& trace, double start, uint64_t seed)
      : windows_(read_windows(trace)), random_(seed), clock_(start) {
    std::string name = trace.filename().string();
    name.replace(name.size() - kTraceEnd.size(), kTraceEnd.size(), kDatasetEnd);
    lengths_ = read_lengths(trace.parent_path() / name);
    advance();
  }

  double at() const { return clock_; }  // infinity: no more
  Turn take() {
    auto lengths = lengths_.upper_bound(clock_);
    if (lengths != lengths_.begin()) --lengths;
    Turn turn;
    turn.prompt = {{random_(), lengths->second.prompt(random_)}};
    turn.answer_tokens = std::max<int64_t>(1, lengths->second.answer.draw(random_));
    advance();
    return turn;
  }

 private:
  // To the next arrival. A gap that leaves the window is drawn anew in the next one that has a rate.
  void advance() {
    for (; window_ < windows_.size(); ++window_) {
      const Window& window = windows_[window_];
      if (window.rate <= 0 || window.end <= clock_) continue;
      clock_ = std::max(clock_, window.begin) + gap(window);
      if (clock_ < window.end) return;
      clock_ = window.end;
    }
    clock_ = std::numeric_limits<double>::infinity();
  }

  double gap(const Window& window) {
    const double mean = 1 / window.rate;
    double drawn = 0;
    if (window.weibull) {
      const double scale = mean / std::tgamma(1 + 1 / window.shape);
      drawn =
          std::isfinite(1 / scale) ? std::weibull_distribution<double>(window.shape, scale)(random_) : mean;
    } else {
      drawn = std::gamma_distribution<double>(window.shape, mean / window.shape)(random_);
    }
    return std::isfinite(drawn) ? drawn : mean;
  }

  std::vector<Window> windows_;
  std::map<double, Lengths> lengths_;
  Random random_;
  size_t window_ = 0;
  double clock_ = 0;
};

class ServeGen final : public SessionSource {
 public:
  ServeGen(std::vector<Client> clients, double start, uint64_t seed)
      : clients_(std::move(clients)), start_(start), seed_(seed) {}

  std::optional<Session> next() override {
    const auto first = std::min_element(clients_.begin(), clients_.end(),
                                        [](const Client& a, const Client& b) { return a.at() < b.at(); });
    if (std::isinf(first->at())) return std::nullopt;
    Session session;
    session.key = mix(seed_, made_++);
    session.at = first->at() - start_;
    session.turns.push_back(first->take());
    return session;
  }

 private:
  std::vector<Client> clients_;
  double start_;
  uint64_t seed_, made_ = 0;
};

}  // namespace

Histogram parse_histogram(std::string_view text, const std::string& name) {
  Histogram histogram;
  const auto wrong = [&](size_t at) {
    fail(ErrorKind::invalid_file,
         "{}: at byte {} it is no dictionary of lengths and shares such as {{224: 0.5}}", name, at);
  };
  size_t at = 0;
  const auto skip = [&] {
    while (at < text.size() && text[at] == ' ') ++at;
  };
  const auto expect = [&](char c) {
    skip();
    if (at == text.size() || text[at] != c) wrong(at);
    ++at;
  };
  const auto number = [&] {
    skip();
    double value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc() || !(value >= 0) || value > kMostTokens) wrong(at);
    at = size_t(end - text.data());
    return value;
  };
  expect('{');
  skip();
  double sum = 0;
  for (bool more = at < text.size() && text[at] != '}'; more;) {
    const double value = number();
    expect(':');
    const double share = number();
    if (share > 0) {
      histogram.values.push_back(int64_t(value));
      histogram.sums.push_back(sum += share);
    }
    skip();
    more = at < text.size() && text[at] == ',';
    if (more) ++at;
  }
  expect('}');
  skip();
  if (at != text.size()) wrong(at);
  return histogram;
}

template <typename Engine>
int64_t Histogram::draw(Engine& random) const {
  if (values.empty()) return 0;
  const double place = std::uniform_real_distribution<double>(0, sums.back())(random);
  const auto found = std::upper_bound(sums.begin(), sums.end(), place);
  return values[std::min(size_t(found - sums.begin()), values.size() - 1)];
}
template int64_t Histogram::draw(Random&) const;

bool is_servegen(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return names_client(path.filename().string());
  for (const auto& entry : std::filesystem::directory_iterator(path, ignored))
    if (names_client(entry.path().filename().string())) return true;
  return false;
}

std::unique_ptr<SessionSource> servegen_sessions(const std::filesystem::path& path, double start,
                                                 uint64_t seed) {
  std::vector<std::filesystem::path> traces;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (names_client(entry.path().filename().string())) traces.push_back(entry.path());
  } else {
    traces.push_back(path);
  }
  std::sort(traces.begin(), traces.end());  // the same seed means the same load on every file system
  std::vector<Client> clients;
  for (const auto& trace : traces) clients.emplace_back(trace, start, mix(seed, clients.size()));
  return std::make_unique<ServeGen>(std::move(clients), start, seed);
}

}  // namespace cairn::load
