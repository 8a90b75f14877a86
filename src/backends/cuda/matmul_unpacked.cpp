// Weights in any form times rows of prompts: pieces are unpacked to bf16 beside the product before them.
#include <algorithm>
#include <cassert>

#include "backends/cuda/matmul_many.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

// Of the two halves that unpacked weights of a product lie in: while one is multiplied, the next piece is
// unpacked to the other by the threads that matmul_many_sm90.cu leaves free.
constexpr int64_t kHalfBytes = int64_t{64} << 20, kExpertHalfBytes = int64_t{256} << 20;
constexpr int64_t kPieceUnit = 256;  // rows of a piece: whole tiles of every kernel

bool plain(const DeviceMatrix& w) { return w.form->layout == Layout::bf16_rows; }

int64_t most_piece_rows(uint64_t half_bytes, int64_t n, int64_t k, bool is_gated) {
  const int64_t fit = int64_t(half_bytes) / (k * 2 * (is_gated ? 2 : 1)) / kPieceUnit * kPieceUnit;
  return std::min(round_up(n, kPieceUnit), std::max(fit, kPieceUnit));
}

// Rows to unpack at a time. Large pieces leave few half-empty waves and launches; the first one
// waits for its unpacking.
int64_t piece_rows(const DeviceFacts& device, uint64_t half_bytes, int64_t m, int64_t n, int64_t k,
                   bool is_gated) {
  constexpr double kLaunchSeconds = 5e-6, kAloneSeconds = 0.9e-12, kBesideSeconds = 2e-12;  // of a weight
  const int64_t most = most_piece_rows(half_bytes, n, k, is_gated);
  int64_t best_rows = most;
  double best = 0;
  for (int64_t count = ceil_div(n, most); count <= std::min<int64_t>(ceil_div(n, kPieceUnit), 24); ++count) {
    const int64_t rows = round_up(ceil_div(n, count), kPieceUnit), whole = (n - 1) / rows;
    const double weights = double(rows * k * (is_gated ? 2 : 1));
    const auto product = [&](int64_t piece) {
      const DenseRows w{.n = piece, .k = k};
      return many_seconds(device, choose_many_tile(device, m, w, is_gated, 0, true), m, w, is_gated, 0) +
             kLaunchSeconds;
    };
    const double cost = weights * kAloneSeconds +
                        double(whole) * std::max(product(rows), weights * kBesideSeconds) +
                        product(n - whole * rows);
    if (best == 0 || cost < best) best = cost, best_rows = rows;
  }
  return best_rows;
}

// Experts whose weights are unpacked together.
int64_t expert_pieces(uint64_t half_bytes, const DeviceMatrix& w, bool is_gated) {
  const int64_t bytes = w.rows * w.cols * 2 * (is_gated ? 2 : 1);
  return std::clamp<int64_t>(int64_t(half_bytes) / bytes, 1, w.pieces);
}

// Two matrices in one launch where their forms allow it.
void unpack_both(KernelCache& cache, Stream& stream, UnpackedRows u, bool overlap_previous,
                 bool beside_previous) {
  if (!u.other || u.other->form == u.w->form) {
    unpack_rows(cache, stream, u, overlap_previous, beside_previous);
    return;
  }
  const UnpackedRows second{u.other, nullptr, u.piece, u.row0, u.rows, u.other_to, 0};
  u.other = nullptr;
  unpack_rows(cache, stream, u, overlap_previous, beside_previous);
  unpack_rows(cache, stream, second, true, beside_previous);
}

// Pieces first to first + count of a weight (and another), one after the other.
void unpack_pieces(KernelCache& cache, Stream& stream, UnpackedRows u, int64_t count, bool overlap_previous,
                   bool beside_previous) {
  const auto seamless = [](const DeviceMatrix& w) {
    return w.form->in_blocks()
               ? w.rows % 8 == 0 && w.piece_bytes == size_t(w.rows / 8 * w.chunks() * w.form->block_bytes())
               : w.piece_bytes == size_t(w.rows * w.cols * 2);
  };
  u.row0 = 0, u.rows = u.w->rows;
  if (seamless(*u.w) && (!u.other || seamless(*u.other))) {
    u.rows *= count;
    unpack_both(cache, stream, u, overlap_previous, beside_previous);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    unpack_both(cache, stream, u, overlap_previous || i > 0, beside_previous);
    ++u.piece;
    u.to += uint64_t(u.w->rows * u.w->cols * 2), u.other_to += uint64_t(u.w->rows * u.w->cols * 2);
  }
}

