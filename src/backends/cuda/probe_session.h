// What the groups of probes share: the device, its memory, timing, and the report they write.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "backends/cuda/probe.h"

namespace cairn::cuda {

inline double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
// Standard deviation over mean.
inline double spread_of(const std::vector<double>& values) {
  double mean = 0, squares = 0;
  for (const double v : values) mean += v / double(values.size());
  for (const double v : values) squares += (v - mean) * (v - mean) / double(values.size());
  return mean == 0 ? 0 : std::sqrt(squares) / std::abs(mean);
}

class ProbeSession {
 public:
  ProbeSession(const Device& on, int times)
      : device(on),
        kernels(on),
        stream(on),
        repetitions(times),
        data(on, std::min(size_t{2} << 30, on.free_bytes() / 3) & ~size_t{0xfffff}),
        out(on, size_t{4} << 20) {
    report.facts = on.facts();
  }

  const DeviceFacts& facts() const { return device.facts(); }
  bool hopper() const { return facts().capability >= 90; }
  unsigned multiprocessors() const { return unsigned(facts().multiprocessors); }

  // Seconds on the device of what f launches, once unmeasured and then `repetitions` times.
  template <typename F>
  std::vector<double> seconds(F&& f) {
    std::vector<double> all;
    for (int i = -1; i < repetitions; ++i) {
      Event begin(device, true), end(device, true);
      begin.record(stream);
      f();
      end.record(stream);
      stream.synchronize();
      if (i >= 0) all.push_back(double(end.since(begin)) * 1e-3);
    }
    return all;
  }
  std::vector<uint64_t> read_out(size_t words) {
    std::vector<uint64_t> values(words);
    stream.download(values.data(), out.address(), words * 8);
    stream.synchronize();
    return values;
  }
  // The median over blocks of the cycles that a kernel wrote to out.
  double block_cycles(unsigned blocks) {
    std::vector<double> all;
    for (const uint64_t c : read_out(blocks)) all.push_back(double(c));
    return median_of(all);
  }

  ProbeRow& add(std::string group, std::string what, const std::vector<double>& values, std::string unit) {
    report.rows.push_back({std::move(group),
                           std::move(what),
                           median_of(values),
                           std::move(unit),
                           spread_of(values),
                           0,
                           0,
                           {},
                           {}});
    return report.rows.back();
  }
  void skip(std::string group, std::string what, std::string why) {
    report.rows.push_back({std::move(group), std::move(what), 0, {}, 0, 0, 0, {}, std::move(why)});
  }
  // The points of a line; the same plot and series make the same line.
  void point(const std::string& plot, const std::string& x_label, const std::string& y_label,
             const std::string& series, double x, double y) {
    for (auto& c : report.curves)
      if (c.plot == plot && c.series == series) return c.points.emplace_back(x, y), void();
    report.curves.push_back({plot, x_label, y_label, series, {{x, y}}});
  }

  const Device& device;
  KernelCache kernels;
  Stream stream;
  const int repetitions;
  Buffer data, out;
  ProbeReport report;
};

void probe_latency(ProbeSession&);
void probe_bandwidth(ProbeSession&);
void probe_matrix(ProbeSession&);
void probe_units(ProbeSession&);
void probe_cluster(ProbeSession&);
void probe_bulk(ProbeSession&);
void probe_dpx(ProbeSession&);
void probe_copies(ProbeSession&);
void probe_launches(ProbeSession&);

}  // namespace cairn::cuda
