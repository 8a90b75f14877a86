// A group of weights in DFloat11 (codecs/df11.h) as bf16. Blocks of threads take blocks of 4096 bytes of
// codes in turns, each thread 8 bytes: it counts the codes that begin there, a sum over the threads before it
// tells where its elements go, and it decodes them into shared memory. Then all threads join exponents with
// signs and mantissas, eight neighbours each. Tables give up to three codes at once.
//   TABLE_BITS  of the first look-up
//   RESIDENT    blocks of threads on a multiprocessor at least
//   AHEAD       1: signs and mantissas are loaded before decoding begins
#include "device.cuh"

constexpr u32 kThreads = 512, kTable = 1u << TABLE_BITS, kPointer = 240;
constexpr u32 kStep = 8 * kThreads;  // elements that are joined at a time

// 32 bits from bit p < 64 of a, b, c on.
DEVICE u32 window_at(u32 a, u32 b, u32 c, u32 p) {
  return __funnelshift_l(p < 32 ? b : c, p < 32 ? a : b, p);
}

struct Code {
  u32 exponent, bits;
};
// Any code, also one that is none: then of one bit, so that every loop ends.
DEVICE Code long_code(const u8* luts, u32 tables, u32 window) {
  u32 entry = luts[window >> 24];
  for (int depth = 1; depth < 4 && entry >= kPointer; ++depth) {
    const u32 table = 256 - entry;
    if (table >= tables) break;
    entry = luts[256 * table + (window >> (24 - 8 * depth) & 0xff)];
  }
  const u32 bits = luts[256 * tables + entry];
  return {entry, bits ? bits : 1};
}

// Of the sums over warps: what the warps before this one have.
DEVICE u32 sum_before(u32 count, u32* warp_sums) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 sum = count;
#pragma unroll
  for (u32 d = 1; d < 32; d *= 2) {
    const u32 other = __shfl_up_sync(0xffffffffu, sum, d);
    if (lane >= d) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  u32 before = lane < warp ? warp_sums[lane] : 0;  // there are 16 warps
#pragma unroll
  for (int d = 16; d > 0; d /= 2) before += __shfl_xor_sync(0xffffffffu, before, d);
  return before + sum - count;
}

// Four elements: their exponents and their signs with mantissas, byte by byte.
DEVICE uint2 join(u32 exponents, u32 signs) {
  const u32 high = (signs & 0x80808080u) | (exponents >> 1 & 0x7f7f7f7fu);
  const u32 low = (exponents << 7 & 0x80808080u) | (signs & 0x7f7f7f7fu);
  return {__byte_perm(low, high, 0x5140), __byte_perm(low, high, 0x7362)};
}

