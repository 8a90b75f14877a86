// y = x w^T for one row of x (more: TOKENS at a time) and weights whose codes are small integers, in
// integers: x becomes fixed point of 16 bits, with a unit for every 128 columns, and products of codes and x
// are summed exactly by the tensor cores. Scales meet the sums in f32.
//
// Weights are the left operand of m16n8k32 (16 rows), x the right one, whose 8 columns are not 8 rows of x
// but groups of weights with a scale of their own, times the two bytes of x: a column holds x where its
// group's weights are and zeros elsewhere. So one sum per group comes out of products over 128 columns, with
// no scaling between, at 11 to 25 instructions for 16 x 32 weights.
//
// K is cut into kParts parts of whole chunks, one per warp, which are added in order; so the result depends
// on the row and the matrix only. A warp keeps STAGES - 1 chunks of weights on their way into shared memory.
//
// Error, beside that of f32 sums: half a unit, 2^-16 of the largest |x| of 128 columns, times the |weights|.
// Bound: device memory. Reference: double on the CPU (matmul_row_gpu_test.cpp).
//
// Macros: FORM_* (weight_forms.cuh); TOKENS: rows of x at a time; ROW_WARPS: tiles of 16 rows of weights side
// by side; STAGES; GATED; MIN_BLOCKS.
#include "few_rows.cuh"

constexpr int kParts = 8, kWarps = kParts * ROW_WARPS, kThreads = 32 * kWarps;
constexpr int kChunk = form::kChunk, kSections = kChunk / 128;
constexpr int kGroupBytes = form::kBlockBytes;
constexpr int kStageBytes = 2 * kGroupBytes, kRingBytes = kWarps * STAGES * kStageBytes;
constexpr int kTileGroups = 2 * ROW_WARPS, kTileRows = 8 * kTileGroups;
constexpr int kPartials = kParts * TOKENS * kTileRows,
              kPartialBytes = 2 * kPartials * 4;  // two tiles in turns

constexpr bool kHalves = form::kHalfSteps;
constexpr bool kSigned = FORM_LEVELS != 0 || FORM_BITS == 8;
// Low and high nibbles are summed apart, so that the high ones need no shift.
constexpr bool kNibbles = FORM_LEVELS == 0 && FORM_BITS == 4 && !kHalves;
constexpr bool kSums = form::kMin || form::kCodeZero;          // of x over groups, in f32
constexpr bool kZeros = !kSigned && !kSums && FORM_ZERO != 0;  // -zero times sums of x, where sums begin
// Of a section of x: the units of its two bytes, then sums by group or beginnings by column.
constexpr int kInfoBytes = kSums ? (kHalves ? 48 : 32) : kZeros ? (kHalves ? 80 : 48) : 16;

DEVICE void multiply_bytes(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  if constexpr (kSigned)
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

DEVICE int sum_bytes(u32 bytes, u32 which) {
  int sum;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(bytes), "r"(which), "r"(0));
  return sum;
}

