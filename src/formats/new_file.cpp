#include "formats/new_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cairn::formats {

NewFile::NewFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(path_.string() + fmt::format(".{}.partial", getpid())) {
  file_ = std::fopen(temporary_.c_str(), "wb");
  if (!file_) fail(ErrorKind::io, "cannot write {}: {}", temporary_.string(), std::strerror(errno));
}

NewFile::~NewFile() {
  if (!file_) return;
  std::fclose(file_);
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void NewFile::refused() const {
  fail(ErrorKind::io, "cannot write {} beyond {} bytes: {}", temporary_.string(), written_,
       std::strerror(errno));
}

void NewFile::write(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) refused();
  written_ += bytes.size();
}

void NewFile::commit() {
  if (std::fflush(file_) != 0 || fsync(fileno(file_)) != 0) refused();
  std::error_code error;
  std::filesystem::rename(temporary_, path_, error);
  if (error)
    fail(ErrorKind::io, "cannot rename {} to {}: {}", temporary_.string(), path_.string(), error.message());
  std::fclose(file_);
  file_ = nullptr;
}

}  // namespace cairn::formats
