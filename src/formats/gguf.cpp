#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

constexpr uint32_t kMagic = 0x46554747;                  // "GGUF"
constexpr uint64_t kSmallestPair = 8 + 1 + 4 + 1;        // a key of one character and a one-byte value
constexpr uint64_t kSmallestTensor = 8 + 1 + 4 + 4 + 8;  // a name of one character and no dimensions
constexpr uint64_t kLongestKey = 65535;                  // the format document's limit
constexpr uint64_t kLongestName = 255;                   // the document says 64; some writers allow more
constexpr uint32_t kMostDimensions = 4;
constexpr uint64_t kLargestAlignment = 65536;
constexpr uint64_t kLargestCount = uint64_t{1} << 62;  // of elements or bytes: all sums below stay in 63 bits

static_assert(std::endian::native == std::endian::little, "GGUF files are mapped and read as they lie");

// Bytes of one value; 0 for those of no fixed size.
uint64_t size_of(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: return 0;
  }
  return 0;
}

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

GgufValue load_value(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::u8: return int64_t{load<uint8_t>(bytes)};
    case GgufType::i8: return int64_t{load<int8_t>(bytes)};
    case GgufType::u16: return int64_t{load<uint16_t>(bytes)};
    case GgufType::i16: return int64_t{load<int16_t>(bytes)};
    case GgufType::u32: return int64_t{load<uint32_t>(bytes)};
    case GgufType::i32: return int64_t{load<int32_t>(bytes)};
    case GgufType::f32: return double{load<float>(bytes)};
    case GgufType::boolean: return load<uint8_t>(bytes) != 0;
    case GgufType::u64: return load<uint64_t>(bytes);
    case GgufType::i64: return load<int64_t>(bytes);
    case GgufType::f64: return load<double>(bytes);
    case GgufType::string:
    case GgufType::array: break;
  }
  return int64_t{0};
}

std::string describe(const GgufValue& value) {
  struct Names {
    std::string operator()(int64_t) const { return "an integer"; }
    std::string operator()(uint64_t) const { return "an integer"; }
    std::string operator()(double) const { return "a float"; }
    std::string operator()(bool) const { return "a bool"; }
    std::string operator()(std::string_view) const { return "a string"; }
    std::string operator()(const GgufArray& array) const {
      return fmt::format("an array of {}", to_string(GgufType(array.type)));
    }
  };
  return std::visit(Names{}, value);
}

