#include "backends/cuda/matmul_many.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

// As the kernels declare them.
struct Epilogue {
  Address bias = 0, add = 0, y = 0;
  int64_t y_stride = 0;
  float scale = 1, softcap = 0;
};
struct Scales {
  Address x = 0, w = 0, up = 0;
};
struct Joined {
  driver::TensorMap w[2], y[2];
  Epilogue e[2];
  int n[2];
};
struct Experts {
  Address begins = 0, order = 0;
  int count = 0;
};

// Rows of tiles that are worked on together, so that what neighbours share stays in L2.
constexpr int kTileGroup = 8;
constexpr int kPieceRows = 64, kPieceBytes = kPieceRows * 128;  // kernels/matmul_many_sm90.cu
constexpr int64_t kMostExperts = 512;                           // kernels/expert_tiles.cuh

// Warps of a block of kernels/matmul_many.cu.
int warps_m(const ManyTile& tile) { return tile.rows >= 128 ? 2 : 1; }
int warps_n(const ManyTile& tile) { return tile.columns / 32; }

// What a variant is made of besides its tile.
struct Way {
  DenseRows::Element element = DenseRows::Element::bf16;
  bool block_scales = false, y_f32 = false, gated = false, experts = false, joined = false;
  program::Activation activation = program::Activation::identity;
  // Boxed: results leave by the copy engine, which needs rows on 16 bytes and adds to what is in y by itself.
  bool boxed = true, added = false, capped = false;
};
Way way_of(const ManyTile& tile, const MatMulCall& call, int64_t stride, bool is_gated, bool experts) {
  const int64_t bytes = call.y_f32 ? 4 : 2, piece = tile.columns / (is_gated ? 2 : 1) * bytes;
  Way way;
  way.y_f32 = call.y_f32, way.gated = is_gated, way.activation = call.activation;
  way.experts = experts;
  way.boxed =
      tile.consumers > 0 && !experts && call.y % 16 == 0 && stride * bytes % 16 == 0 && piece % 128 == 0;
  way.added = call.add != 0 && !(way.boxed && call.y_f32 && call.add == call.y);
  way.capped = call.softcap != 0;
  return way;
}

Variant variant_of(const ManyTile& tile, const Way& way) {
  std::vector<std::string> defines;
  const auto define = [&](const char* name, int value) {
    defines.push_back(fmt::format("{}={}", name, value));
  };
  define("TILE_N", tile.columns), define("STAGES", tile.stages);
  if (way.y_f32) define("OUT_F32", 1);
  if (way.gated) define("GATED", 1);
  if (way.experts) define("EXPERTS", 1);
  if (way.joined) define("JOINED", 1);
  if (way.activation != program::Activation::identity) define("ACTIVATION", int(way.activation));
  if (tile.consumers == 0) {
    define("TILE_M", tile.rows), define("WARPS_M", warps_m(tile)), define("WARPS_N", warps_n(tile));
    return {"matmul_many.cu", std::move(defines)};
  }
  define("CONSUMERS", tile.consumers);
  if (way.element == DenseRows::Element::e4m3) define("ELEMENT", 2);
  if (way.block_scales) define("BLOCK_SCALES", 1);
  if (!way.boxed) define("BOXED", 0);
  if (way.added) define("ADDED", 1);
  if (way.capped) define("CAPPED", 1);
  return {"matmul_many_sm90.cu", std::move(defines)};
}

int64_t bytes_of(DenseRows::Element e) { return e == DenseRows::Element::e4m3 ? 1 : 2; }

// A matrix of rows for the copy engine, read or written in boxes of box_rows rows of 128 bytes.
driver::TensorMap tensor_map(Address data, int type, int64_t bytes, int64_t rows, int64_t columns,
                             int64_t stride, int box_rows) {
  constexpr int kPromoteTo256Bytes = 3;
  const auto encode = driver::api().tensor_map_tiled;
  if (!encode)
    fail(ErrorKind::unsupported, "the NVIDIA driver has no cuTensorMapEncodeTiled; a newer driver does");
  driver::TensorMap map;
  const uint64_t dims[2] = {uint64_t(columns), uint64_t(rows)}, strides[1] = {uint64_t(stride * bytes)};
  const uint32_t box[2] = {uint32_t(128 / bytes), uint32_t(box_rows)}, steps[2] = {1, 1};
  driver::check(encode(&map, type, 2, reinterpret_cast<void*>(data), dims, strides, box, steps, 0,
                       driver::kSwizzle128, kPromoteTo256Bytes, 0),
                "describing a matrix to the copy engine");
  return map;
}

