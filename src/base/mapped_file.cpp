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
  FileStamp stamp;
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

FileStamp stamp_of(const struct stat& s) {
  const auto ns = [](const timespec& t) { return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec; };
  return {uint64_t(s.st_dev), uint64_t(s.st_ino), uint64_t(s.st_size), ns(s.st_mtim), ns(s.st_ctim)};
}

// The whole pages of `part`, or those that it touches; empty when it does not lie in `whole`.
std::span<std::byte> pages_of(std::span<const std::byte> whole, std::span<const std::byte> part,
                              bool touched) {
  if (part.empty() || part.data() < whole.data() || part.data() + part.size() > whole.data() + whole.size())
    return {};
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<size_t>(part.data()), last = first + part.size();
  const size_t begin = touched ? first / page * page : (first + page - 1) / page * page;
  const size_t end = touched ? (last + page - 1) / page * page : last / page * page;
  if (end <= begin) return {};
  return {reinterpret_cast<std::byte*>(begin), end - begin};
}

#ifndef MADV_POPULATE_READ  // Linux 5.14; older kernels refuse the number, which costs only the faults
#define MADV_POPULATE_READ 22
#endif

}  // namespace

std::optional<FileStamp> file_stamp(const std::filesystem::path& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  return stamp_of(status);
}

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
  mapping->stamp = stamp_of(status);
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

FileStamp MappedFile::stamp() const { return mapping_ ? mapping_->stamp : FileStamp{}; }

void MappedFile::drop(std::span<const std::byte> part) const {
  // Dropping anonymous memory would erase it: only what lies in this mapping may leave.
  const auto pages = pages_of(bytes(), part, false);
  if (!pages.empty()) madvise(pages.data(), pages.size(), MADV_DONTNEED);
}

void MappedFile::populate(std::span<const std::byte> part) const {
  const auto pages = pages_of(bytes(), part, true);
  if (!pages.empty()) madvise(pages.data(), pages.size(), MADV_POPULATE_READ);
}

void MappedFile::prefer_huge_pages() const {
  const auto pages = pages_of(bytes(), bytes(), true);
  if (!pages.empty()) madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

bool MappedFile::in_page_cache() const {
  constexpr size_t kPlaces = 16;
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  const auto pages = pages_of(bytes(), bytes(), true);
  for (size_t i = 0; i < kPlaces && !pages.empty(); ++i) {
    unsigned char present = 0;
    const size_t at = pages.size() / page * i / kPlaces * page;
    if (mincore(pages.data() + at, page, &present) != 0 || (present & 1) == 0) return false;
  }
  return true;
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
