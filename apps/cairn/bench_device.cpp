// cairn bench device: what a GPU's parts can do, as a table, JSON and plots.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "backends/cuda/probe.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/svg.h"
#include "command.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

using cuda::ProbeCurve;
using cuda::ProbeReport;
using cuda::ProbeRow;

struct Options {
  int device = 0, repetitions = 5;
  std::vector<std::string> groups;
  std::string plot;
  bool json = false;
};

std::string number(double value) {
  return value >= 1000  ? fmt::format("{:.0f}", value)
         : value >= 100 ? fmt::format("{:.1f}", value)
                        : fmt::format("{:.2f}", value);
}

std::string expectation(const ProbeRow& row) {
  if (row.low == 0 && row.high == 0) return "";
  return fmt::format("{:.0f} to {:.0f}{}", row.low, row.high, row.as_expected() ? "" : " NO");
}

std::string as_text(const ProbeReport& report) {
  const auto& f = report.facts;
  std::string text = fmt::format(
      "{}, compute capability {}.{}, {} multiprocessors, driver for CUDA {}.{}; measured in {:.1f} s\n",
      f.name, f.capability / 10, f.capability % 10, f.multiprocessors, f.driver_version / 1000,
      f.driver_version % 1000 / 10, report.seconds);
  if (report.clock_ghz > 0)
    text += fmt::format("clock {:.2f} GHz with the ordinary units busy; it sinks under matrix products\n",
                        report.clock_ghz);
  std::string group;
  for (const auto& row : report.rows) {
    if (row.group != group)
      text += fmt::format("\n{:<44}{:>10} {:<11}{:>7}  {:<16}{}\n", group = row.group, "median", "", "spread",
                          "expected", "");
    if (!row.skipped.empty())
      text += fmt::format("  {:<42}{:>10} {}\n", row.what, "-", row.skipped);
    else
      text += fmt::format("  {:<42}{:>10} {:<11}{:>6.1f}%  {:<16}{}\n", row.what, number(row.value), row.unit,
                          100 * row.spread, expectation(row), row.note);
  }
  return text;
}

std::string as_json(const ProbeReport& report) {
  const auto& f = report.facts;
  nlohmann::ordered_json json{
      {"device", f.name},
      {"compute_capability", fmt::format("{}.{}", f.capability / 10, f.capability % 10)},
      {"multiprocessors", f.multiprocessors},
      {"memory_bytes", f.memory_bytes},
      {"l2_bytes", f.l2_bytes},
      {"driver", fmt::format("{}.{}", f.driver_version / 1000, f.driver_version % 1000 / 10)},
      {"clock_ghz", report.clock_ghz},
      {"seconds", report.seconds},
      {"version", CAIRN_VERSION}};
  for (const auto& row : report.rows) {
    nlohmann::ordered_json r{{"group", row.group}, {"what", row.what}};
    if (!row.skipped.empty()) {
      r["skipped"] = row.skipped;
    } else {
      r["value"] = row.value, r["unit"] = row.unit, r["spread"] = row.spread;
      if (row.low != 0 || row.high != 0)
        r["expected"] = {row.low, row.high}, r["as_expected"] = row.as_expected();
      if (!row.note.empty()) r["note"] = row.note;
    }
    json["rows"].push_back(std::move(r));
  }
  for (const auto& c : report.curves)
    json["curves"].push_back(
        {{"plot", c.plot}, {"x", c.x_label}, {"y", c.y_label}, {"series", c.series}, {"points", c.points}});
  return json.dump(2) + "\n";
}

std::string tick(double x) {
  if (x >= 1 << 30) return fmt::format("{:g}G", x / (1 << 30));
  if (x >= 1 << 20) return fmt::format("{:g}M", x / (1 << 20));
  if (x >= 1024) return fmt::format("{:g}K", x / 1024);
  return fmt::format("{:g}", x);
}

// A round step that cuts `most` into 4 to 8.
double round_step(double most) {
  const double unit = std::pow(10, std::floor(std::log10(most / 4)));
  for (const double times : {5.0, 2.0, 1.0})
    if (most / (unit * times) >= 4) return unit * times;
  return unit;
}

