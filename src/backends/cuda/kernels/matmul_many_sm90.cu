// y[m, n] = epilogue(x[m, k] w[n, k]^T) for rows of prompts, on sm_90a: wgmma fed by the tensor copy engine.
//
// Bound: the matrix units. Blocks are persistent, one per multiprocessor. One warp brings tiles of x and w,
// 128 bytes of K wide and swizzled, into a ring of STAGES; CONSUMERS warpgroups multiply, 64 rows each by all
// TILE_N columns, and write their results through shared memory while the ring fills with the next tile.
//
// A row's sums run over K in order, 32 bytes per instruction, in one accumulator: the bits are the same for
// every tile shape and every place of the row. e4m3 with block scales (128 x 128): 128 columns at a time are
// scaled and added to f32 sums outside of the matrix units. With a scale per row all of K is one sum of the
// units, whose sums of e4m3 keep 13 bits behind the largest term: less than x lost when it became e4m3.
//
// EXPERTS: rows of x are sorted by expert (those of y as `order` says), expert e has rows begins[e] to
// begins[e + 1] and rows e n to (e + 1) n of w.
//
// early: no kernel of the stream writes w, so that the first round of the ring brings its weights before the
// kernel ahead has ended.
//
// Shapes: k and the row strides multiples of 16 bytes; any m and n. Bias, y and add as in matmul.h.
// Dropped: clusters of two that share x or w by multicast, and 256 x 128 tiles: no faster on an H200, where
// the power limit sets the pace of all good shapes.
#include "activation.cuh"
#include "expert_tiles.cuh"
#include "hopper.cuh"
#if PACKED
#include "unpack_step.cuh"
#endif

#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef TILE_N
#define TILE_N 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef ELEMENT  // of x and w: 0 bf16, 1 f16, 2 e4m3
#define ELEMENT 0
#endif
#ifndef OUT_F32
#define OUT_F32 0
#endif
#ifndef GATED
#define GATED 0
#endif
#ifndef ACTIVATION
#define ACTIVATION 0
#endif
#ifndef CAPPED  // softcap is used
#define CAPPED 0
#endif
#ifndef ADDED  // add is read (not needed for f32 results where add is y: then the copy engine adds)
#define ADDED 0
#endif
#ifndef BOXED  // 1: y is written by the copy engine (y and its row stride multiples of 16 bytes)
#define BOXED 1
#endif
#ifndef EXPERTS
#define EXPERTS 0
#endif
#ifndef JOINED  // 1: up to two more weights with results of their own, as if their columns followed
#define JOINED 0
#endif
#ifndef PACKED  // 1: weights lie in blocks (weights.h, FORM_*) and are unpacked on their way to the tiles
#define PACKED 0
#endif
#ifndef W_BLOCKS  // w lies in blocks of the form e4m3_g128, and x in their order of columns
                  // (quantize_rows.cu)
#define W_BLOCKS 0
#endif
#ifndef BLOCK_SCALES  // e4m3: w_scales is [n / 128, k / 128], not [n]
#define BLOCK_SCALES 0
#endif

struct Epilogue {
  const float* bias;
  const float* add;  // unless ADDED: y or null
  void* y;
  i64 y_stride;
  float scale, softcap;
};
// Of e4m3 operands: x[t, k] = x_scales[t] code, w[n, k] = w_scales[n] code or by blocks.
struct Scales {
  const float* x;
  const float* w;
  const float* up;
};
struct Joined {
  TensorMap w[2], y[2];
  Epilogue e[2];
  const float* scales[2];  // of e4m3 weights
  int n[2];                // 0: none
};
struct Packed {
  const u8* w;
  const u8* up;
  i64 piece_bytes;  // of an expert
};
struct Experts {
  const i32* begins;
  const i32* order;  // or null: row r of x is row order[r] of y
  int count;
};

