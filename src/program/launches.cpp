#include "program/launches.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace cairn::program {
namespace {

double seconds(uint64_t from, uint64_t to) { return to > from ? double(to - from) * 1e-9 : 0; }

// "layers.3.q_proj+k_proj" is one of "matmul q_proj+k_proj".
std::string kind_of(const Instruction& instruction) {
  const auto dot = instruction.name.rfind('.');
  return fmt::format("{} {}", name_of(instruction.operation),
                     dot == std::string::npos ? instruction.name : instruction.name.substr(dot + 1));
}

// The kernels' names, a list per step, in the order of launches.
std::vector<std::vector<std::string>> sequences(const Trace& trace) {
  std::vector<std::vector<std::string>> all;
  int32_t step = -1;
  for (const auto& k : trace.kernels()) {
    if (k.step != step) all.emplace_back(), step = k.step;
    all.back().push_back(k.name);
  }
  return all;
}

struct Row {
  int64_t count = 0;
  double queued = 0, running = 0;
};

std::string table(const char* title, const std::map<std::string, Row>& rows, double steps) {
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.running > b.second.running; });
  std::string text = fmt::format("{:<44}{:>10}{:>14}{:>16}{:>14}\n", title, "per step", "us each",
                                 "launch to start", "us per step");
  for (const auto& [name, row] : sorted)
    text += fmt::format("{:<44}{:>10.1f}{:>14.2f}{:>16.2f}{:>14.1f}\n", name.substr(0, 43),
                        double(row.count) / steps, 1e6 * row.running / double(row.count),
                        1e6 * row.queued / double(row.count), 1e6 * row.running / steps);
  return text;
}

}  // namespace

LaunchTotals launch_totals(const Trace& trace) {
  LaunchTotals totals;
  const auto& kernels = trace.kernels();
  for (size_t begin = 0; begin < kernels.size();) {
    size_t end = begin;
    while (end < kernels.size() && kernels[end].step == kernels[begin].step) ++end;
    ++totals.steps;
    uint64_t first = ~uint64_t{0}, last = 0;
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    for (size_t i = begin; i < end; ++i) {
      const auto& k = kernels[i];
      ++totals.kernels;
      totals.queued += seconds(k.launch_ns, k.start_ns);
      totals.running += seconds(k.start_ns, k.end_ns);
      first = std::min(first, k.launch_ns), last = std::max(last, k.end_ns);
      runs.emplace_back(k.start_ns, k.end_ns);
    }
    std::sort(runs.begin(), runs.end());
    uint64_t until = 0;
    for (const auto& [start, stop] : runs) {
      totals.busy += seconds(std::max(start, until), stop);
      until = std::max(until, stop);
    }
    totals.latency += seconds(first, last);
    begin = end;
  }
  return totals;
}

std::vector<LaunchChain> certain_chains(const Trace& trace, size_t length) {
  const auto steps = sequences(trace);
  std::map<std::string, int64_t> firsts;
  std::map<std::vector<std::string>, int64_t> windows;
  for (const auto& names : steps) {
    for (const auto& name : names) ++firsts[name];
    for (size_t i = 0; i + length <= names.size(); ++i)
      ++windows[{names.begin() + ptrdiff_t(i), names.begin() + ptrdiff_t(i + length)}];
  }
  std::vector<LaunchChain> certain;
  for (const auto& [names, count] : windows)
    if (count == firsts[names.front()]) certain.push_back({names, count});
  std::sort(certain.begin(), certain.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
  // Without overlap: a kernel's name is in one chain.
  std::set<std::string> taken;
  std::erase_if(certain, [&](const LaunchChain& c) {
    for (const auto& name : c.names)
      if (taken.count(name) != 0) return true;
    taken.insert(c.names.begin(), c.names.end());
    return false;
  });
  return certain;
}

std::string summarize_launches(const Trace& trace, const Program& program, double null_us) {
  const LaunchTotals t = launch_totals(trace);
  if (t.kernels == 0) return "";
  const auto steps = double(t.steps);
  const double each = 1e6 * t.queued / double(t.kernels);
  std::string text = fmt::format(
      "launches, by {}\n  {:.1f} {} per step, {:.2f} us each; a step {:.1f} us from its first launch to "
      "its last "
      "kernel's end, the device idle for {:.1f} us of it ({:.1f} %)\n  from launch to start: {:.1f} us per "
      "step in all, "
      "{:.2f} us each",
      trace.clock(), double(t.kernels) / steps,
      trace.kernels().front().name.empty() ? "instructions" : "kernels", 1e6 * t.average_kernel(),
      1e6 * t.latency / steps, 1e6 * t.idle() / steps, 100 * t.idle() / std::max(t.latency, 1e-12),
      1e6 * t.queued / steps, each);
  if (null_us > 0)
    text += fmt::format(
        "; an empty kernel on an idle device {:.2f} us: {}", null_us,
        each < 1.5 * null_us ? "the device waits for the host" : "kernels queue: the device is the slower");
  text += "\n\n";
  std::map<std::string, Row> by_kind, by_kernel;
  for (const auto& k : trace.kernels())
    for (auto* row : {&by_kind[kind_of(program.instructions[size_t(k.instruction)])],
                      k.name.empty() ? nullptr : &by_kernel[k.name]}) {
      if (!row) continue;
      ++row->count;
      row->queued += seconds(k.launch_ns, k.start_ns), row->running += seconds(k.start_ns, k.end_ns);
    }
  text += table("kernels by instruction", by_kind, steps);
  if (by_kernel.empty()) return text;
  text += "\n" + table("kernels by name", by_kernel, steps);
  for (const size_t length : {2, 4, 8, 16}) {
    int64_t saved = 0;
    const auto chains = certain_chains(trace, length);
    for (const auto& c : chains) saved += int64_t(length - 1) * c.count;
    if (saved > 0)
      text += fmt::format(
          "\nchains of {:>2} that always follow so: {}; as one kernel each they save {:.1f} of {:.1f} "
          "launches "
          "(at best {:.2f} times as fast where launches bound it)",
          length, chains.size(), double(saved) / steps, double(t.kernels) / steps,
          double(t.kernels) / double(t.kernels - saved));
  }
  return text + "\n";
}

}  // namespace cairn::program