// One plot: x in powers of two, y from zero; the lines' names stand to its right.
void draw(Svg& svg, double left, double top, double width, double height,
          std::span<const ProbeCurve* const> lines) {
  constexpr std::array<const char*, 7> kColours = {"#1b6ca8", "#d1495b", "#2e933c", "#8f5bb5",
                                                   "#c77d0a", "#3a3a3a", "#00909e"};
  double low = INFINITY, high = 0, most = 0;
  for (const auto* c : lines)
    for (const auto& [x, y] : c->points)
      low = std::min(low, x), high = std::max(high, x), most = std::max(most, y);
  if (!(high > low) || most <= 0) return;
  const double x0 = left + 62, x1 = left + width - 150, y0 = top + height - 44, y1 = top + 44;
  const auto at_x = [&](double x) { return x0 + (x1 - x0) * std::log2(x / low) / std::log2(high / low); };
  const double step = round_step(most), ceiling = std::ceil(most / step) * step;
  const auto at_y = [&](double y) { return y0 + (y1 - y0) * y / ceiling; };
  svg.text(left + 12, top + 16, lines.front()->plot, 14);
  for (double y = 0; y <= ceiling * 1.0001; y += step) {
    svg.line(x0, at_y(y), x1, at_y(y), "#e2e2e2");
    svg.text(x0 - 6, at_y(y) + 4, fmt::format("{:g}", y), 11, "end");
  }
  const int every = std::max(1, int(std::ceil(std::log2(high / low) / 8)));
  for (int i = 0; low * std::exp2(i) <= high * 1.001; i += every) {
    const double x = low * std::exp2(i);
    svg.line(at_x(x), y0, at_x(x), y0 + 4, "#888888");
    svg.text(at_x(x), y0 + 17, tick(x), 11, "middle");
  }
  svg.text((x0 + x1) / 2, y0 + 34, lines.front()->x_label, 11, "middle");
  svg.text(x0 - 50, y1 - 10, lines.front()->y_label, 11);
  for (size_t i = 0; i < lines.size(); ++i) {
    const char* colour = kColours[i % kColours.size()];
    const auto& points = lines[i]->points;
    for (size_t p = 0; p < points.size(); ++p) {
      if (p > 0)
        svg.line(at_x(points[p - 1].first), at_y(points[p - 1].second), at_x(points[p].first),
                 at_y(points[p].second), colour, 1.6);
      svg.circle(at_x(points[p].first), at_y(points[p].second), 2.4, colour);
    }
    const double y = y1 + 6 + 16 * double(i);
    svg.line(x1 + 10, y - 4, x1 + 26, y - 4, colour, 2);
    svg.text(x1 + 31, y, lines[i]->series, 11);
  }
}

std::string plot(const ProbeReport& report) {
  std::vector<std::vector<const ProbeCurve*>> plots;
  for (const auto& c : report.curves) {
    const auto same =
        std::find_if(plots.begin(), plots.end(), [&](const auto& p) { return p.front()->plot == c.plot; });
    if (same == plots.end())
      plots.push_back({&c});
    else
      same->push_back(&c);
  }
  constexpr double kWidth = 560, kHeight = 320, kTop = 34;
  const size_t rows = (plots.size() + 1) / 2;
  Svg svg(2 * kWidth, kTop + kHeight * double(std::max<size_t>(rows, 1)));
  svg.text(12, 22, fmt::format("{}: cairn bench device", report.facts.name), 15);
  for (size_t i = 0; i < plots.size(); ++i)
    draw(svg, kWidth * double(i % 2), kTop + kHeight * double(i / 2), kWidth, kHeight, plots[i]);
  return svg.finish();
}

int run(const Options& options) {
  auto groups = options.groups.empty() ? cuda::probe_groups() : options.groups;
  cuda::check_probe_groups(groups);
  const cuda::Device device(options.device);
  cuda::require_kernel_source(device.facts());
  const auto report = cuda::probe_device(device, groups, options.repetitions, [](const std::string& group) {
    fmt::print(stderr, "measuring {}\n", group);
  });
  write_out(options.json ? as_json(report) : as_text(report));
  if (!options.plot.empty()) {
    const auto svg = plot(report);
    write_file_atomically(options.plot, std::as_bytes(std::span(svg)));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  std::string known;
  for (const auto& name : cuda::probe_groups()) known += (known.empty() ? "" : ", ") + name;
  app.add_option("--gpu", o->device, "which GPU")->capture_default_str();
  app.add_option("--only", o->groups, "some of: " + known)->delimiter(',');
  app.add_option("-r,--repetitions", o->repetitions, "runs of each measurement")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--plot", o->plot, "write the curves as an SVG file");
  app.add_flag("--json", o->json, "machine-readable output");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"bench device",
                                  "measure a GPU's memories, matrix units, clusters, copies and launches",
                                  setup});

}  // namespace
}  // namespace cairn::app
