// Attention of one layer after the other over a paged cache: GB/s of keys and values in decode, GFLOP/s in
// prefill, beside the read bandwidth and the FMA peak measured in the same minutes.
//
//   attention_bench [threads] [heads kv_heads head_dim layers] [decode|prefill|all] [f32|f16|bf16|q8_0]
//                   [tokens of decode]
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "backends/cpu/attention.h"
#include "base/cpu_features.h"

namespace {

using namespace cairn;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Spread {
  double low, median, high;
};

template <typename F>
Spread repeat(int times, F&& f) {
  f();
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    const auto start = Clock::now();
    f();
    seconds.push_back(seconds_since(start));
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2], seconds.back()};
}

// Seconds to read a part of the buffer with plain loads on all threads.
double read_seconds(ThreadPool& threads, std::span<const std::byte> memory) {
  static volatile uint64_t sink;
  const auto start = Clock::now();
  threads.run([&](int thread) {
    const Range part = split_range(int64_t(memory.size()), thread, threads.size(), 4096);
    const auto* words = reinterpret_cast<const uint64_t*>(memory.data());
    uint64_t sums[16] = {};
    for (int64_t i = part.begin / 8; i + 16 <= part.end / 8; i += 16)
      for (int lane = 0; lane < 16; ++lane) sums[lane] ^= words[i + lane];
    for (const uint64_t s : sums) sink = sink ^ s;
  });
  return seconds_since(start);
}

void fill(float* values, size_t count, uint32_t seed) {
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = float(int32_t(seed)) * 0x1p-31f * 1.7f;
  }
}

struct Model {
  cpu::AttentionParams params;
  int layers;
};

struct Cache {
  kv::KvPool pool;
  kv::Sequence sequence;

  Cache(const Model& m, kv::KvForm form, int64_t tokens, ThreadPool& threads)
      : pool({.layers = m.layers,
              .kv_heads = m.params.kv_heads,
              .head_dim_k = m.params.head_dim_k,
              .head_dim_v = m.params.head_dim_v,
              .page_tokens = 32,
              .form = form,
              .pages = (tokens + 31) / 32}),
        sequence(pool) {
    sequence.append(tokens);
    constexpr int kRows = 512;
    const size_t width = size_t(m.params.kv_heads * m.params.head_dim_k);
    std::vector<float> k(kRows * width), v(kRows * width);
    fill(k.data(), k.size(), 1);
    fill(v.data(), v.size(), 2);
    for (int layer = 0; layer < m.layers; ++layer)
      for (int64_t at = 0; at < tokens; at += kRows) {
        attention::AttentionPlan plan;
        plan.sequences.push_back({.rows = int32_t(std::min<int64_t>(kRows, tokens - at)),
                                  .position = at,
                                  .kv_len = tokens,
                                  .block_table = sequence.block_table()});
        cpu::append_kv(threads, plan, pool, layer, k.data(), v.data());
      }
  }
};