constexpr Element kElement = Element(ELEMENT);
constexpr bool kScaled = kElement == Element::e4m3;
constexpr bool kRowScales = kScaled && !BLOCK_SCALES;
constexpr int kStepColumns = kScaled ? 128 : 64;  // of K in a stage: 128 bytes
constexpr int kTileM = CONSUMERS * 64;
constexpr int kFillers = PACKED ? 2 : 1;  // warpgroups that bring tiles, before those that multiply them
constexpr int kOutN = GATED ? TILE_N / 2 : TILE_N;
constexpr u32 kXBytes = kTileM * 128, kWBytes = TILE_N * 128, kStageBytes = kXBytes + kWBytes;
constexpr u32 kPieceBytes = 64 * 128;  // of y on its way out: 64 rows of 128 bytes
constexpr int kPieceColumns = OUT_F32 ? 32 : 64;
constexpr int kSums = TILE_N / 2;  // a thread's accumulators
constexpr int kPieces = BOXED ? (kOutN + kPieceColumns - 1) / kPieceColumns : kOutN / 16,
              kPieceEights = BOXED ? kPieceColumns / 8 : 2;
// The last piece ends where the tile ends: what it shares with the one before it is written twice, alike.
static_assert(BOXED ? kOutN >= kPieceColumns && kOutN % 8 == 0 : kOutN % 16 == 0, "results leave in pieces");
static_assert(!BOXED || !OUT_F32 || kOutN % kPieceColumns == 0, "what is added is added once");
static_assert(!W_BLOCKS || kScaled, "only e4m3 has blocks that the matrix units read");
static_assert(!BLOCK_SCALES || TILE_N == 128, "two sets of sums, and one weight scale per tile");
static_assert(!kRowScales || kOutN % 32 == 0, "a register of the warp holds scales of gate or of up");
static_assert(!JOINED || (BOXED && !EXPERTS && !GATED && !BLOCK_SCALES), "of plain weights only");
static_assert(!PACKED || (!JOINED && !kScaled), "of packed weights only");
static_assert(!EXPERTS || !BOXED, "a box would reach into the rows of the next expert");

// Order of tiles: `group` rows of tiles at a time, column by column, so that what neighbours share stays in
// L2.
struct Tiles {
  int across_m, across_n, group, m, n;
  const i32* ends;
  Experts experts;
  int ends_n[2];  // JOINED: columns of tiles of the first weight, of the first two
  DEVICE int count() const { return across_m * across_n; }
  struct Place {
    int row, row_end, column;  // of y and x: rows from `row`, below row_end
    int w_row;                 // of the weight, or of all experts' weights
    int which;                 // weight, or expert
  };
  DEVICE Place place(int index) const {
    const int per_group = group * across_n, first = index / per_group * group;
    const int rows = min(group, across_m - first), inside = index % per_group;
    const int tile = first + inside % rows;
    int column = inside / rows * kOutN, which = 0;
    if constexpr (JOINED) {
      which = (inside / rows >= ends_n[0]) + (inside / rows >= ends_n[1]);
      column -= (which == 0 ? 0 : which == 1 ? ends_n[0] : ends_n[1]) * kOutN;
    }
    if constexpr (EXPERTS) {
      const int e = expert_of_tile(ends, experts.count, tile), before = e > 0 ? ends[e - 1] : 0;
      return {experts.begins[e] + (tile - before) * kTileM, experts.begins[e + 1], column, e * n + column, e};
    }
    return {tile * kTileM, m, column, column, which};
  }
};

