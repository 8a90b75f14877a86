#include "backends/cuda/probe.h"

#include <numeric>
#include <random>

#include "backends/cuda/probe_session.h"
#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::cuda {
namespace {

Variant memory_variant(int width) { return {"probe_memory.cu", {fmt::format("WIDTH={}", width)}}; }

std::string bytes_text(double bytes) {
  if (bytes >= 1 << 30) return fmt::format("{:g} GiB", bytes / (1 << 30));
  if (bytes >= 1 << 20) return fmt::format("{:g} MiB", bytes / (1 << 20));
  return fmt::format("{:g} KiB", bytes / 1024);
}

// A ring through all of `count` places in random order, so that no prefetcher knows the next.
std::vector<uint32_t> random_order(uint32_t count) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(count));
  return order;
}

// What the memory's clock and width give, from the driver; 0 when it does not say.
double memory_peak(const DeviceFacts& facts) {
  driver::DeviceOrdinal device = 0;
  int khz = 0, bits = 0;
  if (driver::api().device_get(&device, facts.ordinal) != 0 ||
      driver::api().device_attribute(&khz, driver::kMemoryClockKHz, device) != 0 ||
      driver::api().device_attribute(&bits, driver::kMemoryBusBits, device) != 0)
    return 0;
  return 2.0 * khz * 1e3 * bits / 8 * 1e-9;  // GB/s: two transfers per clock
}

}  // namespace

std::vector<Variant> probe_memory_variants(int) {
  return {memory_variant(4), memory_variant(8), memory_variant(16)};
}

void probe_latency(ProbeSession& s) {
  constexpr uint32_t kSteps = 16384, kMostNodes = 1 << 20;
  const auto link = s.kernels.get(memory_variant(16), "link_ring");
  const auto walk = s.kernels.get(memory_variant(16), "walk_ring");
  const size_t l2 = s.facts().l2_bytes;
  Buffer order(s.device, kMostNodes * 4);
  // Cycles per load in a ring over `footprint` bytes.
  const auto measure = [&](size_t footprint, uint32_t near) {
    const auto stride = uint32_t(std::max<size_t>(128, footprint / kMostNodes));
    const auto nodes = uint32_t(footprint / stride);
    const auto places = random_order(nodes);
    s.stream.upload(order.address(), places.data(), places.size() * 4);
    LaunchShape many;
    many.grid[0] = std::max(1u, nodes / 1024);
    s.stream.launch(link, many, s.data.address(), order.address(), nodes, stride);
    // What linking left in L2 is pushed out where the ring is larger.
    const bool cold = footprint > l2;
    if (cold && s.data.size() >= 2 * footprint)
      s.stream.fill(s.data.address() + footprint, 1, std::min(s.data.size() - footprint, 4 * l2));
    LaunchShape one;
    one.block = 1;
    const uint32_t warm = cold ? 64 : nodes;
    std::vector<double> all;
    Address at = s.data.address();
    for (int i = 0; i < s.repetitions; ++i) {
      s.stream.launch(walk, one, at, warm, kSteps, near, s.out.address());
      const auto result = s.read_out(2);
      all.push_back(double(result[0]) / kSteps);
      if (cold) at = result[1];  // go on where nothing was read yet
    }
    return all;
  };
  const size_t largest = std::min<size_t>(size_t{1} << 30, s.data.size() / 2);
  for (size_t footprint = 16 << 10; footprint <= largest; footprint *= 2)
    s.point("latency of a dependent load", "footprint, bytes", "cycles", "through L1", double(footprint),
            median_of(measure(footprint, 1)));
  auto& l1 = s.add("latency", "L1, 16 KiB", measure(16 << 10, 1), "cycles");
  if (s.hopper()) l1.low = 28, l1.high = 42;
  auto& cached = s.add("latency", "L2, 2 MiB", measure(2 << 20, 0), "cycles");
  if (s.hopper()) cached.low = 190, cached.high = 310;
  s.add("latency", "L2, " + bytes_text(double(l2 / 2 >> 20 << 20)), measure(l2 / 2 >> 20 << 20, 0), "cycles");
  auto& global = s.add("latency", "global, " + bytes_text(double(largest)), measure(largest, 0), "cycles");
  if (s.hopper()) global.low = 450, global.high = 1100;

  // The two halves of L2 are not equally far: the cycles of single loads.
  const uint32_t count = 8192;
  measure(size_t{count} * 128, 0);
  LaunchShape one;
  one.block = 1;
  s.stream.launch(s.kernels.get(memory_variant(16), "time_each"), one, s.data.address(), count,
                  s.out.address());
  std::vector<uint32_t> each(count);
  s.stream.download(each.data(), s.out.address(), each.size() * 4);
  s.stream.synchronize();
  std::sort(each.begin(), each.end());
  s.add("latency", "L2, single loads: median", {double(each[count / 2])}, "cycles").note =
      fmt::format("5 % below {}, 95 % below {} (near and far half)", each[count / 20], each[count / 20 * 19]);

  std::vector<double> shared;
  for (int i = 0; i < s.repetitions; ++i) {
    LaunchShape shape;
    shape.shared_bytes = 16 << 10;
    s.stream.launch(s.kernels.get(memory_variant(16), "walk_shared"), shape, uint32_t{4096}, kSteps,
                    s.out.address());
    shared.push_back(double(s.read_out(1)[0]) / kSteps);
  }
  auto& row = s.add("latency", "shared memory", shared, "cycles");
  if (s.hopper()) row.low = 20, row.high = 36;
}

