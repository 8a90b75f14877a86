#include "backends/cuda/matmul_few_sm90.h"

#include <fmt/format.h>

#include <algorithm>

#include "backends/cuda/few_arguments.h"
#include "backends/cuda/matmul_few.h"
#include "base/checked.h"

namespace cairn::cuda {

size_t warpgroup_shared_bytes(const Form& f, const WarpgroupTiling& t) {  // as laid out in the kernel
  const int warps = 4 * t.warpgroups, tokens = 8 * t.token_tiles;
  const int pipeline = t.x_stages * f.chunk * 2 * tokens + warps * t.stages * 2 * f.block_bytes() +
                       warps * 2 * (f.chunk / 32) * 8 * 16;
  const int partials = t.cluster > 1 ? tokens * (64 * t.warpgroups + 4) * 4 : 0;
  return size_t(std::max(pipeline, partials));
}

WarpgroupTiling with_stages(const Form& f, WarpgroupTiling t, size_t room) {
  const auto fits = [&] { return warpgroup_shared_bytes(f, t) + 1024 <= room; };
  t.stages = 6, t.x_stages = 4;
  while (t.x_stages > 2 && !fits()) --t.x_stages;
  while (t.stages > 1 && !fits()) --t.stages;
  return t;
}

Variant warpgroup_variant(const Form& f, const WarpgroupTiling& t, bool gated) {
  Variant v{"matmul_few_sm90.cu", f.defines()};
  for (const auto& [name, value] : {std::pair{"TOKEN_TILES", t.token_tiles},
                                    {"WARPGROUPS", t.warpgroups},
                                    {"CLUSTER", t.cluster},
                                    {"STAGES", t.stages},
                                    {"X_STAGES", t.x_stages},
                                    {"GATED", int(gated)}})
    v.defines.push_back(fmt::format("{}={}", name, value));
  return v;
}

std::optional<WarpgroupTiling> warpgroup_tiling(const Form& f, int64_t rows, int64_t cols, int64_t m,
                                                const DeviceFacts& device) {
  // In as many parts of K as mma.sync, whose bits these are then: so that the number of rows may decide. At
  // 64 rows of x, H200, q4_k: o 25.1 -> 20.1 us, down 60.9 -> 47.7; q, k and v (256 blocks) 26.6 -> 30.5.
  // Gate and up in one part 75.3 -> 59.9, but that changes bits, and 8 parts one after the other have no
  // registers.
  constexpr int64_t kMostBlocks = 176;
  const WarpgroupTiling t{.token_tiles = 8, .warpgroups = 3, .cluster = few_parts(f)};
  if (device.capability != 90 || f.layout != Layout::blocks || m <= 32 || cols < 4 * f.chunk ||
      ceil_div(rows, int64_t{64} * t.warpgroups) * t.cluster > kMostBlocks)
    return std::nullopt;
  return with_stages(f, t, device.shared_per_block);
}

std::vector<Variant> warpgroup_stock(int capability) {
  std::vector<Variant> all;
  if (capability != 90) return all;
  DeviceFacts device;
  device.capability = capability;
  device.multiprocessors = 132;
  device.shared_per_block = 227 * 1024;
  for (const auto& f : forms()) {
    if (f.layout != Layout::blocks) continue;
    for (const bool gated : {false, true})
      if (const auto t = warpgroup_tiling(f, 4096, 4096, 64, device))
        all.push_back(warpgroup_variant(f, *t, gated));
  }
  return all;
}

void matmul_few_sm90(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                     const WarpgroupTiling& t) {
  const auto& first = calls.front();
  const Form& f = *first.w->form;
  const bool gated = first.up != nullptr;
  if (first.m == 0) return;
  const FewArguments arguments = few_arguments(calls);
  const int64_t tiles = ceil_div(int64_t{arguments.groups}, 8 * t.warpgroups);
  LaunchShape shape;
  shape.grid[0] = unsigned(t.cluster > 1 ? tiles * t.cluster
                                         : std::min<int64_t>(tiles, stream.device().facts().multiprocessors));
  shape.grid[1] = unsigned(ceil_div(first.m, 8 * t.token_tiles));
  shape.block = unsigned(128 * (t.warpgroups + 1));
  shape.cluster = unsigned(t.cluster);
  shape.shared_bytes = unsigned(warpgroup_shared_bytes(f, t));
  // Started early, two blocks must not share a multiprocessor (matmul_few.cpp).
  if (first.overlap_previous)
    shape.shared_bytes =
        std::max(shape.shared_bytes, unsigned(stream.device().facts().shared_per_block / 2 + 1024));
  shape.overlap_previous = first.overlap_previous;
  stream.launch(kernels.get(warpgroup_variant(f, t, gated), "matmul_few"), shape, arguments);
}

}  // namespace cairn::cuda
