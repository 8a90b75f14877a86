#include "formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

using codecs::CodecId;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "safetensors files are mapped and read as they lie");

constexpr uint64_t kLargestHeader = 100'000'000;  // the reference reader's limit
constexpr size_t kMostDimensions = 8;
constexpr const char* kIndexName = "model.safetensors.index.json";

struct Type {
  std::string_view name;
  uint64_t bits;
  std::optional<CodecId> codec;  // without one the tensor is listed as unreadable
};
constexpr Type kTypes[] = {
    {"F64", 64, CodecId::f64},    {"F32", 32, CodecId::f32},        {"F16", 16, CodecId::f16},
    {"BF16", 16, CodecId::bf16},  {"I64", 64, CodecId::i64},        {"I32", 32, CodecId::i32},
    {"I16", 16, CodecId::i16},    {"I8", 8, CodecId::i8},           {"U8", 8, CodecId::u8},
    {"BOOL", 8, std::nullopt},    {"U16", 16, std::nullopt},        {"U32", 32, std::nullopt},
    {"U64", 64, std::nullopt},    {"F8_E4M3", 8, CodecId::e4m3},    {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt}, {"F8_E4M3FNUZ", 8, std::nullopt}, {"F8_E5M2FNUZ", 8, std::nullopt},
    {"C64", 64, std::nullopt},    {"F4", 4, std::nullopt},          {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
};

struct Entry {
  std::string name;
  const Type* type = nullptr;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_shape = false;
};

// Reads the header without building a tree: a header may have 100 MB, and the only shape it may have is
// {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..., "__metadata__": {"name":
// "text"}}.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  HeaderReader(const std::string& name, Safetensors& result) : name_(name), result_(result) {}
  std::vector<Entry> entries;

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a bool"); }
  bool number_integer(json::number_integer_t value) override {
    unexpected(fmt::format("the number {}", value));
  }
  bool number_float(json::number_float_t, const json::string_t& text) override {
    unexpected(fmt::format("the number {}", shown(text)));
  }
  bool binary(json::binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(json::number_unsigned_t value) override {
    if (place_ != Place::array) unexpected(fmt::format("the number {}", value));
    Entry& entry = entries.back();
    if (field_ == "shape") {
      if (value > uint64_t{1} << 62 || entry.shape.size() == kMostDimensions)
        invalid("tensor '{}' has the size {} in dimension {}", shown(entry.name), value, entry.shape.size());
      entry.shape.push_back(int64_t(value));
    } else {
      if (entry.offsets.size() == 2) invalid("tensor '{}' has more than two data_offsets", shown(entry.name));
      entry.offsets.push_back(value);
    }
    return true;
  }

  bool string(json::string_t& value) override {
    if (place_ == Place::metadata) {
      if (!result_.metadata.emplace(field_, value).second)
        invalid("'__metadata__' names '{}' twice", shown(field_));
      return true;
    }
    if (place_ != Place::tensor || field_ != "dtype") unexpected(fmt::format("the text '{}'", shown(value)));
    Entry& entry = entries.back();
    if (entry.type) invalid("tensor '{}' has two dtypes", shown(entry.name));
    const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                    [&](const Type& candidate) { return candidate.name == value; });
    if (type == std::end(kTypes))
      fail(ErrorKind::unsupported, "{}: tensor '{}' has the unknown dtype '{}'", name_, shown(entry.name),
           shown(value));
    entry.type = type;
    return true;
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::outside: place_ = Place::top; return true;
      case Place::top:
        place_ = field_ == "__metadata__" ? Place::metadata : Place::tensor;
        if (place_ == Place::tensor) entries.emplace_back().name = field_;
        return true;
      default: unexpected("an object");
    }
  }
  bool end_object() override {
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::tensor || (field_ != "shape" && field_ != "data_offsets")) unexpected("an array");
    Entry& entry = entries.back();
    if (field_ == "shape" ? entry.has_shape : !entry.offsets.empty())
      invalid("tensor '{}' has two fields '{}'", shown(entry.name), field_);
    if (field_ == "shape") entry.has_shape = true;
    place_ = Place::array;
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }
  bool key(json::string_t& value) override {
    field_ = std::move(value);
    if (place_ == Place::tensor && field_ != "dtype" && field_ != "shape" && field_ != "data_offsets")
      invalid("tensor '{}' has the unknown field '{}'", shown(entries.back().name), shown(field_));
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    invalid("the header is not valid JSON: {}", json_error_text(error));
  }

 private:
  enum class Place { outside, top, metadata, tensor, array };

  template <typename... Args>
  [[noreturn]] void invalid(fmt::format_string<Args...> message, Args&&... args) {
    fail(ErrorKind::invalid_file, "{}: {}", name_, fmt::format(message, std::forward<Args>(args)...));
  }
  [[noreturn]] void unexpected(std::string_view what) {
    if (place_ == Place::outside) invalid("the header is {}; it must be an object", what);
    if (place_ == Place::tensor || place_ == Place::array)
      invalid("tensor '{}': the field '{}' contains {}", shown(entries.back().name), shown(field_), what);
    invalid("the header's entry '{}' contains {}", shown(field_), what);
  }

  const std::string& name_;
  Safetensors& result_;
  Place place_ = Place::outside;
  std::string field_;
};