// Two sections of x by a warp: 16 lanes each, a lane the 8 columns that a lane of the product has in a step.
DEVICE void quantize(const bf16* x, int section, int end, int cols, u8* planes, u8* info, int lane) {
  const int own = section + (lane >> 4), j = (lane >> 2) & 3, t = lane & 3;
  uint4 v = make_uint4(0, 0, 0, 0);
  if constexpr (kHalves) {
    const int column = own * 128 + 32 * j + 4 * t;
    if (own < end && column < cols) {
      const uint2 w = load_far(reinterpret_cast<const uint2*>(x + column));
      v.x = w.x, v.y = w.y;
    }
    if (own < end && column + 16 < cols) {
      const uint2 w = load_far(reinterpret_cast<const uint2*>(x + column + 16));
      v.z = w.x, v.w = w.y;
    }
  } else {
    const int column = own * 128 + 32 * j + 8 * t;
    if (own < end && column < cols) v = load_far(reinterpret_cast<const uint4*>(x + column));
  }
  const u32 words[4] = {v.x, v.y, v.z, v.w};
  u32 most = 0;  // bits of |x|: NaN is above all
#pragma unroll
  for (int i = 0; i < 4; ++i) most = max(most, max((words[i] << 16) & 0x7fffffffu, words[i] & 0x7fff0000u));
#pragma unroll
  for (int d = 1; d < 16; d <<= 1) most = max(most, __shfl_xor_sync(0xffffffffu, most, d));
  const float largest = __uint_as_float(most);
  const float unit = largest * (1.f / 32512.f), inverse = largest > 1e-30f ? 32512.f / largest : 0.f;
  u32 raised[8];  // their low 16 bits: 128 + x in units
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    raised[2 * i] = __float_as_uint(fmaf(low_bf16(words[i]), inverse, 12582912.f + 128.f));
    raised[2 * i + 1] = __float_as_uint(fmaf(high_bf16(words[i]), inverse, 12582912.f + 128.f));
  }
  // Elements 0, 4, 1, 5 and 2, 6, 3, 7: as nibbles lie in a word.
  const u32 a = __byte_perm(raised[0], raised[4], 0x5140), b = __byte_perm(raised[1], raised[5], 0x5140),
            c = __byte_perm(raised[2], raised[6], 0x5140), d = __byte_perm(raised[3], raised[7], 0x5140);
  const uint2 high = make_uint2(__byte_perm(a, b, 0x7632), __byte_perm(c, d, 0x7632)),
              low = make_uint2(__byte_perm(a, b, 0x5410) ^ 0x80808080u,
                               __byte_perm(c, d, 0x5410) ^ 0x80808080u);
  if (own < end) {
    *reinterpret_cast<uint2*>(planes + own * 256 + (4 * j + t) * 8) = high;
    *reinterpret_cast<uint2*>(planes + own * 256 + 128 + (4 * j + t) * 8) = low;
  }
  u8* const at = info + own * kInfoBytes;
  if (own < end && (lane & 15) == 0)
    *reinterpret_cast<float2*>(at) =
        make_float2(unit * (kNibbles ? 16.f : 256.f), unit * (kNibbles ? 0.0625f : 1.f));
  if constexpr (kSums || kZeros) {
#pragma unroll
    for (int h = 0; h <= int(kHalves); ++h) {
      const u32 which = kHalves ? 0x00010001u << (8 * h) : 0x01010101u;
      int sums[2] = {sum_bytes(high.x, which) + sum_bytes(high.y, which),
                     sum_bytes(low.x, which) + sum_bytes(low.y, which)};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 1);
        sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], 2);
      }
      if (own >= end || t != 0) continue;
      if constexpr (kSums) {
        const int group = kHalves ? 2 * j + h : j;
        reinterpret_cast<float*>(at + 8)[group] = float(256 * sums[0] + sums[1]) * unit;
      } else {
#pragma unroll
        for (int plane = 0; plane < 2; ++plane) {
          const int column = kHalves ? (j >> 1) * 8 + plane * 4 + (j & 1) * 2 + h : plane * 4 + j;
          reinterpret_cast<int*>(at + 8)[column] = -FORM_ZERO * sums[plane];
        }
      }
    }
  }
}

// Bits of `a` where `where` is set, of b elsewhere, in one instruction.
DEVICE u32 either(u32 where, u32 a, u32 b) {
  u32 y;
  asm("lop3.b32 %0, %1, %2, %3, 0xe4;" : "=r"(y) : "r"(a), "r"(b), "r"(where));
  return y;
}

