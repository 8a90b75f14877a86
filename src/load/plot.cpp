#include "load/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace cairn::load {
namespace {

constexpr double kWidth = 1080, kHeight = 840;
constexpr const char* kColours[] = {"#2563ab", "#c2410c", "#15803d", "#9333ea"};
constexpr const char* kFailed = "#dc2626";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (uint8_t(c) >= 0x20)
      out += c;
  }
  return out;
}

std::string label(double x, double y, const std::string& text, const char* anchor = "start", int size = 13,
                  const char* colour = "#333") {
  return fmt::format("<text x='{:.1f}' y='{:.1f}' font-size='{}' text-anchor='{}' fill='{}'>{}</text>\n", x,
                     y, size, anchor, colour, escaped(text));
}

std::string stroke(double x1, double y1, double x2, double y2, const char* colour, double width = 1,
                   const char* dash = "") {
  return fmt::format(
      "<line x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='{}'{}/>\n", x1, y1, x2,
      y2, colour, width, *dash ? fmt::format(" stroke-dasharray='{}'", dash) : "");
}

std::string short_number(double value) {
  if (value >= 1e6) return fmt::format("{:g}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:g}k", value / 1e3);
  return fmt::format("{:g}", value);
}

std::string short_time(double milliseconds) {
  if (milliseconds >= 1000) return fmt::format("{:.3g} s", milliseconds / 1000);
  if (milliseconds >= 1) return fmt::format("{:.3g} ms", milliseconds);
  return fmt::format("{:.3g} us", milliseconds * 1000);
}

// Values to places along a line, linear or logarithmic, with ticks at round values.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;  // values; places
  bool logarithmic = false;

  double place(double value) const {
    const double v = std::clamp(value, low, high);
    const double share = logarithmic ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + share * (to - from);
  }
  std::vector<double> ticks() const {
    std::vector<double> values;
    if (logarithmic) {
      const double decades = std::log10(high / low);
      for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10)
        for (const double step : {1., 2., 5.})
          if ((step == 1 || decades < 3) && decade * step >= low * 0.999 && decade * step <= high * 1.001)
            values.push_back(decade * step);
      return values;
    }
    const double raw = (high - low) / 7, power = std::pow(10, std::floor(std::log10(raw)));
    double step = power;
    for (const double factor : {1., 2., 5., 10.})
      if (step < raw) step = power * factor;
    for (double value = std::ceil(low / step) * step; value <= high * 1.0001; value += step)
      values.push_back(value);
    return values;
  }
};

// Round bounds around what is shown.
Axis log_axis(double low, double high, double from, double to) {
  low = std::max(low, 1e-3);  // a microsecond, in milliseconds
  high = std::max(high, low * 1.5);
  return {low * 0.9, high * 1.1, from, to, true};
}
Axis linear_axis(double high, double from, double to) {
  return {0, high > 0 ? high * 1.08 : 1, from, to, false};
}

class Panel {
 public:
  Panel(double x, double y, double width, double height)
      : left(x), top(y), right(x + width), bottom(y + height) {}

  void title(const std::string& text) { out += label(left, top - 12, text, "start", 15, "#111"); }
  void frame_x(const Axis& axis, const char* unit, bool times) {
    for (const double value : axis.ticks()) {
      const double x = axis.place(value);
      out += stroke(x, top, x, bottom, "#e5e7eb");
      out += label(x, bottom + 16, times ? short_time(value) : short_number(value), "middle", 11, "#555");
    }
    if (*unit) out += label(right, bottom + 32, unit, "end", 11, "#555");
    out += stroke(left, bottom, right, bottom, "#9ca3af");
  }
  void frame_y(const Axis& axis, const char* unit, bool at_right = false, const char* colour = "#555") {
    const double x = at_right ? right : left;
    for (const double value : axis.ticks()) {
      const double y = axis.place(value);
      if (!at_right) out += stroke(left, y, right, y, "#e5e7eb");
      out += label(at_right ? x + 6 : x - 6, y + 4, std::string(short_number(value)) + unit,
                   at_right ? "start" : "end", 11, colour);
    }
    out += stroke(x, top, x, bottom, "#9ca3af");
  }
  void curve(const std::vector<std::pair<double, double>>& points, const char* colour, bool filled = false) {
    if (points.empty()) return;
    std::string path = fmt::format("M{:.1f} {:.1f}", points[0].first, points[0].second);
    for (size_t i = 1; i < points.size(); ++i)
      path += fmt::format("L{:.1f} {:.1f}", points[i].first, points[i].second);
    if (filled)
      path +=
          fmt::format("L{:.1f} {:.1f}L{:.1f} {:.1f}Z", points.back().first, bottom, points[0].first, bottom);
    out += filled ? fmt::format("<path d='{}' fill='{}' fill-opacity='0.15' stroke='none'/>\n", path, colour)
                  : fmt::format("<path d='{}' fill='none' stroke='{}' stroke-width='2'/>\n", path, colour);
  }
  void nothing() {
    out += label((left + right) / 2, (top + bottom) / 2, "nothing to show", "middle", 13, "#777");
  }

