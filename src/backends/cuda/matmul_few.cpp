#include "backends/cuda/matmul_few.h"

#include <algorithm>
#include <cassert>

#include "backends/cuda/few_arguments.h"
#include "backends/cuda/matmul_few_sm90.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

// As in matmul_few.cu: the lists of one launch.
constexpr int64_t kMostPairs = 4096, kMostExperts = 1024;
constexpr size_t kExpertSharedBytes = 2 * kMostPairs + kMostExperts / 8 + 128;

int token_tiles_for(int64_t m) { return m <= 8 ? 1 : m <= 16 ? 2 : m <= 32 ? 4 : 8; }

int tile_groups(const FewTiling& t) { return 2 * t.row_tiles * t.row_warps; }

}  // namespace

size_t few_shared_bytes(const Form& f, const FewTiling& t) {  // as laid out in matmul_few.cu
  const int warps = t.k_warps * t.row_warps, tokens = t.one_token ? 1 : 8 * t.token_tiles;
  const int weights = warps * t.stages * 2 * t.row_tiles * f.block_bytes();
  const int x = (t.one_token ? warps : t.k_warps) * t.stages * f.chunk * 2 * tokens;
  const int scaled = f.layout == Layout::blocks ? warps * 2 * t.row_tiles * f.chunk / 32 * 8 * 16 : 0;
  const bool walks = t.k_warps == t.parts;  // over many tiles
  const int partials =
      (walks && t.token_tiles == 1 ? 2 : 1) * t.k_warps * tokens * (8 * tile_groups(t) + 4) * 4;
  return size_t(walks ? weights + x + scaled + partials : std::max(weights + x + scaled, partials));
}

Variant few_variant(const Form& f, const FewTiling& t, bool gated, bool experts) {
  Variant v{"matmul_few.cu", f.defines()};
  for (const auto& [name, value] : {std::pair{"PARTS", t.parts},
                                    {"ROW_TILES", t.row_tiles},
                                    {"TOKEN_TILES", t.token_tiles},
                                    {"K_WARPS", t.k_warps},
                                    {"ROW_WARPS", t.row_warps},
                                    {"CLUSTER", t.cluster},
                                    {"STAGES", t.stages},
                                    {"MIN_BLOCKS", t.min_blocks},
                                    {"ONE_TOKEN", int(t.one_token)},
                                    {"GATED", int(gated)},
                                    {"EXPERTS", int(experts)}})
    v.defines.push_back(fmt::format("{}={}", name, value));
  return v;
}

int few_parts(const Form&) { return 8; }