// Walks the bytes; nothing is read before it is known to be there.
class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  Gguf parse() {
    Gguf gguf;
    gguf.name = name_;
    gguf.version = header();
    const auto tensors = scalar<uint64_t>(), pairs = scalar<uint64_t>();
    check_count(pairs, kSmallestPair, "key-value pairs");
    for (uint64_t i = 0; i < pairs; ++i) pair(gguf);
    where_ = "the tensor list";
    check_count(tensors, kSmallestTensor, "tensors");
    gguf.alignment = alignment(gguf);
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < tensors; ++i) offsets.push_back(tensor_info(gguf));
    place_tensors(gguf, offsets);
    return gguf;
  }

 private:
  uint64_t left() const { return bytes_.size() - position_; }

  template <typename... Args>
  [[noreturn]] void invalid(fmt::format_string<Args...> message, Args&&... args) {
    fail(ErrorKind::invalid_file, "{}: {}", name_, fmt::format(message, std::forward<Args>(args)...));
  }

  const std::byte* take(uint64_t count) {
    if (count > left())
      invalid("the file ends inside {}: {} bytes are needed at offset {}, but the file has {}", where_, count,
              position_, bytes_.size());
    const std::byte* place = bytes_.data() + position_;
    position_ += count;
    return place;
  }
  template <typename T>
  T scalar() {
    return load<T>(take(sizeof(T)));
  }
  std::string_view text() {
    const auto length = scalar<uint64_t>();
    if (length > left())
      invalid("{} has a string of {} bytes at offset {}, but only {} bytes follow", where_, length, position_,
              left());
    return {reinterpret_cast<const char*>(take(length)), size_t(length)};
  }

  void check_count(uint64_t count, uint64_t smallest, const char* what) {
    if (count > left() / smallest)
      invalid("the header promises {} {} of at least {} bytes each, but only {} bytes follow", count, what,
              smallest, left());
  }

  uint32_t header() {
    where_ = "the header";
    if (bytes_.size() < 4 || load<uint32_t>(bytes_.data()) != kMagic)
      invalid("not a GGUF file: it does not begin with the four bytes 'GGUF'");
    take(4);
    const auto version = scalar<uint32_t>();
    if ((version & 0xffffu) == 0 && version != 0)
      fail(ErrorKind::unsupported, "{}: a big-endian GGUF file; convert it to little-endian first", name_);
    if (version == 1)
      fail(ErrorKind::unsupported, "{}: GGUF version 1 is not read any more; convert it to version 3", name_);
    if (version != 2 && version != 3)
      fail(ErrorKind::unsupported, "{}: GGUF version {} is unknown; versions 2 and 3 are read", name_,
           version);
    return version;
  }

  void pair(Gguf& gguf) {
    where_ = fmt::format("key-value pair {}", gguf.metadata.size());
    const std::string_view key = text();
    if (key.empty() || key.size() > kLongestKey)
      invalid("{} has a key of {} bytes; 1 to {} are allowed", where_, key.size(), kLongestKey);
    where_ = fmt::format("key '{}'", shown(key));
    if (!gguf.index.emplace(key, gguf.metadata.size()).second) invalid("{} appears twice", where_);
    const uint64_t begin = position_;
    const GgufType type = value_type();
    gguf.metadata.emplace_back(key, type == GgufType::array ? GgufValue(array()) : value(type));
    gguf.encoded.push_back(bytes_.subspan(begin, position_ - begin));
  }

  GgufType value_type() {
    const auto type = scalar<uint32_t>();
    if (type > uint32_t(GgufType::f64))
      invalid("{} has the unknown value type {} at offset {}", where_, type, position_ - 4);
    return GgufType(type);
  }

  GgufValue value(GgufType type) {
    if (type == GgufType::string) return text();
    const std::byte* place = take(size_of(type));
    if (type == GgufType::boolean) check_bool(place);
    return load_value(type, place);
  }

  void check_bool(const std::byte* place) {
    if (*place > std::byte{1}) invalid("{} has a bool of value {}; it must be 0 or 1", where_, int(*place));
  }

  GgufArray array() {
    GgufArray result;
    const GgufType type = value_type();
    if (type == GgufType::array) invalid("{} is an array of arrays, which no model uses", where_);
    result.type = uint32_t(type);
    result.count = scalar<uint64_t>();
    const uint64_t smallest = type == GgufType::string ? 8 : size_of(type);
    if (result.count > left() / smallest)
      invalid("{} promises {} elements of {} ({} bytes or more each), but only {} bytes follow", where_,
              result.count, to_string(type), smallest, left());
    if (type == GgufType::string) {
      result.strings.reserve(result.count);
      for (uint64_t i = 0; i < result.count; ++i) result.strings.push_back(text());
    } else {
      const std::byte* place = take(result.count * smallest);
      result.bytes = {place, size_t(result.count * smallest)};
      if (type == GgufType::boolean)
        for (const std::byte& element : result.bytes) check_bool(&element);
    }
    return result;
  }

  uint64_t alignment(const Gguf& gguf) {
    const GgufValue* value = gguf.find("general.alignment");
    if (!value) return 32;
    const auto* number = std::get_if<int64_t>(value);
    if (!number) invalid("'general.alignment' is {}; it must be a u32", describe(*value));
    if (*number <= 0 || !std::has_single_bit(uint64_t(*number)) || uint64_t(*number) > kLargestAlignment)
      invalid("'general.alignment' is {}; it must be a power of two up to {}", *number, kLargestAlignment);
    return uint64_t(*number);
  }

  // Appends the tensor, with its byte count but no place yet; returns its offset in the data section.
  uint64_t tensor_info(Gguf& gguf) {
    where_ = fmt::format("tensor {}", gguf.tensors.size());
    const std::string_view tensor_name = text();
    if (tensor_name.empty() || tensor_name.size() > kLongestName)
      invalid("{} has a name of {} bytes; 1 to {} are allowed", where_, tensor_name.size(), kLongestName);
    where_ = fmt::format("tensor '{}'", shown(tensor_name));
    Tensor tensor;
    tensor.name = tensor_name;
    const auto dimensions = scalar<uint32_t>();
    if (dimensions > kMostDimensions)
      invalid("{} has {} dimensions; at most {} are allowed", where_, dimensions, kMostDimensions);
    uint64_t rows = 1, row = 1;
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto size = scalar<uint64_t>();
      if (size == 0 || size > kLargestCount) invalid("{} has dimension {} of size {}", where_, i, size);
      uint64_t& product = i == 0 ? row : rows;
      const auto larger = checked_mul(product, size);
      if (!larger || *larger > kLargestCount) invalid("{}: the product of its dimensions overflows", where_);
      product = *larger;
      tensor.shape.insert(tensor.shape.begin(), int64_t(size));
    }
    const auto type = scalar<uint32_t>();
    const codecs::Codec* codec = codecs::find_codec_of_ggml_type(type);
    if (!codec)
      fail(ErrorKind::unsupported, "{}: {} is stored as ggml type {}, which cairn does not know", name_,
           where_, type);
    tensor.codec = codec->id;
    if (row % uint64_t(codec->block_elements) != 0)
      invalid("{} has rows of {} elements, but {} stores blocks of {}", where_, row, codec->name,
              codec->block_elements);
    const auto row_size = codecs::row_bytes(*codec, row);
    const auto size = row_size ? checked_mul(*row_size, rows) : std::nullopt;
    const auto elements = checked_mul(row, rows);
    if (!size || *size > kLargestCount || !elements || *elements > kLargestCount)
      invalid("{}: the product of its dimensions overflows", where_);
    if (*size > bytes_.size())
      invalid("{} needs {} bytes, but the file has only {}; it is cut off or damaged", where_, *size,
              bytes_.size());
    tensor.bytes = {bytes_.data(), size_t(*size)};
    const auto offset = scalar<uint64_t>();
    if (offset % gguf.alignment != 0)
      invalid("{} lies at offset {}, which is no multiple of the alignment {}", where_, offset,
              gguf.alignment);
    gguf.tensors.push_back(std::move(tensor));
    return offset;
  }

  // Turns offsets into places inside the file and refuses tensors that overlap, are cut off or share a name.
  void place_tensors(Gguf& gguf, const std::vector<uint64_t>& offsets) {
    if (gguf.tensors.empty()) return;
    const uint64_t begin = std::min<uint64_t>(*checked_align(position_, gguf.alignment), bytes_.size());
    const auto data = bytes_.subspan(begin);
    for (size_t i = 0; i < offsets.size(); ++i) {
      Tensor& tensor = gguf.tensors[i];
      const auto end = checked_add(offsets[i], tensor.bytes.size());
      if (!end || *end > data.size())
        invalid(
            "tensor '{}' occupies {} bytes at offset {} of the data, but the file has only {} bytes of data; "
            "it "
            "is cut off or damaged",
            shown(tensor.name), tensor.bytes.size(), offsets[i], data.size());
      tensor.bytes = data.subspan(offsets[i], tensor.bytes.size());
    }
    std::vector<size_t> order(offsets.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offsets[a] < offsets[b]; });
    for (size_t i = 1; i < order.size(); ++i) {
      const Tensor &before = gguf.tensors[order[i - 1]], &tensor = gguf.tensors[order[i]];
      if (before.bytes.data() + before.bytes.size() > tensor.bytes.data())
        invalid("tensor '{}' begins at offset {} of the data, inside tensor '{}', which ends at {}",
                shown(tensor.name), offsets[order[i]], shown(before.name),
                offsets[order[i - 1]] + before.bytes.size());
    }
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return gguf.tensors[a].name < gguf.tensors[b].name; });
    for (size_t i = 1; i < order.size(); ++i)
      if (gguf.tensors[order[i]].name == gguf.tensors[order[i - 1]].name)
        invalid("tensor '{}' appears twice", shown(gguf.tensors[order[i]].name));
  }

  std::span<const std::byte> bytes_;
  const std::string& name_;
  uint64_t position_ = 0;
  std::string where_;
};

