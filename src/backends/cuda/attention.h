// The attention engine: the paged cache in device memory, the step's plan, and the launches of the kernels in
// kernels/attention_*.cu and kernels/rope_kv_append.cu.
//
// plan() cuts a step's rows (attention_schedule.h) into pinned memory, upload() copies it; then every layer
// appends its keys and values and runs. All sizes that change from step to step are read from device memory,
// so the launches of a step can be captured in a graph and replayed with other lengths: grids follow from the
// device and from the padded row counts that the caller passes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/plan.h"
#include "backends/cuda/attention_schedule.h"
#include "backends/cuda/registry.h"
#include "kv/pool.h"
#include "program/rope.h"

namespace cairn::cuda {

// The cache in device memory, laid out as kv::KvPool's: K and V are separate segments [layer][page][kv_head]
// [token][head_dim] of bf16, f16 or e4m3 (beyond 448 the largest code). q8_0: [layer][page][kv_head] of codes
// [token][head_dim], then scales [token][head_dim / 32] in f16.
struct DeviceKv {
  Address k = 0, v = 0;
  kv::KvConfig config;

  // Both segments one after the other from `base` on.
  static DeviceKv at(Address base, const kv::KvConfig&);
  Address layer(kv::Part, int layer) const;
};
// Bytes of one segment, a multiple of 256; of both.
uint64_t device_kv_bytes(const kv::KvConfig&, kv::Part);
inline uint64_t device_kv_bytes(const kv::KvConfig& c) {
  return device_kv_bytes(c, kv::Part::K) + device_kv_bytes(c, kv::Part::V);
}

// What a program's Attention instructions say; layers that say the same share a kind.
struct AttentionKind {
  int heads = 0;
  float scale = 0;
  int window = 0;
  float softcap = 0;
  bool sinks = false, alibi = false, causal = true;
  bool masked = false;  // prompt rows may have masks of their own; decode rows always may
  bool operator==(const AttentionKind&) const = default;
};

// How keys and queries are rotated before they are used; rotary_dim 0: not at all.
struct RopeKind {
  int rotary_dim = 0;
  program::RopePairing pairing = program::RopePairing::half;
  bool operator==(const RopeKind&) const = default;
};

// The most that one step asks for.
struct AttentionLimits {
  int64_t rows = 0;         // of all classes
  int64_t decode_rows = 0;  // of class decode
  int64_t sequences = 0;
  int64_t table_pages = 0;  // pages of all sequences of a step; shared ones count for each
  int64_t longest = 0;      // tokens of a sequence
  int64_t mask_words = 0;   // of all rows' own masks
};

// The queries and outputs of one layer: bf16, `*_stride` elements from row to row (multiples of 8), addresses
// aligned to 16 bytes.
struct AttentionCall {
  int kind = 0, layer = 0;
  Address q = 0, y = 0;
  int64_t q_stride = 0, y_stride = 0;
  Address sinks = 0, slopes = 0;  // f32 [heads], as the kind says
  Address lse = 0;                // f32 [rows, heads], or 0: natural logarithms of the softmax denominators
  // Which classes are launched: those that the plan has, or, where a graph is captured, all that it shall
  // serve.
  bool decode = true, prompt = true;
  int64_t decode_rows = 0;  // at least the plan's
  bool merge = true;        // may be false where no decode row has several chunks: has_chunks()
  bool shared = true;       // may be false where no rows read the same pages: has_shared()
  bool overlap_previous = false;
};

// For benches: what the engine chooses by itself where 0.
struct AttentionTuning {
  int decode_warps = 0, decode_stages = 0, decode_tile = 0, prompt_warps = 0, prompt_tile = 0,
      prompt_stages = 0;
  int decode_blocks = 0, prompt_cluster = 0;
  bool share = false;         // rows that read the same pages read them together
  bool plain_prompt = false;  // attention_prompt.cu on Hopper too
};
// What the executor runs with, and packs are made for.
inline constexpr AttentionTuning kAttentionInModels{.share = true};

// New keys and values, and queries to be rotated with them (q 0: none).
struct AppendCall {
  RopeKind rope;
  int layer = 0;
  int64_t rows = 0;  // padded rows included: those beyond the plan's are not written to the cache
  Address q = 0, k = 0, v = 0, q_out = 0;  // bf16; q_out may be q
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, q_out_stride = 0;
  Address angles = 0;  // f32 (cosine, sine)[rows][rotary_dim / 2], amplitudes included
  int heads = 0;       // of q
  bool overlap_previous = false;
};

// For families.cpp: what the compile test builds.
std::vector<Variant> attention_decode_variants(int capability);
std::vector<Variant> attention_merge_variants(int capability);
std::vector<Variant> attention_prompt_variants(int capability);
std::vector<Variant> attention_prompt_sm90_variants(int capability);
std::vector<Variant> rope_kv_append_variants(int capability);

class AttentionEngine {
 public:
  // Everything is allocated here. Throws Error(unsupported) for a cache form or head size without kernels.
  // The cache and the device must outlive the engine.
  AttentionEngine(const Device&, KernelCache&, const kv::KvConfig&, std::vector<AttentionKind>,
                  const AttentionLimits&, const AttentionTuning& = {});

