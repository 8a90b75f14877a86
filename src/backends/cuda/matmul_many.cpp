#include "backends/cuda/matmul_many.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

// As the kernels declare it.
struct Epilogue {
  Address bias = 0, add = 0, y = 0;
  int64_t y_stride = 0;
  float scale = 1, softcap = 0;
};

// Rows of tiles that are worked on together, so that what neighbours share stays in L2.
constexpr int kTileGroup = 8;
constexpr int kPieceRows = 64, kPieceBytes = kPieceRows * 128;  // kernels/matmul_many_sm90.cu

// Warps of a block of kernels/matmul_many.cu.
int warps_m(const ManyTile& tile) { return tile.rows >= 128 ? 2 : 1; }
int warps_n(const ManyTile& tile) { return tile.columns / 32; }

bool gated(const MatMulCall& call) { return call.up != nullptr; }

// How the results leave the kernel. Boxed: by the copy engine, which needs rows on 16 bytes; adds what is in
// y already by itself.
struct Way {
  bool boxed, added, capped;
};
Way way_of(const MatMulCall& call, int64_t stride) {
  const int64_t bytes = call.y_f32 ? 4 : 2;
  Way way{};
  way.boxed = call.y % 16 == 0 && stride * bytes % 16 == 0;
  way.added = call.add != 0 && !(way.boxed && call.y_f32 && call.add == call.y);
  way.capped = call.softcap != 0;
  return way;
}

Variant variant_of(const ManyTile& tile, const MatMulCall& call, bool is_gated, const Way& way) {
  std::vector<std::string> defines;
  const auto define = [&](const char* name, int value) {
    defines.push_back(fmt::format("{}={}", name, value));
  };
  define("TILE_N", tile.columns), define("STAGES", tile.stages);
  if (call.y_f32) define("OUT_F32", 1);
  if (is_gated) define("GATED", 1);
  if (call.activation != program::Activation::identity) define("ACTIVATION", int(call.activation));
  if (tile.consumers == 0) {
    define("TILE_M", tile.rows), define("WARPS_M", warps_m(tile)), define("WARPS_N", warps_n(tile));
    return {"matmul_many.cu", std::move(defines)};
  }
  define("CONSUMERS", tile.consumers), define("SUBTILES", tile.rows / (64 * tile.consumers));
  if (tile.cluster_m > 1) define("CLUSTER_M", tile.cluster_m);
  if (tile.cluster_n > 1) define("CLUSTER_N", tile.cluster_n);
  if (!way.boxed) define("BOXED", 0);
  if (way.added) define("ADDED", 1);
  if (way.capped) define("CAPPED", 1);
  return {"matmul_many_sm90.cu", std::move(defines)};
}

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

void launch_sm90(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                 const MatMulCall& call, const ManyTile& tile, const Epilogue& epilogue, const Way& way) {
  const bool pairs = up != nullptr;
  const int out_columns = tile.columns / (pairs ? 2 : 1), cluster = tile.cluster_m * tile.cluster_n;
  const int w_box = pairs || tile.cluster_m == 2 ? tile.columns / 2 : tile.columns;
  const auto x_map = tensor_map(call.x, driver::kTensorBf16, 2, call.m, w.k, w.k, tile.rows / tile.cluster_n);
  const auto w_map = tensor_map(w.data, driver::kTensorBf16, 2, w.n, w.k, w.k, w_box);
  const auto up_map = pairs ? tensor_map(up->data, driver::kTensorBf16, 2, w.n, w.k, w.k, w_box) : w_map;
  const auto y_map = way.boxed ? tensor_map(call.y, call.y_f32 ? driver::kTensorF32 : driver::kTensorBf16,
                                            call.y_f32 ? 4 : 2, call.m, w.n, epilogue.y_stride, kPieceRows)
                               : w_map;
  const int64_t tiles =
      ceil_div(call.m, tile.rows * tile.cluster_m) * ceil_div(w.n, out_columns * tile.cluster_n);
  LaunchShape shape;
  shape.grid[0] =
      unsigned(std::min<int64_t>(tiles, stream.device().facts().multiprocessors / cluster) * cluster);
  shape.block = unsigned(tile.consumers + 1) * 128;
  shape.cluster = unsigned(cluster);
  shape.shared_bytes = unsigned(1024 + tile.stages * ((tile.rows + tile.columns) * 128 + 16) +
                                (way.boxed ? tile.consumers * 2 * kPieceBytes : 0));
  shape.overlap_previous = call.overlap_previous;
  stream.launch(cache.get(variant_of(tile, call, pairs, way), "matmul_many"), shape, x_map, w_map, up_map,
                y_map, epilogue, int(call.m), int(w.n), int(w.k), kTileGroup);
}

