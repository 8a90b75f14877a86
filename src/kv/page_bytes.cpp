#include "kv/page_bytes.h"

#include <cstring>

namespace cairn::kv {
namespace {

class HostPageBytes : public PageBytes {
 public:
  explicit HostPageBytes(KvPool& pool) : pool_(pool) {}
  int64_t size() const override {
    const KvConfig& c = pool_.config();
    return (pool_.row_bytes(Part::K) + pool_.row_bytes(Part::V)) * c.page_tokens * c.kv_heads * c.layers;
  }
  void read(int32_t page, std::span<std::byte> to) override {
    each(page, [&](std::byte* rows, size_t at, size_t size) { std::memcpy(to.data() + at, rows, size); });
  }
  void write(int32_t page, std::span<const std::byte> from) override {
    each(page, [&](std::byte* rows, size_t at, size_t size) { std::memcpy(rows, from.data() + at, size); });
  }

 private:
  template <typename F>
  void each(int32_t page, F&& f) {
    const KvConfig& c = pool_.config();
    size_t at = 0;
    for (const Part part : {Part::K, Part::V}) {
      const auto size =
          size_t(pool_.row_bytes(part) * c.page_tokens * c.kv_heads);  // a page's heads are one run
      for (int layer = 0; layer < c.layers; ++layer, at += size)
        f(pool_.head(part, layer, page, 0), at, size);
    }
  }
  KvPool& pool_;
};

}  // namespace

std::unique_ptr<PageBytes> host_page_bytes(KvPool& pool) { return std::make_unique<HostPageBytes>(pool); }

}  // namespace cairn::kv
