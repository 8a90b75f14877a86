// Pages copied on the device, to the host and back, against memcpy over a copy of the whole cache.
#include "backends/cuda/pages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "backends/cuda/testing.h"

namespace cairn::cuda {
namespace {

using kv::KvForm;
using kv::Part;

struct Cache {
  kv::KvConfig config;
  std::vector<uint8_t> bytes;  // both segments, as on the device

  int64_t run(Part part) const {
    return kv::row_bytes(config.form, part == Part::K ? config.head_dim_k : config.head_dim_v) *
           config.kv_heads * config.page_tokens;
  }
  uint8_t* at(Part part, int layer, int32_t page) {
    const size_t segment = part == Part::K ? 0 : device_kv_bytes(config, Part::K);
    return bytes.data() + segment + size_t((layer * config.pages + page) * run(part));
  }
  std::vector<std::byte> packed(int32_t page) {
    std::vector<std::byte> all;
    for (const Part part : {Part::K, Part::V})
      for (int layer = 0; layer < config.layers; ++layer) {
        const auto* from = reinterpret_cast<const std::byte*>(at(part, layer, page));
        all.insert(all.end(), from, from + run(part));
      }
    return all;
  }
  void unpack(int32_t page, const std::byte* from) {
    for (const Part part : {Part::K, Part::V})
      for (int layer = 0; layer < config.layers; ++layer, from += run(part))
        std::memcpy(at(part, layer, page), from, size_t(run(part)));
  }
};

TEST(PagesOnGpu, AreMovedAsMemcpyWould) {
  CAIRN_NEED_GPU(gpu);
  std::mt19937 random(1);
  for (const kv::KvConfig& config :
       {kv::KvConfig{32, 8, 128, 128, 32, KvForm::bf16, 9}, kv::KvConfig{3, 2, 64, 128, 16, KvForm::bf16, 7},
        kv::KvConfig{2, 1, 80, 48, 8, KvForm::f16, 5}, kv::KvConfig{2, 4, 128, 128, 32, KvForm::q8_0, 6},
        kv::KvConfig{1, 1, 32, 32, 1, KvForm::q8_0, 40}, kv::KvConfig{2, 3, 6, 10, 2, KvForm::f32, 11}}) {
    SCOPED_TRACE(::testing::Message() << config.layers << " layers, " << config.kv_heads << " heads, "
                                      << to_string(config.form) << ", pages of " << config.page_tokens);
    Cache cache{config, {}};
    cache.bytes.resize(device_kv_bytes(config));
    for (auto& b : cache.bytes) b = uint8_t(random());
    const Buffer memory = gpu.upload(cache.bytes);
    const PageMover mover(gpu.kernels, DeviceKv::at(memory.address(), config));
    const auto last = int32_t(config.pages - 1);
    mover.copy(gpu.stream, 0, last);
    mover.copy(gpu.stream, last - 1, 1);
    const auto first = cache.packed(0), other = cache.packed(last - 1);
    cache.unpack(last, first.data()), cache.unpack(1, other.data());
    EXPECT_EQ(gpu.download<uint8_t>(memory), cache.bytes);

    const auto bytes = device_page_bytes(gpu.device, mover);
    ASSERT_EQ(bytes->size(), int64_t(first.size()));
    ASSERT_EQ(bytes->size(), mover.page_bytes());
    std::vector<std::byte> page(first.size());
    for (const int32_t p : {0, 2, int(last)}) {
      bytes->read(p, page);
      EXPECT_EQ(page, cache.packed(p)) << "page " << p;
    }
    std::vector<std::byte> pinned(first.size());
    bytes->pin(pinned);
    for (auto& b : pinned) b = std::byte(random());
    bytes->write(2, pinned);
    cache.unpack(2, pinned.data());
    EXPECT_EQ(gpu.download<uint8_t>(memory), cache.bytes);
    bytes->read(1, pinned);
    EXPECT_EQ(pinned, other);
  }
}

}  // namespace
}  // namespace cairn::cuda