  double left, top, right, bottom;
  std::string out;
};

// Shares of values at or below x, with the half and the 99th percentile marked.
void cumulative(Panel& panel, const std::vector<std::pair<std::string, const Samples*>>& lines) {
  double low = 1e300, high = 0;
  for (const auto& [name, samples] : lines)
    if (samples->count() > 0) {
      low = std::min(low, samples->quantile(0) * 1e3);
      high = std::max(high, samples->max() * 1e3);
    }
  if (high == 0) return panel.nothing();
  // A few values near nothing (two chunks in one packet) must not squeeze the rest into a corner.
  low = std::max(low, high / 1e5);
  const Axis x = log_axis(low, high, panel.left, panel.right);
  const Axis y{0, 100, panel.bottom, panel.top, false};
  panel.frame_x(x, "", true);
  panel.frame_y(y, "%");
  int index = 0;
  for (const auto& [name, samples] : lines) {
    const char* colour = kColours[index];
    const auto& values = samples->sorted();
    if (!values.empty()) {
      std::vector<std::pair<double, double>> points{{x.place(double(values.front()) * 1e3), y.place(0)}};
      const size_t steps = std::min<size_t>(values.size(), 400);
      for (size_t i = 1; i <= steps; ++i) {
        const double share = double(i) / double(steps);
        const double at = x.place(samples->quantile(share) * 1e3);
        if (values.size() <= 400)
          points.emplace_back(at, points.back().second);  // steps while they can be seen
        points.emplace_back(at, y.place(100 * share));
      }
      panel.curve(points, colour);
      for (const double share : {0.5, 0.99})
        panel.out += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='4' fill='{}' stroke='white'/>\n",
                                 x.place(samples->quantile(share) * 1e3), y.place(100 * share), colour);
    }
    const double text_y = panel.bottom + 38 + 17 * index;
    panel.out += fmt::format("<rect x='{:.1f}' y='{:.1f}' width='14' height='4' fill='{}'/>\n", panel.left,
                             text_y - 6, colour);
    panel.out +=
        label(panel.left + 20, text_y,
              fmt::format("{}: p50 {}, p99 {}, max {}", name, short_time(samples->quantile(0.5) * 1e3),
                          short_time(samples->quantile(0.99) * 1e3), short_time(samples->max() * 1e3)),
              "start", 12);
    ++index;
  }
}

// Output tokens per second and requests in flight, in at most 120 windows of time.
void over_time(Panel& panel, const Run& run, const Summary& summary) {
  if (run.ticks.empty() || run.seconds <= 0) return panel.nothing();
  const double window = std::max(0.5, run.seconds / 120);
  // Chunks are what is seen to arrive; most servers send one per token.
  const double tokens_per_event = run.events > 0 ? double(summary.answer_tokens) / double(run.events) : 1;
  struct Sum {
    double begin, end, events, in_flight;
    int count;
  };
  std::vector<Sum> sums{{0, 0, 0, 0, 0}};
  for (const auto& tick : run.ticks) {
    if (sums.back().end - sums.back().begin >= window) sums.push_back({sums.back().end, 0, 0, 0, 0});
    auto& sum = sums.back();
    sum.end = tick.at;
    sum.events += double(tick.events);
    sum.in_flight += double(tick.in_flight);
    ++sum.count;
  }
  if (sums.size() > 1 && sums.back().end - sums.back().begin < window / 2)
    sums.pop_back();  // too short for a rate
  double most_rate = 0, most_running = 0;
  for (const auto& sum : sums) {
    if (sum.end > sum.begin)
      most_rate = std::max(most_rate, sum.events * tokens_per_event / (sum.end - sum.begin));
    most_running = std::max(most_running, sum.in_flight / std::max(1, sum.count));
  }
  const Axis x = Axis{0, std::max(run.seconds, sums.back().end), panel.left, panel.right, false};
  const Axis y = linear_axis(most_rate, panel.bottom, panel.top);
  const Axis running = linear_axis(most_running, panel.bottom, panel.top);
  panel.frame_x(x, "seconds", false);
  panel.frame_y(y, "");
  panel.frame_y(running, "", true, kColours[2]);
  std::vector<std::pair<double, double>> rates, in_flight;
  for (const auto& sum : sums) {
    if (sum.end <= sum.begin) continue;
    const double rate = sum.events * tokens_per_event / (sum.end - sum.begin);
    for (const double at : {sum.begin, sum.end}) {
      rates.emplace_back(x.place(at), y.place(rate));
      in_flight.emplace_back(x.place(at), running.place(sum.in_flight / std::max(1, sum.count)));
    }
  }
  panel.curve(in_flight, kColours[2], true);
  panel.curve(rates, kColours[0]);
  panel.out += label(panel.left, panel.bottom + 32, "output tokens/s", "start", 12, kColours[0]);
  panel.out +=
      label(panel.left + 120, panel.bottom + 32, "requests in flight (right)", "start", 12, kColours[2]);
}