// Chosen by measurements on an H200 with the shapes of an 8B model (bench/cuda_matmul_bench --sweep).
FewTiling few_tiling(const Form& f, int64_t rows, int64_t, int64_t m, bool gated, const DeviceFacts& device) {
  const bool blocks = f.layout == Layout::blocks;
  const int64_t all_rows = rows * (gated ? 2 : 1);
  // A block of a walking kernel gets this many rows; a tile of 32 of them should not stay half empty.
  const int64_t share = ceil_div(all_rows, device.multiprocessors);
  const bool tall = share * 100 >= round_up(share, 32) * 85;
  const bool many = all_rows >= 112 * device.multiprocessors || device.capability < 90;
  FewTiling t;
  t.token_tiles = token_tiles_for(m);
  t.one_token = m == 1;
  t.parts = t.k_warps = few_parts(f);
  // Two blocks fit on a multiprocessor where possible, so that the next kernel's first weights are on their
  // way before this one ends.
  t.min_blocks = 2;
  if (m == 1) {
    if (blocks && many) t.blocks_per_multiprocessor = 2;
  } else if (m <= 8) {
    t.row_tiles = tall && !(f.levels != Levels::none && f.group == 16) ? 2 : 1;
  } else if (m <= 16 && !blocks) {
    t.row_warps = 2;
  } else if (many) {  // a block sums all of K for its rows
    t.k_warps = 1, t.row_warps = 8;
    if (m > 32 && f.layout != Layout::bf16_rows) {  // else registers spill
      t.min_blocks = 1;
      t.row_tiles = blocks && device.capability >= 90 ? 2 : 1;
    }
  } else if (m <= 16) {
    t.min_blocks = 1;
    if (ceil_div(all_rows, int64_t{64}) * 2 <= device.multiprocessors)
      t.row_warps = 4, t.cluster = 2, t.k_warps = t.parts / t.cluster;
    else
      t.row_tiles = tall ? 2 : 1;
  } else if (blocks) {  // the blocks of a cluster share K
    t.k_warps = 1, t.row_warps = 8, t.cluster = t.parts;
    if (m > 32) t.min_blocks = 1, t.row_tiles = 2;
  } else {
    t.row_warps = 4, t.cluster = 2, t.k_warps = t.parts / t.cluster;
    t.min_blocks = 1;
  }
  const auto fit = [&](size_t room) {
    t.stages = 8;
    const int least = 2;
    while (t.stages > least && few_shared_bytes(f, t) > room) --t.stages;
    return few_shared_bytes(f, t) <= room;
  };
  const size_t all = device.shared_per_block, half = std::min<size_t>(all, 113 * 1024);
  if (t.min_blocks == 2 && fit(half) && t.stages > (blocks ? 1 : 2)) return t;
  if (fit(all)) return t;
  while (t.row_tiles > 1 && !fit(all)) t.row_tiles /= 2;
  while (t.token_tiles > 1 && !fit(all)) t.token_tiles /= 2;
  while (t.row_warps > 4 && !fit(all)) t.row_warps /= 2;
  return t;
}

std::vector<Variant> matmul_few_variants(const Form& f, int64_t rows, int64_t cols, bool gated,
                                         const DeviceFacts& device) {
  std::vector<Variant> all;
  for (const int64_t m : {1, 8, 16, 32, 64}) {
    // Both: several matrices together may take the other one.
    std::vector<Variant> needed = {few_variant(f, few_tiling(f, rows, cols, m, gated, device), gated)};
    if (const auto t = warpgroup_tiling(f, rows * (gated ? 2 : 1), cols, m, device))
      needed.push_back(warpgroup_variant(f, *t, gated));
    for (auto& v : needed)
      if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
  }
  return all;
}

Variant expert_matmul_few_variant(const Form& f, bool gated, const DeviceFacts& device) {
  return few_variant(f, few_expert_tiling(f, device), gated, true);
}

std::vector<Variant> matmul_few_stock(int capability) {
  DeviceFacts device;
  device.capability = capability;
  device.multiprocessors = 132;
  device.shared_per_block = capability == 80 ? 163 * 1024 : capability == 90 ? 227 * 1024 : 99 * 1024;
  std::vector<Variant> all;
  for (const auto& f : forms()) {
    if (f.layout == Layout::planes) continue;  // matmul_lookup.cu
    const bool common = f.name == "bf16" || f.name == "q4_k" || f.name == "q6_k" || f.name == "q8_0";
    for (const bool gated : {false, true})
      for (const int64_t rows : {4096, 65536}) {
        if (!common && (gated || rows > 4096)) continue;
        for (auto& v : matmul_few_variants(f, rows, 4096, gated, device))
          if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
      }
    if (common) all.push_back(expert_matmul_few_variant(f, false, device));
  }
  return all;
}

void matmul_few(KernelCache& kernels, Stream& stream, const MatMulCall& call) {
  matmul_few(kernels, stream, std::span(&call, 1));
}

void matmul_few(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls) {
  int64_t rows = 0;
  for (const auto& call : calls) rows += call.w->rows;
  const auto& first = calls.front();
  if (const auto wide = warpgroup_tiling(*first.w->form, rows * (first.up ? 2 : 1), first.w->cols, first.m,
                                         stream.device().facts()))
    return matmul_few_sm90(kernels, stream, calls, *wide);
  matmul_few(
      kernels, stream, calls,
      few_tiling(*first.w->form, rows, first.w->cols, first.m, first.up != nullptr, stream.device().facts()));
}

