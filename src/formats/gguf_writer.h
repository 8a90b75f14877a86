// Writes a GGUF v3 file in one pass: metadata and tensor infos first, then the tensors' bytes as they come.
// The file appears under its name when it is complete, and not at all when something fails.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codecs/codec.h"
#include "formats/gguf.h"
#include "formats/new_file.h"

namespace cairn::formats {

class GgufWriter {
 public:
  // Throws Error(io) when the file cannot be made, Error(invalid_argument) for an alignment that is no power
  // of two.
  explicit GgufWriter(std::filesystem::path, uint64_t alignment = 32);

  // Metadata. A key that is already there throws Error(invalid_argument).
  void add_u32(std::string_view key, uint32_t);
  void add_i32(std::string_view key, int32_t);
  void add_u64(std::string_view key, uint64_t);
  void add_f32(std::string_view key, float);
  void add_bool(std::string_view key, bool);
  void add_string(std::string_view key, std::string_view);
  void add_strings(std::string_view key, std::span<const std::string>);
  void add_i32s(std::string_view key, std::span<const int32_t>);
  void add_f32s(std::string_view key, std::span<const float>);
  // A value as it lies in another file (Gguf::encoded), whatever its type.
  void add_encoded(std::string_view key, std::span<const std::byte> type_and_value);

  // Announces a tensor; shape outermost first. Throws Error(invalid_argument) for a name that is already
  // there or longer than 63 bytes, more than four dimensions, a dimension below 1, or rows that are no whole
  // blocks.
  void add_tensor(std::string_view name, codecs::CodecId, std::span<const int64_t> shape);

  // The tensors' bytes, in the order in which they were added, cut in any way. The first call ends the
  // metadata. Throws Error(io) naming the file when the disk refuses, Error(invalid_argument) past the last
  // tensor.
  void write(std::span<const std::byte>);

  // Throws Error(invalid_argument) naming the first tensor that lacks bytes. Afterwards the file is complete.
  void finish();

  uint64_t file_bytes() const;  // of the whole file, known once all tensors are added

 private:
  struct Announced {
    std::string name;
    uint64_t bytes = 0;
  };
  template <typename T>
  void put(T value);
  void put_text(std::string_view);
  void begin_pair(std::string_view key, GgufType);
  void begin_data();
  void pad(uint64_t written);

  NewFile file_;
  uint64_t alignment_;
  std::string pairs_, infos_;
  uint64_t pair_count_ = 0;
  std::set<std::string, std::less<>> names_;  // keys and, after a NUL, tensors
  std::vector<Announced> tensors_;
  uint64_t data_bytes_ = 0;  // of all announced tensors, each padded
  bool data_begun_ = false;
  size_t current_ = 0;    // the tensor that is being written
  uint64_t written_ = 0;  // of it
  std::string* target_ = &pairs_;
};

}  // namespace cairn::formats
