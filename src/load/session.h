// What a load consists of: sessions of one or more turns, and where they come from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace cairn::load {

// Equal keys stand for equal tokens: of two parts with one key the shorter is a prefix of the longer.
struct Part {
  uint64_t key = 0;
  int64_t tokens = 0;
  bool operator==(const Part&) const = default;
};

struct Turn {
  std::vector<Part> prompt;  // what this turn adds to the conversation
  int64_t answer_tokens = 0;
  double pause = 0;  // seconds between the answer before it and this turn
};

struct Session {
  double at = 0;             // seconds since the start when it should begin; closed loops ignore it
  std::vector<Part> system;  // before the first turn, in a message of its own where the API has messages
  std::vector<Turn> turns;
  uint64_t key = 0;  // of its own
};

int64_t total_tokens(const std::vector<Part>&);

// Sessions one after the other, by growing `at`.
class SessionSource {
 public:
  virtual ~SessionSource() = default;
  virtual std::optional<Session> next() = 0;
};

// A length in tokens: "200", "100-400" (uniform), "normal:200,50", "lognormal:200,0.8" (median and sigma of
// the logarithm), "exponential:200". What is drawn is at least 1 and, for the open distributions, at most 20
// times the middle. Throws Error(invalid_argument).
class Length {
 public:
  explicit Length(int64_t fixed = 1) : low_(double(fixed)), high_(double(fixed)) {}
  static Length parse(const std::string& text, const std::string& flag);

  template <typename Random>
  int64_t draw(Random& random) const;
  std::string text() const;

 private:
  enum class Shape { uniform, normal, lognormal, exponential };
  Shape shape_ = Shape::uniform;
  double low_, high_;  // uniform: the bounds; others: middle and spread
};

struct SyntheticOptions {
  int64_t sessions = 100;
  Length prompt{512}, answer{128};
  int64_t shared_prefix = 0;  // tokens of a system message that every session of a group begins with
  int64_t groups = 1;         // different shared prefixes
  int64_t turns = 1;
  double pause = 0;  // seconds of thinking between an answer and the next turn, exponentially distributed
  // Sessions per second; 0: all at once (a closed loop ignores it). burstiness is the shape of gamma
  // distributed gaps: 1 Poisson, below 1 bursts, above 1 more even; infinity: constant gaps.
  double rate = 0, burstiness = 1;
  uint64_t seed = 0;
};

std::unique_ptr<SessionSource> synthetic_sessions(const SyntheticOptions&);

// A good 64-bit mix of both, for keys (splitmix64's finaliser).
uint64_t mix(uint64_t a, uint64_t b = 0);

}  // namespace cairn::load
