// Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding), as far as SentencePiece needs it.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cairn::text {

class WireReader {
 public:
  // `name` is for errors; offsets in them count from `base`.
  WireReader(std::string_view bytes, const std::string& name, size_t base = 0)
      : bytes_(bytes), name_(name), base_(base) {}

  struct Field {
    uint32_t number = 0;
    uint32_t type = 0;       // 0 varint, 1 fixed64, 2 bytes, 5 fixed32
    uint64_t value = 0;      // types 0, 1, 5
    std::string_view bytes;  // type 2
    size_t offset = 0;       // of the contents in the file
  };

  // nullopt at the end. Throws Error(invalid_file) for truncation and for wire types that are not used any
  // more.
  std::optional<Field> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    Field field;
    const uint64_t tag = varint();
    field.number = uint32_t(tag >> 3);
    field.type = uint32_t(tag & 7);
    field.offset = base_ + at_;
    switch (field.type) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 5: field.value = fixed(4); break;
      case 2: {
        const uint64_t length = varint();
        field.offset = base_ + at_;
        if (length > bytes_.size() - at_)
          fail(ErrorKind::invalid_file, "{}: field {} at byte {} has length {}, but {} bytes are left", name_,
               field.number, field.offset, length, bytes_.size() - at_);
        field.bytes = bytes_.substr(at_, size_t(length));
        at_ += size_t(length);
        break;
      }
      default:
        fail(ErrorKind::invalid_file,
             "{}: field {} at byte {} has wire type {}, which protocol buffers do not use", name_,
             field.number, field.offset, field.type);
    }
    return field;
  }

  // A field's value as the schema has it; another wire type throws.
  std::string_view text(const Field& field) const { return expect(field, 2), field.bytes; }
  bool boolean(const Field& field) const { return expect(field, 0), field.value != 0; }
  int64_t integer(const Field& field) const { return expect(field, 0), int64_t(field.value); }
  float number(const Field& field) const {
    expect(field, 5);
    const uint32_t bits = uint32_t(field.value);
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

 private:
  void expect(const Field& field, uint32_t type) const {
    if (field.type != type)
      fail(ErrorKind::invalid_file, "{}: field {} at byte {} has wire type {}, expected {}", name_,
           field.number, field.offset, field.type, type);
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ == bytes_.size())
        fail(ErrorKind::invalid_file, "{}: ends at byte {} inside a number", name_, base_ + at_);
      const uint8_t byte = uint8_t(bytes_[at_++]);
      if (shift < 64) value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    fail(ErrorKind::invalid_file, "{}: a number at byte {} has more than ten bytes", name_, base_ + at_);
  }
  uint64_t fixed(size_t size) {
    if (bytes_.size() - at_ < size)
      fail(ErrorKind::invalid_file, "{}: ends at byte {} inside a number", name_, base_ + bytes_.size());
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= uint64_t{uint8_t(bytes_[at_ + i])} << (8 * i);
    at_ += size;
    return value;
  }

  std::string_view bytes_;
  std::string name_;
  size_t base_, at_ = 0;
};

}  // namespace cairn::text
