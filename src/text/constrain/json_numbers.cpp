#include "text/constrain/json_numbers.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace cairn::text::constrain {

namespace {

constexpr size_t kMostDigits = 400;  // 1e308 has 309

int compare_magnitude(const Decimal& a, const Decimal& b) {
  if (a.whole.size() != b.whole.size()) return a.whole.size() < b.whole.size() ? -1 : 1;
  if (const int order = a.whole.compare(b.whole); order != 0) return order < 0 ? -1 : 1;
  const int order = a.fraction.compare(b.fraction);  // "5" < "55": what is missing is zeros
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

struct Edges {  // of one state over the digits
  Machine& machine;
  void digit(int32_t from, int low, int high, int32_t to) {
    if (low <= high)
      machine.states[size_t(from)].bytes.push_back({uint8_t('0' + low), uint8_t('0' + high), to});
  }
  void point(int32_t from, int32_t to) { machine.states[size_t(from)].bytes.push_back({'.', '.', to}); }
};

// Magnitudes (digits without leading zeros, and a fraction) whose order to x is one of those wanted.
Machine compared_with(const Decimal& x, bool less, bool equal, bool greater) {
  Machine m;
  Edges edges{m};
  const size_t n = x.whole.size(), f = x.fraction.size();
  m.add();
  // Whatever follows is decided: digits of a fraction.
  const auto decided_fraction = [&](bool wanted) {
    const int32_t point = m.add(), state = m.add();
    m.states[size_t(state)].final = wanted;
    edges.digit(point, 0, 9, state);
    edges.digit(state, 0, 9, state);
    return std::pair(point, state);
  };
  const auto decided_less = decided_fraction(less), decided_greater = decided_fraction(greater);
  const int32_t less_point = decided_less.first, less_fraction = decided_less.second;
  const int32_t greater_point = decided_greater.first, greater_fraction = decided_greater.second;
  // The fraction, while equal so far: after j digits of it.
  std::vector<int32_t> fraction;
  const int32_t equal_point = m.add();
  for (size_t j = 0; j <= f; ++j) {
    fraction.push_back(m.add());
    m.states[size_t(fraction[j])].final = j == f ? equal : less;
  }
  const auto fraction_step = [&](int32_t from, size_t j) {
    const int digit = j < f ? x.fraction[j] - '0' : 0;
    edges.digit(from, 0, digit - 1, less_fraction);
    edges.digit(from, digit, digit, fraction[std::min(j + 1, f)]);
    edges.digit(from, digit + 1, 9, greater_fraction);
  };
  fraction_step(equal_point, 0);
  for (size_t j = 1; j <= f; ++j) fraction_step(fraction[j], j);
  if (f == 0) fraction_step(fraction[0], 0);
  // More digits than x has before its point.
  const int32_t longer = m.add();
  m.states[size_t(longer)].final = greater;
  edges.digit(longer, 0, 9, longer);
  edges.point(longer, greater_point);
  // After k digits: which way the first difference goes.
  std::vector<int32_t> below(n + 1), same(n + 1), above(n + 1);
  for (size_t k = 1; k <= n; ++k) {
    for (auto* states : {&below, &same, &above}) (*states)[k] = m.add();
    const bool complete = k == n;
    m.states[size_t(below[k])].final = less;
    m.states[size_t(same[k])].final = !complete ? less : f == 0 ? equal : less;
    m.states[size_t(above[k])].final = complete ? greater : less;
    edges.point(below[k], less_point);
    edges.point(same[k], complete ? equal_point : less_point);
    edges.point(above[k], complete ? greater_point : less_point);
  }
  for (size_t k = 0; k < n; ++k) {
    const int digit = x.whole[k] - '0';
    const int32_t from = k == 0 ? 0 : same[k];
    edges.digit(from, 0, digit - 1, below[k + 1]);
    edges.digit(from, digit, digit, same[k + 1]);
    edges.digit(from, digit + 1, 9, above[k + 1]);
    if (k == 0) continue;
    edges.digit(below[k], 0, 9, below[k + 1]);
    edges.digit(above[k], 0, 9, above[k + 1]);
  }
  for (const auto* states : {&below, &same, &above}) edges.digit((*states)[n], 0, 9, longer);
  return m;
}

// How magnitudes are written: no leading zeros, digits after a point.
Machine written(bool fraction) {
  Machine m;
  Edges edges{m};
  const int32_t start = m.add(), zero = m.add(), digits = m.add();
  edges.digit(start, 0, 0, zero);
  edges.digit(start, 1, 9, digits);
  edges.digit(digits, 0, 9, digits);
  m.states[size_t(zero)].final = m.states[size_t(digits)].final = true;
  if (fraction) {
    const int32_t point = m.add(), after = m.add();
    edges.point(zero, point);
    edges.point(digits, point);
    edges.digit(point, 0, 9, after);
    edges.digit(after, 0, 9, after);
    m.states[size_t(after)].final = true;
  }
  return m;
}

// Multiples of a step M * 10^-k: at most k digits after the point, and all digits read as one number (filled
// up to k with zeros) leave nothing when divided by M.
std::optional<Machine> multiples(const Decimal& step, size_t max_states) {
  std::string digits = step.whole + step.fraction;
  const size_t k = step.fraction.size();
  uint64_t modulus = 0;
  for (const char c : digits) {
    modulus = modulus * 10 + uint64_t(c - '0');
    if (modulus * (k + 1) > max_states) return std::nullopt;
  }
  Machine m;
  Edges edges{m};
  m.add();
  const auto state = [&](size_t after, uint64_t rest) { return int32_t(1 + after * modulus + rest); };
  for (uint64_t i = 0; i < (k + 2) * modulus; ++i) m.add();
  std::vector<uint64_t> power(k + 1, 1 % modulus);
  for (size_t j = 1; j <= k; ++j) power[j] = power[j - 1] * 10 % modulus;
  // after: 0 before the point, 1 + j after it and j digits.
  for (int d = 0; d <= 9; ++d) edges.digit(0, d, d, state(0, uint64_t(d) % modulus));
  for (size_t after = 0; after <= k + 1; ++after)
    for (uint64_t rest = 0; rest < modulus; ++rest) {
      const int32_t from = state(after, rest);
      const size_t read = after == 0 ? 0 : after - 1;
      m.states[size_t(from)].final = after != 1 && rest * power[k - read] % modulus == 0;
      if (after == 0 && k > 0) edges.point(from, state(1, rest));
      if (after == 0 || read < k)
        for (int d = 0; d <= 9; ++d)
          edges.digit(from, d, d, state(after == 0 ? 0 : after + 1, (rest * 10 + uint64_t(d)) % modulus));
    }
  trim(m);
  return m;
}

// The magnitudes of one sign. nothing: Machine of no text.
std::optional<Machine> magnitudes(const NumberRange& range, const std::optional<Decimal>& least, bool above,
                                  const std::optional<Decimal>& most, bool below, size_t max_states) {
  std::optional<Machine> m = written(!range.whole);
  if (least) m = intersect(*m, compared_with(*least, false, !above, true), max_states);
  if (m && most) m = intersect(*m, compared_with(*most, true, !below, false), max_states);
  for (const Decimal& step : range.steps) {
    if (!m) break;
    const auto of_step = multiples(step, max_states);
    if (!of_step) return std::nullopt;
    m = intersect(*m, *of_step, max_states);
  }
  return m;
}

Decimal magnitude(Decimal d) {
  d.negative = false;
  return d;
}

}  // namespace

std::optional<Decimal> parse_decimal(std::string_view text) {
  Decimal out;
  if (text.starts_with('-')) {
    out.negative = true;
    text.remove_prefix(1);
  }
  long exponent = 0;
  if (const size_t e = text.find_first_of("eE"); e != text.npos) {
    exponent = std::strtol(std::string(text.substr(e + 1)).c_str(), nullptr, 10);
    text = text.substr(0, e);
  }
  std::string digits;
  long point = 0;
  bool seen_point = false;
  for (const char c : text) {
    if (c == '.') {
      seen_point = true;
    } else if (c >= '0' && c <= '9') {
      digits += c;
      if (!seen_point) ++point;
    } else {
      return std::nullopt;
    }
  }
  if (digits.empty() || exponent > 1000 || exponent < -1000) return std::nullopt;
  point += exponent;
  if (point < 0) {
    digits.insert(0, size_t(-point), '0');
    point = 0;
  }
  if (size_t(point) > digits.size()) digits.append(size_t(point) - digits.size(), '0');
  out.whole = digits.substr(0, size_t(point));
  out.fraction = digits.substr(size_t(point));
  out.whole.erase(0, std::min(out.whole.find_first_not_of('0'), out.whole.size()));
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.whole.empty()) out.whole = "0";
  if (out.whole == "0" && out.fraction.empty()) out.negative = false;
  if (out.whole.size() + out.fraction.size() > kMostDigits) return std::nullopt;
  return out;
}

