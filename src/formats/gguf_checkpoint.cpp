// A GGUF model as a checkpoint: its shards put together and its metadata as JSON.
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

constexpr uint64_t kLongestConfigArray = 65536;
constexpr int64_t kMostShards = 99999;  // five digits in the name

// "model-00002-of-00003.gguf" is prefix "model", number 2 of count 3.
struct ShardName {
  std::string prefix;
  int64_t number = 0, count = 0;

  std::string file(int64_t shard) const {
    return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, shard, count);
  }
};

std::optional<int64_t> five_digits(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.size() != 5 || error != std::errc() || end != text.data() + 5 || value < 0) return std::nullopt;
  return value;
}

std::optional<ShardName> shard_name(const std::string& file) {
  constexpr std::string_view kTail = "-00000-of-00000.gguf";
  if (file.size() <= kTail.size()) return std::nullopt;
  const std::string_view tail = std::string_view(file).substr(file.size() - kTail.size());
  const auto number = five_digits(tail.substr(1, 5)), count = five_digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || !number || !count)
    return std::nullopt;
  return ShardName{file.substr(0, file.size() - kTail.size()), *number, *count};
}

nlohmann::json to_json(const GgufArray& array) {
  auto result = nlohmann::json::array();
  for (uint64_t i = 0; i < array.count; ++i) {
    if (array.is_string())
      result.push_back(valid_utf8(array.strings[i]));
    else if (GgufType(array.type) == GgufType::boolean)
      result.push_back(array.integer(i) != 0);
    else if (array.is_integer() && GgufType(array.type) != GgufType::u64)
      result.push_back(array.integer(i));
    else
      result.push_back(array.number(i));
  }
  return result;
}

// What a shard says of itself must agree with its name and with the first shard.
void check_split(const Gguf& shard, int64_t number, int64_t count) {
  const int64_t said_number = shard.integer("split.no").value_or(number),
                said_count = shard.integer("split.count").value_or(count);
  if (said_number != number)
    fail(ErrorKind::invalid_file, "{}: 'split.no' is {}, but by its name it is shard {} (counted from 0)",
         shard.name, said_number, number);
  if (said_count != count)
    fail(ErrorKind::invalid_file, "{}: 'split.count' is {}, but the name says {}", shard.name, said_count,
         count);
}

void add(Checkpoint& checkpoint, Gguf shard) {
  const int file = int(checkpoint.files.size());
  checkpoint.files.push_back(shard.file);
  for (Tensor& tensor : shard.tensors) {
    tensor.file = file;
    const auto [place, inserted] = checkpoint.index.emplace(tensor.name, checkpoint.tensors.size());
    if (!inserted)
      fail(ErrorKind::invalid_file, "{}: tensor '{}' is already in {}", shard.name, shown(tensor.name),
           checkpoint.files[size_t(checkpoint.tensors[place->second].file)].path().string());
    checkpoint.tensors.push_back(std::move(tensor));
  }
}

Gguf read_shard(const std::filesystem::path& folder, const ShardName& name, int64_t shard) {
  const auto path = folder / name.file(shard);
  if (!std::filesystem::exists(path))
    fail(ErrorKind::not_found, "{} is missing: the model is split into {} files", path.string(), name.count);
  Gguf gguf = read_gguf(path);
  check_split(gguf, shard - 1, name.count);
  return gguf;
}

}  // namespace

nlohmann::json gguf_config(const Gguf& gguf) {
  auto config = nlohmann::json::object();
  for (const auto& [key, value] : gguf.metadata) {
    auto& place = config[valid_utf8(key)];
    if (const auto* array = std::get_if<GgufArray>(&value)) {
      if (key.starts_with("tokenizer.") || array->count > kLongestConfigArray)
        config.erase(valid_utf8(key));
      else
        place = to_json(*array);
    } else if (const auto* text = std::get_if<std::string_view>(&value)) {
      place = valid_utf8(*text);
    } else if (const auto* integer = std::get_if<int64_t>(&value)) {
      place = *integer;
    } else if (const auto* natural = std::get_if<uint64_t>(&value)) {
      place = *natural;
    } else if (const auto* real = std::get_if<double>(&value)) {
      place = *real;
    } else {
      place = std::get<bool>(value);
    }
  }
  return config;
}

Checkpoint open_gguf(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  checkpoint.format = Format::gguf;
  checkpoint.path = path;
  const auto name = shard_name(path.filename().string());
  if (!name) {
    Gguf gguf = read_gguf(path);
    const int64_t count = gguf.integer("split.count").value_or(1);
    if (count > 1)
      fail(ErrorKind::invalid_file,
           "{} is one of {} shards ('split.count'), so its name must end in -00001-of-{:05}.gguf or alike",
           gguf.name, count, count);
    checkpoint.config = std::make_shared<const nlohmann::json>(gguf_config(gguf));
    checkpoint.config_name = gguf.name;
    add(checkpoint, std::move(gguf));
    return checkpoint;
  }
  if (name->count < 1 || name->count > kMostShards || name->number < 1 || name->number > name->count)
    fail(ErrorKind::invalid_file, "{}: the name says shard {} of {}", path.string(), name->number,
         name->count);
  const auto folder = path.parent_path();
  Gguf first = read_shard(folder, *name, 1);
  const auto promised = first.integer("split.tensors.count");
  checkpoint.config = std::make_shared<const nlohmann::json>(gguf_config(first));
  checkpoint.config_name = first.name;
  add(checkpoint, std::move(first));
  for (int64_t shard = 2; shard <= name->count; ++shard) add(checkpoint, read_shard(folder, *name, shard));
  if (promised && *promised != int64_t(checkpoint.tensors.size()))
    fail(ErrorKind::invalid_file, "{}: 'split.tensors.count' is {}, but the {} shards hold {} tensors",
         checkpoint.config_name, *promised, name->count, checkpoint.tensors.size());
  return checkpoint;
}

}  // namespace cairn::formats