// Place in the ring: the stage and the parity of its current round.
struct Ring {
  u32 stage = 0, parity = 0;
  DEVICE void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

DEVICE float finish(float sum, float bias, const Epilogue& e) {
  float v = fmaf(sum, e.scale, bias);
  if constexpr (CAPPED) v = e.softcap * tanh_by_sigmoid(v / e.softcap);
  return activate<ACTIVATION>(v);
}

// The left operand's counterpart of 32 bytes of K: q of the four in a stage. In blocks each half of the 128
// columns is a tile of its own.
DEVICE u64 w_descriptor(u32 w_at, int q) {
  if constexpr (W_BLOCKS) return half_tile_descriptor(w_at + q / 2 * (TILE_N * 64)) + 2 * (q % 2);
  return tile_descriptor(w_at) + 2 * q;
}

// The products of a tile into d. Leaves the ring behind the tile.
DEVICE void multiply(float (&d)[kSums], Ring& ring, int steps, u32 tiles, u32 full, u32 empty, u32 consumer) {
  const u32 lane = threadIdx.x % 32;
  u32 before = 0;  // the stage whose products run while the next ones are issued
  for (int step = 0; step < steps; ++step, ring.next()) {
    const u32 x_at = tiles + ring.stage * kStageBytes;
    const u64 a = tile_descriptor(x_at + consumer * (64 * 128));
    barrier_wait(full + 8 * ring.stage, ring.parity);
    wgmma_begin();
#pragma unroll
    for (int q = 0; q < 4; ++q)
      wgmma<kElement>(d, a + 2 * q, w_descriptor(x_at + kXBytes, q), q > 0 || step > 0);
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0 && lane == 0) barrier_arrive(empty + 8 * before);
    before = ring.stage;
  }
  wgmma_wait<0>();
  if (lane == 0) barrier_arrive(empty + 8 * before);
}

// The same with sums of 128 columns scaled and added outside of the matrix units. Two consumers take turns:
// one adds while the other's products run.
DEVICE void multiply_scaled(float (&d)[kSums], Ring& ring, int steps, u32 tiles, u32 full, u32 empty,
                            u32 consumer, const float* w_scale, const float* up_scale) {
  const u32 lane = threadIdx.x % 32;
  float part[kSums];
#pragma unroll
  for (int i = 0; i < kSums; ++i) d[i] = 0;
  for (int step = 0; step < steps; ++step, ring.next()) {
    const u32 x_at = tiles + ring.stage * kStageBytes;
    const u64 a = tile_descriptor(x_at + consumer * (64 * 128));
    const float s0 = w_scale[step], s1 = GATED ? up_scale[step] : s0;
    barrier_wait(full + 8 * ring.stage, ring.parity);
    wgmma_begin();
#pragma unroll
    for (int q = 0; q < 4; ++q) wgmma<kElement>(part, a + 2 * q, w_descriptor(x_at + kXBytes, q), q > 0);
    wgmma_commit();
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(empty + 8 * ring.stage);
#pragma unroll
    for (int i = 0; i < kSums; ++i) d[i] = fmaf(part[i], i < kSums / 2 ? s0 : s1, d[i]);
  }
}

#if PACKED
// Half a stage (half a section of 128 columns) of eight rows of the weight.
template <int half>
DEVICE void fill_rows(const form::Codes& codes, const form::SectionScales& scales, u32 to) {
  const int lane = int(threadIdx.x) % 32, r = lane / 4, t = lane % 4;
  u32 even[4], odd[4];
  form::unpacked_step<2 * half>(codes, scales, even);
  form::unpacked_step<2 * half + 1>(codes, scales, odd);
  // Chunk c of 16 bytes of row r lies at chunk c ^ r. Odd rows begin with the second step: no two lanes meet
  // in a bank.
#pragma unroll
  for (int turn = 0; turn < 2; ++turn) {
    const bool second = (r + turn) % 2 != 0;
    u32 v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = second ? odd[i] : even[i];
    const u32 row = to + r * 128;
    if constexpr (form::kHalfSteps) {
      const int chunk = (second ? 4 : 0) + t / 2;
      store_words(row + (chunk ^ r) * 16 + t % 2 * 8, v[0], v[1]);
      store_words(row + ((chunk + 2) ^ r) * 16 + t % 2 * 8, v[2], v[3]);
    } else {
      const int chunk = (second ? 4 : 0) + t;
      store_words(row + (chunk ^ r) * 16, v[0], v[1], v[2], v[3]);
    }
  }
}