std::optional<Decimal> decimal(const nlohmann::ordered_json& value) {
  if (!value.is_number()) return std::nullopt;
  return parse_decimal(value.dump());
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  return a.negative ? -compare_magnitude(a, b) : compare_magnitude(a, b);
}

bool holds(const NumberRange& range, const Decimal& d) {
  if (range.whole && !d.fraction.empty()) return false;
  if (range.least && compare(d, *range.least) < (range.above_least ? 1 : 0)) return false;
  if (range.most && compare(d, *range.most) > (range.below_most ? -1 : 0)) return false;
  for (const Decimal& step : range.steps) {
    // Long division of the digits, both brought to the same number of places.
    const size_t places = std::max(step.fraction.size(), d.fraction.size());
    const auto scaled = [&](const Decimal& v) {
      return v.whole + v.fraction + std::string(places - v.fraction.size(), '0');
    };
    std::string divisor = scaled(step), rest;
    divisor.erase(0, std::min(divisor.find_first_not_of('0'), divisor.size()));
    for (const char c : scaled(d)) {
      if (!(rest.empty() && c == '0')) rest += c;
      while (rest.size() > divisor.size() || (rest.size() == divisor.size() && rest >= divisor)) {
        int borrow = 0;
        for (size_t i = 0; i < rest.size(); ++i) {
          const size_t r = rest.size() - 1 - i;
          int digit = rest[r] - borrow - (i < divisor.size() ? divisor[divisor.size() - 1 - i] - '0' : 0);
          borrow = digit < '0';
          rest[r] = char(borrow ? digit + 10 : digit);
        }
        rest.erase(0, std::min(rest.find_first_not_of('0'), rest.size()));
      }
    }
    if (!rest.empty()) return false;
  }
  return true;
}

