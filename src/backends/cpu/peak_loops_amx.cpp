#include <immintrin.h>

#include <cstring>

#include "backends/cpu/peak_loops.h"

namespace cairn::cpu {
namespace {

// Eight full tiles: 0-3 sums, 4-7 operands.
void configure() {
  alignas(64) uint8_t config[64] = {1};
  for (int t = 0; t < 8; t++) {
    config[16 + 2 * t] = 64;
    config[48 + t] = 16;
  }
  __asm__ volatile("" : : "r"(config) : "memory");  // g++ 12's intrinsic claims to read eight bytes only
  _tile_loadconfig(config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

}  // namespace

double loop_bf16_amx(int64_t rounds) {
  configure();
  for (int64_t i = 0; i < rounds; i++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return double(rounds) * 4 * 16 * 16 * 64;
}

double loop_int8_amx(int64_t rounds) {
  configure();
  for (int64_t i = 0; i < rounds; i++) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
  }
  _tile_release();
  return double(rounds) * 4 * 16 * 16 * 128;
}

}  // namespace cairn::cpu