void each_request(Panel& panel, const Run& run, const Summary& summary) {
  if (run.requests.empty()) return panel.nothing();
  double last = 0;
  for (const auto& request : run.requests) last = std::max(last, request.due);
  const Axis x{0, std::max(last, 1e-3) * 1.02, panel.left, panel.right, false};
  const Axis y = log_axis(std::max(summary.ttft.quantile(0) * 1e3, summary.ttft.max() / 1e2),
                          summary.ttft.max() * 1e3, panel.bottom, panel.top);
  panel.frame_x(x, "seconds when due", false);
  for (const double value : y.ticks()) {
    panel.out += stroke(panel.left, y.place(value), panel.right, y.place(value), "#e5e7eb");
    panel.out += label(panel.left - 6, y.place(value) + 4, short_time(value), "end", 11, "#555");
  }
  panel.out += stroke(panel.left, panel.top, panel.left, panel.bottom, "#9ca3af");
  // Evenly thinned out past what an eye and a viewer can take.
  const size_t stride = std::max<size_t>(1, run.requests.size() / 5000);
  for (size_t i = 0; i < run.requests.size(); ++i) {
    const auto& request = run.requests[i];
    const double at = x.place(request.due);
    if (request.fault != Fault::none)
      panel.out += stroke(at, panel.bottom - 12, at, panel.bottom, kFailed, 1.5);
    else if (i % stride == 0)
      panel.out += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='2.2' fill='{}' fill-opacity='0.55'/>\n",
                               at, y.place((request.first - request.due) * 1e3), kColours[0]);
  }
  if (summary.failed > 0)
    panel.out +=
        label(panel.left, panel.bottom + 32, fmt::format("{} failed", summary.failed), "start", 12, kFailed);
}

}  // namespace

std::string plot(const Run& run, const Summary& summary, const std::string& title,
                 const std::string& subtitle) {
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
      "font-family='Helvetica, Arial, DejaVu Sans, sans-serif'>\n<rect width='{0}' height='{1}' "
      "fill='white'/>\n",
      kWidth, kHeight);
  svg += label(60, 36, title, "start", 20, "#111");
  svg += label(60, 58, subtitle, "start", 13, "#555");
  const int64_t fine = summary.requests - summary.failed;
  svg += label(
      60, 80,
      fmt::format("{} requests complete, {} failed in {:.1f} s: {:.2f} requests/s, {:.1f} output tokens/s, "
                  "{:.1f} total tokens/s",
                  fine, summary.failed, summary.seconds, summary.per_second(fine),
                  summary.per_second(summary.answer_tokens),
                  summary.per_second(summary.prompt_tokens + summary.answer_tokens)),
      "start", 13, summary.failed > 0 ? kFailed : "#333");
  Panel first(70, 130, 420, 260), between(600, 130, 420, 260), time(70, 510, 420, 260),
      each(600, 510, 420, 260);
  first.title("First token and whole request, share of requests");
  cumulative(first, {{"first token (TTFT)", &summary.ttft}, {"whole request", &summary.latency}});
  between.title("Pace of answers, share of chunks and requests");
  cumulative(between, {{"between chunks (ITL)", &summary.itl}, {"per token (TPOT)", &summary.tpot}});
  time.title("Throughput over time");
  over_time(time, run, summary);
  each.title("First token of each request");
  each_request(each, run, summary);
  return svg + first.out + between.out + time.out + each.out + "</svg>\n";
}

}  // namespace cairn::load
