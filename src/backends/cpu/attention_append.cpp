#include "backends/cpu/attention.h"
#include "backends/cpu/attention_tiles.h"
#include "base/cpu_features.h"
#include "base/error.h"

namespace cairn::cpu {
namespace {

decltype(TileKernels::store_row) store_row() {
#if defined(__x86_64__)
  if (active_isa() >= Isa::avx512) return kAttentionAvx512.store_row;
  if (active_isa() == Isa::avx2) return kAttentionAvx2.store_row;
#endif
  return kAttentionScalar.store_row;
}

}  // namespace

void append_kv(ThreadPool& threads, const attention::AttentionPlan& plan, kv::KvPool& pool, int layer,
               const float* k, const float* v) {
  const kv::KvConfig& c = pool.config();
  for (const auto& s : plan.sequences)
    if (s.position < 0 || s.position + s.rows > int64_t(s.block_table.size()) * c.page_tokens)
      fail(ErrorKind::invalid_argument, "{} rows from position {} do not fit into {} pages of {} tokens",
           s.rows, s.position, s.block_table.size(), c.page_tokens);
  const auto write = store_row();
  const auto store = [&](const attention::QueryRows& s, int64_t row) {
    const int64_t token = s.position + row;
    const int32_t page = s.block_table[size_t(token / c.page_tokens)];
    for (int head = 0; head < c.kv_heads; ++head)
      for (const kv::Part part : {kv::Part::K, kv::Part::V}) {
        const int dim = pool.head_dim(part);
        const float* from = (part == kv::Part::K ? k : v) + ((s.row_begin + row) * c.kv_heads + head) * dim;
        write(RowForm(c.form), from, dim,
              pool.head(part, layer, page, head) + token % c.page_tokens * pool.row_bytes(part));
      }
  };
  threads.run([&](int thread) {
    for (const auto& s : plan.sequences) {
      const Range part = split_range(s.rows, thread, threads.size());
      for (int64_t row = part.begin; row < part.end; ++row) store(s, row);
    }
  });
}

}  // namespace cairn::cpu
