#include "quantize/rows_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace cairn::quantize {

RowsFile::RowsFile(const std::filesystem::path& folder, size_t row_bytes) : row_bytes_(row_bytes) {
  std::string name = (folder / "rows-XXXXXX").string();
  file_ = mkstemp(name.data());
  if (file_ < 0) fail(ErrorKind::io, "cannot write {}: {}", name, std::strerror(errno));
  unlink(name.c_str());
}

RowsFile::~RowsFile() {
  if (file_ >= 0) close(file_);
}

RowsFile::RowsFile(RowsFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)), row_bytes_(other.row_bytes_) {}

RowsFile& RowsFile::operator=(RowsFile&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(row_bytes_, other.row_bytes_);
  return *this;
}

void RowsFile::write(int64_t first_row, std::span<const std::byte> bytes) {
  auto at = off_t(first_row) * off_t(row_bytes_);
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file_, bytes.data(), bytes.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      fail(ErrorKind::io, "cannot write the calibration's rows beyond {} bytes: {}", at,
           std::strerror(errno));
    bytes = bytes.subspan(size_t(count));
    at += count;
  }
}

void RowsFile::read(int64_t first_row, std::span<std::byte> bytes) const {
  auto at = off_t(first_row) * off_t(row_bytes_);
  while (!bytes.empty()) {
    const ssize_t count = pread(file_, bytes.data(), bytes.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      fail(ErrorKind::io, "cannot read the calibration's rows at byte {}: {}", at,
           count == 0 ? "they end there" : std::strerror(errno));
    bytes = bytes.subspan(size_t(count));
    at += count;
  }
}

}  // namespace cairn::quantize
