// Instructions of sm_90a by name: barriers in shared memory, the tensor copy engine, matrix products of a
// warpgroup. Shared memory is addressed by 32-bit addresses (shared_address). Numbers are those of the PTX
// ISA.
#pragma once

#include "device.cuh"

struct alignas(64) TensorMap {
  u64 opaque[16];
};

DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }

// ---- barriers
// ------------------------------------------------------------------------------------------------------- A
// barrier's phase flips when `count` arrivals and all announced bytes have come in. A waiter gives the parity
// of the phase it waits for: 0 for the first; waiting for parity 1 on a fresh barrier returns at once.

DEVICE void barrier_init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
// After all barrier_init, before another thread, block of the cluster or the copy engine uses them.
DEVICE void barriers_ready() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives once and announces bytes that the copy engine will bring.
DEVICE void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
DEVICE void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the same barrier of block `rank` of the cluster. Without ".release.cluster", which costs a fence of all
// memory on each call: what a reader of shared memory has to say is only that it is done.
DEVICE void barrier_arrive_at(u32 barrier, u32 rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}
DEVICE void barrier_wait(u32 barrier, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// `threads` (a multiple of 32) threads of the block that use the same id (1..15) meet.
DEVICE void meet(u32 id, u32 threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

DEVICE u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of all blocks of the cluster meet.
DEVICE void cluster_meet() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// ---- tensor copies
// --------------------------------------------------------------------------------------------------

DEVICE void prefetch_map(const TensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// The box of the map at (column, row) to shared memory; completes on the barrier. Outside of the tensor:
// zeros.
DEVICE void load_box(u32 to, const TensorMap* map, i32 column, i32 row, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
// A box of a map of five dimensions.
DEVICE void load_box(u32 to, const TensorMap* map, i32 c0, i32 c1, i32 c2, i32 c3, i32 c4, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6, %7}], [%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
// The same to the same place of every block of the cluster in `blocks` (bit i: rank i), completing on each
// one's barrier.
DEVICE void load_box_for(u16 blocks, u32 to, const TensorMap* map, i32 column, i32 row, u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(blocks)
      : "memory");
}
// Shared memory to the map's box; elements outside of the tensor are not written.
DEVICE void store_box(const TensorMap* map, i32 column, i32 row, u32 from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
               "r"(from), "r"(column), "r"(row)
               : "memory");
}
// Adds instead (f32: rounded to nearest, subnormal numbers become zero).
DEVICE void add_box(const TensorMap* map, i32 column, i32 row, u32 from) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
      "r"(from), "r"(column), "r"(row)
      : "memory");
}
DEVICE void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most `pending` groups of this thread still read shared memory.
template <int pending>
DEVICE void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}
template <int pending>
DEVICE void wait_stores() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(pending) : "memory");
}
// Between ordinary stores to shared memory and reads of it by the copy engine or the matrix units.
DEVICE void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- registers
// ------------------------------------------------------------------------------------------------------

// Global memory to L1, long before it is read.
DEVICE void prefetch_near(const void* p) { asm volatile("prefetch.global.L1 [%0];" ::"l"(p)); }

// To L2.
DEVICE void prefetch_far(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

template <int count>
DEVICE void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
DEVICE void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}

// Four 8x8 matrices of 16-bit elements to shared memory: lane l gives the address of row l % 8 of matrix l /
// 8; register q of lane l holds elements 2 (l % 4) and the next of row l / 4 of matrix q.
DEVICE void store_matrices(u32 address, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

DEVICE void store_words(u32 address, u32 a, u32 b) {
  asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(address), "r"(a), "r"(b) : "memory");
}
DEVICE void store_words(u32 address, u32 a, u32 b, u32 c, u32 d) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}
DEVICE void store_pair(u32 address, float a, float b) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(a), "f"(b) : "memory");
}

// ---- wgmma
// ----------------------------------------------------------------------------------------------------------

// A tile in shared memory whose rows are 128 bytes of K, written with 128-byte swizzle: row r at r * 128,
// groups of eight rows 1024 bytes apart, the start a multiple of 1024. A step along K inside the row adds its
// bytes >> 4.
DEVICE u64 tile_descriptor(u32 address) {
  return u64((address & 0x3ffff) >> 4) | u64(1) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
}

