// For tests and fuzzers only: files built byte by byte, so that any field can be wrong, and a folder to put
// them in.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "base/error.h"
#include "formats/gguf.h"

namespace cairn::formats::testing {

class Bytes {
 public:
  template <typename T>
  Bytes& put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& raw(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }
  Bytes& zeros(size_t count) {
    text_.append(count, '\0');
    return *this;
  }
  Bytes& align(size_t alignment) { return zeros((alignment - text_.size() % alignment) % alignment); }
  // A GGUF string: u64 length, bytes.
  Bytes& text(std::string_view value) { return put(uint64_t{value.size()}).raw(value); }

  std::string& string() { return text_; }
  const std::string& string() const { return text_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(text_)); }

 private:
  std::string text_;
};

// A GGUF file from parts; counts may be overridden to lie.
struct GgufParts {
  uint32_t version = 3;
  std::vector<std::string> pairs;    // encoded, see pair()
  std::vector<std::string> tensors;  // encoded, see tensor()
  std::string data;
  size_t alignment = 32;

  static std::string key(std::string_view name, GgufType type) {
    return Bytes().text(name).put(uint32_t(type)).string();
  }
  template <typename T>
  static std::string pair(std::string_view name, GgufType type, T value) {
    return key(name, type) + Bytes().put(value).string();
  }
  static std::string pair(std::string_view name, std::string_view value) {
    return key(name, GgufType::string) + Bytes().text(value).string();
  }
  template <typename T>
  static std::string array(std::string_view name, GgufType type, const std::vector<T>& values) {
    Bytes bytes;
    bytes.put(uint32_t(type)).put(uint64_t{values.size()});
    for (const T value : values) bytes.put(value);
    return key(name, GgufType::array) + bytes.string();
  }
  static std::string array(std::string_view name, const std::vector<std::string>& values) {
    Bytes bytes;
    bytes.put(uint32_t(GgufType::string)).put(uint64_t{values.size()});
    for (const auto& value : values) bytes.text(value);
    return key(name, GgufType::array) + bytes.string();
  }
  // dims as in the file: fastest first.
  static std::string tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                            uint64_t offset) {
    Bytes bytes;
    bytes.text(name).put(uint32_t(dims.size()));
    for (const uint64_t dim : dims) bytes.put(dim);
    return bytes.put(type).put(offset).string();
  }

  std::string bytes() const { return bytes(tensors.size(), pairs.size()); }
  std::string bytes(uint64_t tensor_count, uint64_t pair_count) const {
    Bytes file;
    file.raw("GGUF").put(version).put(tensor_count).put(pair_count);
    for (const auto& pair : pairs) file.raw(pair);
    for (const auto& tensor : tensors) file.raw(tensor);
    if (!tensors.empty()) file.align(alignment).raw(data);
    return file.string();
  }
};

// A model of two tensors: f32 [4, 8] and q8_0 [2, 64].
inline GgufParts small_gguf() {
  GgufParts parts;
  parts.pairs = {GgufParts::pair("general.architecture", "llama"),
                 GgufParts::pair("llama.block_count", GgufType::u32, uint32_t{1}),
                 GgufParts::pair("llama.rope.freq_base", GgufType::f32, 10000.f),
                 GgufParts::array("tokenizer.ggml.tokens", {"<unk>", "a", ""}),
                 GgufParts::array("llama.attention.head_count", GgufType::i32, std::vector<int32_t>{4, 8})};
  parts.tensors = {GgufParts::tensor("token_embd.weight", {8, 4}, 0, 0),
                   GgufParts::tensor("output.weight", {64, 2}, 8, 128)};
  Bytes data;
  for (int i = 0; i < 32; ++i) data.put(float(i));
  parts.data = data.zeros(4 * 34).align(32).string();
  return parts;
}

// {"a": f32 [2, 3], "b": f16 [4]} with the given header text, or the right one.
inline std::string safetensors_bytes(std::string_view header, size_t data_bytes) {
  return Bytes().put(uint64_t{header.size()}).raw(header).zeros(data_bytes).string();
}
inline constexpr std::string_view kSmallHeader =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"F16","shape":[4],"data_offsets":[24,32]}})";

// A folder that is gone when the object is.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cairn-XXXXXX").string();
    if (!mkdtemp(pattern.data())) fail(ErrorKind::io, "cannot make a temporary folder like {}", pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, std::string_view content) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary).write(content.data(), std::streamsize(content.size()));
    return path;
  }

 private:
  std::filesystem::path path_;
};

// The sentence with which `action` fails, or "" when it does not.
inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace cairn::formats::testing