void matmul_few(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                const FewTiling& tiling) {
  const auto& first = calls.front();
  const Form& f = *first.w->form;
  const bool gated = first.up != nullptr;
  if (first.m == 0) return;
  const FewArguments arguments = few_arguments(calls);
  const int64_t units = arguments.groups / (gated ? 2 : 1),
                tiles = ceil_div(int64_t{arguments.groups}, tile_groups(tiling));
  const int64_t multiprocessors = stream.device().facts().multiprocessors;
  const int64_t blocks = tiling.k_warps != tiling.parts
                             ? tiles
                             : std::min(units, multiprocessors * tiling.blocks_per_multiprocessor);
  LaunchShape shape;
  shape.grid[0] = unsigned(blocks * tiling.cluster);
  shape.grid[1] = unsigned(ceil_div(first.m, 8 * tiling.token_tiles));
  shape.block = unsigned(32 * tiling.k_warps * tiling.row_warps);
  shape.cluster = unsigned(tiling.cluster);
  shape.shared_bytes = unsigned(few_shared_bytes(f, tiling));
  // Started early, blocks go where room is: without this, two of them may share a multiprocessor while
  // another has none (172 instead of 221 tokens a second, Llama 8B on one H200).
  if (first.overlap_previous && tiling.row_warps == 1 && tiling.blocks_per_multiprocessor == 1)
    shape.shared_bytes =
        std::max(shape.shared_bytes, unsigned(stream.device().facts().shared_per_block / 2 + 1024));
  shape.overlap_previous = first.overlap_previous;
  stream.launch(kernels.get(few_variant(f, tiling, gated), "matmul_few"), shape, arguments);
}

FewTiling few_expert_tiling(const Form& f, const DeviceFacts& device) {
  FewTiling t;
  t.parts = t.k_warps = few_parts(f);
  t.min_blocks = 2;
  t.stages = 8;
  const size_t room = std::min<size_t>(device.shared_per_block, 113 * 1024) - kExpertSharedBytes;
  while (t.stages > 2 && few_shared_bytes(f, t) > room) --t.stages;
  return t;
}

void expert_matmul_few(KernelCache& kernels, Stream& stream, std::span<const MatMulCall> calls,
                       const ExpertChoice& choice) {
  const auto& first = calls.front();
  const Form& f = *first.w->form;
  const bool gated = first.up != nullptr;
  const int64_t pieces = first.w->pieces;
  if (first.m == 0) return;
  if (first.m > kMostPairs || pieces > kMostExperts)
    fail(ErrorKind::unsupported, "{} pairs of {} experts pass the limits of one launch, {} and {}", first.m,
         pieces, kMostPairs, kMostExperts);
  const FewTiling tiling = few_expert_tiling(f, stream.device().facts());
  FewArguments arguments = few_arguments(calls);
  arguments.chosen = choice.chosen;
  arguments.x_share = choice.per_choice ? 1 : int32_t(choice.top_k);
  const int64_t units = arguments.groups / (gated ? 2 : 1), slots = std::min(first.m, pieces);
  const int64_t resident = 2 * stream.device().facts().multiprocessors;
  LaunchShape shape;
  shape.grid[0] = unsigned(std::clamp<int64_t>(ceil_div(resident, slots), 1, units));
  shape.grid[1] = unsigned(slots);
  shape.block = unsigned(32 * tiling.k_warps);
  shape.shared_bytes = unsigned(few_shared_bytes(f, tiling));
  shape.overlap_previous = first.overlap_previous;
  stream.launch(kernels.get(few_variant(f, tiling, gated, true), "matmul_few"), shape, arguments);
}

}  // namespace cairn::cuda
