#include "ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "peak_loops.h"

namespace cairn::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double best_rate(ThreadPool& pool, double (*loop)(int64_t), int64_t rounds) {
  double best = 0;
  for (int pass = 0; pass < 5; pass++) {
    std::atomic<double> work{0};
    const auto start = Clock::now();
    pool.run([&](int) { work += loop(rounds); });
    best = std::max(best, work / seconds_since(start));
  }
  return best;
}

}  // namespace

double read_bandwidth(ThreadPool& pool, const std::byte* memory, size_t bytes) {
  double best = 0;
  std::atomic<uint64_t> sink{0};
  for (int pass = 0; pass < 3; pass++) {
    const auto start = Clock::now();
    pool.split(int64_t(bytes), 4096,
               [&](Range part) { sink ^= read_avx2(memory + part.begin, part.size()); });
    best = std::max(best, double(bytes) / seconds_since(start));
  }
  return best;
}

double peak_f32(ThreadPool& pool) {
  if (detect_isa() >= Isa::avx512) return best_rate(pool, loop_f32_avx512, 2'000'000);
  return detect_isa() >= Isa::avx2 ? best_rate(pool, loop_f32_avx2, 2'000'000) : 0;
}
double peak_bf16(ThreadPool& pool, Isa isa) {
  if (isa >= Isa::amx) return best_rate(pool, loop_bf16_amx, 400'000);
  return isa >= Isa::vnni ? best_rate(pool, loop_bf16_vnni, 2'000'000) : peak_f32(pool);
}
double peak_int8(ThreadPool& pool, Isa isa) {
  if (isa >= Isa::amx) return best_rate(pool, loop_int8_amx, 400'000);
  return isa >= Isa::vnni ? best_rate(pool, loop_int8_vnni, 2'000'000) : peak_f32(pool);
}

}  // namespace cairn::bench