// Step j's codes as bytes: elements 0, 4, 1, 5 and 2, 6, 3, 7.
template <int j>
DEVICE void byte_codes(const form::Codes& c, u32& first, u32& second) {
  if constexpr (FORM_BITS == 8) {
    const u32 a = form::word<2 * (j & 1)>(j < 2 ? c.low : c.high),
              b = form::word<2 * (j & 1) + 1>(j < 2 ? c.low : c.high);
    first = __byte_perm(a, b, 0x6240), second = __byte_perm(a, b, 0x7351);
    return;
  }
#if FORM_LEVELS == 1 || FORM_LEVELS == 2
  const u32 w = form::word<j>(c.low), even = form::look_up(w), odd = form::look_up(w >> 16);
  first = __byte_perm(even, odd, 0x6420), second = __byte_perm(even, odd, 0x7531);
#else
  first = second = 0;
  if constexpr (form::kPlane4) {
    const u32 w = form::word<j>(c.low);
    first = w & 0x0f0f0f0fu, second = (w >> 4) & 0x0f0f0f0fu;
  }
  if constexpr (form::kPlane2) {
    // Elements 0, 2, 4, 6 lie in one byte and 1, 3, 5, 7 in another: each byte twice, then shifts apart.
    const u32 w = __byte_perm(j < 2 ? c.two.x : c.two.y, 0, j & 1 ? 0x3311 : 0x2200);
    constexpr u32 kEven = 0x00ff00ffu;
    constexpr int up = form::kPlane4 ? 4 : 0;
    const u32 a = either(kEven, form::moved<0, up>(w), form::moved<4, up>(w)),
              b = either(kEven, form::moved<2, up>(w), form::moved<6, up>(w));
    first = form::and_or(a, 0x03030303u << up, first), second = form::and_or(b, 0x03030303u << up, second);
  }
  if constexpr (form::kPlane1) {
    const u32 w = c.one;
    constexpr int up = form::kPlane4 ? 4 : 2, at = 4 * j;
    constexpr u32 kEven = 0x00ff00ffu, kBit = 0x01010101u << up;
    first = form::and_or(either(kEven, form::moved<at, up>(w), form::moved<at + 2, up + 8>(w)), kBit, first);
    second =
        form::and_or(either(kEven, form::moved<at + 1, up>(w), form::moved<at + 3, up + 8>(w)), kBit, second);
  }
#endif
}

// The scales of a lane's two columns of sums, for a row: less what the chunk's groups share.
template <int set>
DEVICE float2 scales_of(const u8* at, int t) {                    // at: of the row and section
  const int i = kHalves ? 2 * (2 * set + (t & 1)) : 2 * (t & 1);  // the first of two groups
  if constexpr (form::kGroupsPerSection == 1) {
    const float d = from_f16(*reinterpret_cast<const f16*>(at));
    return make_float2(d, d);
  }
  if constexpr (FORM_SCALES == 1) {
    const u32 w = *reinterpret_cast<const u32*>(at + 2 * i);
    return make_float2(from_f16(f16(w)), from_f16(f16(w >> 16)));
  }
  if constexpr (FORM_SCALES == 2 || FORM_SCALES == 8) {
    const uint2 w = *reinterpret_cast<const uint2*>(at + 4 * i);
    return make_float2(from_f16(f16(w.x)), from_f16(f16(w.y)));
  }
  const u32 w = *reinterpret_cast<const u16*>(at + i);
  if constexpr (FORM_SCALES == 6) return make_float2(form::e8m0(w & 255), form::e8m0(w >> 8));
  return make_float2(form::half_e4m3(w & 255), form::half_e4m3(w >> 8));
}

// Scales that are small integers meet the sums in integers.
constexpr bool kIntegerScales = FORM_SCALES == 3 || FORM_SCALES == 4 || FORM_SCALES == 5;
template <int set>
DEVICE int2 integer_scales_of(const u8* at, int t) {
  const u32 w = *reinterpret_cast<const u16*>(at + (kHalves ? 2 * (2 * set + (t & 1)) : 2 * (t & 1)));
  if constexpr (FORM_SCALES == 3) return make_int2(i8(w), i8(w >> 8));
  if constexpr (FORM_SCALES == 4) return make_int2(int(w & 255), int(w >> 8));
  return make_int2(int(w & 15), int((w >> 8) & 15));
}

// Minima times sums of x, of the groups that are this lane's.
DEVICE float minima_of(const u8* at, const u8* info, int t) {
  const float* sums = reinterpret_cast<const float*>(info + 8);
  if constexpr (FORM_SCALES == 5) {
    const u32 w = *reinterpret_cast<const u16*>(at + 2 * t);
    const float2 s = *reinterpret_cast<const float2*>(sums + 2 * t);
    return fmaf(float((w >> 4) & 15), s.x, float(w >> 12) * s.y);
  }
  if constexpr (FORM_SCALES == 4) return float(at[4 + t]) * sums[t];
  const u32 w = *reinterpret_cast<const u32*>(at + (form::kGroupsPerSection == 1 ? 0 : 4 * t));
  if constexpr (FORM_SCALES == 8)  // -d zero
    return from_f16(f16(w)) * ((kSigned ? 0.f : 128.f) + high_bf16(w)) * sums[t];
  return from_f16(f16(w >> 16)) * sums[t];
}