// tables: u32 [2^TABLE_BITS], up to three exponents, in bits 24..25 how many and from bit 26 on their bits;
// u16 [2^TABLE_BITS], how many, and bits 2..5, 6..9 and 10..13 those of the first, of two, of all; luts.
// codes: 16 bytes more than whole blocks; gaps: one more. Element 0 of sign_mantissa and out: at a multiple
// of 16 bytes.
extern "C" __global__ void __launch_bounds__(512, RESIDENT)
    decode_df11(const uint2* codes, const u8* gaps, const u32* positions, const uint4* tables,
                i32 luts_tables, const u8* sign_mantissa, bf16* out, i32 blocks) {
  extern __shared__ __align__(16) u8 shared[];
  __shared__ u32 warp_sums[kThreads / 32];
  const u32* const symbols = (const u32*)shared;
  const u16* const lengths = (const u16*)(shared + 4 * kTable);
  const u8* const luts = shared + 6 * kTable;
  const u32 table_bytes = 6 * kTable + 256 * (luts_tables + 1);
  u8* const staging = shared + table_bytes;
  const u32 thread = threadIdx.x;
  for (u32 i = thread; i < table_bytes / 16; i += kThreads) ((uint4*)shared)[i] = tables[i];
  release_next();
  wait_for_previous();
  __syncthreads();

  for (i32 block = blockIdx.x; block < blocks; block += gridDim.x) {
    const u32 begin = positions[block], total = positions[block + 1] - begin;
    const u32 skipped = begin % 16, end = skipped + total;  // in staging
    const u8* const signs = sign_mantissa + (begin - skipped);
    const uint2 words = codes[i64(block) * kThreads + thread];
    const u32 bit = 5 * thread;
    const u8* const gap_bytes = gaps + i64(block) * (kThreads * 5 / 8) + bit / 8;
    const u32 gap = (u32(gap_bytes[0]) << 8 | gap_bytes[1]) >> (11 - bit % 8) & 31;
    u32 behind = __shfl_down_sync(0xffffffffu, words.x, 1);
    if (thread % 32 == 31) behind = codes[i64(block) * kThreads + thread + 1].x;
#if AHEAD
    uint2 ahead[4];
#pragma unroll
    for (u32 k = 0; k < 4; ++k)
      if (8 * thread + k * kStep < end) ahead[k] = *(const uint2*)(signs + 8 * thread + k * kStep);
#endif
    const u32 a = __byte_perm(words.x, 0, 0x0123), b = __byte_perm(words.y, 0, 0x0123),
              c = __byte_perm(behind, 0, 0x0123);

    u32 count = 0;
    for (u32 p = gap; p < 64;) {
      const u32 window = window_at(a, b, c, p);
      const u32 entry = lengths[window >> (32 - TABLE_BITS)];
      if (entry == 0) {
        p += long_code(luts, luts_tables, window).bits;
        ++count;
        continue;
      }
      u32 n = entry & 3;
      const u32 after = p + (entry >> 10);
      // Of those that end behind the chunk only the ones that begin in it.
      if (after > 64) n = min(n, 1 + u32(p + (entry >> 2 & 15) < 64) + u32(p + (entry >> 6 & 15) < 64));
      count += n;
      p = after;
    }
    u32 at = skipped + sum_before(count, warp_sums);
    const u32 stop = min(at + count, end);

    // Bytes below `low` of the first word belong to the thread before.
    u32 low = at % 4, fill = low, word = at - low, waiting = 0;
    for (u32 p = gap; at < stop;) {
      const u32 window = window_at(a, b, c, p);
      u32 entry = symbols[window >> (32 - TABLE_BITS)];
      u32 n = entry >> 24 & 3, bits = entry >> 26;
      entry &= 0xffffffu;
      if (n == 0) {
        const Code code = long_code(luts, luts_tables, window);
        entry = code.exponent, bits = code.bits, n = 1;
      }
      n = min(n, stop - at);
      at += n;
      p += bits;
      waiting |= entry << (8 * fill);
      const u32 more = __funnelshift_l(entry, 0, 8 * fill);
      fill += n;
      if (fill >= 4) {
        if (low == 0)
          *(u32*)(staging + word) = waiting;
        else
          for (; low < 4; ++low) staging[word + low] = u8(waiting >> (8 * low));
        low = 0;
        waiting = more;
        fill -= 4;
        word += 4;
      }
    }
    for (; low < fill; ++low) staging[word + low] = u8(waiting >> (8 * low));
    __syncthreads();

    bf16* const to = out + (begin - skipped);
    const auto join_eight = [&](u32 i, uint2 sign) {
      const uint2 exponents = *(const uint2*)(staging + i);
      const uint2 first = join(exponents.x, sign.x), second = join(exponents.y, sign.y);
      if (i >= skipped && i + 8 <= end) {
        *(uint4*)(to + i) = {first.x, first.y, second.x, second.y};
        return;
      }
      const u32 pairs[4] = {first.x, first.y, second.x, second.y};
#pragma unroll
      for (u32 e = 0; e < 8; ++e)
        if (i + e >= skipped && i + e < end) to[i + e] = bf16(pairs[e / 2] >> (16 * (e % 2)));
    };
    u32 i = 8 * thread;
#if AHEAD
#pragma unroll
    for (u32 k = 0; k < 4; ++k, i += kStep)
      if (i < end) join_eight(i, ahead[k]);
#endif
    for (; i < end; i += kStep) join_eight(i, *(const uint2*)(signs + i));
  }
}