  // Modules that these kinds need, for KernelCache::prepare.
  static std::vector<Variant> variants(const DeviceFacts&, const kv::KvConfig&,
                                       std::span<const AttentionKind>, std::span<const RopeKind>,
                                       const AttentionTuning& = {});
  // Device memory that an engine allocates.
  static uint64_t workspace_bytes(const DeviceFacts&, const kv::KvConfig&, std::span<const AttentionKind>,
                                  const AttentionLimits&);

  // Cuts a step on the calling thread (classes: one per sequence). The rows from plan.rows() up to
  // padded_rows are marked as padding. Throws Error(invalid_argument) naming sequence, field and value: a
  // page outside of the pool, a block table that is too short, lengths that contradict each other, or a step
  // beyond the limits.
  void plan(const attention::AttentionPlan&, std::span<const RowClass> classes, int64_t padded_rows = 0);
  // Copies the last plan to the device; before the step's launches, on their stream.
  void upload(Stream&);

  bool has_decode() const { return has_decode_; }
  bool has_prompt() const { return has_prompt_; }
  // Whether any decode row is cut: positions from 512 on.
  bool has_chunks() const { return has_chunks_; }
  // Whether decode rows of several sequences read the same pages, which are then read together.
  bool has_shared() const { return has_shared_; }
  // Below 4; plans of which this and the row counts are the same take the same launches.
  int launches() const { return int(has_chunks_) + 2 * int(has_shared_); }
  int64_t decode_rows() const { return planned_decode_rows_; }

  // Writes k and v of the plan's rows to their places in the cache and q_out = rotated q.
  void append(Stream&, const DeviceKv&, const AppendCall&);
  void run(Stream&, const DeviceKv&, const AttentionCall&);

  // For benches: see ScheduleShape::forced_chunk.
  void force_chunks(int64_t tokens) { forced_chunk_ = tokens; }

 private:
  struct Tiling;
  struct Kernels {
    Kernel decode, shared, merge, prompt;
    bool shares = false;
    int prompt_box = 0;  // tokens of a box of its maps, if prompt is attention_prompt_sm90.cu's
    LaunchShape decode_shape, shared_shape, prompt_shape;
    int schedule = 0;
  };
  struct Append {
    RopeKind rope;
    int heads = 0;
    Kernel kernel;
    unsigned blocks = 0;  // per row
  };
  const Append& append_kernel(const RopeKind&, int heads);
  static Tiling tiling(const DeviceFacts&, const kv::KvConfig&, const AttentionKind&,
                       const AttentionTuning& = {});
  static Variant decode_variant(const DeviceFacts&, const kv::KvConfig&, const AttentionKind&,
                                const AttentionTuning& = {}, bool shared = false);
  static Variant merge_variant(const kv::KvConfig&, const AttentionKind&);
  static Variant prompt_variant(const DeviceFacts&, const kv::KvConfig&, const AttentionKind&,
                                const AttentionTuning& = {});
  static Variant append_variant(const kv::KvConfig&, const RopeKind&, int heads);
  static std::vector<ScheduleShape> shapes(const DeviceFacts&, const kv::KvConfig&,
                                           std::span<const AttentionKind>, const AttentionTuning&);
  struct Sizes {
    uint64_t plan = 0, states = 0, sums = 0;
    int64_t state_parts = 0;
  };
  static Sizes sizes(const DeviceFacts&, const kv::KvConfig&, std::span<const AttentionKind>,
                     const AttentionLimits&);

  KernelCache& cache_;
  kv::KvConfig config_;
  std::vector<AttentionKind> kinds_;
  AttentionLimits limits_;
  AttentionTuning tuning_;
  std::vector<ScheduleShape> shapes_;  // one per distinct mask
  std::vector<Kernels> kernels_;       // one per kind
  std::vector<Append> appends_;
  struct Maps {
    Address k_address = 0, v_address = 0;
    int box_tokens = 0;
    driver::TensorMap k, v;
  };
  const Maps& maps(const DeviceKv&, int box_tokens);
  Maps maps_;  // of the cache that was used last
  Sizes sizes_;
  Buffer plan_memory_, states_, sums_;

  // Pinned plans: while one is copied, the next step's is made.
  static constexpr size_t kStaging = 3;
  struct Staging {
    PinnedBuffer memory;
    std::unique_ptr<Event> copied;
    bool pending = false;
  };
  std::array<Staging, kStaging> staging_;
  size_t current_ = 0;
  size_t plan_bytes_ = 0;
  Schedule schedule_;
  std::vector<int32_t> table_starts_, mask_starts_;
  bool has_decode_ = false, has_prompt_ = false, has_chunks_ = false, has_shared_ = false;
  int64_t planned_decode_rows_ = 0, forced_chunk_ = 0;
};

}  // namespace cairn::cuda