// Tiles of a product; with experts the most that m rows can need.
int64_t most_tiles(const ManyTile& tile, int64_t m, int64_t n, bool is_gated, int64_t experts) {
  const int64_t down = experts > 0 ? m / tile.rows + std::min(experts, m) : ceil_div(m, tile.rows);
  return down * ceil_div(n, tile.columns / (is_gated ? 2 : 1));
}

void launch_sm90(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                 const MatMulCall& call, const DenseOptions& options, const ManyTile& tile,
                 const Epilogue& epilogue, const Way& way) {
  const int64_t bytes = bytes_of(w.element), w_rows = w.n * std::max<int64_t>(options.experts.count, 1);
  const int type = w.element == DenseRows::Element::e4m3 ? driver::kTensorU8 : driver::kTensorBf16;
  const int w_box = up ? tile.columns / 2 : tile.columns;
  const auto x_map = tensor_map(call.x, type, bytes, call.m, w.k, w.k, tile.rows);
  const auto w_map = tensor_map(w.data, type, bytes, w_rows, w.k, w.k, w_box);
  const auto up_map = up ? tensor_map(up->data, type, bytes, w_rows, w.k, w.k, w_box) : w_map;
  const auto y_map = way.boxed ? tensor_map(call.y, call.y_f32 ? driver::kTensorF32 : driver::kTensorBf16,
                                            call.y_f32 ? 4 : 2, call.m, w.n, epilogue.y_stride, kPieceRows)
                               : w_map;
  const Scales scales = {options.x_scales, w.scales, up ? up->scales : w.scales};
  const Experts experts = {options.experts.begins, options.experts.order, int(options.experts.count)};
  LaunchShape shape;
  shape.grid[0] = unsigned(std::min<int64_t>(most_tiles(tile, call.m, w.n, up != nullptr, experts.count),
                                             stream.device().facts().multiprocessors));
  shape.block = unsigned(tile.consumers + 1) * 128;
  shape.shared_bytes = unsigned(1024 + tile.stages * ((tile.rows + tile.columns) * 128 + 16) +
                                (way.boxed ? tile.consumers * 2 * kPieceBytes : 0) + experts.count * 4);
  shape.overlap_previous = call.overlap_previous;
  stream.launch(cache.get(variant_of(tile, way), "matmul_many"), shape, x_map, w_map, up_map, y_map, epilogue,
                scales, experts, int(call.m), int(w.n), int(w.k), kTileGroup);
}

void launch_any(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                const MatMulCall& call, const DenseOptions& options, const ManyTile& tile,
                const Epilogue& epilogue, const Way& way) {
  const Experts experts = {options.experts.begins, options.experts.order, int(options.experts.count)};
  LaunchShape shape;
  shape.grid[0] = unsigned(most_tiles(tile, call.m, w.n, up != nullptr, experts.count));
  shape.block = unsigned(warps_m(tile) * warps_n(tile) * 32);
  shape.shared_bytes = unsigned(tile.stages * (tile.rows + tile.columns) * 128);
  shape.overlap_previous = call.overlap_previous;
  stream.launch(cache.get(variant_of(tile, way), "matmul_many"), shape, call.x, w.data,
                up ? up->data : Address{0}, epilogue, experts, int(call.m), int(w.n), int(w.k), kTileGroup);
}

// Seconds on a Hopper multiprocessor; elsewhere only the comparison counts. A wave of blocks lasts as long as
// one of its tiles, full or not.
double seconds(const DeviceFacts& device, const ManyTile& tile, int64_t m, const DenseRows& w, bool is_gated,
               int64_t experts) {
  constexpr double kProductsPerSecond = 2.9e12, kTileSeconds = 1e-6;
  const int64_t down =
      experts > 0 ? experts * ceil_div(ceil_div(m, experts), tile.rows) : ceil_div(m, tile.rows);
  const int64_t count = down * ceil_div(w.n, tile.columns / (is_gated ? 2 : 1));
  return double(ceil_div(count, device.multiprocessors)) *
         (double(tile.rows * tile.columns) * double(w.k) / (tile.rate * kProductsPerSecond) + kTileSeconds);
}

}  // namespace

