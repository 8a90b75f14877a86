// Launchers of kernels/pages.cu, and the bytes of pages in device memory for whoever keeps them elsewhere.
#pragma once

#include <memory>

#include "backends/cuda/attention.h"
#include "kv/page_bytes.h"

namespace cairn::cuda {

std::vector<Variant> page_variants(int capability);

// Cheap to copy; valid while the kernel cache and the pages' memory are.
class PageMover {
 public:
  PageMover(KernelCache&, const DeviceKv&);
  int64_t page_bytes() const { return (k_run_ + v_run_) * kv_.config.layers; }

  // Queued on the stream.
  void copy(Stream& stream, int32_t from, int32_t to) const { move(stream, from, to, 0); }
  void pack(Stream& stream, int32_t page, Address packed) const { move(stream, page, -1, packed); }
  void unpack(Stream& stream, Address packed, int32_t page) const { move(stream, -1, page, packed); }

 private:
  void move(Stream&, int32_t from, int32_t to, Address packed) const;
  DeviceKv kv_;
  int64_t k_run_ = 0, v_run_ = 0;  // bytes of a page's keys and values of one layer
  Kernel kernel_;
};

// With a stream of its own: pages must not be in use by a step that runs, and are complete when read() and
// write() return. Takes one page of device memory.
std::unique_ptr<kv::PageBytes> device_page_bytes(const Device&, const PageMover&);

}  // namespace cairn::cuda