// What the eight warps that bring tiles do: one thread calls for x, all unpack the weight, eight rows at a
// time.
DEVICE void fill_tiles(const Tiles& tiles, const Packed& packed, const TensorMap* x_map, u32 base, u32 full,
                       u32 empty, int steps, int k) {
  constexpr int kGroups = TILE_N / 8, kOwn = kGroups / 8;
  static_assert(kGroups % 8 == 0, "every warp has as many rows");
  constexpr int kSections = form::kChunk / 128, kAhead = 4;  // sections that are on their way to L2
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const i64 chunks = (k + form::kChunk - 1) / form::kChunk;
  const int sections = (k + 127) / 128;
  struct Source {  // of a tile
    int row;       // of x
    const u8* blocks[kOwn];
  };
  const auto find = [&](int index) {
    const auto at = tiles.place(index);
    Source source;
    source.row = at.row;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int row = (warp + 8 * i) * 8, of_out = GATED && row >= kOutN ? row - kOutN : row;
      const int group = min((at.column + of_out) / 8, (tiles.n - 1) / 8);  // past the end: any
      source.blocks[i] = (GATED && row >= kOutN ? packed.up : packed.w) +
                         (EXPERTS ? at.which * packed.piece_bytes : 0) + group * chunks * form::kBlockBytes;
    }
    return source;
  };
  form::Codes codes[kOwn], next_codes[kOwn];
  form::SectionScales scales[kOwn], next_scales[kOwn];
  const auto load = [&](const Source& from, const Source& other, bool of_other, int section,
                        form::Codes(&c)[kOwn], form::SectionScales(&s)[kOwn]) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const u8* start =
          of_other ? other.blocks[i] : from.blocks[i];  // a choice of structs would lie in memory
      const u8* block = start + i64(section / kSections) * form::kBlockBytes;
      c[i] = form::load_codes(block, section % kSections, lane);
      s[i] = form::load_scales(block, section % kSections, lane / 4);
    }
  };
  const auto call_for = [&](const Source& from, int section) {
    constexpr int kLines = (form::kBlockBytes / kSections + 127) / 128;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      if (lane < kLines && section < sections)
        prefetch_far(from.blocks[i] + i64(section) * form::kBlockBytes / kSections + lane * 128);
  };
  Ring ring;
  int index = blockIdx.x;
  if (index >= tiles.count()) return;
  Source now = find(index), next = now;
  for (int s = 0; s < kAhead; ++s) call_for(now, s);
  load(now, now, false, 0, codes, scales);
  for (;;) {
    const bool more = index + int(gridDim.x) < tiles.count();
    if (more) {
      next = find(index + int(gridDim.x));
      for (int s = 0; s < kAhead; ++s) call_for(next, s);
    }
    const auto stage = [&](int step, auto fill) {
      const u32 x_to = base + ring.stage * kStageBytes, w_to = x_to + kXBytes, done = full + 8 * ring.stage;
      barrier_wait(empty + 8 * ring.stage, ring.parity ^ 1);
      if (threadIdx.x == 0) {
        barrier_expect(done, kXBytes);
        load_box(x_to, x_map, step * kStepColumns, now.row, done);
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i) fill(i, w_to + (warp + 8 * i) * 1024);
      publish_shared();
      __syncwarp();
      if (lane == 0) barrier_arrive(done);
      ring.next();
    };
    for (int section = 0; section < sections; ++section) {
      call_for(now, section + kAhead);
      const bool last = section + 1 == sections;
      load(now, next, last, last ? 0 : section + 1, next_codes, next_scales);
      stage(2 * section, [&](int i, u32 to) { fill_rows<0>(codes[i], scales[i], to); });
      if (2 * section + 1 < steps)
        stage(2 * section + 1, [&](int i, u32 to) { fill_rows<1>(codes[i], scales[i], to); });
#pragma unroll
      for (int i = 0; i < kOwn; ++i) codes[i] = next_codes[i], scales[i] = next_scales[i];
    }
    if (!more) break;
    index += int(gridDim.x);
    now = next;
  }
}
#endif