[[noreturn]] void mistyped(const Gguf& gguf, std::string_view key, const GgufValue& value,
                           const char* wanted) {
  fail(ErrorKind::invalid_file, "{}: '{}' is {}; it must be {}", gguf.name, key, describe(value), wanted);
}

}  // namespace

const char* to_string(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[size_t(type)];
}

bool GgufArray::is_string() const { return GgufType(type) == GgufType::string; }

bool GgufArray::is_number() const { return !is_string() && GgufType(type) != GgufType::array; }

bool GgufArray::is_integer() const {
  return is_number() && GgufType(type) != GgufType::f32 && GgufType(type) != GgufType::f64 &&
         GgufType(type) != GgufType::boolean;
}

double GgufArray::number(uint64_t i) const {
  const GgufValue value = load_value(GgufType(type), bytes.data() + i * size_of(GgufType(type)));
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* natural = std::get_if<uint64_t>(&value)) return double(*natural);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  return double(std::get<int64_t>(value));
}

int64_t GgufArray::integer(uint64_t i) const {
  const GgufValue value = load_value(GgufType(type), bytes.data() + i * size_of(GgufType(type)));
  if (const auto* natural = std::get_if<uint64_t>(&value)) {
    if (*natural > uint64_t(std::numeric_limits<int64_t>::max()))
      fail(ErrorKind::invalid_file, "element {} of a GGUF array is {}, which passes 2^63", i, *natural);
    return int64_t(*natural);
  }
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? 1 : 0;
  return std::get<int64_t>(value);
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto found = index.find(key);
  return found == index.end() ? nullptr : &metadata[found->second].second;
}

