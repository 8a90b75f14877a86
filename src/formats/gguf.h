// GGUF v2 and v3 (ggml-org/ggml docs/gguf.md): header, typed key-value pairs, tensor infos, aligned data.
// Every count, length, offset and sum is checked against the file's size before use; time and memory are
// proportional to the file. Errors name the file and the key or tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/checkpoint.h"

namespace cairn::formats {

// The types of metadata values, as numbered in a file.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
const char* to_string(GgufType);

// An array stays where it lies; element i is read on demand. Strings are indexed once.
struct GgufArray {
  uint32_t type = 0;  // GgufType of the elements
  uint64_t count = 0;
  std::span<const std::byte> bytes;       // fixed-size elements, packed, any alignment
  std::vector<std::string_view> strings;  // when type is string

  bool is_number() const;   // any integer, float or bool type
  bool is_integer() const;  // any integer type
  bool is_string() const;
  double number(uint64_t i) const;  // precondition: is_number(), i < count
  int64_t integer(
      uint64_t i) const;  // precondition: an integer or bool type, i < count; u64 past 2^63 throws
};

// Integers of every width become int64_t or, for u64, uint64_t; f32 becomes double.
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray>;

struct Gguf {
  std::string name;  // for errors: the file's path
  uint32_t version = 0;
  std::vector<std::pair<std::string, GgufValue>> metadata;  // file order; names unique
  std::vector<std::span<const std::byte>> encoded;   // per entry: its u32 type and value as in the file
  std::map<std::string, size_t, std::less<>> index;  // name -> position in metadata
  uint64_t alignment = 32;
  std::vector<Tensor> tensors;
  MappedFile file;

  const GgufValue* find(std::string_view key) const;
  // Typed access; a missing key gives nullopt, a key of another type throws Error(invalid_file) naming both
  // types.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // accepts integers too
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  // Null when missing. The typed ones also refuse an array whose elements are of another kind.
  const GgufArray* array(std::string_view key) const;
  const GgufArray* strings(std::string_view key) const;
  const GgufArray* numbers(std::string_view key) const;  // integers, floats or bools
  const GgufArray* integers(std::string_view key) const;
};

Gguf read_gguf(const std::filesystem::path&);  // one file, shards not followed
Gguf parse_gguf(std::span<const std::byte>,
                const std::string& name);  // for tests and fuzzing; name is for errors

// A whole model: the file, or all shards of `name-00001-of-00003.gguf` when given any of them.
Checkpoint open_gguf(const std::filesystem::path&);

// The metadata as JSON: every key except arrays under "tokenizer." and arrays of more than 65,536 elements.
nlohmann::json gguf_config(const Gguf&);

}  // namespace cairn::formats
