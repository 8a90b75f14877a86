// Products of rows of prompts (RowClass::prompt) with a weight: launcher of kernels/matmul_many_sm90.cu and,
// before sm_90, kernels/matmul_many.cu. Rows in bf16 and in any number; bits of a row as promised in
// matmul.h: every kernel and tile adds a row's products in the order of K, in one accumulator per result.
//
// Weights that are not bf16 rows are unpacked to bf16, so many rows at a time that they stay in L2 until the
// product has read them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backends/cuda/matmul.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

constexpr int64_t kMostExperts = 512;  // kernels/expert_tiles.cuh

// Rows of x (and y) sorted by expert: expert e has rows begins[e] to begins[e + 1] and piece e of the
// weights, which follow one another without gaps; bias and scales likewise.
struct ExpertRows {
  Address begins = 0;  // i32 [count + 1] on the device
  int64_t count = 0;   // of experts, kMostExperts at most
  Address order = 0;   // i32 [m]: row r of x is row order[r] of y (and add); 0: row r
  int64_t all = 0;     // experts over which the rows of x are spread, if more than count
};

// Pairs (row of x, expert) sorted by expert for matmul_many_experts: x of the result is the call's x, its y
// is in the order of the pairs. chosen: i32 [pairs]; pair p multiplies row p / share of x [.., k]. room:
// expert_room() bytes, on 256, in use until the last product.
struct SortedRows {
  Address x = 0;
  ExpertRows experts;
};
size_t expert_room(int64_t pairs, int64_t experts, int64_t k);
SortedRows sort_by_expert(KernelCache&, Stream&, Address x, int64_t k, Address chosen, int64_t pairs,
                          int64_t share, int64_t experts, Address room, bool overlap_previous = false);

// Where weights that are not bf16 rows are unpacked: two halves in turn, so that the next piece is unpacked
// while the last one is multiplied. One object serves all products of a stream, in order.
struct ManyScratch {
  Address data = 0;         // 2 * half_bytes, on 256; what lies there is lost
  uint64_t half_bytes = 0;  // matmul_many_half() of every weight at least
  unsigned turn = 0;
  Address quantized = 0;  // rows of x in e4m3 (matmul_e4m3.h); 0: no weight is multiplied so
  Address next() { return data + uint64_t(turn++ % 2) * half_bytes; }
};
// For this weight (and, gated, a second one like it) and any number of rows; 0 for bf16 weights.
uint64_t matmul_many_half(const DeviceMatrix& w, bool gated);

// y of call. Throws Error(unsupported) when the weight has columns that are no multiple of 8.
void matmul_many(KernelCache&, Stream&, const MatMulCall&, ManyScratch&);
// Experts: call.m rows sorted by expert times the pieces of call.w (and call.up); call.bias has a row per
// piece.
void matmul_many_experts(KernelCache&, Stream&, const MatMulCall&, const ExpertRows&, ManyScratch&);

// Calls with one x and m. Up to three of bf16 weights go together where they can: what a small product leaves
// idle of the device its neighbours use.
void matmul_many(KernelCache&, Stream&, std::span<const MatMulCall>, ManyScratch&);

// The same with scratch of this call alone: matmul_many_scratch() bytes, on 256. The first unpacking then
// waits for the kernel before it.
size_t matmul_many_scratch(const DeviceMatrix& w, bool gated);
void matmul_many(KernelCache&, Stream&, const MatMulCall&, Address scratch);

// What matmul_many may ask of the cache for calls like these and any m.
std::vector<Variant> matmul_many_variants(int capability, std::span<const MatMulCall>);

// Rows of a weight in device memory, k elements each, on 16 bytes.
struct DenseRows {
  enum class Element : uint8_t { bf16, e4m3 };
  Address data = 0;
  int64_t n = 0, k = 0;
  Element element = Element::bf16;
  Address scales = 0;         // e4m3: f32 [n], or f32 [ceil(n / 128), ceil(k / 128)]
  bool block_scales = false;  // which
  bool blocks = false;        // e4m3: in blocks of the form e4m3_g128; x comes from quantize_rows(.. blocked)
};

