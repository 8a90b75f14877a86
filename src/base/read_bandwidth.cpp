#include "base/read_bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/cpu_features.h"

namespace cairn {
namespace {

// Four sums hide the latency of the additions; the loads are what is measured.
template <typename Vector>
[[gnu::always_inline]] inline uint64_t sum_of(const std::byte* data, size_t bytes) {
  Vector sums[4] = {};
  const auto* at = reinterpret_cast<const Vector*>(data);
  const size_t steps = bytes / (4 * sizeof(Vector));
  for (size_t i = 0; i < steps; ++i, at += 4)
    for (int lane = 0; lane < 4; ++lane) sums[lane] += at[lane];
  const Vector total = sums[0] + sums[1] + sums[2] + sums[3];
  uint64_t sum = 0;
  for (size_t i = 0; i < sizeof(Vector) / sizeof(uint64_t); ++i) sum += total[i];
  return sum;
}

using Words2 [[gnu::vector_size(16), gnu::may_alias]] = uint64_t;

uint64_t sum_baseline(const std::byte* data, size_t bytes) { return sum_of<Words2>(data, bytes); }

#if defined(__x86_64__)
using Words4 [[gnu::vector_size(32), gnu::may_alias]] = uint64_t;
using Words8 [[gnu::vector_size(64), gnu::may_alias]] = uint64_t;
[[gnu::target("avx2")]] uint64_t sum_avx2(const std::byte* data, size_t bytes) {
  return sum_of<Words4>(data, bytes);
}
[[gnu::target("avx512f")]] uint64_t sum_avx512(const std::byte* data, size_t bytes) {
  return sum_of<Words8>(data, bytes);
}
#endif

auto sum_function() {
#if defined(__x86_64__)
  if (active_isa() >= Isa::avx512) return sum_avx512;
  if (active_isa() >= Isa::avx2) return sum_avx2;
#endif
  return sum_baseline;
}

}  // namespace

Bandwidth measure_read_bandwidth(ThreadPool& pool, size_t bytes, int repetitions) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kGranule = 4096;
  bytes = std::max<size_t>(bytes / kGranule * kGranule, kGranule);
  AlignedBuffer buffer(bytes);
  // Each thread touches the pages that it will read, so that they lie near it; zero pages would all be one
  // page.
  pool.split(int64_t(bytes), kGranule, [&](Range part) {
    std::fill(buffer.data() + part.begin, buffer.data() + part.end, std::byte{1});
  });
  const auto sum = sum_function();
  std::atomic<uint64_t> total{0};
  std::vector<double> rates;
  for (int repetition = 0; repetition < repetitions + 1; ++repetition) {
    const auto start = Clock::now();
    pool.split(int64_t(bytes), kGranule, [&](Range part) {
      total += sum(buffer.data() + part.begin, size_t(part.size()));  // used: the loads cannot be dropped
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (repetition > 0) rates.push_back(double(bytes) / seconds / 1e9);  // the first one warms up
  }
  std::sort(rates.begin(), rates.end());
  // Every word is 0x0101...: a wrong sum means that not everything was read.
  if (total != uint64_t(repetitions + 1) * (bytes / 8) * 0x0101010101010101u)
    throw std::logic_error("the bandwidth measurement did not read every byte once");
  return {rates[rates.size() / 2], rates.back(), bytes, pool.size(), repetitions};
}

}  // namespace cairn
