#include "backends/cuda/pack.h"

#include <set>

#include "backends/cuda/attention.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_row.h"

namespace cairn::cuda {
namespace {

using program::RopePairing;

struct Shape {
  int64_t dim, inner;
  int heads, kv_heads, head_dim;
  int64_t vocabulary;
  int window = 0;      // of some layers
  float softcap = 0;   // of attention
  bool sinks = false;  // likewise
  int rotary = 0;      // 0: the whole head
};
constexpr Shape kShapes[] = {
    {512, 1408, 8, 2, 64, 4096},                    // the model that ships with cairn
    {768, 2048, 12, 12, 64, 32000},                 // small ones
    {2048, 5632, 32, 4, 64, 32000},                 // TinyLlama
    {2048, 8192, 32, 8, 64, 128256},                // Llama 3.2 1B
    {3072, 8192, 24, 8, 128, 128256},               // Llama 3.2 3B
    {4096, 14336, 32, 8, 128, 128256, 4096},        // Llama 3 8B, Mistral 7B
    {8192, 28672, 64, 8, 128, 128256},              // Llama 3 70B
    {4096, 11008, 32, 32, 128, 32000},              // Llama 2 7B
    {896, 4864, 14, 2, 64, 151936},                 // Qwen 2.5 0.5B
    {1536, 8960, 12, 2, 128, 151936},               // 1.5B
    {2048, 11008, 16, 2, 128, 151936},              // 3B
    {3584, 18944, 28, 4, 128, 152064},              // 7B
    {5120, 27648, 40, 8, 128, 152064},              // 14B, 32B
    {1024, 3072, 16, 8, 128, 151936},               // Qwen 3 0.6B
    {2560, 9728, 32, 8, 128, 151936},               // 4B
    {4096, 12288, 32, 8, 128, 151936},              // 8B
    {2304, 9216, 8, 4, 256, 256000, 4096, 50},      // Gemma 2 2B
    {3584, 14336, 16, 8, 256, 256000, 4096, 50},    // 9B
    {1152, 6912, 4, 1, 256, 262144, 512},           // Gemma 3 1B
    {3072, 8192, 32, 32, 96, 32064, 2047},          // Phi 3 mini
    {2880, 2880, 64, 8, 64, 201088, 128, 0, true},  // GPT-OSS
};

DeviceFacts chip(int capability, int multiprocessors) {
  DeviceFacts facts;
  facts.capability = capability;
  facts.multiprocessors = multiprocessors;
  // Per block with opt-in (CUDA C++ Programming Guide, technical specifications per compute capability).
  facts.shared_per_block = size_t(capability >= 90 ? 227 : capability == 80 ? 163 : 99) * 1024;
  return facts;
}

// Chips of a capability by their number of multiprocessors, on which tilings depend.
std::vector<int> chips(int capability) {
  switch (capability) {
    case 80: return {108};
    case 86: return {84, 82, 72, 46};
    case 89: return {142, 128, 76, 58};
    default: return {132, 114, 78};
  }
}

}  // namespace

std::vector<Variant> pack_variants(int capability) {
  std::vector<Variant> all;
  std::set<std::string> known;
  const auto add = [&](Variant v) {
    if (known.insert(v.id()).second) all.push_back(std::move(v));
  };
  for (const auto& family : kernel_families())
    for (auto& v : family.stock(capability)) add(std::move(v));

  for (const int multiprocessors : chips(capability)) {
    const DeviceFacts facts = chip(capability, multiprocessors);
    for (const Shape& s : kShapes) {
      const int64_t q = int64_t{s.heads} * s.head_dim, kv = int64_t{s.kv_heads} * s.head_dim;
      const std::pair<int64_t, int64_t> matrices[] = {
          {q, s.dim}, {kv, s.dim},      {q + kv, s.dim},  {2 * kv, s.dim},      {q + 2 * kv, s.dim},
          {s.dim, q}, {s.dim, s.inner}, {s.inner, s.dim}, {2 * s.inner, s.dim}, {s.vocabulary, s.dim}};
      for (const Form& form : forms())
        for (const auto& [rows, cols] : matrices)
          for (const bool gated : {false, true})
            if (!gated || rows == s.inner) {
              for (auto& v : matmul_few_variants(form, rows, cols, gated, facts)) add(std::move(v));
              if (!has_matmul_row(form, cols, facts)) continue;
              for (auto& v : matmul_row_variants(form, rows, cols, gated, facts)) add(std::move(v));
            }
      const kv::KvConfig cache{.layers = 1,
                               .kv_heads = s.kv_heads,
                               .head_dim_k = s.head_dim,
                               .head_dim_v = s.head_dim,
                               .page_tokens = 32,
                               .form = kv::KvForm::bf16,
                               .pages = 1};
      std::vector<AttentionKind> kinds;
      for (const int window : {0, s.window})
        kinds.push_back(
            {.heads = s.heads, .scale = 1, .window = window, .softcap = s.softcap, .sinks = s.sinks});
      const int rotary = s.rotary == 0 ? s.head_dim : s.rotary;
      const RopeKind ropes[] = {{rotary, RopePairing::half}, {rotary, RopePairing::adjacent}};
      for (auto& v : AttentionEngine::variants(facts, cache, kinds, ropes, kAttentionInModels))
        add(std::move(v));
    }
  }
  return all;
}

}  // namespace cairn::cuda