// Up to 192 columns 128 registers a thread are enough (dealt out anew below): each scheduler keeps room for
// two warps of 64 that unpack the next weights meanwhile (unpack.cu).
#if PACKED
#define CAIRN_BOUNDS __launch_bounds__((CONSUMERS + 2) * 128, 1)
#elif CONSUMERS == 2 && TILE_N <= 192
#define CAIRN_BOUNDS __launch_bounds__(512, 1)
#define CAIRN_GROWN 168
#else
#define CAIRN_BOUNDS __launch_bounds__((CONSUMERS + 1) * 128, 1)
#define CAIRN_GROWN 232
#endif

extern "C" __global__ void CAIRN_BOUNDS matmul_many(const __grid_constant__ TensorMap x_map,
                                                    const __grid_constant__ TensorMap first_w_map,
                                                    const __grid_constant__ TensorMap up_map,
                                                    const __grid_constant__ TensorMap first_y_map,
                                                    const Epilogue first_epilogue, const Scales scales,
                                                    const Experts experts, int m, int first_n, int k,
                                                    int group, int early
#if JOINED
                                                    ,
                                                    const __grid_constant__ Joined more
#endif
#if PACKED
                                                    ,
                                                    const Packed packed
#endif
) {
  extern __shared__ u8 dynamic[];
  const u32 base = (shared_address(dynamic) + 1023) & ~1023u;
  const u32 staging = base + STAGES * kStageBytes;
  const u32 full = staging + (BOXED ? CONSUMERS * 2 * kPieceBytes : 0), empty = full + STAGES * 8;
  const u32 warpgroup = threadIdx.x / 128;
  const int steps = (k + kStepColumns - 1) / kStepColumns;
  i32* ends = reinterpret_cast<i32*>(dynamic + (empty + STAGES * 8 - shared_address(dynamic)));

  const int across_n = (first_n + kOutN - 1) / kOutN;
  Tiles tiles = {(m + kTileM - 1) / kTileM, across_n, group, m, first_n, ends, experts, {across_n, across_n}};
#if JOINED
  tiles.ends_n[1] = across_n + (more.n[0] + kOutN - 1) / kOutN;
  tiles.across_n = tiles.ends_n[1] + (more.n[1] + kOutN - 1) / kOutN;
#endif
#if !PACKED
  const auto bring_weights = [&](const Tiles::Place& at, int step, u32 stage) {
#if JOINED
    const TensorMap* w_map = at.which == 0 ? &first_w_map : &more.w[at.which - 1];
#else
    const TensorMap* w_map = &first_w_map;
#endif
    const u32 w_to = base + stage * kStageBytes + kXBytes, done = full + 8 * stage;
    if constexpr (W_BLOCKS) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // dimensions: see weight_blocks_map()
        const u32 to = w_to + half * (TILE_N * 64);
        load_box(to, w_map, 0, 0, half, step, at.w_row / 8, done);
        if (GATED) load_box(to + kOutN * 64, &up_map, 0, 0, half, step, at.w_row / 8, done);
      }
    } else {
      load_box(w_to, w_map, step * kStepColumns, at.w_row, done);
      if constexpr (GATED) load_box(w_to + kWBytes / 2, &up_map, step * kStepColumns, at.w_row, done);
    }
  };
  const bool starts_early = !EXPERTS && early != 0;
#endif

  if (threadIdx.x == 0) {
    prefetch_map(&x_map), prefetch_map(&first_w_map);
    if (GATED) prefetch_map(&up_map);
    if (BOXED) prefetch_map(&first_y_map);
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(full + 8 * s, PACKED ? 1 + kFillers * 4 : 1);
      barrier_init(empty + 8 * s, CONSUMERS * 4);  // each consumer warp
    }
    barriers_ready();