std::optional<Machine> number_machine(const NumberRange& range, size_t max_states) {
  const auto& [least, most, above, below, whole, steps] = range;
  Machine out;
  out.add();
  // Joins a machine under the start (or behind the minus sign).
  const auto join = [&](const Machine& part, int32_t at) {
    const int32_t first = int32_t(out.states.size());
    for (const auto& state : part.states) {
      auto copy = state;
      for (auto& edge : copy.bytes) edge.to += first;
      out.states.push_back(std::move(copy));
    }
    out.states[size_t(at)].empty.push_back(first);
  };
  if (!most || !most->negative) {
    const bool from_zero = !least || least->negative;
    const auto part = magnitudes(range, from_zero ? std::nullopt : least, above, most, below, max_states);
    if (!part) return std::nullopt;
    join(*part, 0);
  }
  if (!least || least->negative) {
    const bool to_zero = !most || !most->negative;
    const auto part = magnitudes(range, to_zero ? Decimal{} : magnitude(*most), to_zero || below,
                                 least ? std::optional(magnitude(*least)) : std::nullopt, above, max_states);
    if (!part) return std::nullopt;
    const int32_t minus = out.add();
    out.states[0].bytes.push_back({'-', '-', minus});
    join(*part, minus);
  }
  auto single = determinise(out, max_states);
  if (single) trim(*single);
  return single;
}

}  // namespace cairn::text::constrain
