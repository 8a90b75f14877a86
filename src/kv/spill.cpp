#include "kv/spill.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <limits>
#include <utility>

#include "base/steady_seconds.h"

namespace cairn::kv {

Spill::Spill(KvPool& pool, std::unique_ptr<PageBytes> bytes, uint64_t limit)
    : pool_(pool), bytes_(std::move(bytes)) {
  pages_ = int64_t(std::min<uint64_t>(limit / uint64_t(bytes_->size()), std::numeric_limits<int32_t>::max()));
  memory_ = AlignedBuffer(size_t(pages_ * bytes_->size()));
  for (int64_t i = pages_; i-- > 0;) free_.push_back(int32_t(i));
  pinned_ = std::async(std::launch::async, [this] {
    if (pages_ > 0) bytes_->pin(memory_.span());
  });
}

Spill::~Spill() {
  if (pinned_.valid()) pinned_.wait();
}

std::span<std::byte> Spill::slot(int32_t number) const {
  return memory_.span().subspan(size_t(number * bytes_->size()), size_t(bytes_->size()));
}

void Spill::measured(int64_t pages, double seconds) {
  if (pages > 0 && seconds > 0) rate_ = 0.7 * rate_ + 0.3 * double(pages) * double(bytes_->size()) / seconds;
}

Spill::Kept Spill::store(const Sequence& sequence) {
  Kept kept;
  const auto pages = sequence.block_table();
  if (pages.empty() || pages.size() > free_.size()) return kept;
  if (pinned_.valid()) {
    if (pinned_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return kept;
    pinned_ = {};
  }
  kept.owner_ = this;
  kept.tokens_ = sequence.length();
  const double began = steady_seconds();
  for (const int32_t page : pages) {
    kept.slots_.push_back(free_.back());
    free_.pop_back();
    bytes_->read(page, slot(kept.slots_.back()));
  }
  measured(kept.pages(), steady_seconds() - began);
  return kept;
}

void Spill::restore(Kept& kept, std::span<const int32_t> found, Sequence& sequence) {
  assert(kept.owner_ == this && int64_t(found.size()) <= kept.pages());
  std::vector<int32_t> pages(found.begin(), found.end());
  pool_.allocate(kept.pages() - int64_t(found.size()), pages);
  sequence.adopt(pages, kept.tokens_);
  const double began = steady_seconds();
  for (size_t i = found.size(); i < pages.size(); ++i) bytes_->write(pages[i], slot(kept.slots_[i]));
  measured(kept.pages() - int64_t(found.size()), steady_seconds() - began);
  kept.clear();
}

Spill::Kept& Spill::Kept::operator=(Kept&& o) noexcept {
  if (this == &o) return *this;
  clear();
  owner_ = std::exchange(o.owner_, nullptr);
  slots_ = std::exchange(o.slots_, {});
  tokens_ = std::exchange(o.tokens_, 0);
  return *this;
}

void Spill::Kept::clear() {
  if (!owner_) return;
  owner_->free_.insert(owner_->free_.end(), slots_.begin(), slots_.end());
  owner_ = nullptr;
  slots_.clear();
  tokens_ = 0;
}

}  // namespace cairn::kv
