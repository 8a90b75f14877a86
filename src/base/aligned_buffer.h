// Zeroed memory aligned for vector loads and, past 2 MiB, for huge pages. Pages are touched only when used.
#pragma once

#include <cstddef>
#include <span>

namespace cairn {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);  // throws Error(out_of_memory) naming the bytes
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&&) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&&) noexcept;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> span() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace cairn
