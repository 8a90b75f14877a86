#include "backends/cuda/ceilings.h"

#include <algorithm>

#include "backends/cuda/cupti.h"

namespace cairn::cuda {

std::vector<Variant> ceiling_variants(int) { return {{"ceilings.cu", {}}}; }

ReadBandwidth measure_read_bandwidth(const Device& device) {
  constexpr int kRepetitions = 15;
  KernelCache kernels(device);
  Stream stream(device);
  ReadBandwidth result;
  // Half of what is free, so that a loaded model's neighbours keep room.
  result.bytes = std::min(size_t{4} << 30, device.free_bytes() / 2) & ~size_t{255};
  result.repetitions = kRepetitions;
  const Buffer data(device, result.bytes), out(device, 256);
  stream.fill(data.address(), 0x5a, data.size());
  const auto kernel = kernels.get(ceiling_variants(0).front(), "read_all");
  LaunchShape shape;
  shape.grid[0] = unsigned(device.facts().multiprocessors * 4);
  shape.block = 512;
  std::vector<double> rates;
  for (int i = -2; i < kRepetitions; ++i) {
    Event begin(device, true), end(device, true);
    begin.record(stream);
    stream.launch(kernel, shape, data.address(), int64_t(data.size() / 16), out.address());
    end.record(stream);
    stream.synchronize();
    if (i >= 0) rates.push_back(double(data.size()) / double(end.since(begin)) / 1e6);
  }
  std::sort(rates.begin(), rates.end());
  result.median_gb_per_s = rates[rates.size() / 2];
  result.best_gb_per_s = rates.back();
  return result;
}

double measure_launch_to_start(const Device& device) {
  Cupti* cupti = Cupti::instance();
  if (!cupti) return 0;
  KernelCache kernels(device);
  Stream stream(device);
  const auto kernel = kernels.get(ceiling_variants(0).front(), "nothing");
  LaunchShape shape;
  shape.block = 32;
  cupti->start();
  constexpr int kWarm = 20, kLaunches = 100;
  for (int i = 0; i < kWarm + kLaunches; ++i) {
    cupti->push(i);
    stream.launch(kernel, shape);
    cupti->pop();
    stream.synchronize();
  }
  std::vector<double> waits;
  for (const auto& k : cupti->stop())
    if (k.id >= kWarm) waits.push_back((double(k.start_ns) - double(k.launch_ns)) * 1e-3);
  if (waits.empty()) return 0;
  std::sort(waits.begin(), waits.end());
  return waits[waits.size() / 2];
}

}  // namespace cairn::cuda