void decode(const Model& m, kv::KvForm form, int64_t tokens, ThreadPool& threads,
            const AlignedBuffer& buffer) {
  Cache cache(m, form, tokens, threads);
  const auto& p = m.params;
  attention::AttentionPlan plan;
  plan.sequences.push_back(
      {.rows = 1, .position = tokens - 1, .kv_len = tokens, .block_table = cache.sequence.block_table()});
  std::vector<float> q(size_t(p.heads * p.head_dim_k)), out(size_t(p.heads * p.head_dim_v));
  fill(q.data(), q.size(), 3);
  cpu::AttentionScratch scratch(cpu::attention_scratch_bytes(p, tokens, threads.size()));
  // Pairs of a plain read and one layer, both of the same number of bytes and neither of what was read
  // lately: what else the machine does meanwhile slows both.
  const double bytes = double(tokens) * p.kv_heads *
                       double(cache.pool.row_bytes(kv::Part::K) + cache.pool.row_bytes(kv::Part::V));
  const size_t slice = std::min(size_t(bytes), buffer.size());
  std::vector<double> reads, layers;
  size_t at = 0;
  for (int round = 0; round < 4; ++round)
    for (int layer = 0; layer < m.layers; ++layer) {
      if (at + slice > buffer.size()) at = 0;
      reads.push_back(read_seconds(threads, buffer.span().subspan(at, slice)) * bytes / double(slice));
      at += slice;
      const auto start = Clock::now();
      cpu::attention(threads, p, plan, cache.pool, layer, q.data(), out.data(), scratch);
      layers.push_back(seconds_since(start));
    }
  std::sort(reads.begin(), reads.end());
  std::sort(layers.begin(), layers.end());
  const auto rate = [&](const std::vector<double>& seconds, size_t index) {
    return bytes / seconds[index] * 1e-9;
  };
  const size_t middle = layers.size() / 2;
  fmt::print(
      "decode  {:>5} {:>6} tokens  {:8.3f} ms per layer  median {:6.2f} GB/s of {:6.2f} read ({:3.0f}%)  "
      "best {:6.2f} of "
      "{:6.2f} ({:3.0f}%)\n",
      to_string(form), tokens, layers[middle] * 1e3, rate(layers, middle), rate(reads, middle),
      100 * reads[middle] / layers[middle], rate(layers, 0), rate(reads, 0), 100 * reads[0] / layers[0]);
  std::fflush(stdout);
}

void prefill(const Model& m, kv::KvForm form, int64_t tokens, ThreadPool& threads) {
  Model one = m;
  one.layers = 1;
  Cache cache(one, form, tokens, threads);
  const auto& p = m.params;
  attention::AttentionPlan plan;
  plan.sequences.push_back({.rows = int32_t(tokens),
                            .position = 0,
                            .kv_len = tokens,
                            .block_table = cache.sequence.block_table()});
  std::vector<float> q(size_t(tokens * p.heads * p.head_dim_k)), out(size_t(tokens * p.heads * p.head_dim_v));
  fill(q.data(), q.size(), 3);
  cpu::AttentionScratch scratch(cpu::attention_scratch_bytes(p, tokens, threads.size()));
  const Spread time =
      repeat(5, [&] { cpu::attention(threads, p, plan, cache.pool, 0, q.data(), out.data(), scratch); });
  // Only the products under the causal mask count as work.
  const double flops = double(tokens) * double(tokens + 1) / 2 * p.heads * 2 * (p.head_dim_k + p.head_dim_v);
  fmt::print(
      "prefill {:>5} {:>6} tokens  {:8.3f} ms ({:.3f}..{:.3f}) per layer, {:6.2f} us per token  {:7.1f} "
      "GFLOP/s\n",
      to_string(form), tokens, time.median * 1e3, time.low * 1e3, time.high * 1e3,
      time.median / double(tokens) * 1e6, flops / time.median * 1e-9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  ThreadPool threads(argument(1, 0));
  Model m{{.heads = argument(2, 32), .kv_heads = argument(3, 8), .head_dim_k = argument(4, 64)},
          argument(5, 16)};
  m.params.head_dim_v = m.params.head_dim_k;
  m.params.scale = 1 / std::sqrt(float(m.params.head_dim_k));
  fmt::print("{} threads, {}, {} heads over {} of {}, {} layers\n", threads.size(), to_string(active_isa()),
             m.params.heads, m.params.kv_heads, m.params.head_dim_k, m.layers);
  AlignedBuffer buffer(size_t{1} << 30);
  fill(reinterpret_cast<float*>(buffer.data()), buffer.size() / 4, 4);
  const std::string_view what = argc > 6 ? argv[6] : "all", only = argc > 7 ? argv[7] : "";
  for (const kv::KvForm form : {kv::KvForm::f32, kv::KvForm::f16, kv::KvForm::bf16, kv::KvForm::q8_0}) {
    if (!only.empty() && only != to_string(form)) continue;
    if (what != "prefill") decode(m, form, argument(8, 32768), threads, buffer);
    if (what == "decode") continue;
    for (const int64_t tokens : {512, 1024, 2048, 4096, 8192}) prefill(m, form, tokens, threads);
  }
}
