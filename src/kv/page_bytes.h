// How the bytes of a page are reached, wherever the pool's pages lie: for what keeps pages on disk
// (page_store.h) or in host memory (spill.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kv/pool.h"

namespace cairn::kv {

// A page's bytes in host memory are K then V, each [layer][kv_head][token][head_dim]. For one thread at a
// time, which may be another than the engine's while that works on other pages. read() and write() may throw.
class PageBytes {
 public:
  virtual ~PageBytes() = default;
  virtual int64_t size() const = 0;  // of every page
  virtual void read(int32_t page, std::span<std::byte>) = 0;
  virtual void write(int32_t page, std::span<const std::byte>) = 0;
  // Says that this memory, which outlives this object, will be copied from and to often. Where that is of
  // use it is locked into RAM (which touches it) for as long as this object lives; may fail silently.
  virtual void pin(std::span<std::byte>) {}
};
// Of a pool in host memory.
std::unique_ptr<PageBytes> host_page_bytes(KvPool&);

}  // namespace cairn::kv