std::vector<ManyTile> many_tiles(int capability, DenseRows::Element element) {
  if (element == DenseRows::Element::e4m3) {
    if (capability != 90) return {};
    return {{.rows = 128, .columns = 128, .stages = 6, .consumers = 2},
            {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.6}};
  }
  if (capability != 90)  // 96 KiB of shared memory at most: what an sm_86 has
    return {{.rows = 128, .columns = 128, .stages = 3},
            {.rows = 32, .columns = 64, .stages = 4, .rate = 0.5}};
  return {
      {.rows = 128, .columns = 256, .stages = 4, .consumers = 2},
      {.rows = 128, .columns = 192, .stages = 4, .consumers = 2, .rate = 0.99},
      {.rows = 128, .columns = 128, .stages = 6, .consumers = 2, .rate = 0.98},
      {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.83},
      {.rows = 64, .columns = 64, .stages = 10, .consumers = 1, .rate = 0.48},
      {.rows = 64, .columns = 32, .stages = 16, .consumers = 1, .rate = 0.27},
  };
}

bool many_tile_fits(const ManyTile& tile, bool is_gated) {
  // Gated results of the Hopper kernel leave in pieces of 64 columns of bf16, half a tile, or one by one.
  return tile.consumers == 0 || !is_gated || tile.columns % 128 == 0 || tile.columns == 64;
}

ManyTile choose_many_tile(const DeviceFacts& device, int64_t m, const DenseRows& w, bool is_gated,
                          int64_t experts, bool beside) {
  const ManyTile* best = nullptr;
  const auto tiles = many_tiles(device.capability, w.element);
  for (const auto& tile : tiles) {
    if (!many_tile_fits(tile, is_gated) || (beside && tile.columns > 192)) continue;
    if (!best ||
        seconds(device, tile, m, w, is_gated, experts) < seconds(device, *best, m, w, is_gated, experts))
      best = &tile;
  }
  if (!best) fail(ErrorKind::unsupported, "products of e4m3 weights need a GPU of capability 9.0");
  return *best;
}

void matmul_dense(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                  const MatMulCall& call, const DenseOptions& options) {
  assert(!up || (up->n == w.n && up->k == w.k && up->element == w.element));
  assert(options.experts.count <= kMostExperts);
  if (call.m == 0) return;
  if (w.k * bytes_of(w.element) % 16 != 0 || call.x % 16 != 0 || w.data % 16 != 0 ||
      (up && up->data % 16 != 0))
    fail(ErrorKind::unsupported,
         "a product of {} rows with a weight [{}, {}]: rows of both must begin on 16 bytes", call.m, w.n,
         w.k);
  const Epilogue epilogue = {call.bias,  call.add,    call.y, call.y_stride ? call.y_stride : w.n,
                             call.scale, call.softcap};
  const ManyTile tile = options.tile ? *options.tile
                                     : choose_many_tile(stream.device().facts(), call.m, w, up != nullptr,
                                                        options.experts.count, options.beside);
  Way way = way_of(tile, call, epilogue.y_stride, up != nullptr, options.experts.count > 0);
  way.element = w.element, way.block_scales = w.block_scales;
  if (tile.consumers > 0)
    launch_sm90(cache, stream, w, up, call, options, tile, epilogue, way);
  else
    launch_any(cache, stream, w, up, call, options, tile, epilogue, way);
}

void quantize_rows(KernelCache& cache, Stream& stream, Address x, int64_t m, int64_t k, Address codes,
                   Address scales, bool overlap_previous) {
  if (m == 0) return;
  LaunchShape shape;
  shape.grid[0] = unsigned(m);
  shape.block = 256;
  shape.overlap_previous = overlap_previous;
  stream.launch(cache.get({"quantize_rows.cu", {}}, "quantize_rows"), shape, x, codes, scales, int(k));
}

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

