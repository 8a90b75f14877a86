#include "engine/scheduling/arrivals.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"

namespace cairn::engine {
namespace {

constexpr int64_t kMostTokens = 1 << 30;  // of a request in a file

struct Place {
  const std::filesystem::path& file;
  int64_t line;
};

[[noreturn]] void bad(const Place& at, const std::string& text, const char* why) {
  fail(ErrorKind::invalid_file, "{}, line {}: \"{}\": {}", at.file.string(), at.line, text.substr(0, 80),
       why);
}

double number(const Place& at, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(std::abs(value) < 1e15))
    bad(at, std::string(text), "not a number");
  return value;
}

// "2023-11-16 18:17:03.9799600": seconds, from an arbitrary day on.
double time_of_day(const Place& at, std::string_view text) {
  const size_t space = text.find(' ');
  if (space != 10 || text.size() < 19) bad(at, std::string(text), "not a date and a time");
  const auto part = [&](size_t from, size_t count) { return number(at, text.substr(from, count)); };
  return ((part(8, 2) * 24 + part(11, 2)) * 60 + part(14, 2)) * 60 + part(17, text.size() - 17);
}

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  for (size_t from = 0; from <= line.size();) {
    const size_t comma = std::min(line.find(',', from), line.size());
    fields.push_back(line.substr(from, comma - from));
    from = comma + 1;
  }
  return fields;
}

int64_t tokens(const Place& at, const std::string& line, double value, double least) {
  if (!(value >= least && value <= double(kMostTokens))) bad(at, line, "a token count out of range");
  return int64_t(value);
}

Arrival from_json(const Place& at, const std::string& line) {
  try {
    const auto j = nlohmann::json::parse(line);
    Arrival a;
    a.at = j.at("timestamp").get<double>() / 1000;
    a.prompt_tokens = tokens(at, line, j.at("input_length").get<double>(), 1);
    a.answer_tokens = tokens(at, line, j.at("output_length").get<double>(), 0);
    a.content = j.at("hash_ids").get<std::vector<int64_t>>();
    return a;
  } catch (const nlohmann::json::exception& e) {
    bad(at, line, e.what());
  }
}

}  // namespace

std::vector<Arrival> poisson_load(const PoissonLoad& load) {
  std::mt19937_64 random(load.seed);
  std::exponential_distribution<double> interval(load.rate);
  // The mean of a log-normal is exp(mu + sigma^2 / 2).
  const auto lengths = [&](double mean, double sigma) {
    return std::lognormal_distribution<double>(std::log(mean) - sigma * sigma / 2, sigma);
  };
  auto prompt = lengths(load.prompt_mean, load.prompt_sigma),
       answer = lengths(load.answer_mean, load.answer_sigma);
  std::vector<Arrival> arrivals(load.requests);
  double at = 0;
  for (auto& a : arrivals) {
    a.at = at += interval(random);
    a.prompt_tokens = std::clamp<int64_t>(int64_t(prompt(random)), 1, load.most_tokens - 1);
    a.answer_tokens = std::clamp<int64_t>(int64_t(answer(random)), 1, load.most_tokens - a.prompt_tokens);
    a.max_tokens = load.most_tokens;
  }
  return arrivals;
}

std::vector<Arrival> read_trace(const std::filesystem::path& path, size_t most) {
  std::ifstream file(path);
  if (!file) fail(ErrorKind::not_found, "{} cannot be read", path.string());
  std::vector<Arrival> arrivals;
  std::string line;
  bool dates = false;
  for (int64_t n = 1; arrivals.size() < most && std::getline(file, line); ++n) {
    const Place at{path, n};
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    if (line[0] == '{') {
      arrivals.push_back(from_json(at, line));
      continue;
    }
    if (n == 1) {
      dates = line == "TIMESTAMP,ContextTokens,GeneratedTokens";
      if (!dates && line != "arrived_at,num_prefill_tokens,num_decode_tokens")
        bad(at, line, "no trace that is known: Azure's, vidur's or Mooncake's");
      continue;
    }
    const auto fields = fields_of(line);
    if (fields.size() != 3) bad(at, line, "three fields were expected");
    Arrival a;
    a.at = dates ? time_of_day(at, fields[0]) : number(at, fields[0]);
    a.prompt_tokens = tokens(at, line, number(at, fields[1]), 1);
    a.answer_tokens = tokens(at, line, number(at, fields[2]), 0);
    arrivals.push_back(a);
  }
  std::stable_sort(arrivals.begin(), arrivals.end(),
                   [](const auto& a, const auto& b) { return a.at < b.at; });
  if (!arrivals.empty())
    for (const double first = arrivals.front().at; auto& a : arrivals) a.at -= first;
  return arrivals;
}

}  // namespace cairn::engine