// The same with rows of 64 bytes and 64-byte swizzle: groups of eight rows 512 bytes apart.
DEVICE u64 half_tile_descriptor(u32 address) {
  return u64((address & 0x3ffff) >> 4) | u64(1) << 16 | u64(512 >> 4) << 32 | u64(2) << 62;
}

DEVICE void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

enum class Element { bf16, f16, e4m3 };

#define WGMMA_OUT8(i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_OUT32(i) WGMMA_OUT8(i), WGMMA_OUT8(i + 8), WGMMA_OUT8(i + 16), WGMMA_OUT8(i + 24)
#define WGMMA_REGISTERS_0_15 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_REGISTERS_0_31                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_REGISTERS_32_63                                                        \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_REGISTERS_64_95                                                        \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_REGISTERS_96_127                                                                   \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_REGISTERS_32_47 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_REGISTERS_96_111 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA(shape, types, transposes, registers, a_operand, b_operand, flag, ...)                      \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " flag                                                  \
               ", 0;\n"                                                                                  \
               "wgmma.mma_async.sync.aligned." shape types " {" registers "}, " a_operand ", " b_operand \
               ", p, 1, 1" transposes ";\n}"                                                             \
               : __VA_ARGS__                                                                             \
               : "l"(a), "l"(b), "r"(accumulate))
#define WGMMA_BY_ELEMENT(shape, ...)                          \
  if constexpr (element == Element::bf16)                     \
    WGMMA(shape, "k16.f32.bf16.bf16", ", 0, 0", __VA_ARGS__); \
  else if constexpr (element == Element::f16)                 \
    WGMMA(shape, "k16.f32.f16.f16", ", 0, 0", __VA_ARGS__);   \
  else                                                        \
    WGMMA(shape, "k32.f32.e4m3.e4m3", "", __VA_ARGS__)

// d[64, N] (+)= a[64, 32 bytes of K] b[N, 32 bytes of K]^T, sums in f32. Thread t of the warpgroup holds in
// d[4 i] and d[4 i + 1] columns 8 i + 2 (t % 4) and the next of row 16 (t / 32) + t % 32 / 4, in d[4 i + 2]
// and d[4 i + 3] those of the row 8 below. accumulate 0: d is overwritten.
template <Element element>
DEVICE void wgmma(float (&d)[16], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n32", WGMMA_REGISTERS_0_15, "%16", "%17", "%18", WGMMA_OUT8(0), WGMMA_OUT8(8));
}
template <Element element>
DEVICE void wgmma(float (&d)[32], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n64", WGMMA_REGISTERS_0_31, "%32", "%33", "%34", WGMMA_OUT32(0));
}
template <Element element>
DEVICE void wgmma(float (&d)[48], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n96", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_47, "%48", "%49", "%50",
                   WGMMA_OUT32(0), WGMMA_OUT8(32), WGMMA_OUT8(40));
}
template <Element element>
DEVICE void wgmma(float (&d)[64], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n128", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63, "%64", "%65", "%66",
                   WGMMA_OUT32(0), WGMMA_OUT32(32));
}
template <Element element>
DEVICE void wgmma(float (&d)[96], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n192", WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63 ", " WGMMA_REGISTERS_64_95,
                   "%96", "%97", "%98", WGMMA_OUT32(0), WGMMA_OUT32(32), WGMMA_OUT32(64));
}
template <Element element>
DEVICE void wgmma(float (&d)[112], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n224",
                   WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63 ", " WGMMA_REGISTERS_64_95
                                        ", " WGMMA_REGISTERS_96_111,
                   "%112", "%113", "%114", WGMMA_OUT32(0), WGMMA_OUT32(32), WGMMA_OUT32(64), WGMMA_OUT8(96),
                   WGMMA_OUT8(104));
}
template <Element element>
DEVICE void wgmma(float (&d)[128], u64 a, u64 b, u32 accumulate) {
  WGMMA_BY_ELEMENT("m64n256",
                   WGMMA_REGISTERS_0_31 ", " WGMMA_REGISTERS_32_63 ", " WGMMA_REGISTERS_64_95
                                        ", " WGMMA_REGISTERS_96_127,
                   "%128", "%129", "%130", WGMMA_OUT32(0), WGMMA_OUT32(32), WGMMA_OUT32(64), WGMMA_OUT32(96));
}
