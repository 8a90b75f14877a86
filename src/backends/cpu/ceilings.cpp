#include "backends/cpu/ceilings.h"

#include <algorithm>
#include <atomic>

#include "backends/cpu/peak_loops.h"
#include "base/steady_seconds.h"

namespace cairn::cpu {
namespace {

double best_rate(ThreadPool& pool, double (*loop)(int64_t), int64_t rounds) {
  double best = 0;
  for (int pass = 0; pass < 5; pass++) {
    std::atomic<double> work{0};
    const double start = steady_seconds();
    pool.run([&](int) { work += loop(rounds); });
    best = std::max(best, work / (steady_seconds() - start));
  }
  return best;
}

}  // namespace

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

}  // namespace cairn::cpu
