#include "kv/pool.h"

#include <bit>
#include <cassert>
#include <limits>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::kv {
namespace {

// nullopt past 2^63.
std::optional<uint64_t> segment_bytes(const KvConfig& c, int head_dim) {
  uint64_t bytes = uint64_t(row_bytes(c.form, head_dim));
  for (const int64_t count : {int64_t{c.page_tokens}, int64_t{c.kv_heads}, c.pages, int64_t{c.layers}}) {
    const auto product = checked_mul(bytes, uint64_t(count));
    if (!product || *product > uint64_t(std::numeric_limits<int64_t>::max())) return std::nullopt;
    bytes = *product;
  }
  return bytes;
}

}  // namespace

std::string_view to_string(KvForm form) {
  constexpr std::string_view kNames[] = {"f32", "f16", "bf16", "q8_0"};
  return kNames[size_t(form)];
}

int64_t row_bytes(KvForm form, int head_dim) {
  switch (form) {
    case KvForm::f32: return int64_t{4} * head_dim;
    case KvForm::f16:
    case KvForm::bf16: return int64_t{2} * head_dim;
    case KvForm::q8_0: return ceil_div(head_dim, 32) * 34;
  }
  return 0;
}

int bytes_per_element_x16(const KvConfig& c) {
  return int(16 * (row_bytes(c.form, c.head_dim_k) + row_bytes(c.form, c.head_dim_v)) /
             (c.head_dim_k + c.head_dim_v));
}

int64_t KvPool::bytes(const KvConfig& c) {
  if (c.layers <= 0 || c.kv_heads <= 0 || c.head_dim_k <= 0 || c.head_dim_v <= 0 || c.pages < 0)
    fail(ErrorKind::invalid_argument,
         "a KV cache of {} layers, {} heads of {} (keys) and {} (values), {} pages: all must be positive",
         c.layers, c.kv_heads, c.head_dim_k, c.head_dim_v, c.pages);
  if (c.page_tokens <= 0 || !std::has_single_bit(unsigned(c.page_tokens)))
    fail(ErrorKind::invalid_argument, "a KV page has {} tokens; it must be a power of two", c.page_tokens);
  if (c.pages > std::numeric_limits<int32_t>::max())
    fail(ErrorKind::invalid_argument, "{} KV pages; at most {} can be named", c.pages,
         std::numeric_limits<int32_t>::max());
  const auto k = segment_bytes(c, c.head_dim_k), v = segment_bytes(c, c.head_dim_v);
  const auto sum = k && v ? checked_add(*k, *v) : std::nullopt;
  if (!sum || *sum > uint64_t(std::numeric_limits<int64_t>::max()))
    fail(ErrorKind::invalid_argument, "a KV cache of {} pages of {} tokens has more than 2^63 bytes", c.pages,
         c.page_tokens);
  return int64_t(*sum);
}

KvPool::KvPool(const KvConfig& config, Memory memory) : config_(config) {
  bytes(config);  // refuses what the sizes below could not hold
  for (const Part part : {Part::K, Part::V}) {
    Segment& s = part == Part::K ? k_ : v_;
    s.row_bytes = kv::row_bytes(config.form, head_dim(part));
    s.head_bytes = s.row_bytes * config.page_tokens;
    if (memory == Memory::host)
      s.memory = AlignedBuffer(size_t(s.head_bytes * config.kv_heads * config.pages * config.layers));
  }
  references_.assign(size_t(config.pages), 0);
  free_.resize(size_t(config.pages));
  for (int64_t i = 0; i < config.pages; ++i) free_[size_t(i)] = int32_t(config.pages - 1 - i);
}

void KvPool::allocate(int64_t count, std::vector<int32_t>& pages) {
  if (count > free_pages())
    fail(ErrorKind::out_of_memory,
         "the KV cache needs {} more pages of {} tokens and has {} free of {}; end or shorten a sequence, or "
         "give the "
         "cache more memory",
         count, config_.page_tokens, free_pages(), config_.pages);
  pages.reserve(pages.size() + size_t(count));
  for (; count > 0; --count) {
    pages.push_back(free_.back());
    references_[size_t(free_.back())] = 1;
    free_.pop_back();
  }
}

void KvPool::retain(int32_t page) {
  assert(references_[size_t(page)] > 0);
  ++references_[size_t(page)];
}

void KvPool::release(int32_t page) {
  assert(references_[size_t(page)] > 0);
  if (--references_[size_t(page)] == 0) free_.push_back(page);
}

Sequence::Sequence(Sequence&& other) noexcept
    : pool_(other.pool_), pages_(std::exchange(other.pages_, {})), length_(std::exchange(other.length_, 0)) {}

Sequence& Sequence::operator=(Sequence&& other) noexcept {
  if (this == &other) return *this;
  release();
  pool_ = other.pool_;
  pages_ = std::exchange(other.pages_, {});
  length_ = std::exchange(other.length_, 0);
  return *this;
}

void Sequence::reserve(int64_t tokens) {
  const int64_t missing = pool_->pages_of(length_ + tokens) - int64_t(pages_.size());
  if (missing > 0) pool_->allocate(missing, pages_);
}

void Sequence::append(int64_t tokens) {
  reserve(tokens);
  length_ += tokens;
}

void Sequence::truncate(int64_t length) {
  assert(length >= 0 && length <= length_);
  length_ = length;
  const auto keep = size_t(pool_->pages_of(length));
  while (pages_.size() > keep) {
    pool_->release(pages_.back());
    pages_.pop_back();
  }
}

}  // namespace cairn::kv