#if !PACKED
    if (starts_early) {  // the first round of the ring: its weights wait for nobody
      const auto at = tiles.place(blockIdx.x);
      for (int s = 0; s < STAGES && s < steps; ++s) {
        barrier_expect(full + 8 * s, kStageBytes);
        bring_weights(at, s, s);
      }
    }
#endif
  }
  wait_for_previous();
  release_next();
  if (EXPERTS && threadIdx.x < 32) count_expert_tiles(experts.begins, experts.count, kTileM, ends);
  __syncthreads();
  if constexpr (EXPERTS) tiles.across_m = ends[experts.count - 1];

#if PACKED
  if (warpgroup < kFillers) {
    fill_tiles(tiles, packed, &x_map, base, full, empty, steps, k);
    return;
  }
#else
  if (warpgroup == 0) {
    if constexpr (CONSUMERS == 2) shrink_registers<40>();
    if (threadIdx.x == 0) {
      Ring ring;
      for (int index = blockIdx.x; index < tiles.count(); index += gridDim.x) {
        const auto at = tiles.place(index);
        for (int step = 0; step < steps; ++step, ring.next()) {
          const bool begun = starts_early && index == int(blockIdx.x) && step < STAGES;
          const u32 done = full + 8 * ring.stage;
          barrier_wait(empty + 8 * ring.stage, ring.parity ^ 1);
          if (!begun) barrier_expect(done, kStageBytes);
          load_box(base + ring.stage * kStageBytes, &x_map, step * kStepColumns, at.row, done);
          if (!begun) bring_weights(at, step, ring.stage);
        }
      }
    }
    return;
  }
  if constexpr (CONSUMERS == 2) grow_registers<CAIRN_GROWN>();