namespace {

// Unpacked weights of a product lie in two halves: while one is multiplied, the next piece is unpacked to the
// other by the threads that matmul_many_sm90.cu leaves free.
constexpr int64_t kHalfBytes = int64_t{64} << 20;
constexpr int64_t kPieceUnit = 256;  // rows of a piece: whole tiles of every kernel

bool plain(const DeviceMatrix& w) { return w.form->layout == Layout::bf16_rows; }

int64_t most_piece_rows(int64_t n, int64_t k, bool is_gated) {
  const int64_t fit = kHalfBytes / (k * 2 * (is_gated ? 2 : 1)) / kPieceUnit * kPieceUnit;
  return std::min(round_up(n, kPieceUnit), std::max(fit, kPieceUnit));
}

// Rows to unpack at a time. Large pieces leave few half-empty waves and launches; the first one's unpacking
// runs alone.
int64_t piece_rows(const DeviceFacts& device, int64_t m, int64_t n, int64_t k, bool is_gated) {
  constexpr double kLaunchSeconds = 5e-6, kAloneSeconds = 0.9e-12, kBesideSeconds = 2e-12;  // of a weight
  const int64_t most = most_piece_rows(n, k, is_gated);
  int64_t best_rows = most;
  double best = 0;
  for (int64_t count = ceil_div(n, most); count <= std::min<int64_t>(ceil_div(n, kPieceUnit), 24); ++count) {
    const int64_t rows = round_up(ceil_div(n, count), kPieceUnit), whole = (n - 1) / rows;
    const double weights = double(rows * k * (is_gated ? 2 : 1));
    const auto product = [&](int64_t piece) {
      const DenseRows w{.n = piece, .k = k};
      return seconds(device, choose_many_tile(device, m, w, is_gated, 0, true), m, w, is_gated, 0) +
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
int64_t expert_pieces(const DeviceMatrix& w, bool is_gated) {
  const int64_t bytes = w.rows * w.cols * 2 * (is_gated ? 2 : 1);
  return std::clamp<int64_t>(kHalfBytes / bytes, 1, w.pieces);
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
    return w.form->layout == Layout::blocks
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

}  // namespace

uint64_t matmul_many_half(const DeviceMatrix& w, bool is_gated) {
  if (plain(w) && (w.pieces == 1 || w.piece_bytes == size_t(w.rows * w.cols * 2))) return 0;
  const int64_t rows =
      w.pieces > 1 ? expert_pieces(w, is_gated) * w.rows : most_piece_rows(w.rows, w.cols, is_gated);
  return round_up(uint64_t(rows * w.cols * 2 * (is_gated ? 2 : 1)), 256);
}

size_t matmul_many_scratch(const DeviceMatrix& w, bool is_gated) { return 2 * matmul_many_half(w, is_gated); }

namespace {

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
    matmul_dense(cache, stream, rows, pairs ? &up : nullptr, call);
    return;
  }
  const int64_t piece = piece_rows(stream.device().facts(), call.m, w.rows, w.cols, pairs);
  const auto bytes = uint64_t(piece * w.cols * 2);
  assert(bytes * (pairs ? 2 : 1) <= scratch.half_bytes);
  for (int64_t row = 0; row < w.rows; row += piece) {
    const int64_t rows = std::min(piece, w.rows - row);
    const Address half = scratch.next();
    const DenseRows unpacked{.data = half, .n = rows, .k = w.cols},
        up{.data = half + bytes, .n = rows, .k = w.cols};
    unpack_both(cache, stream, {&w, call.up, 0, row, rows, unpacked.data, up.data},
                row > 0 || call.overlap_previous, row > 0 || !first_waits);
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

void matmul_many(KernelCache& cache, Stream& stream, const MatMulCall& call, ManyScratch& scratch) {
  multiply_unpacked(cache, stream, call, scratch, false);
}

void matmul_many(KernelCache& cache, Stream& stream, const MatMulCall& call, Address scratch) {
  ManyScratch once{scratch, matmul_many_half(*call.w, call.up != nullptr)};
  multiply_unpacked(cache, stream, call, once, true);
}

void matmul_many_experts(KernelCache& cache, Stream& stream, const MatMulCall& call,
                         const ExpertRows& experts, ManyScratch& scratch) {
  const DeviceMatrix& w = *call.w;
  const bool pairs = call.up != nullptr;
  assert(experts.count == w.pieces);
  if (call.m == 0) return;
  const auto multiply = [&](Address weight, Address other, int64_t first, int64_t count, bool unpacked) {
    const DenseRows rows{.data = weight, .n = w.rows, .k = w.cols},
        up{.data = other, .n = w.rows, .k = w.cols};
    MatMulCall part = call;
    if (call.bias) part.bias += uint64_t(first * w.rows * 4);
    part.overlap_previous = unpacked || call.overlap_previous;
    DenseOptions options;
    options.experts = {experts.begins + uint64_t(first * 4), count, experts.order};
    options.beside = unpacked;
    matmul_dense(cache, stream, rows, pairs ? &up : nullptr, part, options);
  };
  if (matmul_many_half(w, pairs) == 0) {
    multiply(w.data, pairs ? call.up->data : 0, 0, w.pieces, false);
    return;
  }
  const int64_t together = expert_pieces(w, pairs);
  const auto bytes = uint64_t(together * w.rows * w.cols * 2);
  for (int64_t first = 0; first < w.pieces; first += together) {
    const int64_t count = std::min(together, w.pieces - first);
    const Address half = scratch.next();
    unpack_pieces(cache, stream, {&w, call.up, first, 0, 0, half, half + bytes}, count,
                  first > 0 || call.overlap_previous, true);
    multiply(half, half + bytes, first, count, true);
  }
}

namespace {

// Whether the products can share a launch of kernels/matmul_many_sm90.cu with this tile.
bool can_join(std::span<const MatMulCall> calls, const ManyTile& tile) {
  const MatMulCall& first = calls.front();
  if (calls.size() < 2 || calls.size() > 3 || tile.consumers == 0) return false;
  return std::all_of(calls.begin(), calls.end(), [&](const MatMulCall& c) {
    const Way way = way_of(tile, c, c.y_stride ? c.y_stride : c.w->rows, false, false);
    return plain(*c.w) && c.w->pieces == 1 && !c.up && way.boxed && !way.added && !way.capped && !c.add &&
           c.x == first.x && c.m == first.m && c.w->cols == first.w->cols && c.y_f32 == first.y_f32 &&
           c.activation == first.activation;
  });
}

int64_t rows_together(std::span<const MatMulCall> calls) {
  int64_t n = 0;
  for (const auto& c : calls) n += round_up(c.w->rows, int64_t{128});
  return n;
}

void multiply_joined(KernelCache& cache, Stream& stream, std::span<const MatMulCall> calls,
                     const ManyTile& tile) {
  const MatMulCall& first = calls.front();
  const int64_t k = first.w->cols;
  if (k % 8 != 0 || first.x % 16 != 0)
    fail(ErrorKind::unsupported,
         "a product of {} rows with a weight [{}, {}]: rows of both must begin on 16 bytes", first.m,
         first.w->rows, k);
  Joined joined{};
  Epilogue epilogues[3];
  driver::TensorMap w_maps[3], y_maps[3];
  int64_t across_n = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const MatMulCall& c = calls[i];
    const int64_t n = c.w->rows, stride = c.y_stride ? c.y_stride : n;
    epilogues[i] = {c.bias, 0, c.y, stride, c.scale, 0};
    w_maps[i] = tensor_map(c.w->data, driver::kTensorBf16, 2, n, k, k, tile.columns);
    y_maps[i] = tensor_map(c.y, c.y_f32 ? driver::kTensorF32 : driver::kTensorBf16, c.y_f32 ? 4 : 2, c.m, n,
                           stride, kPieceRows);
    across_n += ceil_div(n, tile.columns);
    if (i > 0)
      joined.w[i - 1] = w_maps[i], joined.y[i - 1] = y_maps[i], joined.e[i - 1] = epilogues[i],
                   joined.n[i - 1] = int(n);
  }
  Way way = way_of(tile, first, epilogues[0].y_stride, false, false);
  way.joined = true;
  const auto x_map = tensor_map(first.x, driver::kTensorBf16, 2, first.m, k, k, tile.rows);
  LaunchShape shape;
  shape.grid[0] = unsigned(
      std::min<int64_t>(ceil_div(first.m, tile.rows) * across_n, stream.device().facts().multiprocessors));
  shape.block = unsigned(tile.consumers + 1) * 128;
  shape.shared_bytes = unsigned(1024 + tile.stages * ((tile.rows + tile.columns) * 128 + 16) +
                                tile.consumers * 2 * kPieceBytes);
  shape.overlap_previous = first.overlap_previous;
  stream.launch(cache.get(variant_of(tile, way), "matmul_many"), shape, x_map, w_maps[0], w_maps[0],
                y_maps[0], epilogues[0], Scales{}, Experts{}, int(first.m), int(first.w->rows), int(k),
                kTileGroup, joined);
}

}  // namespace

void matmul_many(KernelCache& cache, Stream& stream, std::span<const MatMulCall> calls,
                 ManyScratch& scratch) {
  if (calls.empty() || calls.front().m == 0) return;
  const auto& device = stream.device().facts();
  if (calls.size() > 1) {
    const ManyTile tile = choose_many_tile(device, calls.front().m,
                                           {.n = rows_together(calls), .k = calls.front().w->cols}, false);
    if (can_join(calls, tile)) return multiply_joined(cache, stream, calls, tile);
  }
  for (const auto& call : calls) matmul_many(cache, stream, call, scratch);
}

std::vector<Variant> matmul_many_variants(int capability, std::span<const MatMulCall> calls) {
  std::vector<Variant> variants;
  for (const auto& tile : many_tiles(capability)) {
    if (!can_join(calls, tile)) continue;
    Way way = way_of(tile, calls.front(), calls.front().w->rows, false, false);
    way.joined = true;
    variants.push_back(variant_of(tile, way));
  }
  for (const auto& call : calls)
    for (auto& v : matmul_many_variants(capability, call)) variants.push_back(std::move(v));
  return variants;
}

std::vector<Variant> matmul_many_variants(int capability, const MatMulCall& call) {
  std::vector<Variant> variants;
  const bool pairs = call.up != nullptr;
  const int64_t stride = call.y_stride ? call.y_stride : call.w->rows;
  for (const auto& tile : many_tiles(capability))
    if (many_tile_fits(tile, pairs))
      variants.push_back(variant_of(tile, way_of(tile, call, stride, pairs, call.w->pieces > 1)));
  for (const auto* w : {call.w, call.up})
    if (w && !plain(*w)) variants.push_back(unpack_variant(*w->form));
  return variants;
}

// ---- the table of families
// -------------------------------------------------------------------------------------

namespace {

// The products of the usual families: plain and residual, gated, capped, to rows that are not aligned, of
// experts.
std::vector<Way> usual_ways() {
  using program::Activation;
  std::vector<Way> ways = {
      {}, {.y_f32 = true}, {.y_f32 = true, .added = true}, {.y_f32 = true, .capped = true}};
  for (const auto a : {Activation::gelu, Activation::gelu_tanh, Activation::relu})
    ways.push_back({.activation = a});
  for (const auto a : {Activation::silu, Activation::gelu_tanh})
    ways.push_back({.gated = true, .activation = a});
  ways.push_back({.y_f32 = true, .boxed = false, .capped = true});
  ways.push_back({.joined = true}), ways.push_back({.y_f32 = true, .joined = true});
  ways.push_back({.experts = true, .boxed = false});
  ways.push_back({.gated = true, .experts = true, .activation = Activation::silu, .boxed = false});
  return ways;
}

void add_stock(int capability, const Way& way, std::vector<Variant>& variants) {
  for (const auto& tile : many_tiles(capability, way.element)) {
    if (!many_tile_fits(tile, way.gated)) continue;
    Way of_tile = way;
    if (tile.columns / (way.gated ? 2 : 1) * (way.y_f32 ? 4 : 2) % 128 != 0) of_tile.boxed = false;
    if (way.joined && (!of_tile.boxed || tile.consumers == 0)) continue;
    auto variant = variant_of(tile, of_tile);
    if (std::find(variants.begin(), variants.end(), variant) == variants.end())
      variants.push_back(std::move(variant));
  }
}

}  // namespace

std::vector<Variant> matmul_many_stock(int capability) {
  std::vector<Variant> variants;
  for (const auto& way : usual_ways()) add_stock(capability == 90 ? 89 : capability, way, variants);
  return variants;
}

std::vector<Variant> matmul_many_sm90_stock(int capability) {
  std::vector<Variant> variants;
  if (capability != 90) return variants;
  for (const auto& way : usual_ways()) add_stock(90, way, variants);
  for (const bool blocks : {false, true})
    for (Way way : {Way{}, Way{.y_f32 = true}, Way{.gated = true, .activation = program::Activation::silu}}) {
      way.element = DenseRows::Element::e4m3, way.block_scales = blocks;
      add_stock(90, way, variants);
    }
  return variants;
}

std::vector<Variant> expert_rows_stock(int) { return {{"expert_rows.cu", {}}}; }

std::vector<Variant> quantize_rows_stock(int capability) {
  return capability >= 89 ? std::vector<Variant>{{"quantize_rows.cu", {}}} : std::vector<Variant>();
}

}  // namespace cairn::cuda