void probe_bandwidth(ProbeSession& s) {
  const double peak = memory_peak(s.facts());
  const unsigned sms = s.multiprocessors();
  const auto rates = [](std::vector<double> seconds, double bytes) {
    for (double& t : seconds) t = bytes / t * 1e-9;
    return seconds;
  };
  LaunchShape shape;
  shape.grid[0] = sms * 4, shape.block = 512;
  for (const int width : {4, 8, 16}) {
    const int64_t step = int64_t{8} * shape.grid[0] * shape.block;
    const int64_t words = int64_t(s.data.size()) / width / step * step;
    const auto kernel = s.kernels.get(memory_variant(width), "read_once");
    auto& row = s.add(
        "bandwidth", fmt::format("global read, {} bytes per access", width),
        rates(s.seconds([&] { s.stream.launch(kernel, shape, s.data.address(), words, s.out.address()); }),
              double(words * width)),
        "GB/s");
    if (peak > 0) row.note = fmt::format("{:.0f} % of {:.0f} GB/s", 100 * row.value / peak, peak);
    if (peak > 0 && width == 16) row.low = 0.85 * peak, row.high = peak;
  }
  const int64_t words = int64_t(s.data.size()) / 16, half = words / 2;
  const auto write = s.kernels.get(memory_variant(16), "write_once");
  auto& written = s.add(
      "bandwidth", "global write, 16 bytes per access",
      rates(s.seconds([&] { s.stream.launch(write, shape, s.data.address(), words); }), double(words * 16)),
      "GB/s");
  if (peak > 0) written.note = fmt::format("{:.0f} % of {:.0f} GB/s", 100 * written.value / peak, peak);
  const auto copy = s.kernels.get(memory_variant(16), "copy_once");
  auto& copied =
      s.add("bandwidth", "global copy, read + written",
            rates(s.seconds([&] {
              s.stream.launch(copy, shape, s.data.address(), s.data.address() + Address(half * 16), half);
            }),
                  double(half * 32)),
            "GB/s");
  if (peak > 0) copied.note = fmt::format("{:.0f} % of {:.0f} GB/s", 100 * copied.value / peak, peak);

  // A quarter of L2, so that it stays there whatever half it is in.
  const size_t resident = std::max<size_t>(s.facts().l2_bytes / 4 >> 20 << 20, size_t{1} << 20);
  for (const int width : {4, 8, 16}) {
    LaunchShape all;
    all.grid[0] = sms * 2, all.block = 1024;
    const auto count = uint32_t(resident / size_t(width));
    const auto kernel = s.kernels.get(memory_variant(width), "read_again");
    const uint32_t rounds = 4;
    s.add("bandwidth", fmt::format("L2 read, {} bytes per access", width),
          rates(s.seconds(
                    [&] { s.stream.launch(kernel, all, s.data.address(), count, rounds, s.out.address()); }),
                double(resident) * rounds * all.grid[0]),
          "GB/s")
        .note = fmt::format("{} read by every block", bytes_text(double(resident)));
  }
  for (const int width : {4, 8, 16}) {
    const uint32_t bytes = 64 << 10, rounds = 256;  // as in the kernels
    LaunchShape near;
    near.grid[0] = sms, near.block = 1024;
    std::vector<double> l1, shared;
    const auto per_clock = [&] { return double(bytes) * rounds / s.block_cycles(sms); };
    for (int i = 0; i < s.repetitions; ++i) {
      s.stream.launch(s.kernels.get(memory_variant(width), "read_near"), near, s.data.address(), rounds,
                      s.out.address());
      l1.push_back(per_clock());
      LaunchShape inside = near;
      inside.shared_bytes = bytes;
      s.stream.launch(s.kernels.get(memory_variant(width), "read_shared"), inside, rounds, s.out.address());
      shared.push_back(per_clock());
    }
    s.add("bandwidth", fmt::format("L1 read, {} bytes per access", width), l1, "B/clk/SM");
    auto& row =
        s.add("bandwidth", fmt::format("shared memory read, {} bytes per access", width), shared, "B/clk/SM");
    if (width == 16) row.low = 110, row.high = 130;  // 32 banks of 4 bytes
  }
}

