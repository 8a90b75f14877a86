#include "load/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <random>

#include "base/error.h"
#include "load/random.h"

namespace cairn::load {
namespace {

constexpr double kLongest = 1e9;  // tokens

class Synthetic final : public SessionSource {
 public:
  explicit Synthetic(const SyntheticOptions& options) : options_(options), random_(mix(options.seed, 1)) {}

  std::optional<Session> next() override {
    if (made_ == options_.sessions) return std::nullopt;
    Session session;
    session.key = mix(mix(options_.seed, 2), uint64_t(made_));
    session.at = clock_;
    clock_ += gap();
    if (options_.shared_prefix > 0) {
      const auto group = options_.groups > 1 ? random_() % uint64_t(options_.groups) : 0;
      session.system = {{mix(mix(options_.seed, 3), group), options_.shared_prefix}};
    }
    for (int64_t t = 0; t < options_.turns; ++t) {
      Turn turn;
      turn.prompt = {{mix(session.key, uint64_t(t)), options_.prompt.draw(random_)}};
      turn.answer_tokens = options_.answer.draw(random_);
      if (t > 0 && options_.pause > 0)
        turn.pause = std::exponential_distribution<double>(1 / options_.pause)(random_);
      session.turns.push_back(std::move(turn));
    }
    ++made_;
    return session;
  }

 private:
  double gap() {
    if (options_.rate <= 0) return 0;
    if (std::isinf(options_.burstiness)) return 1 / options_.rate;
    return std::gamma_distribution<double>(options_.burstiness,
                                           1 / (options_.rate * options_.burstiness))(random_);
  }

  SyntheticOptions options_;
  Random random_;
  int64_t made_ = 0;
  double clock_ = 0;
};

double number(std::string_view text, const std::string& flag, const std::string& whole) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0) || value > kLongest)
    fail(ErrorKind::invalid_argument,
         "{} {}: '{}' is not a number of tokens from 1 to {:g}; examples: 200, 100-400, normal:200,50, "
         "lognormal:200,0.8, exponential:200",
         flag, whole, text, kLongest);
  return value;
}

}  // namespace

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t total_tokens(const std::vector<Part>& parts) {
  int64_t total = 0;
  for (const auto& part : parts) total += part.tokens;
  return total;
}

Length Length::parse(const std::string& text, const std::string& flag) {
  Length length;
  const size_t colon = text.find(':');
  if (colon != text.npos) {
    const std::string name = text.substr(0, colon), rest = text.substr(colon + 1);
    const size_t comma = rest.find(',');
    length.low_ = number(std::string_view(rest).substr(0, comma), flag, text);
    if (name == "exponential" && comma == rest.npos) {
      length.shape_ = Shape::exponential;
      return length;
    }
    if ((name != "normal" && name != "lognormal") || comma == rest.npos)
      fail(ErrorKind::invalid_argument,
           "{} {}: it takes normal:MEAN,DEVIATION, lognormal:MEDIAN,SIGMA or exponential:MEAN", flag, text);
    length.shape_ = name == "normal" ? Shape::normal : Shape::lognormal;
    length.high_ = number(std::string_view(rest).substr(comma + 1), flag, text);
    return length;
  }
  const size_t dash = text.find('-', 1);
  length.low_ = std::floor(number(std::string_view(text).substr(0, dash), flag, text));
  length.high_ = dash == text.npos ? length.low_
                                   : std::floor(number(std::string_view(text).substr(dash + 1), flag, text));
  if (length.low_ < 1 || length.high_ < length.low_)
    fail(ErrorKind::invalid_argument,
         "{} {}: it must be 1 or more, and the second number not below the first", flag, text);
  return length;
}

template <typename Random>
int64_t Length::draw(Random& random) const {
  double value = low_;
  switch (shape_) {
    case Shape::uniform:
      return low_ == high_ ? int64_t(low_)
                           : std::uniform_int_distribution<int64_t>(int64_t(low_), int64_t(high_))(random);
    case Shape::normal: value = std::normal_distribution<double>(low_, high_)(random); break;
    case Shape::lognormal: value = std::lognormal_distribution<double>(std::log(low_), high_)(random); break;
    case Shape::exponential: value = std::exponential_distribution<double>(1 / low_)(random); break;
  }
  return int64_t(std::clamp(std::round(value), 1.0, std::min(20 * low_ + 1, kLongest)));
}
template int64_t Length::draw(Random&) const;

std::string Length::text() const {
  switch (shape_) {
    case Shape::uniform: return low_ == high_ ? fmt::format("{}", low_) : fmt::format("{}-{}", low_, high_);
    case Shape::normal: return fmt::format("normal:{},{}", low_, high_);
    case Shape::lognormal: return fmt::format("lognormal:{},{}", low_, high_);
    case Shape::exponential: return fmt::format("exponential:{}", low_);
  }
  return "";
}

std::unique_ptr<SessionSource> synthetic_sessions(const SyntheticOptions& options) {
  return std::make_unique<Synthetic>(options);
}

}  // namespace cairn::load
