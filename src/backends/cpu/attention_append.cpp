#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/attention.h"
#include "base/error.h"
#include "base/float16.h"
#include "codecs/legacy_blocks.h"

namespace cairn::cpu {
namespace {

// As codecs::encode_q8_0, but what is not finite is kept as a NaN scale: a cache must not throw in mid-step,
// and must not turn a broken activation into a plausible one.
void store_q8_0(const float* x, int dim, std::byte* row) {
  for (int first = 0; first < dim; first += 32, row += sizeof(codecs::BlockQ8_0)) {
    const int count = dim - first < 32 ? dim - first : 32;
    float most = 0;
    bool finite = true;
    for (int i = 0; i < count; ++i) {
      const float magnitude = std::fabs(x[first + i]);
      finite = finite && magnitude <= std::numeric_limits<float>::max();
      most = magnitude > most ? magnitude : most;
    }
    const float d = most / 127.0f;
    codecs::BlockQ8_0 block{};
    block.d = finite ? float_to_f16(d) : uint16_t{0x7e00};
    const float inverse = finite && d > 0 && 1.0f / d <= std::numeric_limits<float>::max() ? 1.0f / d : 0.0f;
    for (int i = 0; i < count && finite; ++i) block.qs[i] = int8_t(std::round(x[first + i] * inverse));
    std::memcpy(row, &block, sizeof block);
  }
}

void store_row(kv::KvForm form, const float* x, int dim, std::byte* row) {
  auto* halves = reinterpret_cast<uint16_t*>(row);
  switch (form) {
    case kv::KvForm::f32: std::memcpy(row, x, size_t(dim) * sizeof(float)); break;
    case kv::KvForm::f16:
      for (int i = 0; i < dim; ++i) halves[i] = float_to_f16(x[i]);
      break;
    case kv::KvForm::bf16:
      for (int i = 0; i < dim; ++i) halves[i] = float_to_bf16(x[i]);
      break;
    case kv::KvForm::q8_0: store_q8_0(x, dim, row); break;
  }
}

}  // namespace

void append_kv(ThreadPool& threads, const attention::AttentionPlan& plan, kv::KvPool& pool, int layer,
               const float* k, const float* v) {
  const kv::KvConfig& c = pool.config();
  for (const auto& s : plan.sequences)
    if (s.position < 0 || s.position + s.rows > int64_t(s.block_table.size()) * c.page_tokens)
      fail(ErrorKind::invalid_argument, "{} rows from position {} do not fit into {} pages of {} tokens",
           s.rows, s.position, s.block_table.size(), c.page_tokens);
  const auto store = [&](const attention::QueryRows& s, int64_t row) {
    const int64_t token = s.position + row;
    const int32_t page = s.block_table[size_t(token / c.page_tokens)];
    for (int head = 0; head < c.kv_heads; ++head)
      for (const kv::Part part : {kv::Part::K, kv::Part::V}) {
        const int dim = pool.head_dim(part);
        const float* from = (part == kv::Part::K ? k : v) + ((s.row_begin + row) * c.kv_heads + head) * dim;
        store_row(c.form, from, dim,
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
