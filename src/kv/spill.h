// Room in host memory for the pages of sequences that had to give theirs back and will go on: copying both
// ways is cheaper than computing again where the pages lie in a GPU's memory (a page of an 8B model: 0.1 ms
// over PCIe, 1 ms of arithmetic), and other rows than a prompt's may be found again in no other way.
//
// For one thread (the engine's); pages must not be in use by a step that runs.
#pragma once

#include <cstdint>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "kv/page_bytes.h"

namespace cairn::kv {

class Spill {
 public:
  // Takes `bytes` of host memory, in whole pages, and locks it into RAM on a thread of its own, which takes a
  // second for some gigabytes; nothing can be stored before. The pool must outlive it.
  Spill(KvPool&, std::unique_ptr<PageBytes>, uint64_t bytes);
  ~Spill();

  // A sequence's first pages, kept. Gives its room back when it goes; the Spill must outlive it.
  class Kept {
   public:
    Kept() = default;
    ~Kept() { clear(); }
    Kept(Kept&& o) noexcept { *this = std::move(o); }
    Kept& operator=(Kept&&) noexcept;
    int64_t tokens() const { return tokens_; }
    int64_t pages() const { return int64_t(slots_.size()); }
    explicit operator bool() const { return owner_ != nullptr; }
    void clear();

   private:
    friend class Spill;
    Spill* owner_ = nullptr;
    std::vector<int32_t> slots_;
    int64_t tokens_ = 0;
  };

  int64_t pages() const { return pages_; }
  int64_t used_pages() const { return pages_ - int64_t(free_.size()); }
  // Seconds that copying so many pages takes one way, as measured lately (before that: at 10 GB/s).
  double seconds(int64_t pages) const { return double(pages) * double(bytes_->size()) / rate_; }

  // Copies a sequence's pages; empty when there is no room (yet).
  Kept store(const Sequence&);
  // Makes an empty sequence what it was: `pages` are the first ones, one reference each, that were found
  // elsewhere with the same rows; the others are allocated and copied back. Throws as KvPool::allocate and
  // then changes nothing.
  void restore(Kept&, std::span<const int32_t> pages, Sequence&);

 private:
  std::span<std::byte> slot(int32_t) const;
  void measured(int64_t pages, double seconds);

  KvPool& pool_;
  AlignedBuffer memory_;
  std::unique_ptr<PageBytes> bytes_;  // goes before the memory that it has locked
  int64_t pages_ = 0;
  std::vector<int32_t> free_;
  double rate_ = 10e9;  // bytes a second
  std::future<void> pinned_;
};

}  // namespace cairn::kv
