#include "formats/safetensors_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "formats/safetensors.h"

namespace cairn::formats {
namespace {

std::string quoted(std::string_view text) { return nlohmann::json(text).dump(); }

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path) : file_(std::move(path)) {}

void SafetensorsWriter::add_metadata(std::string key, std::string value) {
  metadata_[std::move(key)] = std::move(value);
}

void SafetensorsWriter::add_tensor(std::string_view name, std::string_view dtype,
                                   std::span<const int64_t> shape) {
  const auto invalid = [&](std::string_view why) {
    fail(ErrorKind::invalid_argument, "{}: tensor '{}' {}", file_.path().string(), name, why);
  };
  if (begun_) invalid("comes after the tensors' data");
  if (name.empty() || name == "__metadata__" || !names_.emplace(name).second)
    invalid("has no name of its own");
  const auto bits = safetensors_type_bits(dtype);
  if (!bits) invalid(fmt::format("has the unknown dtype '{}'", dtype));
  std::optional<uint64_t> size = bits;
  for (const int64_t extent : shape) {
    if (extent < 0) invalid(fmt::format("has an extent of {}", extent));
    if (size) size = checked_mul(*size, uint64_t(extent));
  }
  const auto end = size ? checked_add(end_, *size / 8) : std::nullopt;
  if (!end || *size % 8 != 0) invalid("has a shape that overflows or ends inside a byte");
  entries_ += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", quoted(name), dtype,
                          fmt::join(shape, ","), end_, *end);
  end_ = *end;
}

void SafetensorsWriter::begin_data() {
  begun_ = true;
  std::string header = "{";
  if (!metadata_.empty()) header += "\"__metadata__\":" + nlohmann::json(metadata_).dump();
  if (!entries_.empty()) header += metadata_.empty() ? entries_.substr(1) : entries_;
  header += "}";
  header.resize(size_t(round_up(int64_t(header.size()), 8)), ' ');  // so that the data is aligned
  const uint64_t size = header.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(std::as_bytes(std::span(header)));
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (!begun_) begin_data();
  if (bytes.size() > end_ - written_)
    fail(ErrorKind::invalid_argument, "{}: {} bytes follow the last tensor", file_.path().string(),
         bytes.size() - (end_ - written_));
  file_.write(bytes);
  written_ += bytes.size();
}

void SafetensorsWriter::finish() {
  if (!begun_) begin_data();
  if (written_ != end_)
    fail(ErrorKind::invalid_argument, "{}: the tensors got {} of their {} bytes", file_.path().string(),
         written_, end_);
  file_.commit();
}

}  // namespace cairn::formats
