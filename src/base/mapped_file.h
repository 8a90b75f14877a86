// A whole file, mapped read-only. The mapping lives as long as the object; copies share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace cairn {

// What the file system says of a file's content. Whoever changes a byte changes a stamp, except within one
// tick of the file system's clock.
struct FileStamp {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t modified_ns = 0, changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};
std::optional<FileStamp> file_stamp(const std::filesystem::path&);  // nullopt: it cannot be asked

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path&);  // throws Error(not_found / io); a folder is refused

  std::span<const std::byte> bytes() const;
  const std::filesystem::path& path() const;
  FileStamp stamp() const;  // when it was opened
  // Tells the kernel that these pages are not needed again soon (they stay in the page cache).
  void drop(std::span<const std::byte> part) const;
  // Maps these pages, which the caller is about to read, in one go: a tenth of what faults cost one by one.
  void populate(std::span<const std::byte> part) const;
  // Asks for huge pages where the file system has them.
  void prefer_huge_pages() const;
  // True when all of a few places are in the page cache.
  bool in_page_cache() const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> mapping_;
};

// The whole content of a small file. Refuses more than `limit` bytes, so that a hostile config cannot fill
// memory.
std::string read_text_file(const std::filesystem::path&, size_t limit = size_t{256} << 20);

// Writes to a temporary name beside `path` and renames it when complete: readers see the old file or the new
// one.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> content);

}  // namespace cairn