// Unpacking beside the kernel before it is right as long as that one, and any that still runs before it, does
// not touch the half: a product begins only when its unpacking has ended, which ends after the product before
// it; so whatever was launched after the product of the last turn began finds the product of the turn before
// that, the last user of this half, ended.
void multiply_unpacked(KernelCache& cache, Stream& stream, const MatMulCall& call, ManyScratch& scratch,
                       bool first_waits) {
  const DeviceMatrix& w = *call.w;
  const bool pairs = call.up != nullptr;
  if (call.m == 0) return;
  if (plain(w) && (!pairs || plain(*call.up))) {
    const DenseRows rows{.data = w.data, .n = w.rows, .k = w.cols};
    const DenseRows up{.data = pairs ? call.up->data : 0, .n = w.rows, .k = w.cols};
    DenseOptions options;
    options.early = true;
    matmul_dense(cache, stream, rows, pairs ? &up : nullptr, call, options);
    return;
  }
  const int64_t piece =
      piece_rows(stream.device().facts(), scratch.half_bytes, call.m, w.rows, w.cols, pairs);
  const auto bytes = uint64_t(piece * w.cols * 2);
  assert(bytes * (pairs ? 2 : 1) <= scratch.half_bytes);
  for (int64_t row = 0; row < w.rows; row += piece) {
    const int64_t rows = std::min(piece, w.rows - row);
    const Address half = scratch.next();
    unpack_both(cache, stream, {&w, call.up, 0, row, rows, half, half + bytes},
                row > 0 || call.overlap_previous, row > 0 || !first_waits);
    const DenseRows unpacked{.data = half, .n = rows, .k = w.cols},
        up{.data = half + bytes, .n = rows, .k = w.cols};
    MatMulCall part = call;
    part.y_stride = call.y_stride ? call.y_stride : w.rows;
    part.y += uint64_t(row * (call.y_f32 ? 4 : 2));
    if (call.bias) part.bias += uint64_t(row * 4);
    if (call.add) part.add += uint64_t(row * 4);
    part.overlap_previous = true;
    DenseOptions options;
    options.beside = true;
    matmul_dense(cache, stream, unpacked, pairs ? &up : nullptr, part, options);
  }
}

}  // namespace

// ---- rows that choose experts
// ---------------------------------------------------------------------------------

size_t expert_room(int64_t pairs, int64_t experts, int64_t k) {
  return size_t(round_up((experts + 1) * 4, int64_t{256}) + round_up(pairs * 4, int64_t{256}) +
                pairs * k * 2);
}

SortedRows sort_by_expert(KernelCache& cache, Stream& stream, Address x, int64_t k, Address chosen,
                          int64_t pairs, int64_t share, int64_t experts, Address room,
                          bool overlap_previous) {
  assert(experts <= kMostExperts);
  SortedRows sorted;
  sorted.experts.begins = room, sorted.experts.count = experts;
  sorted.experts.order = room + uint64_t(round_up((experts + 1) * 4, int64_t{256}));
  sorted.x = sorted.experts.order + uint64_t(round_up(pairs * 4, int64_t{256}));
  if (pairs == 0) return sorted;
  const Variant variant{"expert_rows.cu", {}};
  LaunchShape shape;
  shape.block = 1024;
  shape.overlap_previous = overlap_previous;
  stream.launch(cache.get(variant, "sort_pairs"), shape, chosen, int(pairs), int(experts),
                sorted.experts.begins, sorted.experts.order);
  shape.grid[0] = unsigned(pairs);
  shape.block = 128;
  shape.overlap_previous = true;
  stream.launch(cache.get(variant, "gather_pairs"), shape, x, sorted.experts.order, int(share), int(k),
                sorted.x);
  return sorted;
}

