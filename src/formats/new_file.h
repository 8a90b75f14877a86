// A file that appears under its name when it is complete, and not at all when something fails.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <span>

namespace cairn::formats {

class NewFile {
 public:
  // Throws Error(io) when a file beside `path` cannot be made.
  explicit NewFile(std::filesystem::path);
  ~NewFile();  // removes what was not committed
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Throws Error(io) naming the file and how much was there when the disk refused.
  void write(std::span<const std::byte>);
  void commit();  // once: on the disk, and renamed
  bool committed() const { return file_ == nullptr; }

 private:
  [[noreturn]] void refused() const;

  std::filesystem::path path_, temporary_;
  std::FILE* file_ = nullptr;
  uint64_t written_ = 0;
};

}  // namespace cairn::formats
