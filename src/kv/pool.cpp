#include "kv/pool.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
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
  constexpr std::string_view kNames[] = {"f32", "f16", "bf16", "q8_0", "e4m3"};
  return kNames[size_t(form)];
}

int64_t row_bytes(KvForm form, int head_dim) {
  switch (form) {
    case KvForm::f32: return int64_t{4} * head_dim;
    case KvForm::f16:
    case KvForm::bf16: return int64_t{2} * head_dim;
    case KvForm::q8_0: return ceil_div(head_dim, 32) * 34;
    case KvForm::e4m3: return head_dim;
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
  if (memory == Memory::host && config.form == KvForm::e4m3)
    fail(ErrorKind::unsupported,
         "a KV cache of e4m3 is for GPUs; the CPU reads and writes f32, f16, bf16 and q8_0");
  for (const Part part : {Part::K, Part::V}) {
    Segment& s = part == Part::K ? k_ : v_;
    s.row_bytes = kv::row_bytes(config.form, head_dim(part));
    s.head_bytes = s.row_bytes * config.page_tokens;
    if (memory == Memory::host)
      s.memory = AlignedBuffer(size_t(s.head_bytes * config.kv_heads * config.pages * config.layers));
  }
  references_.assign(size_t(config.pages), 0);
  cached_.assign(size_t(config.pages), false);
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
  if (++references_[size_t(page)] == 2 && cached_[size_t(page)]) --idle_cached_;
}

void KvPool::release(int32_t page) {
  assert(references_[size_t(page)] > 0);
  const int32_t left = --references_[size_t(page)];
  if (left == 1 && cached_[size_t(page)]) ++idle_cached_;
  if (left > 0) return;
  assert(!cached_[size_t(page)]);
  free_.push_back(page);
}

void KvPool::set_cached(int32_t page, bool cached) {
  assert(references_[size_t(page)] > 0 && cached_[size_t(page)] != cached);
  cached_[size_t(page)] = cached;
  if (references_[size_t(page)] == 1) idle_cached_ += cached ? 1 : -1;
}

void KvPool::copy_page(int32_t from, int32_t to, int64_t tokens) {
  assert(can_copy() && from != to && tokens >= 0 && tokens <= config_.page_tokens);
  if (copy_) return copy_(from, to, tokens);
  for (const Part part : {Part::K, Part::V})
    for (int layer = 0; layer < config_.layers; ++layer)
      for (int h = 0; h < config_.kv_heads; ++h)
        std::memcpy(head(part, layer, to, h), head(part, layer, from, h), size_t(tokens * row_bytes(part)));
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

void Sequence::adopt(std::span<const int32_t> pages, int64_t tokens) {
  assert(pages_.empty() && int64_t(pages.size()) == pool_->pages_of(tokens));
  pages_.assign(pages.begin(), pages.end());
  length_ = tokens;
}

Sequence Sequence::fork() const {
  const int64_t page_tokens = pool_->config().page_tokens;
  const int64_t length = pool_->can_copy() ? length_ : length_ / page_tokens * page_tokens;
  Sequence other(*pool_);
  other.pages_.assign(pages_.begin(), pages_.begin() + pool_->pages_of(length));
  for (const int32_t page : other.pages_) pool_->retain(page);
  other.length_ = length;
  return other;
}

void Sequence::share_page(size_t index, int32_t page) { pool_->release(std::exchange(pages_[index], page)); }

bool Sequence::must_copy() const {
  return length_ % pool_->config().page_tokens != 0 &&
         pool_->references(pages_[size_t(length_ / pool_->config().page_tokens)]) > 1;
}

int64_t Sequence::pages_needed(int64_t tokens) const {
  if (tokens <= 0) return 0;
  const int64_t missing = pool_->pages_of(length_ + tokens) - int64_t(pages_.size());
  return std::max<int64_t>(missing, 0) + (must_copy() ? 1 : 0);
}

void Sequence::reserve(int64_t tokens) {
  const int64_t needed = pages_needed(tokens);
  if (needed == 0) return;
  const bool copy = must_copy();
  if (copy && !pool_->can_copy())
    fail(ErrorKind::unsupported,
         "a sequence of {} tokens would go on inside a shared page, and this backend cannot copy pages",
         length_);
  pool_->allocate(needed, pages_);  // all or none
  if (!copy) return;
  const int64_t page_tokens = pool_->config().page_tokens;
  const auto last = size_t(length_ / page_tokens);
  const int32_t own = pages_.back();
  pages_.pop_back();
  pool_->copy_page(pages_[last], own, length_ % page_tokens);
  share_page(last, own);
}

void Sequence::append(int64_t tokens) {
  reserve(tokens);
  // What is about to be written is nobody else's.
  for ([[maybe_unused]] int64_t page = length_ / pool_->config().page_tokens;
       page < pool_->pages_of(length_ + tokens); ++page)
    assert(pool_->references(pages_[size_t(page)]) == 1);
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