// Checks one entry against itself: all fields there, and shape x type = the bytes it claims.
uint64_t checked_size(const Entry& entry, const std::string& name) {
  const auto invalid = [&](const std::string& message) {
    fail(ErrorKind::invalid_file, "{}: tensor '{}' {}", name, shown(entry.name), message);
  };
  if (!entry.type) invalid("has no dtype");
  if (!entry.has_shape) invalid("has no shape");
  if (entry.offsets.size() != 2) invalid("has no pair of data_offsets");
  if (entry.offsets[0] > entry.offsets[1])
    invalid(fmt::format("begins at byte {} and ends before it, at {}", entry.offsets[0], entry.offsets[1]));
  uint64_t bits = entry.type->bits;
  bool empty = false;
  for (const int64_t size : entry.shape) empty = empty || size == 0;
  for (const int64_t size : entry.shape) {
    const auto product = empty ? std::optional<uint64_t>(0) : checked_mul(bits, uint64_t(size));
    if (!product) invalid("has a shape whose product overflows");
    bits = *product;
  }
  if (bits % 8 != 0) invalid(fmt::format("ends inside a byte ({} bits)", bits));
  const uint64_t size = entry.offsets[1] - entry.offsets[0];
  if (bits / 8 != size)
    invalid(fmt::format("has {} bytes by its data_offsets, but {} by its shape and dtype {}", size, bits / 8,
                        entry.type->name));
  return size;
}

void add(Checkpoint& checkpoint, Safetensors shard) {
  const int file = int(checkpoint.files.size());
  checkpoint.files.push_back(shard.file);
  const auto refuse_twice = [&](const std::string& tensor) {
    fail(ErrorKind::invalid_file, "{}: tensor '{}' is already in another file of the model", shard.name,
         shown(tensor));
  };
  for (Tensor& tensor : shard.tensors) {
    tensor.file = file;
    if (checkpoint.unreadable.contains(tensor.name) ||
        !checkpoint.index.emplace(tensor.name, checkpoint.tensors.size()).second)
      refuse_twice(tensor.name);
    checkpoint.tensors.push_back(std::move(tensor));
  }
  for (auto& [tensor, type] : shard.unreadable)
    if (checkpoint.index.contains(tensor) || !checkpoint.unreadable.emplace(tensor, type).second)
      refuse_twice(tensor);
}

// A file name from an index stays inside the folder.
void check_plain_name(const std::string& shard, const std::string& index) {
  if (shard.empty() || shard.size() > 255 || shard == "." || shard == ".." ||
      shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
    fail(ErrorKind::invalid_file, "{}: '{}' is no plain file name; shards lie beside their index", index,
         shown(shard));
}

void open_by_index(const std::filesystem::path& path, Checkpoint& checkpoint) {
  const json index = read_json_file(path, kLargestHeader);
  const std::string name = path.string();
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object())
    fail(ErrorKind::invalid_file, "{}: the object 'weight_map' is missing", name);
  std::map<std::string, std::vector<const std::string*>> shards;  // shard -> tensors it should hold
  for (const auto& [tensor, shard] : map->get_ref<const json::object_t&>()) {
    if (!shard.is_string())
      fail(ErrorKind::invalid_file, "{}: 'weight_map' gives no file name for '{}'", name, shown(tensor));
    shards[shard.get<std::string>()].push_back(&tensor);
  }
  for (const auto& [shard, tensors] : shards) {
    check_plain_name(shard, name);
    const auto file = path.parent_path() / shard;
    if (!std::filesystem::exists(file))
      fail(ErrorKind::not_found, "{} is missing; {} places {} tensors in it", file.string(), name,
           tensors.size());
    Safetensors read = read_safetensors(file);
    std::set<std::string_view> names;
    for (const Tensor& tensor : read.tensors) names.insert(tensor.name);
    for (const auto& [tensor, type] : read.unreadable) names.insert(tensor);
    for (const std::string* tensor : tensors)
      if (!names.contains(*tensor))
        fail(ErrorKind::invalid_file, "{} places tensor '{}' in {}, which does not hold it", name,
             shown(*tensor), file.string());
    add(checkpoint, std::move(read));
  }
}