// One way to cut a product into pieces, for kernels/matmul_many_sm90.cu (consumers > 0) or
// kernels/matmul_many.cu.
struct ManyTile {
  int rows, columns, stages;
  int consumers = 0;
  double rate = 1;  // of a device full of these tiles, relative to the best: measured by cuda_gemm_bench
  bool operator==(const ManyTile&) const = default;
};
std::vector<ManyTile> many_tiles(int capability, DenseRows::Element = DenseRows::Element::bf16,
                                 bool block_scales = false);
bool many_tile_fits(const ManyTile&, bool gated);
// The tile that should be fastest; the choice does not change any bits. beside: of those that leave room for
// the unpacking of other weights on the same multiprocessor.
ManyTile choose_many_tile(const DeviceFacts&, int64_t m, const DenseRows& w, bool gated, int64_t experts = 0,
                          bool beside = false);

// Seconds of a product on a Hopper device; elsewhere only the comparison counts.
double many_seconds(const DeviceFacts&, const ManyTile&, int64_t m, const DenseRows& w, bool gated,
                    int64_t experts);

struct DenseOptions {
  Address x_scales = 0;  // e4m3: f32 [m]; x is e4m3 then (quantize_rows)
  ExpertRows experts;
  bool beside = false;  // other weights are unpacked meanwhile
  bool early = false;   // no kernel of the stream writes the weights: read before the last one ends
  const ManyTile* tile = nullptr;  // else chosen
};

// y of call = x w^T, with call's epilogue; call.w is not read. up: null unless gated. Rows of w must be a
// multiple of 16 bytes: throws Error(unsupported).
void matmul_dense(KernelCache&, Stream&, const DenseRows& w, const DenseRows* up, const MatMulCall&,
                  const DenseOptions& = {});

// The same of call.w (and call.up) in blocks of any form, unpacked on their way to the tiles: the bits are
// those of unpack_rows() and matmul_dense(). Reads the packed weights once per tile of rows: for experts, and
// for few rows of x.
bool can_multiply_packed(int capability, const DeviceMatrix&);
std::vector<ManyTile> packed_tiles();
void matmul_packed(KernelCache&, Stream&, const MatMulCall&, const DenseOptions& = {});

// Two or three products of the same rows, which joined_tile() says can share a launch; calls' own weights are
// not read. Weights of one element, e4m3 ones with a scale per row.
std::optional<ManyTile> joined_tile(const DeviceFacts&, std::span<const MatMulCall>,
                                    DenseRows::Element = DenseRows::Element::bf16);
void matmul_dense_joined(KernelCache&, Stream&, std::span<const DenseRows>, std::span<const MatMulCall>,
                         const ManyTile&, Address x_scales = 0);
std::vector<Variant> dense_joined_variants(int capability, const DenseRows& like,
                                           std::span<const MatMulCall>);

// x [m, k] bf16 as e4m3 [m, k] with a scale per row. k: a multiple of 8; blocked: of 128, the columns in the
// order of the form e4m3_g128. sm_89 and later.
void quantize_rows(KernelCache&, Stream&, Address x, int64_t m, int64_t k, Address codes, Address scales,
                   bool overlap_previous = false, bool blocked = false);

// What matmul_dense may ask of the cache for calls like this one with e4m3 weights (call.w is not read).
std::vector<Variant> dense_variants(int capability, const DenseRows&, bool gated, const MatMulCall&);
Variant quantize_rows_variant(bool blocked);

// For the table of families.
std::vector<Variant> matmul_many_stock(int capability);
std::vector<Variant> matmul_many_sm90_stock(int capability);
std::vector<Variant> quantize_rows_stock(int capability);
std::vector<Variant> expert_rows_stock(int capability);

}  // namespace cairn::cuda
