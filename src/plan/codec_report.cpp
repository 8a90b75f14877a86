#include "plan/codec_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "base/svg.h"

namespace cairn::plan {
namespace {

std::string rows_of(int64_t rows) { return rows == 1 ? "1 row" : fmt::format("{} rows", rows); }

std::string microseconds(double seconds) {
  const double us = seconds * 1e6;
  return us >= 1000 ? fmt::format("{:.0f}", us) : fmt::format("{:.1f}", us);
}

std::string energy_of(double joules) {
  return joules >= 0.1 ? fmt::format("{:.2f} J", joules) : fmt::format("{:.3g} mJ", joules * 1e3);
}

}  // namespace

std::vector<CodecSum> sum_codecs(const CodecTimes& times) {
  std::set<std::pair<int64_t, int64_t>> shapes;
  struct Sum {
    double seconds = 0, joules = 0, bytes = 0, weights = 0;
    size_t shapes = 0;
  };
  std::map<std::pair<int64_t, std::string>, Sum> sums;
  for (const auto& t : times.times) {
    shapes.insert({t.n, t.k});
    auto& s = sums[{t.rows, t.codec}];
    s.seconds += t.seconds, s.joules += t.joules, s.bytes += double(t.bytes);
    s.weights += double(t.n * t.k), ++s.shapes;
  }
  std::vector<CodecSum> result;
  for (const auto& [key, s] : sums) {
    if (s.shapes != shapes.size()) continue;
    CodecSum c{key.second, key.first, 8 * s.bytes / s.weights, s.seconds, s.joules, 0, {}, 0};
    const auto plain = sums.find({key.first, "bf16"});
    if (plain != sums.end() && plain->second.shapes == shapes.size())
      c.of_bf16 = s.seconds / plain->second.seconds;
    result.push_back(std::move(c));
  }
  std::stable_sort(result.begin(), result.end(), [](const auto& a, const auto& b) {
    return std::tie(a.rows, a.bits) < std::tie(b.rows, b.bits);
  });
  for (auto& c : result) {
    const CodecSum* best = nullptr;
    for (const auto& other : result)
      if (other.rows == c.rows && other.bits >= kMoreBits * c.bits &&
          (!best || other.seconds < best->seconds))
        best = &other;
    if (best && best->seconds <= kFaster * c.seconds)
      c.beaten_by = best->codec, c.beaten_times = c.seconds / best->seconds;
  }
  return result;
}

std::vector<std::string> findings(const CodecTimes& times) {
  std::vector<std::string> lines;
  const auto sums = sum_codecs(times);
  for (size_t at = 0; at < sums.size();) {
    const int64_t rows = sums[at].rows;
    const CodecSum* fastest = &sums[at];
    std::string slower, beaten;
    for (; at < sums.size() && sums[at].rows == rows; ++at) {
      const auto& c = sums[at];
      if (c.seconds < fastest->seconds) fastest = &c;
      if (c.of_bf16 * kFaster > 1 && c.bits < 16)
        slower += fmt::format("{}{} {:.2f}x", slower.empty() ? "" : ", ", c.codec, c.of_bf16);
      else if (!c.beaten_by.empty())
        beaten +=
            fmt::format("{}{} {:.2f}x {}", beaten.empty() ? "" : ", ", c.codec, c.beaten_times, c.beaten_by);
    }
    std::string line = fmt::format("{}: fastest {}", rows_of(rows), fastest->codec);
    if (fastest->of_bf16 > 0) line += fmt::format(" ({:.2f} of bf16's time)", fastest->of_bf16);
    if (!slower.empty()) line += "; slower than bf16 with fewer bits: " + slower;
    if (!beaten.empty()) line += "; slower than a codec of more bits: " + beaten;
    if (slower.empty() && beaten.empty()) line += "; nowhere are fewer bits slower";
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string codec_table(const CodecTimes& times) {
  std::string text = fmt::format("{}: reads {:.1f} GB/s", times.machine, times.read_bytes_per_s * 1e-9);
  if (times.operations_per_s > 0)
    text += fmt::format(", multiplies bf16 at {:.0f} GOP/s", times.operations_per_s * 1e-9);
  text += fmt::format("\nenergy: {}\n", times.energy);
  if (!times.unsteady.empty()) text += "unsteady: " + times.unsteady + "\n";
  std::map<std::array<int64_t, 3>, double> plain;
  for (const auto& t : times.times)
    if (t.codec == "bf16") plain[{t.n, t.k, t.rows}] = t.seconds;
  std::set<std::pair<int64_t, int64_t>> shapes;
  for (const auto& t : times.times) shapes.insert({t.n, t.k});
  for (const auto& [n, k] : shapes) {
    text += fmt::format("\nw [{}, {}]\n{:<12}{:>6}{:>7}{:>11}{:>9}{:>8}{:>11}{:>9}{}\n", n, k, "codec",
                        "bits", "rows", "us", "GB/s", "of read", "GOP/s", "of bf16",
                        times.has_energy ? "      energy" : "");
    for (const auto& t : times.times) {
      if (t.n != n || t.k != k) continue;
      const auto p = plain.find({n, k, t.rows});
      text += fmt::format("{:<12}{:>6.2f}{:>7}{:>11}{:>9.1f}{:>7.0f}%{:>11.1f}{:>9}{}{}{}\n", t.codec,
                          t.bits(), t.rows, microseconds(t.seconds), t.bytes_per_s() * 1e-9,
                          100 * t.bytes_per_s() / times.read_bytes_per_s, t.operations_per_s() * 1e-9,
                          p == plain.end() ? "-" : fmt::format("{:.2f}x", t.seconds / p->second),
                          times.has_energy ? fmt::format("{:>12}", energy_of(t.joules)) : "",
                          t.how.empty() ? "" : "  ", t.how);
    }
  }
  text += "\nAll shapes together:\n";
  for (const auto& line : findings(times)) text += "  " + line + "\n";
  for (const auto& line : times.left_out) text += "not measured: " + line + "\n";
  return text;
}

std::string codec_json(const CodecTimes& times) {
  nlohmann::ordered_json json{
      {"machine", times.machine}, {"version", CAIRN_VERSION}, {"read_bytes_per_s", times.read_bytes_per_s}};
  if (times.operations_per_s > 0) json["bf16_operations_per_s"] = times.operations_per_s;
  json["energy"] = times.energy;
  if (!times.unsteady.empty()) json["unsteady"] = times.unsteady;
  json["times"] = nlohmann::ordered_json::array();
  for (const auto& t : times.times) {
    nlohmann::ordered_json row{{"codec", t.codec},
                               {"n", t.n},
                               {"k", t.k},
                               {"rows", t.rows},
                               {"bits", t.bits()},
                               {"bytes", t.bytes},
                               {"seconds", t.seconds},
                               {"bytes_per_s", t.bytes_per_s()},
                               {"operations_per_s", t.operations_per_s()}};
    if (times.has_energy) row["joules"] = t.joules;
    if (!t.how.empty()) row["how"] = t.how;
    json["times"].push_back(std::move(row));
  }
  json["findings"] = findings(times);
  json["not_measured"] = times.left_out;
  return json.dump(2) + "\n";
}

std::string codec_plot(const CodecTimes& times) {
  constexpr double kPanel = 330, kBar = 16, kTop = 96, kNames = 128, kMost = 2, kScale = 72;
  const auto sums = sum_codecs(times);
  std::map<int64_t, std::vector<const CodecSum*>> panels;
  for (const auto& s : sums) panels[s.rows].push_back(&s);
  size_t most = 0;
  for (const auto& [rows, list] : panels) most = std::max(most, list.size());
  const double width = std::max(720.0, 16 + kPanel * double(std::max<size_t>(panels.size(), 1)));
  Svg svg(width, kTop + kBar * double(most) + 40);
  svg.text(12, 22, fmt::format("{}: time of a product over bf16's", times.machine), 15);
  svg.text(12, 42, "bar: time; red: slower than a codec of more bits; | where the bytes alone would put it",
           11);
  double left = 12;
  for (const auto& [rows, list] : panels) {
    const double zero = left + kNames, bottom = kTop + kBar * double(list.size());
    svg.text(left, kTop - 22, rows_of(rows), 13);
    for (const double tick : {0.0, 0.5, 1.0, 1.5, 2.0}) {
      svg.line(zero + tick * kScale, kTop - 4, zero + tick * kScale, bottom,
               tick == 1 ? "#555555" : "#e2e2e2");
      svg.text(zero + tick * kScale, bottom + 14, fmt::format("{:g}", tick), 10, "middle");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      const auto& c = *list[i];
      const double y = kTop + kBar * double(i), ratio = c.of_bf16;
      svg.text(zero - 6, y + 11, fmt::format("{}  {:.1f} b", c.codec, c.bits), 10, "end");
      if (ratio <= 0) continue;
      svg.rectangle(zero, y + 2, std::min(ratio, kMost) * kScale, kBar - 4,
                    !c.beaten_by.empty() ? "#d1495b" : "#1b6ca8");
      svg.line(zero + c.bits / 16 * kScale, y, zero + c.bits / 16 * kScale, y + kBar, "#111111", 1.5);
      svg.text(zero + std::min(std::max(ratio, c.bits / 16), kMost) * kScale + 4, y + 11,
               fmt::format("{:.2f}", ratio), 10);
    }
    left += kPanel;
  }
  return svg.finish();
}

}  // namespace cairn::plan
