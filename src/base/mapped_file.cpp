#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace cairn {

struct MappedFile::Mapping {
  std::filesystem::path path;
  std::byte* data = nullptr;
  size_t size = 0;
  ~Mapping() {
    if (data) munmap(data, size);
  }
};

namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) {
    const int error = errno;
    fail(error == ENOENT ? ErrorKind::not_found : ErrorKind::io, "cannot open {}: {}", path.string(),
         std::strerror(error));
  }
  struct stat status {};
  if (fstat(file.fd, &status) != 0)
    fail(ErrorKind::io, "cannot read the size of {}: {}", path.string(), std::strerror(errno));
  if (!S_ISREG(status.st_mode)) fail(ErrorKind::invalid_file, "{} is not a regular file", path.string());
  auto mapping = std::make_shared<Mapping>();
  mapping->path = path;
  mapping->size = size_t(status.st_size);
  if (mapping->size > 0) {
    void* data = mmap(nullptr, mapping->size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (data == MAP_FAILED)
      fail(ErrorKind::io, "cannot map {} ({} bytes): {}", path.string(), mapping->size, std::strerror(errno));
    mapping->data = static_cast<std::byte*>(data);
  }
  mapping_ = std::move(mapping);
}

std::span<const std::byte> MappedFile::bytes() const {
  return mapping_ ? std::span<const std::byte>(mapping_->data, mapping_->size) : std::span<const std::byte>();
}

const std::filesystem::path& MappedFile::path() const {
  static const std::filesystem::path none;
  return mapping_ ? mapping_->path : none;
}

void MappedFile::drop(std::span<const std::byte> part) const {
  // Dropping anonymous memory would erase it: only what lies in this mapping may leave.
  const auto whole = bytes();
  if (part.empty() || part.data() < whole.data() || part.data() + part.size() > whole.data() + whole.size())
    return;
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<size_t>(part.data()) + page - 1) / page * page;
  const auto end = (reinterpret_cast<size_t>(part.data()) + part.size()) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::filesystem::path& path, size_t limit) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > limit)
    fail(ErrorKind::invalid_file, "{} has {} bytes; at most {} are accepted for such a file", path.string(),
         bytes.size(), limit);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> content) {
  const auto temporary = path.string() + fmt::format(".{}.partial", getpid());
  {
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(content.data()), std::streamsize(content.size()));
    out.close();
    if (!out) {
      std::filesystem::remove(temporary);
      fail(ErrorKind::io, "cannot write {} bytes to {}: {}", content.size(), temporary, std::strerror(errno));
    }
  }
  std::filesystem::rename(temporary, path);
}

}  // namespace cairn
