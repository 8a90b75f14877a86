#include "base/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace cairn {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

std::byte* map(size_t bytes) {
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail(ErrorKind::out_of_memory, "the system refused {} bytes of memory", bytes);
  return static_cast<std::byte*>(memory);
}

}  // namespace

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  if (bytes < kHugePage) {
    data_ = map(bytes);
    return;
  }
  // The system places mappings at any page: a buffer of 4 MiB would hold one huge page or two. Map more and
  // give back what lies before the first boundary and after the end.
  const size_t page = size_t(sysconf(_SC_PAGESIZE));
  const size_t kept = (bytes + page - 1) / page * page;
  if (kept > SIZE_MAX - kHugePage)
    fail(ErrorKind::out_of_memory, "the system refused {} bytes of memory", bytes);
  std::byte* const whole = map(kept + kHugePage);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(whole) % kHugePage) % kHugePage;
  if (before) munmap(whole, before);
  if (before < kHugePage) munmap(whole + before + kept, kHugePage - before);
  data_ = whole + before;
  madvise(data_, kept, MADV_HUGEPAGE);  // a wish: fewer faults, fewer TLB misses
}

AlignedBuffer::~AlignedBuffer() {
  if (data_) munmap(data_, size_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace cairn
