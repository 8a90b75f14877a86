#pragma once

#include <vector>

#include "program/value.h"

namespace cairn::program {

// One layer's keys and values in the paged cache. Layers whose keys are read within the step only (an
// encoder's) share one slot: each writes it before it reads it.
struct KvSlot {
  int64_t kv_heads = 0, head_dim_k = 0, head_dim_v = 0;
  int64_t window = 0;  // keys older than this are never read again; 0: all are kept
  bool operator==(const KvSlot&) const = default;
};

// Appends this step's keys and values (after RoPE) to the cache; written orders the readers after it.
struct KvWrite {
  static constexpr const char* kName = "kv_write";
  Value k;        // [tokens, kv_heads * head_dim_k]
  Value v;        // [tokens, kv_heads * head_dim_v]
  Value written;  // token
  int32_t slot = 0;
  bool operator==(const KvWrite&) const = default;
  void describe(auto& d) const {
    d.in("k", k), d.in("v", v), d.out("written", written), d.field("slot", slot);
  }
};

// y = softmax(cap(q k^T * scale) + alibi + mask) v per head; query head h reads KV head h / (heads /
// kv_heads). Which keys are read is the step's attention plan; dense causal is the plan that lists every
// block.
struct Attention {
  static constexpr const char* kName = "attention";
  Value q;        // [tokens, heads * head_dim_k]
  Value written;  // the KvWrite of the same slot
  Value y;        // [tokens, heads * head_dim_v]
  int32_t slot = 0;
  int64_t heads = 0;
  float scale = 0;
  int64_t window = 0;  // a query sees itself and window - 1 keys before it; 0: all
  bool causal = true;  // false: every query sees all keys, with a window those nearer than it on both sides
  float softcap = 0;   // 0: none
  Weight sinks;        // [heads]: an extra logit per head that takes weight and gives no value
  bool alibi = false;  // Press et al. 2021: slopes 2^(-8 i / heads)
  bool operator==(const Attention&) const = default;
  void describe(auto& d) const {
    d.in("q", q), d.in("written", written), d.out("y", y), d.field("slot", slot), d.field("heads", heads);
    d.field("scale", scale);
    if (window != 0) d.field("window", window);
    if (!causal) d.field("sees", std::string_view("all"));
    if (softcap != 0) d.field("softcap", softcap);
    if (sinks) d.weight("sinks", sinks);
    if (alibi) d.field("alibi", std::string_view("yes"));
  }
};

// ALiBi's slope of each head (Press et al. 2021). Head counts that are no power of two take the next power's
// in between.
std::vector<float> alibi_slopes(int64_t heads);

}  // namespace cairn::program
