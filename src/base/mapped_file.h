// A whole file, mapped read-only. The mapping lives as long as the object; copies share it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace cairn {

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path&);  // throws Error(not_found / io); a folder is refused

  std::span<const std::byte> bytes() const;
  const std::filesystem::path& path() const;
  // Tells the kernel that these pages are not needed again soon (they stay in the page cache).
  void drop(std::span<const std::byte> part) const;

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