void probe_copies(ProbeSession& s) {
  const size_t bytes = std::min<size_t>(size_t{256} << 20, s.data.size() / 4);
  PinnedBuffer up(s.device, bytes), down(s.device, bytes);
  for (size_t i = 0; i < bytes; i += 4096) up.data()[i] = down.data()[i] = std::byte(i >> 12);
  const auto rates = [&](std::vector<double> seconds, double moved) {
    for (double& t : seconds) t = moved / t * 1e-9;
    return seconds;
  };
  const Address low = s.data.address(), high = s.data.address() + bytes;
  s.add("copies", "page-locked host to device",
        rates(s.seconds([&] { s.stream.upload(low, up.data(), bytes); }), double(bytes)), "GB/s");
  s.add("copies", "device to page-locked host",
        rates(s.seconds([&] { s.stream.download(down.data(), high, bytes); }), double(bytes)), "GB/s");
  Stream other(s.device);
  const auto wall = [&](const std::function<void()>& f) {
    std::vector<double> all;
    for (int i = -1; i < s.repetitions; ++i) {
      const double start = steady_seconds();
      f();
      if (i >= 0) all.push_back(steady_seconds() - start);
    }
    return all;
  };
  s.add("copies", "both directions at once, sum",
        rates(wall([&] {
                s.stream.upload(low, up.data(), bytes);
                other.download(down.data(), high, bytes);
                s.stream.synchronize(), other.synchronize();
              }),
              double(2 * bytes)),
        "GB/s");
  std::vector<std::byte> pageable(bytes, std::byte{1});
  s.add("copies", "pageable host to device",
        rates(wall([&] {
                s.stream.upload(low, pageable.data(), bytes);
                s.stream.synchronize();
              }),
              double(bytes)),
        "GB/s");
  s.add("copies", "device to device, read + written",
        rates(s.seconds([&] { s.stream.copy(high, low, bytes); }), double(2 * bytes)), "GB/s");
  auto round_trip = wall([&] {
    s.stream.upload(low, up.data(), 4);
    s.stream.synchronize();
  });
  for (double& t : round_trip) t *= 1e6;
  s.add("copies", "4 bytes to the device and waiting", round_trip, "us");
  for (size_t size = 4 << 10; size <= bytes; size *= 4)
    for (const bool to_device : {true, false}) {
      const auto rate = rates(s.seconds([&] {
        to_device ? s.stream.upload(low, up.data(), size) : s.stream.download(down.data(), high, size);
      }),
                              double(size));
      s.point("copies of page-locked memory", "bytes", "GB/s", to_device ? "to the device" : "to the host",
              double(size), median_of(rate));
    }
}

