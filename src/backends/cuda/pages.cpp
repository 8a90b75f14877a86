#include "backends/cuda/pages.h"

#include <algorithm>
#include <cassert>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int64_t kMostSplits = 16;  // blocks that share a run

class DevicePageBytes final : public kv::PageBytes {
 public:
  DevicePageBytes(const Device& device, const PageMover& mover)
      : device_(device), mover_(mover), stream_(device), packed_(device, size_t(mover.page_bytes())) {}
  ~DevicePageBytes() override {
    device_.make_current();
    for (void* memory : pinned_) driver::api().host_unregister(memory);
  }

  int64_t size() const override { return mover_.page_bytes(); }
  void read(int32_t page, std::span<std::byte> to) override {
    assert(int64_t(to.size()) >= size());
    stream_.mark("reading a page of the KV cache");
    mover_.pack(stream_, page, packed_.address());
    stream_.download(to.data(), packed_.address(), packed_.size());
    stream_.synchronize();
  }
  void write(int32_t page, std::span<const std::byte> from) override {
    assert(int64_t(from.size()) >= size());
    stream_.mark("writing a page of the KV cache");
    stream_.upload(packed_.address(), from.data(), packed_.size());
    mover_.unpack(stream_, packed_.address(), page);
    stream_.synchronize();
  }
  void pin(std::span<std::byte> memory) override {
    device_.make_current();
    if (driver::api().host_register(memory.data(), memory.size(), 0) == 0) pinned_.push_back(memory.data());
  }

 private:
  const Device& device_;
  const PageMover mover_;
  Stream stream_;
  Buffer packed_;
  std::vector<void*> pinned_;
};

}  // namespace

std::vector<Variant> page_variants(int) { return {{"pages.cu", {}}}; }

PageMover::PageMover(KernelCache& kernels, const DeviceKv& kv)
    : kv_(kv), kernel_(kernels.get(page_variants(0).front(), "move_page")) {
  const kv::KvConfig& c = kv.config;
  const int64_t rows = int64_t{c.kv_heads} * c.page_tokens;
  k_run_ = kv::row_bytes(c.form, c.head_dim_k) * rows;
  v_run_ = kv::row_bytes(c.form, c.head_dim_v) * rows;
}

void PageMover::move(Stream& stream, int32_t from, int32_t to, Address packed) const {
  LaunchShape shape;
  shape.grid[0] = unsigned(2 * kv_.config.layers);
  shape.grid[1] =
      unsigned(std::clamp<int64_t>(ceil_div(std::max(k_run_, v_run_), kThreads * 64), 1, kMostSplits));
  shape.block = kThreads;
  stream.launch(kernel_, shape, kv_.k, kv_.v, k_run_, v_run_, int64_t{kv_.config.pages}, from, to, packed);
}

std::unique_ptr<kv::PageBytes> device_page_bytes(const Device& device, const PageMover& mover) {
  return std::make_unique<DevicePageBytes>(device, mover);
}

}  // namespace cairn::cuda