// grid: (any number of blocks among which the rows of weights are divided, passes of TOKENS rows of x)
extern "C" __global__ void __launch_bounds__(kThreads, MIN_BLOCKS)
    matmul_row(const __grid_constant__ Arguments p) {
  extern __shared__ __align__(128) u8 shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane >> 2, t = lane & 3;
  const int part = warp / ROW_WARPS, row_warp = warp % ROW_WARPS;
  const u8* const ring = shared + warp * STAGES * kStageBytes;
  float* const partials = reinterpret_cast<float*>(shared + kRingBytes);
  u8* const planes = shared + kRingBytes + kPartialBytes;
  const int sections = p.chunks * kSections;
  u8* const info = planes + TOKENS * sections * 256;

  constexpr int kUnit = GATED ? 2 : 1;
  const i64 units = p.groups / kUnit;
  const int first_group = int(units * blockIdx.x / gridDim.x) * kUnit,
            end_group = int(units * (blockIdx.x + 1) / gridDim.x) * kUnit;
  const int tiles = (end_group - first_group + kTileGroups - 1) / kTileGroups;
  const int per_part = (p.chunks + kParts - 1) / kParts, first_chunk = min(part * per_part, p.chunks);
  const int chunks = min(per_part, p.chunks - first_chunk);

  // What is copied next.
  const u32 ring_at = shared_address(ring) + 16 * lane;
  const u8* at[2] = {};
  u32 present = 0;
  int copy_tile = 0, copy_chunk = 0, copy_slot = 0;
  const auto begin_tile = [&] {
    copy_chunk = 0, present = 0;
    const int group = first_group + copy_tile * kTileGroups + row_warp * 2;
#pragma unroll
    for (int q = 0; q < 2; ++q)
      if (group + q < end_group)
        present |= 1u << q,
            at[q] = place_of(p, group + q, 0, kGroupBytes) + i64(first_chunk) * kGroupBytes + 16 * lane;
  };
  const auto copy_next = [&] {
    if (copy_chunk == chunks) {
      if (chunks == 0 || copy_tile + 1 >= tiles) return false;
      ++copy_tile;
      begin_tile();
    }
    const u32 to = ring_at + copy_slot * kStageBytes;
    constexpr int kPieces = kGroupBytes / 16;
#pragma unroll
    for (int q = 0; q < 2; ++q)
      if ((present >> q) & 1) {
#pragma unroll
        for (int i = 0; i < (kPieces + 31) / 32; ++i)
          if ((i + 1) * 32 <= kPieces || 32 * i + lane < kPieces)
            copy16(to + q * kGroupBytes + 512 * i, at[q] + 512 * i);
        at[q] += kGroupBytes;
      }
    ++copy_chunk;
    return true;
  };
  if (tiles > 0) begin_tile();
#pragma unroll 1
  for (; copy_slot < STAGES - 1; ++copy_slot) {
    if (tiles > 0) copy_next();
    commit();
  }
  begin_after_previous(p);
  const int first_row = int(blockIdx.y) * TOKENS, rows = min(p.m - first_row, TOKENS);
  const int end_section = (first_chunk + chunks) * kSections;
#pragma unroll 2
  for (int s = first_chunk * kSections + 2 * row_warp; s < end_section; s += 2 * ROW_WARPS)
#pragma unroll 1
    for (int n = 0; n < TOKENS; ++n)  // past the last row: that one again
      quantize(p.x + i64(first_row + min(n, rows - 1)) * p.cols, s, end_section, int(p.cols),
               planes + n * sections * 256, info + n * sections * kInfoBytes, lane);
  if constexpr (ROW_WARPS == 1)
    __syncwarp();
  else
    __syncthreads();

  u32 mask[4], half_mask[2];  // where this lane's column has its x
#pragma unroll
  for (int j = 0; j < 4; ++j) mask[j] = (g & 3) == j ? 0xffffffffu : 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) half_mask[j] = ((g >> 1) & 1) == j ? 0x00ff00ffu << (8 * (g & 1)) : 0;

  int slot = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    float total[TOKENS][2] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; ++chunk) {
      wait_until_pending<STAGES - 2>();
      __syncwarp();
      copy_next();
      commit();
      copy_slot = copy_slot + 1 == STAGES ? 0 : copy_slot + 1;
      const u8* const block = ring + slot * kStageBytes;
      slot = slot + 1 == STAGES ? 0 : slot + 1;
      float sum[TOKENS][2] = {}, minima[TOKENS][2] = {};
#pragma unroll
      for (int section = 0; section < kSections; ++section) {
        const int index = (first_chunk + chunk) * kSections + section;
        const form::Codes w = form::load_codes(block, section, lane),
                          v = form::load_codes(block + kGroupBytes, section, lane);
        constexpr int kSets = kHalves ? 2 : 1;
        [[maybe_unused]] u32 wf[4], ws[4], vf[4], vs[4];
        if constexpr (!kNibbles) {
          byte_codes<0>(w, wf[0], ws[0]), byte_codes<1>(w, wf[1], ws[1]);
          byte_codes<2>(w, wf[2], ws[2]), byte_codes<3>(w, wf[3], ws[3]);
          byte_codes<0>(v, vf[0], vs[0]), byte_codes<1>(v, vf[1], vs[1]);
          byte_codes<2>(v, vf[2], vs[2]), byte_codes<3>(v, vf[3], vs[3]);
        }
        const u8* const scales = block + form::kOffsetScales +
                                 (form::kScaleSections == 1 ? 0 : section) * 8 * form::kSectionBytes +
                                 g * form::kSectionBytes;
#pragma unroll
        for (int n = 0; n < TOKENS; ++n) {
          const u8* const x_at = planes + (n * sections + index) * 256;
          const u8* const x_info = info + (n * sections + index) * kInfoBytes;
          int c[kSets][4] = {};
          if constexpr (kZeros) {
#pragma unroll
            for (int s = 0; s < kSets; ++s) {
              const int2 z = *reinterpret_cast<const int2*>(x_info + 8 + 32 * s + 8 * t);
              c[s][0] = c[s][2] = z.x, c[s][1] = c[s][3] = z.y;
            }
          }
          if constexpr (kNibbles) {
            const uint2 b = *reinterpret_cast<const uint2*>(x_at + 8 * lane);
            constexpr u32 kLow = 0x0f0f0f0fu, kHigh = 0xf0f0f0f0u;
            int high[4] = {};
            multiply_bytes(c[0], w.low.x & kLow, v.low.x & kLow, w.low.y & kLow, v.low.y & kLow,
                           b.x & mask[0], b.x & mask[1]);
            multiply_bytes(high, w.low.x & kHigh, v.low.x & kHigh, w.low.y & kHigh, v.low.y & kHigh,
                           b.y & mask[0], b.y & mask[1]);
            multiply_bytes(c[0], w.low.z & kLow, v.low.z & kLow, w.low.w & kLow, v.low.w & kLow,
                           b.x & mask[2], b.x & mask[3]);
            multiply_bytes(high, w.low.z & kHigh, v.low.z & kHigh, w.low.w & kHigh, v.low.w & kHigh,
                           b.y & mask[2], b.y & mask[3]);
#pragma unroll
            for (int i = 0; i < 4; ++i) c[0][i] = c[0][i] * 16 + high[i];
          } else {
#pragma unroll
            for (int s = 0; s < 2; ++s) {
              int(&to)[4] = c[kHalves ? s : 0];
              const int place = kHalves ? ((g >> 2) * 4 + 2 * s + ((g >> 1) & 1)) * 4 + t : lane;
              const uint2 b = *reinterpret_cast<const uint2*>(x_at + 8 * place);
              const u32 m0 = kHalves ? half_mask[0] : mask[2 * s],
                        m1 = kHalves ? half_mask[1] : mask[2 * s + 1];
              multiply_bytes(to, wf[2 * s], vf[2 * s], wf[2 * s + 1], vf[2 * s + 1], b.x & m0, b.x & m1);
              multiply_bytes(to, ws[2 * s], vs[2 * s], ws[2 * s + 1], vs[2 * s + 1], b.y & m0, b.y & m1);
            }
          }
          const float unit = reinterpret_cast<const float*>(x_info)[t >> 1];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const u8* const s = scales + r * kGroupBytes;
            float part_sum;
            if constexpr (kIntegerScales) {
              const int2 first = integer_scales_of<0>(s, t);
              int whole = first.x * c[0][2 * r] + first.y * c[0][2 * r + 1];
              if constexpr (kHalves) {
                const int2 second = integer_scales_of<1>(s, t);
                whole += second.x * c[kSets - 1][2 * r] + second.y * c[kSets - 1][2 * r + 1];
              }
              part_sum = float(whole);
            } else {
              const float2 first = scales_of<0>(s, t);
              part_sum = fmaf(first.y, float(c[0][2 * r + 1]), first.x * float(c[0][2 * r]));
              if constexpr (kHalves) {
                const float2 second = scales_of<1>(s, t);
                part_sum = fmaf(second.x, float(c[kSets - 1][2 * r]), part_sum);
                part_sum = fmaf(second.y, float(c[kSets - 1][2 * r + 1]), part_sum);
              }
            }
            sum[n][r] = fmaf(part_sum, unit, sum[n][r]);
            if constexpr (kSums) minima[n][r] += minima_of(s, x_info, t);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const u8* const shares = block + r * kGroupBytes + form::kOffsetRows + g * form::kRowBytes;
        [[maybe_unused]] float d = 1, dmin = 0;
        if constexpr (form::kRowBytes == 2) d = from_f16(*reinterpret_cast<const f16*>(shares));
        if constexpr (form::kRowBytes == 4) {
          const u32 both = *reinterpret_cast<const u32*>(shares);
          d = from_f16(f16(both)), dmin = -from_f16(f16(both >> 16));
        }
#pragma unroll
        for (int n = 0; n < TOKENS; ++n) {
          total[n][r] = form::kRowBytes > 0 ? fmaf(d, sum[n][r], total[n][r]) : total[n][r] + sum[n][r];
          if constexpr (kSums)
            total[n][r] =
                form::kRowBytes > 0 ? fmaf(dmin, minima[n][r], total[n][r]) : total[n][r] + minima[n][r];
        }
      }
    }
    float* const tile_partials = partials + (tile & 1) * kPartials;
#pragma unroll
    for (int n = 0; n < TOKENS; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float& v = total[n][r];
        v += __shfl_xor_sync(0xffffffffu, v, 1);
        v += __shfl_xor_sync(0xffffffffu, v, 2);
        if (t == 0) tile_partials[(part * TOKENS + n) * kTileRows + row_warp * 16 + 8 * r + g] = v;
      }
    __syncthreads();
    // Warps take turns in adding the parts.
    constexpr int kOutputs = GATED ? kTileRows / 2 : kTileRows;
    const int turn = 32 * (tile % kParts) * ROW_WARPS;
    const int i = (int(threadIdx.x) + kThreads - turn) % kThreads, n = i / kOutputs;
    if (n < rows) {
      const auto sum_of = [&](int row) {
        float s = tile_partials[n * kTileRows + row];
#pragma unroll
        for (int k = 1; k < kParts; ++k) s += tile_partials[(k * TOKENS + n) * kTileRows + row];
        return s;
      };
      const int output = i % kOutputs, row = GATED ? (output / 8) * 16 + output % 8 : output,
                group = first_group + tile * kTileGroups + row / 8;
      if (group < end_group) {
        const float v = sum_of(row);
        float up = 0;
        if constexpr (GATED) up = sum_of(row + 8);
        write_output(p, group, row % 8, first_row + n, v, up);
      }
    }
  }
  end_after_previous(p);
}
