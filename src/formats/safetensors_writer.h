// Writes a safetensors file in one pass: what the tensors are first, then their bytes as they come. The file
// appears under its name when it is complete, and not at all when something fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/new_file.h"

namespace cairn::formats {

class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(std::filesystem::path);  // throws Error(io)

  // Text beside the tensors ("__metadata__").
  void add_metadata(std::string key, std::string value);
  // Announces a tensor; dtype as the format spells it ("BF16"), shape outermost first. Throws
  // Error(invalid_argument) for a name that is already there, an unknown dtype, a negative extent or a shape
  // that ends inside a byte or overflows.
  void add_tensor(std::string_view name, std::string_view dtype, std::span<const int64_t> shape);

  // The tensors' bytes, in the order in which they were added, cut in any way. The first call ends the
  // announcements. Throws Error(io) when the disk refuses, Error(invalid_argument) past the last tensor.
  void write(std::span<const std::byte>);
  // Throws Error(invalid_argument) when bytes are missing. Afterwards the file is there.
  void finish();

  uint64_t data_bytes() const { return end_; }  // of all announced tensors

 private:
  void begin_data();

  NewFile file_;
  std::map<std::string, std::string> metadata_;
  std::set<std::string, std::less<>> names_;
  std::string entries_;  // of the header, each behind a comma
  bool begun_ = false;
  uint64_t end_ = 0, written_ = 0;
};

}  // namespace cairn::formats
