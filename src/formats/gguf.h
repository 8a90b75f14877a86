// GGUF v2 and v3 (ggml-org/ggml docs/gguf.md): header, typed key-value pairs, tensor infos, aligned data.
// Every count, length, offset and sum is checked against the file's size before use; time and memory are
// proportional to the file. Errors name the file and the key or tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/checkpoint.h"

namespace cairn::formats {

struct GgufArray;
// Integers of every width become int64_t or, for u64, uint64_t; f32 becomes double.
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray>;

// An array stays where it lies; element i is read on demand. Strings are indexed once.
struct GgufArray {
  uint32_t type = 0;  // GGUF value type of the elements (8: string)
  uint64_t count = 0;
  std::span<const std::byte> bytes;            // fixed-size elements, packed, any alignment
  std::vector<std::string_view> strings;       // when type is string
  bool is_number() const;                      // any integer, float or bool type
  double number(uint64_t i) const;             // precondition: is_number(), i < count
  int64_t integer(uint64_t i) const;           // precondition: an integer type, i < count
};

struct Gguf {
  uint32_t version = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;  // file order; names unique
  uint64_t alignment = 32;
  std::vector<Tensor> tensors;
  MappedFile file;

  const GgufValue* find(std::string_view key) const;
  // Typed access; a missing key gives nullopt, a key of another type throws Error(invalid_file) naming both types.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // accepts integers too
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  const GgufArray* array(std::string_view key) const;  // null when missing
};

Gguf read_gguf(const std::filesystem::path&);                       // one file, shards not followed
Gguf parse_gguf(std::span<const std::byte>, const std::string& name);  // for tests and fuzzing; name is for errors

}  // namespace cairn::formats
