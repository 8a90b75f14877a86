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
struct RowScales {
  Address x = 0, w = 0, up = 0;
};
struct Joined {
  driver::TensorMap w[2], y[2];
  Epilogue e[2];
  Address scales[2];
  int n[2];
};
struct Packed {
  Address w = 0, up = 0;
  int64_t piece_bytes = 0;
};
struct Experts {
  Address begins = 0, order = 0;
  int count = 0;
};

// Rows of tiles that are worked on together, so that what neighbours share stays in L2.
constexpr int kTileGroup = 8;
constexpr int kPieceRows = 64, kPieceBytes = kPieceRows * 128;  // kernels/matmul_many_sm90.cu

// Warps of a block of kernels/matmul_many.cu.
int warps_m(const ManyTile& tile) { return tile.rows >= 128 ? 2 : 1; }
int warps_n(const ManyTile& tile) { return tile.columns / 32; }

// What a variant is made of besides its tile.
struct Way {
  DenseRows::Element element = DenseRows::Element::bf16;
  bool block_scales = false, blocks = false, y_f32 = false, gated = false, experts = false, joined = false;
  program::Activation activation = program::Activation::identity;
  // Boxed: results leave by the copy engine, which needs rows on 16 bytes and adds to what is in y by itself.
  bool boxed = true, added = false, capped = false;
  const Form* packed = nullptr;  // unpacked on the way
};
// Boxes of 128 bytes; of bf16, which is not added to what is there, the last two may overlap.
bool leaves_in_boxes(const ManyTile& tile, bool is_gated, bool y_f32) {
  const int columns = tile.columns / (is_gated ? 2 : 1);
  return y_f32 ? columns % 32 == 0 : columns >= 64;
}
Way way_of(const ManyTile& tile, const MatMulCall& call, int64_t stride, bool is_gated, bool experts) {
  const int64_t bytes = call.y_f32 ? 4 : 2;
  Way way;
  way.y_f32 = call.y_f32, way.gated = is_gated, way.activation = call.activation;
  way.experts = experts;
  way.boxed = tile.consumers > 0 && !experts && call.y % 16 == 0 && stride * bytes % 16 == 0 &&
              leaves_in_boxes(tile, is_gated, call.y_f32);
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
  if (way.blocks) define("W_BLOCKS", 1);
  if (!way.boxed) define("BOXED", 0);
  if (way.added) define("ADDED", 1);
  if (way.capped) define("CAPPED", 1);
  if (way.packed) {
    define("PACKED", 1);
    for (auto& d : way.packed->defines()) defines.push_back(std::move(d));
  }
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

// Blocks of the form e4m3_g128, one half of their columns at a time: 64 bytes of each of eight rows, two
// halves, the scales behind them (weights.h). Boxes of box_rows rows.
driver::TensorMap weight_blocks_map(const DenseRows& w, int box_rows) {
  constexpr int kPromoteTo256Bytes = 3;
  const auto encode = driver::api().tensor_map_tiled;
  if (!encode)
    fail(ErrorKind::unsupported, "the NVIDIA driver has no cuTensorMapEncodeTiled; a newer driver does");
  const auto block = uint64_t(form("e4m3_g128").block_bytes()), chunks = uint64_t(w.k / 128);
  driver::TensorMap map;
  const uint64_t dims[5] = {64, 8, 2, chunks, uint64_t(ceil_div(w.n, 8))},
                 strides[4] = {64, 512, block, chunks * block};
  const uint32_t box[5] = {64, 8, 1, 1, uint32_t(box_rows / 8)}, steps[5] = {1, 1, 1, 1, 1};
  driver::check(encode(&map, driver::kTensorU8, 5, reinterpret_cast<void*>(w.data), dims, strides, box, steps,
                       0, driver::kSwizzle64, kPromoteTo256Bytes, 0),
                "describing a matrix to the copy engine");
  return map;
}

int tensor_type(DenseRows::Element e) {
  return e == DenseRows::Element::e4m3 ? driver::kTensorU8 : driver::kTensorBf16;
}

// `count` weights like w, one after the other, in boxes of box_rows rows.
driver::TensorMap weight_map(const DenseRows& w, int64_t count, int box_rows) {
  if (w.blocks) return weight_blocks_map(w, box_rows);
  return tensor_map(w.data, tensor_type(w.element), bytes_of(w.element), w.n * count, w.k, w.k, box_rows);
}

// Tiles of a product; with experts the most that m rows can need.
int64_t most_tiles(const ManyTile& tile, int64_t m, int64_t n, bool is_gated, int64_t experts) {
  const int64_t down = experts > 0 ? m / tile.rows + std::min(experts, m) : ceil_div(m, tile.rows);
  return down * ceil_div(n, tile.columns / (is_gated ? 2 : 1));
}

void launch_sm90(KernelCache& cache, Stream& stream, const DenseRows& w, const DenseRows* up,
                 const MatMulCall& call, const DenseOptions& options, const ManyTile& tile,
                 const Epilogue& epilogue, const Way& way) {
  const int64_t count = std::max<int64_t>(options.experts.count, 1);
  const int w_box = way.gated ? tile.columns / 2 : tile.columns;
  const auto x_map =
      tensor_map(call.x, tensor_type(w.element), bytes_of(w.element), call.m, w.k, w.k, tile.rows);
  const auto w_map = way.packed ? x_map : weight_map(w, count, w_box);
  const auto up_map = up ? weight_map(*up, count, w_box) : w_map;
  const auto y_map = way.boxed ? tensor_map(call.y, call.y_f32 ? driver::kTensorF32 : driver::kTensorBf16,
                                            call.y_f32 ? 4 : 2, call.m, w.n, epilogue.y_stride, kPieceRows)
                               : w_map;
  const RowScales scales = {options.x_scales, w.scales, up ? up->scales : w.scales};
  const Experts experts = {options.experts.begins, options.experts.order, int(options.experts.count)};
  LaunchShape shape;
  shape.grid[0] = unsigned(std::min<int64_t>(most_tiles(tile, call.m, w.n, way.gated, experts.count),
                                             stream.device().facts().multiprocessors));
  shape.block = unsigned(tile.consumers + (way.packed ? 2 : 1)) * 128;
  shape.shared_bytes = unsigned(1024 + tile.stages * ((tile.rows + tile.columns) * 128 + 16) +
                                (way.boxed ? tile.consumers * 2 * kPieceBytes : 0) + experts.count * 4);
  shape.overlap_previous = call.overlap_previous;
  const Kernel kernel = cache.get(variant_of(tile, way), "matmul_many");
  if (way.packed) {
    const Packed packed = {call.w->data, call.up ? call.up->data : 0, int64_t(call.w->piece_bytes)};
    stream.launch(kernel, shape, x_map, w_map, up_map, y_map, epilogue, scales, experts, int(call.m),
                  int(w.n), int(w.k), kTileGroup, 0, packed);
  } else {
    stream.launch(kernel, shape, x_map, w_map, up_map, y_map, epilogue, scales, experts, int(call.m),
                  int(w.n), int(w.k), kTileGroup, int(options.early));
  }
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

}  // namespace

std::vector<ManyTile> many_tiles(int capability, DenseRows::Element element, bool block_scales) {
  if (element == DenseRows::Element::e4m3 && capability != 90) return {};
  if (element == DenseRows::Element::e4m3) {
    std::vector<ManyTile> tiles = {{.rows = 128, .columns = 128, .stages = 6, .consumers = 2, .rate = 0.85},
                                   {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.6}};
    if (!block_scales)
      tiles.insert(tiles.begin(), {{.rows = 128, .columns = 256, .stages = 4, .consumers = 2},
                                   {.rows = 128, .columns = 192, .stages = 4, .consumers = 2, .rate = 0.95}});
    return tiles;
  }
  if (capability != 90)  // 96 KiB of shared memory at most: what an sm_86 has
    return {{.rows = 128, .columns = 128, .stages = 3},
            {.rows = 32, .columns = 64, .stages = 4, .rate = 0.5}};
  // Many widths, so that one fills the device whatever m and n are: gate and up of 256 rows of an 8B model
  // are 256 tiles of 128 x 224. 160 and, for 64 rows, 96, 192 and 256 never won.
  return {
      {.rows = 128, .columns = 256, .stages = 4, .consumers = 2},
      {.rows = 128, .columns = 224, .stages = 4, .consumers = 2, .rate = 0.98},
      {.rows = 128, .columns = 192, .stages = 4, .consumers = 2, .rate = 0.99},
      {.rows = 128, .columns = 128, .stages = 6, .consumers = 2, .rate = 0.98},
      {.rows = 128, .columns = 96, .stages = 6, .consumers = 2, .rate = 0.88},
      {.rows = 64, .columns = 224, .stages = 5, .consumers = 1, .rate = 0.85},
      {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.83},
      {.rows = 64, .columns = 64, .stages = 10, .consumers = 1, .rate = 0.48},
      {.rows = 64, .columns = 32, .stages = 16, .consumers = 1, .rate = 0.27},
  };
}

bool many_tile_fits(const ManyTile& tile, bool is_gated) {
  if (tile.consumers == 0 || !is_gated || tile.columns == 64 || tile.columns % 128 == 0) return true;
  // Half a tile leaves in boxes of 64 columns. Two consumers of 192 have no registers left for it.
  return tile.columns >= (tile.consumers == 1 ? 128 : 224);
}

// A wave of blocks lasts as long as
// one of its tiles, full or not.
double many_seconds(const DeviceFacts& device, const ManyTile& tile, int64_t m, const DenseRows& w,
                    bool is_gated, int64_t experts) {
  constexpr double kProductsPerSecond = 2.9e12, kTileSeconds = 1e-6;
  // Half a tile of each expert is empty on average, and no expert has less than one.
  const int64_t down =
      experts > 0 ? std::max(std::min(experts, m), m / tile.rows + experts / 2) : ceil_div(m, tile.rows);
  const int64_t count = down * ceil_div(w.n, tile.columns / (is_gated ? 2 : 1));
  return double(ceil_div(count, device.multiprocessors)) *
         (double(tile.rows * tile.columns) * double(w.k) / (tile.rate * kProductsPerSecond) + kTileSeconds);
}

ManyTile choose_many_tile(const DeviceFacts& device, int64_t m, const DenseRows& w, bool is_gated,
                          int64_t experts, bool beside) {
  const ManyTile* best = nullptr;
  const auto tiles = many_tiles(device.capability, w.element, w.block_scales);
  for (const auto& tile : tiles) {
    if (!many_tile_fits(tile, is_gated) || (beside && tile.columns > 192)) continue;
    if (!best || many_seconds(device, tile, m, w, is_gated, experts) <
                     many_seconds(device, *best, m, w, is_gated, experts))
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
  const auto& e = options.experts;
  const int64_t rows = e.all > 0 ? ceil_div(call.m * e.count, e.all) : call.m;
  const ManyTile tile = options.tile ? *options.tile
                                     : choose_many_tile(stream.device().facts(), rows, w, up != nullptr,
                                                        options.experts.count, options.beside);
  Way way = way_of(tile, call, epilogue.y_stride, up != nullptr, options.experts.count > 0);
  way.element = w.element, way.block_scales = w.block_scales, way.blocks = w.blocks;
  if (tile.consumers > 0)
    launch_sm90(cache, stream, w, up, call, options, tile, epilogue, way);
  else
    launch_any(cache, stream, w, up, call, options, tile, epilogue, way);
}

bool can_multiply_packed(int capability, const DeviceMatrix& w) {
  return capability == 90 && w.form->layout == Layout::blocks;
}

std::vector<ManyTile> packed_tiles() {
  return {{.rows = 128, .columns = 128, .stages = 6, .consumers = 2, .rate = 0.75},
          {.rows = 64, .columns = 128, .stages = 8, .consumers = 1, .rate = 0.4}};
}

void matmul_packed(KernelCache& cache, Stream& stream, const MatMulCall& call, const DenseOptions& options) {
  const DeviceMatrix& w = *call.w;
  const auto& device = stream.device().facts();
  assert(can_multiply_packed(device.capability, w) && (!call.up || call.up->form == w.form));
  assert(options.experts.count <= kMostExperts);
  if (call.m == 0) return;
  if (call.x % 16 != 0 || w.cols % 8 != 0)
    fail(ErrorKind::unsupported,
         "a product of {} rows with a weight [{}, {}]: rows of x must begin on 16 bytes", call.m, w.rows,
         w.cols);
  const DenseRows rows{.n = w.rows, .k = w.cols};
  const Epilogue epilogue = {call.bias,  call.add,    call.y, call.y_stride ? call.y_stride : w.rows,
                             call.scale, call.softcap};
  const auto tiles = packed_tiles();
  const auto cost = [&](const ManyTile& tile) {
    return many_seconds(device, tile, call.m, rows, call.up != nullptr, options.experts.count);
  };
  const ManyTile tile = options.tile ? *options.tile : cost(tiles[1]) < cost(tiles[0]) ? tiles[1] : tiles[0];
  Way way = way_of(tile, call, epilogue.y_stride, call.up != nullptr, options.experts.count > 0);
  way.packed = w.form;
  launch_sm90(cache, stream, rows, nullptr, call, options, tile, epilogue, way);
}

void quantize_rows(KernelCache& cache, Stream& stream, Address x, int64_t m, int64_t k, Address codes,
                   Address scales, bool overlap_previous, bool blocked) {
  assert(k % (blocked ? 128 : 8) == 0);
  if (m == 0) return;
  LaunchShape shape;
  shape.grid[0] = unsigned(m);
  shape.block = 256;
  shape.overlap_previous = overlap_previous;
  stream.launch(cache.get(quantize_rows_variant(blocked), "quantize_rows"), shape, x, codes, scales, int(k));
}

// ---- products that share a launch
// ------------------------------------------------------------------------------

namespace {

bool can_join(std::span<const MatMulCall> calls, const ManyTile& tile) {
  const MatMulCall& first = calls.front();
  if (calls.size() < 2 || calls.size() > 3 || tile.consumers == 0) return false;
  return std::all_of(calls.begin(), calls.end(), [&](const MatMulCall& c) {
    const Way way = way_of(tile, c, c.y_stride ? c.y_stride : c.w->rows, false, false);
    return c.w->pieces == 1 && !c.up && way.boxed && !way.capped && !c.add && c.x == first.x &&
           c.m == first.m && c.w->cols == first.w->cols && c.y_f32 == first.y_f32 &&
           c.activation == first.activation;
  });
}

}  // namespace

std::optional<ManyTile> joined_tile(const DeviceFacts& device, std::span<const MatMulCall> calls,
                                    DenseRows::Element element) {
  if (calls.size() < 2) return std::nullopt;
  DenseRows together{.k = calls.front().w->cols, .element = element};
  for (const auto& c : calls) together.n += round_up(c.w->rows, int64_t{128});
  const ManyTile tile = choose_many_tile(device, calls.front().m, together, false);
  return can_join(calls, tile) ? std::optional(tile) : std::nullopt;
}

void matmul_dense_joined(KernelCache& cache, Stream& stream, std::span<const DenseRows> weights,
                         std::span<const MatMulCall> calls, const ManyTile& tile, Address x_scales) {
  assert(weights.size() == calls.size());
  const MatMulCall& first = calls.front();
  const DenseRows& like = weights.front();
  const int64_t k = like.k, bytes = bytes_of(like.element);
  if (k * bytes % 16 != 0 || first.x % 16 != 0)
    fail(ErrorKind::unsupported,
         "a product of {} rows with a weight [{}, {}]: rows of both must begin on 16 bytes", first.m,
         weights.front().n, k);
  Joined joined{};
  Epilogue epilogues[3];
  driver::TensorMap w_maps[3], y_maps[3];
  int64_t across_n = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const MatMulCall& c = calls[i];
    const int64_t n = weights[i].n, stride = c.y_stride ? c.y_stride : n;
    epilogues[i] = {c.bias, 0, c.y, stride, c.scale, 0};
    assert(weights[i].element == like.element && weights[i].blocks == like.blocks &&
           !weights[i].block_scales);
    w_maps[i] = weight_map(weights[i], 1, tile.columns);
    y_maps[i] = tensor_map(c.y, c.y_f32 ? driver::kTensorF32 : driver::kTensorBf16, c.y_f32 ? 4 : 2, c.m, n,
                           stride, kPieceRows);
    across_n += ceil_div(n, tile.columns);
    if (i > 0)
      joined.w[i - 1] = w_maps[i], joined.y[i - 1] = y_maps[i], joined.e[i - 1] = epilogues[i],
                   joined.scales[i - 1] = weights[i].scales, joined.n[i - 1] = int(n);
  }
  Way way = way_of(tile, first, epilogues[0].y_stride, false, false);
  way.joined = true, way.element = like.element, way.blocks = like.blocks;
  const auto x_map = tensor_map(first.x, tensor_type(like.element), bytes, first.m, k, k, tile.rows);
  LaunchShape shape;
  shape.grid[0] = unsigned(
      std::min<int64_t>(ceil_div(first.m, tile.rows) * across_n, stream.device().facts().multiprocessors));
  shape.block = unsigned(tile.consumers + 1) * 128;
  shape.shared_bytes = unsigned(1024 + tile.stages * ((tile.rows + tile.columns) * 128 + 16) +
                                tile.consumers * 2 * kPieceBytes);
  shape.overlap_previous = first.overlap_previous;
  stream.launch(cache.get(variant_of(tile, way), "matmul_many"), shape, x_map, w_maps[0], w_maps[0],
                y_maps[0], epilogues[0], RowScales{x_scales, like.scales, 0}, Experts{}, int(first.m),
                int(first.w->rows), int(k), kTileGroup, 1, joined);
}

std::vector<Variant> dense_joined_variants(int capability, const DenseRows& like,
                                           std::span<const MatMulCall> calls) {
  std::vector<Variant> variants;
  for (const auto& tile : many_tiles(capability, like.element)) {
    if (!can_join(calls, tile)) continue;
    Way way = way_of(tile, calls.front(), calls.front().w->rows, false, false);
    way.joined = true, way.element = like.element, way.blocks = like.blocks;
    variants.push_back(variant_of(tile, way));
  }
  return variants;
}

std::vector<Variant> matmul_many_variants(int capability, std::span<const MatMulCall> calls) {
  std::vector<Variant> variants = dense_joined_variants(capability, {}, calls);
  for (const auto& call : calls) {
    const bool pairs = call.up != nullptr, experts = call.w->pieces > 1;
    const int64_t stride = call.y_stride ? call.y_stride : call.w->rows;
    for (const auto& tile : many_tiles(capability))
      if (many_tile_fits(tile, pairs))
        variants.push_back(variant_of(tile, way_of(tile, call, stride, pairs, experts)));
    if (experts) variants.push_back({"expert_rows.cu", {}});
    if (experts && can_multiply_packed(capability, *call.w)) {
      for (const auto& tile : packed_tiles()) {
        Way way = way_of(tile, call, stride, pairs, true);
        way.packed = call.w->form;
        variants.push_back(variant_of(tile, way));
      }
      continue;
    }
    for (const auto* w : {call.w, call.up})
      if (w && w->form->layout != Layout::bf16_rows) variants.push_back(unpack_variant(*w->form));
  }
  return variants;
}

std::vector<Variant> dense_variants(int capability, const DenseRows& w, bool gated, const MatMulCall& call) {
  std::vector<Variant> variants;
  for (const auto& tile : many_tiles(capability, w.element, w.block_scales)) {
    if (!many_tile_fits(tile, gated)) continue;
    Way way = way_of(tile, call, call.y_stride ? call.y_stride : w.n, gated, false);
    way.element = w.element, way.block_scales = w.block_scales, way.blocks = w.blocks;
    variants.push_back(variant_of(tile, way));
  }
  return variants;
}

Variant quantize_rows_variant(bool blocked) {
  if (blocked) return {"quantize_rows.cu", {"BLOCKED=1"}};
  return {"quantize_rows.cu", {}};
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
  for (const auto& tile : many_tiles(capability, way.element, way.block_scales)) {
    if (!many_tile_fits(tile, way.gated)) continue;
    Way of_tile = way;
    if (!leaves_in_boxes(tile, way.gated, way.y_f32)) of_tile.boxed = false;
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
  for (const auto& f : forms()) {
    if (f.layout != Layout::blocks) continue;
    const Way gated{.gated = true, .experts = true, .activation = program::Activation::silu, .boxed = false};
    for (Way way : {Way{.experts = true, .boxed = false}, gated})
      for (const auto& tile : packed_tiles()) {
        way.packed = &f;
        // One of the others shows that a form compiles.
        if ((way.gated || tile.consumers == 1) && f.name != "q4_k" && f.name != "q6_k") continue;
        variants.push_back(variant_of(tile, way));
      }
  }
  for (const bool blocks : {false, true})
    for (Way way : {Way{}, Way{.y_f32 = true}, Way{.gated = true, .activation = program::Activation::silu}}) {
      way.element = DenseRows::Element::e4m3, way.block_scales = blocks, way.blocks = true;
      add_stock(90, way, variants);
    }
  add_stock(90, {.element = DenseRows::Element::e4m3, .blocks = true, .joined = true}, variants);
  return variants;
}

std::vector<Variant> expert_rows_stock(int) { return {{"expert_rows.cu", {}}}; }

std::vector<Variant> quantize_rows_stock(int capability) {
  if (capability < 89) return {};
  return {quantize_rows_variant(false), quantize_rows_variant(true)};
}

}  // namespace cairn::cuda