#endif

  const u32 consumer = warpgroup - kFillers, thread = threadIdx.x % 128, warp = thread / 32,
            lane = thread % 32;
  Ring ring;
  u32 half = 0;  // of the consumer's staging, in turns
  float d[kSums];
  for (int index = blockIdx.x; index < tiles.count(); index += gridDim.x) {
    const auto at = tiles.place(index);
#if JOINED
    const bool is_first = at.which == 0;
    const Epilogue e = is_first ? first_epilogue : more.e[at.which - 1];
    const TensorMap& y_map = is_first ? first_y_map : more.y[at.which - 1];
    const int n = is_first ? first_n : more.n[at.which - 1];
    const float* w_scales = is_first ? scales.w : more.scales[at.which - 1];
#else
    const Epilogue& e = first_epilogue;
    const TensorMap& y_map = first_y_map;
    const int n = first_n;
    const float* w_scales = scales.w;
#endif
    const int of_expert = at.w_row - at.column;  // first row of w, bias and scales
    if (!GATED && e.bias)
      for (int c = int(thread); c < kOutN && at.column + c < n; c += 128)
        prefetch_near(e.bias + of_expert + at.column + c);
    // The weight's scales of the tile's columns, gate's before up's: 32 a register of the warp.
    float held[kRowScales ? TILE_N / 32 : 1];
    if constexpr (kRowScales) {
#pragma unroll
      for (int i = 0; i < TILE_N / 32; ++i) {
        const int c = at.column + (32 * i + int(lane)) % kOutN;
        const float* of = GATED && i >= TILE_N / 64 ? scales.up : w_scales;
        held[i] = c < n ? of[of_expert + c] : 0.f;
      }
    }
    if constexpr (BLOCK_SCALES) {
      const i64 blocks = i64(at.w_row / 128) * ((k + 127) / 128);
      multiply_scaled(d, ring, steps, base, full, empty, consumer, w_scales + blocks, scales.up + blocks);
    } else {
      multiply(d, ring, steps, base, full, empty, consumer);
    }

    const int first_row = at.row + int(consumer) * 64, my_row = first_row + int(warp) * 16 + int(lane) / 4;
    i64 y_at[2] = {my_row, my_row + 8};  // rows of y, then where they begin
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      if (EXPERTS && experts.order && my_row + 8 * q < at.row_end) y_at[q] = experts.order[my_row + 8 * q];
      y_at[q] *= e.y_stride;
    }
    float x_scale[2] = {1, 1};
    if constexpr (kScaled) {
      if (my_row < at.row_end) x_scale[0] = scales.x[my_row];
      if (my_row + 8 < at.row_end) x_scale[1] = scales.x[my_row + 8];
    }
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece, half ^= 1) {
      const int first_eight = min(piece * kPieceEights, kOutN / 8 - kPieceEights);
      const u32 to = staging + (consumer * 2 + half) * kPieceBytes;
      if constexpr (BOXED) {
        if (thread == 0) wait_stores_read<1>();
        meet(1 + consumer, 128);
      }
#pragma unroll
      for (int j = 0; j < kPieceEights; j += 2) {
        float v[2][4];  // of 8 columns each: rows r and r + 8, two columns
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int i = first_eight + j + h, c = at.column + 8 * i + 2 * int(lane % 4);
          float w_scale[2] = {1, 1}, up_scale[2] = {1, 1}, bias[2] = {0, 0};
#pragma unroll
          for (int q = 0; q < 2; ++q) {
            if constexpr (kRowScales) {
              const int from = 8 * (i % 4) + 2 * int(lane % 4) + q;
              w_scale[q] = __shfl_sync(~0u, held[i / 4], from);
              if (GATED) up_scale[q] = __shfl_sync(~0u, held[(kOutN / 8 + i) / 4], from);
            }
            if (!GATED && e.bias && c + q < n) bias[q] = e.bias[of_expert + c + q];
          }
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            float sum = d[4 * i + q];
            if constexpr (kScaled) sum *= x_scale[q / 2] * w_scale[q % 2];
            if constexpr (GATED) {
              float other = d[(GATED ? TILE_N / 4 : 0) + 4 * i + q];
              if constexpr (kScaled) other *= x_scale[q / 2] * up_scale[q % 2];
              v[h][q] = activate<ACTIVATION>(sum) * other;
            } else {
              v[h][q] = finish(sum, bias[q % 2], e);
            }
            const int r = my_row + 8 * (q / 2), cc = c + q % 2;
            if (ADDED && e.add && r < at.row_end && cc < n) v[h][q] += e.add[y_at[q / 2] + cc];
            if (!BOXED && r < at.row_end && cc < n) {
              if constexpr (OUT_F32)
                static_cast<float*>(e.y)[y_at[q / 2] + cc] = v[h][q];
              else
                static_cast<bf16*>(e.y)[y_at[q / 2] + cc] = to_bf16(v[h][q]);
            }
          }
        }
        if constexpr (BOXED && !OUT_F32) {
          // Chunk c of 16 bytes of row r lies at chunk c ^ r % 8.
          const u32 r = warp * 16 + lane % 16, chunk = (j + lane / 16) ^ (r % 8);
          store_matrices(to + r * 128 + chunk * 16, to_bf16x2(v[0][0], v[0][1]), to_bf16x2(v[0][2], v[0][3]),
                         to_bf16x2(v[1][0], v[1][1]), to_bf16x2(v[1][2], v[1][3]));
        }
        if constexpr (BOXED && OUT_F32) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const u32 r = warp * 16 + lane / 4, chunk = (2 * (j + h) + lane % 4 / 2) ^ (r % 8);
            const u32 to_pair = to + r * 128 + chunk * 16 + lane % 2 * 8;
            store_pair(to_pair, v[h][0], v[h][1]);
            store_pair(to_pair + 8 * 128, v[h][2], v[h][3]);
          }
        }
      }
      if constexpr (BOXED) {
        publish_shared();
        meet(1 + consumer, 128);
        if (thread == 0) {
          const int c = at.column + first_eight * 8;
          if (OUT_F32 && !ADDED && e.add)
            add_box(&y_map, c, first_row, to);
          else
            store_box(&y_map, c, first_row, to);
          commit_stores();
        }
      }
    }
  }
  if (BOXED && thread == 0) wait_stores<0>();
}
