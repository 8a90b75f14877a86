// Rows of a value for all calibration tokens, on disk: what lies between two blocks does not count as memory,
// and while the page cache has room it does not touch the disk either. Gone when the object is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace cairn::quantize {

class RowsFile {
 public:
  // A file without a name in `folder`. Throws Error(io).
  RowsFile(const std::filesystem::path& folder, size_t row_bytes);
  ~RowsFile();
  RowsFile(RowsFile&&) noexcept;
  RowsFile& operator=(RowsFile&&) noexcept;

  size_t row_bytes() const { return row_bytes_; }
  void write(int64_t first_row, std::span<const std::byte>);  // throws Error(io), as when the disk is full
  void read(int64_t first_row, std::span<std::byte>) const;   // precondition: written before

 private:
  int file_ = -1;
  size_t row_bytes_ = 0;
};

}  // namespace cairn::quantize