void probe_launches(ProbeSession& s) {
  constexpr int kLaunches = 1000;
  const auto nothing = s.kernels.get(memory_variant(16), "nothing");
  LaunchShape shape;
  shape.block = 32;
  const auto launch_all = [&] {
    for (int i = 0; i < kLaunches; ++i) s.stream.launch(nothing, shape);
  };
  std::vector<double> host, alone;
  for (int i = -1; i < s.repetitions; ++i) {
    double start = steady_seconds();
    launch_all();
    const double launched = steady_seconds() - start;
    s.stream.synchronize();
    double waited = 0;
    for (int j = 0; j < 100; ++j) {
      start = steady_seconds();
      s.stream.launch(nothing, shape);
      s.stream.synchronize();
      waited += steady_seconds() - start;
    }
    if (i >= 0) host.push_back(launched / kLaunches * 1e6), alone.push_back(waited / 100 * 1e6);
  }
  s.add("launches", "an empty kernel, the call", host, "us");
  s.add("launches", "an empty kernel, launched and waited for", alone, "us");
  const auto each = [&](std::vector<double> seconds) {
    for (double& t : seconds) t *= 1e6 / kLaunches;
    return seconds;
  };
  s.add("launches", "empty kernels one after another, each", each(s.seconds(launch_all)), "us");
  const Graph graph = Graph::capture(s.stream, launch_all);
  s.add("launches", "the same as a graph, each", each(s.seconds([&] { graph.launch(s.stream); })), "us");
}

namespace {
struct Group {
  const char* name;
  void (*measure)(ProbeSession&);
};
constexpr Group kGroups[] = {
    {"latency", probe_latency}, {"bandwidth", probe_bandwidth}, {"matrix", probe_matrix},
    {"units", probe_units},     {"cluster", probe_cluster},     {"bulk", probe_bulk},
    {"dpx", probe_dpx},         {"copies", probe_copies},       {"launches", probe_launches}};
}  // namespace

const std::vector<std::string>& probe_groups() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& g : kGroups) all.emplace_back(g.name);
    return all;
  }();
  return names;
}

void check_probe_groups(const std::vector<std::string>& groups) {
  std::string known;
  for (const auto& name : probe_groups()) known += (known.empty() ? "" : ", ") + name;
  for (const auto& name : groups)
    if (std::find(probe_groups().begin(), probe_groups().end(), name) == probe_groups().end())
      fail(ErrorKind::invalid_argument, "there is no group of probes named '{}'; there are: {}", name, known);
}

ProbeReport probe_device(const Device& device, const std::vector<std::string>& groups, int repetitions,
                         const std::function<void(const std::string&)>& progress) {
  check_probe_groups(groups);
  ProbeSession session(device, repetitions);
  std::vector<Variant> variants;
  for (const auto list : {probe_memory_variants, probe_matrix_variants, probe_matrix_sm90_variants,
                          probe_cluster_variants, probe_dpx_variants})
    for (auto& v : list(device.facts().capability)) variants.push_back(std::move(v));
  session.kernels.prepare(variants);
  session.stream.fill(session.data.address(), 0x5a, session.data.size());
  const double start = steady_seconds();
  for (const auto& group : kGroups) {
    if (std::find(groups.begin(), groups.end(), group.name) == groups.end()) continue;
    if (progress) progress(group.name);
    group.measure(session);
  }
  session.report.seconds = steady_seconds() - start;
  session.report.compiled = session.kernels.compiled();
  return std::move(session.report);
}

}  // namespace cairn::cuda