std::vector<std::filesystem::path> safetensors_files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

std::optional<uint64_t> safetensors_type_bits(std::string_view dtype) {
  for (const Type& type : kTypes)
    if (type.name == dtype) return type.bits;
  return std::nullopt;
}

std::optional<CodecId> safetensors_codec(std::string_view dtype) {
  for (const Type& type : kTypes)
    if (type.name == dtype) return type.codec;
  return std::nullopt;
}

std::string_view safetensors_type(CodecId codec) {
  for (const Type& type : kTypes)
    if (type.codec == codec) return type.name;
  return {};
}

Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  const auto invalid = [&](const std::string& message) {
    fail(ErrorKind::invalid_file, "{}: {}", name, message);
  };
  if (bytes.size() < 8)
    invalid(fmt::format("not a safetensors file: it has {} bytes, the length of its header alone takes 8",
                        bytes.size()));
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > kLargestHeader || header_size > bytes.size() - 8)
    invalid(fmt::format(
        "not a safetensors file, or cut off: its header would have {} bytes, the file has {} (at most "
        "{} are accepted)",
        header_size, bytes.size(), kLargestHeader));
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, header_size);
  if (!header.starts_with('{')) invalid("not a safetensors file: its header does not begin with '{'");

  Safetensors result;
  result.name = name;
  HeaderReader reader(name, result);
  json::sax_parse(header.begin(), header.end(), &reader);

  auto& entries = reader.entries;
  const auto data = bytes.subspan(8 + header_size);
  for (const Entry& entry : entries) {
    const uint64_t size = checked_size(entry, name);
    if (entry.offsets[1] > data.size())
      invalid(fmt::format(
          "tensor '{}' ends at byte {} of the data ({} bytes long), but the file has only {} bytes of "
          "data ({} in all); it is cut off or damaged",
          shown(entry.name), entry.offsets[1], size, data.size(), bytes.size()));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  for (size_t i = 1; i < entries.size(); ++i)
    if (entries[i].name == entries[i - 1].name)
      invalid(fmt::format("tensor '{}' appears twice", shown(entries[i].name)));
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.offsets[0] != end)
      invalid(fmt::format("tensor '{}' begins at byte {} of the data, but the one before it ends at {}",
                          shown(entry.name), entry.offsets[0], end));
    end = entry.offsets[1];
  }
  if (end != data.size())
    invalid(fmt::format("the tensors end at byte {} of the data, but the file has {} bytes of data", end,
                        data.size()));

  for (Entry& entry : entries) {
    if (entry.type->codec)
      result.tensors.push_back(
          {.name = std::move(entry.name),
           .codec = *entry.type->codec,
           .shape = std::move(entry.shape),
           .bytes = data.subspan(entry.offsets[0], entry.offsets[1] - entry.offsets[0])});
    else
      result.unreadable.emplace(std::move(entry.name), entry.type->name);
  }
  return result;
}

Safetensors read_safetensors(const std::filesystem::path& path) {
  MappedFile file(path);
  Safetensors result = parse_safetensors(file.bytes(), path.string());
  result.file = std::move(file);
  return result;
}

void open_safetensors_file(const std::filesystem::path& path, Checkpoint& checkpoint) {
  checkpoint.format = Format::safetensors;
  add(checkpoint, read_safetensors(path));
}

void open_safetensors_folder(const std::filesystem::path& folder, Checkpoint& checkpoint) {
  checkpoint.format = Format::safetensors;
  const auto index = folder / kIndexName, single = folder / "model.safetensors";
  if (std::filesystem::exists(index)) return open_by_index(index, checkpoint);
  if (std::filesystem::exists(single)) return open_safetensors_file(single, checkpoint);
  const auto files = safetensors_files(folder);
  if (files.empty()) fail(ErrorKind::not_found, "{} holds no *.safetensors file", folder.string());
  if (files.size() > 1)
    fail(ErrorKind::not_found,
         "{} holds {} *.safetensors files but no {} that says which belong to the model", folder.string(),
         files.size(), kIndexName);
  open_safetensors_file(files.front(), checkpoint);
}

bool has_safetensors(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / kIndexName) || !safetensors_files(folder).empty();
}

}  // namespace cairn::formats