void launch_any(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                const MatMulCall& call, const ManyTile& tile, const Epilogue& epilogue, const Way& way) {
  LaunchShape shape;
  shape.grid[0] = unsigned(ceil_div(call.m, tile.rows) * ceil_div(w.n, tile.columns / (up ? 2 : 1)));
  shape.block = unsigned(warps_m(tile) * warps_n(tile) * 32);
  shape.shared_bytes = unsigned(tile.stages * (tile.rows + tile.columns) * 128);
  shape.overlap_previous = call.overlap_previous;
  stream.launch(cache.get(variant_of(tile, call, up != nullptr, way), "matmul_many"), shape, call.x, w.data,
                up ? up->data : Address{0}, epilogue, int(call.m), int(w.n), int(w.k), kTileGroup);
}

}  // namespace

std::vector<ManyTile> many_tiles(int capability) {
  if (capability != 90)  // 96 KiB of shared memory at most: what an sm_86 has
    return {{.rows = 128, .columns = 128, .stages = 3, .rate = 1},
            {.rows = 32, .columns = 64, .stages = 4, .rate = 0.5}};
  return {
      {.rows = 128, .columns = 256, .stages = 4, .consumers = 2, .rate = 1},
      {.rows = 128, .columns = 128, .stages = 6, .consumers = 2, .rate = 0.93},
      {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.8},
      {.rows = 64, .columns = 64, .stages = 10, .consumers = 1, .rate = 0.5},
  };
}

ManyTile choose_many_tile(const DeviceFacts& device, int64_t m, int64_t n, bool is_gated) {
  // A wave of blocks lasts as long as one of its tiles, full or not.
  const auto tiles = many_tiles(device.capability);
  const auto cost = [&](const ManyTile& tile) {
    const int64_t count = ceil_div(m, tile.rows * tile.cluster_m) * tile.cluster_m *
                          ceil_div(n, tile.columns / (is_gated ? 2 : 1) * tile.cluster_n) * tile.cluster_n;
    return double(ceil_div(count, device.multiprocessors)) * tile.rows * tile.columns / tile.rate;
  };
  return *std::min_element(tiles.begin(), tiles.end(),
                           [&](const ManyTile& a, const ManyTile& b) { return cost(a) < cost(b); });
}

void matmul_dense(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                  const MatMulCall& call) {
  matmul_dense(cache, stream, w, up, call,
               choose_many_tile(stream.device().facts(), call.m, w.n, up != nullptr));
}

void matmul_dense(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                  const MatMulCall& call, const ManyTile& tile) {
  assert(!up || (up->n == w.n && up->k == w.k));
  if (call.m == 0) return;
  if (w.k % 8 != 0 || call.x % 16 != 0 || w.data % 16 != 0 || (up && up->data % 16 != 0))
    fail(ErrorKind::unsupported,
         "a product of {} rows with a weight [{}, {}]: rows of both must begin on 16 bytes (columns a "
         "multiple of 8)",
         call.m, w.n, w.k);
  const Epilogue epilogue = {call.bias,  call.add,    call.y, call.y_stride ? call.y_stride : w.n,
                             call.scale, call.softcap};
  const Way way = way_of(call, epilogue.y_stride);
  if (tile.consumers > 0)
    launch_sm90(cache, stream, w, up, call, tile, epilogue, way);
  else
    launch_any(cache, stream, w, up, call, tile, epilogue, way);
}

std::vector<Variant> matmul_dense_variants(int capability, const MatMulCall& call) {
  std::vector<Variant> variants;
  for (const auto& tile : many_tiles(capability)) {
    const int64_t any_aligned = 16;
    variants.push_back(
        variant_of(tile, call, gated(call), way_of(call, call.y_stride ? call.y_stride : any_aligned)));
  }
  return variants;
}

namespace {
// The products of the usual families: plain and residual, gated, with a cap.
std::vector<Variant> stock(int capability) {
  std::vector<Variant> variants;
  for (const auto& tile : many_tiles(capability)) {
    const auto add = [&](bool y_f32, bool is_gated, program::Activation activation, Way way) {
      MatMulCall call;
      call.y_f32 = y_f32, call.activation = activation;
      const auto variant = variant_of(tile, call, is_gated, way);
      if (std::find(variants.begin(), variants.end(), variant) == variants.end()) variants.push_back(variant);
    };
    using program::Activation;
    const Way boxed{.boxed = true, .added = false, .capped = false};
    add(false, false, Activation::identity, boxed), add(true, false, Activation::identity, boxed);
    add(false, true, Activation::silu, boxed), add(false, true, Activation::gelu_tanh, boxed);
    add(false, false, Activation::gelu_tanh, boxed), add(false, false, Activation::gelu, boxed);
    add(true, false, Activation::identity, {.boxed = true, .added = true, .capped = false});
    add(true, false, Activation::identity, {.boxed = true, .added = false, .capped = true});
    add(true, false, Activation::identity, {.boxed = false, .added = false, .capped = false});
  }
  return variants;
}
}  // namespace

std::vector<Variant> matmul_many_stock(int capability) { return stock(capability == 90 ? 89 : capability); }
std::vector<Variant> matmul_many_sm90_stock(int capability) {
  return capability == 90 ? stock(90) : std::vector<Variant>();
}

}  // namespace cairn::cuda