// ---- weights in any form
// ------------------------------------------------------------------------------------

uint64_t matmul_many_half(const DeviceMatrix& w, bool is_gated) {
  if (plain(w) && (w.pieces == 1 || w.piece_bytes == size_t(w.rows * w.cols * 2))) return 0;
  const int64_t rows = w.pieces > 1 ? expert_pieces(kExpertHalfBytes, w, is_gated) * w.rows
                                    : most_piece_rows(kHalfBytes, w.rows, w.cols, is_gated);
  return round_up(uint64_t(rows * w.cols * 2 * (is_gated ? 2 : 1)), 256);
}

size_t matmul_many_scratch(const DeviceMatrix& w, bool is_gated) { return 2 * matmul_many_half(w, is_gated); }

void matmul_many(KernelCache& cache, Stream& stream, const MatMulCall& call, ManyScratch& scratch) {
  multiply_unpacked(cache, stream, call, scratch, false);
}

void matmul_many(KernelCache& cache, Stream& stream, const MatMulCall& call, Address scratch) {
  ManyScratch once{scratch, matmul_many_half(*call.w, call.up != nullptr)};
  multiply_unpacked(cache, stream, call, once, true);
}

void matmul_many(KernelCache& cache, Stream& stream, std::span<const MatMulCall> calls,
                 ManyScratch& scratch) {
  if (calls.empty() || calls.front().m == 0) return;
  // Unpacked weights are better multiplied one by one, as they come.
  const bool all_plain =
      std::all_of(calls.begin(), calls.end(), [](const MatMulCall& c) { return plain(*c.w); });
  const auto tile = all_plain ? joined_tile(stream.device().facts(), calls) : std::nullopt;
  if (!tile) {
    for (const auto& call : calls) matmul_many(cache, stream, call, scratch);
    return;
  }
  std::vector<DenseRows> rows;
  for (const auto& c : calls) rows.push_back({.data = c.w->data, .n = c.w->rows, .k = c.w->cols});
  matmul_dense_joined(cache, stream, rows, calls, *tile);
}

void matmul_many_experts(KernelCache& cache, Stream& stream, const MatMulCall& call,
                         const ExpertRows& experts, ManyScratch& scratch) {
  const DeviceMatrix& w = *call.w;
  const bool pairs = call.up != nullptr;
  assert(experts.count == w.pieces);
  if (call.m == 0) return;
  if (can_multiply_packed(stream.device().facts().capability, w)) {
    DenseOptions options;
    options.experts = experts;
    matmul_packed(cache, stream, call, options);
    return;
  }
  const auto multiply = [&](Address weight, Address other, int64_t first, int64_t count, bool unpacked) {
    const DenseRows rows{.data = weight, .n = w.rows, .k = w.cols},
        up{.data = other, .n = w.rows, .k = w.cols};
    MatMulCall part = call;
    if (call.bias) part.bias += uint64_t(first * w.rows * 4);
    part.overlap_previous = unpacked || call.overlap_previous;
    DenseOptions options;
    options.experts = {experts.begins + uint64_t(first * 4), count, experts.order, w.pieces};
    options.beside = unpacked;
    matmul_dense(cache, stream, rows, pairs ? &up : nullptr, part, options);
  };
  if (matmul_many_half(w, pairs) == 0) {
    multiply(w.data, pairs ? call.up->data : 0, 0, w.pieces, false);
    return;
  }
  const int64_t together = expert_pieces(scratch.half_bytes, w, pairs);
  const auto bytes = uint64_t(together * w.rows * w.cols * 2);
  for (int64_t first = 0; first < w.pieces; first += together) {
    const int64_t count = std::min(together, w.pieces - first);
    const Address half = scratch.next();
    unpack_pieces(cache, stream, {&w, call.up, first, 0, 0, half, half + bytes}, count,
                  first > 0 || call.overlap_previous, true);
    multiply(half, half + bytes, first, count, true);
  }
}

}  // namespace cairn::cuda
