#include "formats/gguf_writer.h"

#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::formats {
namespace {

constexpr size_t kLongestName = 63;  // what every reader accepts
constexpr size_t kHeader = 4 + 4 + 8 + 8;
constexpr uint64_t kLargestAlignment = 65536;

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path path, uint64_t alignment)
    : file_(std::move(path)), alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment > kLargestAlignment)
    fail(ErrorKind::invalid_argument, "{}: the alignment {} is no power of two up to {}",
         file_.path().string(), alignment, kLargestAlignment);
  if (alignment != 32) add_u32("general.alignment", uint32_t(alignment));
}

template <typename T>
void GgufWriter::put(T value) {
  target_->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void GgufWriter::put_text(std::string_view text) {
  put(uint64_t{text.size()});
  *target_ += text;
}

void GgufWriter::begin_pair(std::string_view key, GgufType type) {
  if (data_begun_)
    fail(ErrorKind::invalid_argument, "{}: key '{}' comes after the tensors' data", file_.path().string(),
         key);
  if (key.empty() || !names_.emplace(key).second)
    fail(ErrorKind::invalid_argument, "{}: key '{}' is empty or was added before", file_.path().string(),
         key);
  target_ = &pairs_;
  put_text(key);
  put(uint32_t(type));
  ++pair_count_;
}

void GgufWriter::add_u32(std::string_view key, uint32_t value) {
  begin_pair(key, GgufType::u32);
  put(value);
}

void GgufWriter::add_i32(std::string_view key, int32_t value) {
  begin_pair(key, GgufType::i32);
  put(value);
}

void GgufWriter::add_u64(std::string_view key, uint64_t value) {
  begin_pair(key, GgufType::u64);
  put(value);
}

void GgufWriter::add_f32(std::string_view key, float value) {
  begin_pair(key, GgufType::f32);
  put(value);
}

void GgufWriter::add_bool(std::string_view key, bool value) {
  begin_pair(key, GgufType::boolean);
  put(uint8_t{value});
}

void GgufWriter::add_string(std::string_view key, std::string_view value) {
  begin_pair(key, GgufType::string);
  put_text(value);
}

void GgufWriter::add_strings(std::string_view key, std::span<const std::string> values) {
  begin_pair(key, GgufType::array);
  put(uint32_t(GgufType::string));
  put(uint64_t{values.size()});
  for (const std::string& value : values) put_text(value);
}

void GgufWriter::add_i32s(std::string_view key, std::span<const int32_t> values) {
  begin_pair(key, GgufType::array);
  put(uint32_t(GgufType::i32));
  put(uint64_t{values.size()});
  for (const int32_t value : values) put(value);
}

void GgufWriter::add_f32s(std::string_view key, std::span<const float> values) {
  begin_pair(key, GgufType::array);
  put(uint32_t(GgufType::f32));
  put(uint64_t{values.size()});
  for (const float value : values) put(value);
}

void GgufWriter::add_encoded(std::string_view key, std::span<const std::byte> type_and_value) {
  uint32_t type = 0;
  if (type_and_value.size() <= sizeof type)
    fail(ErrorKind::invalid_argument, "{}: key '{}' has no value", file_.path().string(), key);
  std::memcpy(&type, type_and_value.data(), sizeof type);
  begin_pair(key, GgufType(type));
  const auto value = type_and_value.subspan(sizeof type);
  pairs_.append(reinterpret_cast<const char*>(value.data()), value.size());
}

void GgufWriter::add_tensor(std::string_view name, codecs::CodecId id, std::span<const int64_t> shape) {
  const auto invalid = [&](const std::string& why) {
    fail(ErrorKind::invalid_argument, "{}: tensor '{}' {}", file_.path().string(), name, why);
  };
  if (data_begun_) invalid("comes after the tensors' data");
  if (name.empty() || name.size() > kLongestName)
    invalid(fmt::format("has a name of {} bytes; 1 to {} are allowed", name.size(), kLongestName));
  if (shape.empty() || shape.size() > 4)
    invalid(fmt::format("has {} dimensions; 1 to 4 are allowed", shape.size()));
  const auto& codec = codecs::codec(id);
  if (codec.ggml_type == codecs::kNoGgmlType)
    invalid(fmt::format("is {}, which GGUF files do not hold", codec.name));
  uint64_t rows = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 1) invalid(fmt::format("has dimension {} of size {}", i, shape[i]));
    const auto product = i + 1 < shape.size() ? checked_mul(rows, uint64_t(shape[i])) : rows;
    if (!product) invalid("has a shape whose product overflows");
    rows = *product;
  }
  const auto row = codecs::row_bytes(codec, uint64_t(shape.back()));
  const auto bytes = row ? checked_mul(*row, rows) : std::nullopt;
  const auto padded = bytes ? checked_align(*bytes, alignment_) : std::nullopt;
  const auto end = padded ? checked_add(data_bytes_, *padded) : std::nullopt;
  if (!end)
    invalid(fmt::format("has rows of {} elements, which {} does not store in blocks of {}, or is too large",
                        shape.back(), codec.name, codec.block_elements));
  if (!names_.emplace(std::string(1, '\0') + std::string(name)).second) invalid("was added before");
  target_ = &infos_;
  put_text(name);
  put(uint32_t(shape.size()));
  for (size_t i = shape.size(); i-- > 0;) put(uint64_t(shape[i]));  // fastest first
  put(codec.ggml_type);
  put(data_bytes_);
  tensors_.push_back({std::string(name), *bytes});
  data_bytes_ = *end;
}

uint64_t GgufWriter::file_bytes() const {
  const uint64_t head = kHeader + pairs_.size() + infos_.size();
  return tensors_.empty() ? head : uint64_t(round_up(int64_t(head), int64_t(alignment_))) + data_bytes_;
}

void GgufWriter::pad(uint64_t written) {
  static constexpr std::byte kZeros[kLargestAlignment] = {};
  file_.write({kZeros, size_t((alignment_ - written % alignment_) % alignment_)});
}

void GgufWriter::begin_data() {
  data_begun_ = true;
  std::string header = "GGUF";
  target_ = &header;
  put(uint32_t{3});
  put(uint64_t{tensors_.size()});
  put(pair_count_);
  for (const std::string* part : {&header, &pairs_, &infos_}) file_.write(std::as_bytes(std::span(*part)));
  if (!tensors_.empty()) pad(kHeader + pairs_.size() + infos_.size());
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  if (!data_begun_) begin_data();
  while (!bytes.empty()) {
    if (current_ == tensors_.size())
      fail(ErrorKind::invalid_argument, "{}: {} bytes follow the last tensor", file_.path().string(),
           bytes.size());
    const uint64_t size = tensors_[current_].bytes;
    const auto part = bytes.first(size_t(std::min<uint64_t>(bytes.size(), size - written_)));
    file_.write(part);
    bytes = bytes.subspan(part.size());
    written_ += part.size();
    if (written_ < size) continue;
    pad(size);
    ++current_;
    written_ = 0;
  }
}

void GgufWriter::finish() {
  if (!data_begun_) begin_data();
  if (current_ < tensors_.size())
    fail(ErrorKind::invalid_argument, "{}: tensor '{}' got {} of its {} bytes", file_.path().string(),
         tensors_[current_].name, written_, tensors_[current_].bytes);
  file_.commit();
}

}  // namespace cairn::formats
