#include "base/cpu_features.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace cairn {
namespace {

constexpr std::string_view kNames[] = {"scalar", "avx2", "avx512", "vnni", "amx"};

#if defined(__x86_64__)
// AMX state must be asked for once per process; the kernel answers 0 when the processor and it both allow it.
bool amx_permitted() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureXtiledata = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
  if ((d & (kAmxBf16 | kAmxTile | kAmxInt8)) != (kAmxBf16 | kAmxTile | kAmxInt8)) return false;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtiledata) == 0;
}

// clang 14's __builtin_cpu_supports does not know the name.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

Isa detect() {
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
        __builtin_cpu_supports("bmi2")))
    return Isa::scalar;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")))
    return Isa::avx2;
  if (!(__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") &&
        __builtin_cpu_supports("avx512vbmi")))
    return Isa::avx512;
  return amx_permitted() ? Isa::amx : Isa::vnni;
}
#else
Isa detect() { return Isa::scalar; }
#endif

Isa initial() {
  const char* wish = std::getenv("CAIRN_ISA");
  if (!wish || !*wish) return detect_isa();
  const auto found = std::find(std::begin(kNames), std::end(kNames), std::string_view(wish));
  if (found == std::end(kNames))
    fail(ErrorKind::invalid_argument, "CAIRN_ISA is '{}'; it must be scalar, avx2, avx512, vnni or amx",
         wish);
  return std::min(detect_isa(), Isa(found - std::begin(kNames)));
}

std::atomic<Isa>& active() {
  static std::atomic<Isa> isa = initial();
  return isa;
}

}  // namespace

Isa detect_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa active_isa() { return active(); }
void set_active_isa(Isa isa) { active() = std::min(isa, detect_isa()); }
std::string_view to_string(Isa isa) { return kNames[size_t(isa)]; }

}  // namespace cairn