std::optional<int64_t> Gguf::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* integer = std::get_if<int64_t>(value)) return *integer;
  const auto* natural = std::get_if<uint64_t>(value);
  if (!natural) mistyped(*this, key, *value, "an integer");
  if (*natural > uint64_t(std::numeric_limits<int64_t>::max()))
    fail(ErrorKind::invalid_file, "{}: '{}' is {}, which passes 2^63", name, key, *natural);
  return int64_t(*natural);
}

std::optional<double> Gguf::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* real = std::get_if<double>(value)) return *real;
  if (const auto* integer = std::get_if<int64_t>(value)) return double(*integer);
  if (const auto* natural = std::get_if<uint64_t>(value)) return double(*natural);
  mistyped(*this, key, *value, "a number");
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* flag = std::get_if<bool>(value);
  if (!flag) mistyped(*this, key, *value, "a bool");
  return *flag;
}

std::optional<std::string_view> Gguf::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string_view>(value);
  if (!text) mistyped(*this, key, *value, "a string");
  return *text;
}

const GgufArray* Gguf::array(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  const auto* array = std::get_if<GgufArray>(value);
  if (!array) mistyped(*this, key, *value, "an array");
  return array;
}

const GgufArray* Gguf::strings(std::string_view key) const {
  const GgufArray* found = array(key);
  if (found && !found->is_string()) mistyped(*this, key, *find(key), "an array of strings");
  return found;
}

const GgufArray* Gguf::numbers(std::string_view key) const {
  const GgufArray* found = array(key);
  if (found && !found->is_number()) mistyped(*this, key, *find(key), "an array of numbers");
  return found;
}

const GgufArray* Gguf::integers(std::string_view key) const {
  const GgufArray* found = array(key);
  if (found && !found->is_integer()) mistyped(*this, key, *find(key), "an array of integers");
  return found;
}

Gguf parse_gguf(std::span<const std::byte> bytes, const std::string& name) {
  return Parser(bytes, name).parse();
}

Gguf read_gguf(const std::filesystem::path& path) {
  MappedFile file(path);
  Gguf gguf = parse_gguf(file.bytes(), path.string());
  gguf.file = std::move(file);
  return gguf;
}

}  // namespace cairn::formats
