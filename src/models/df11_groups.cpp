#include "models/df11_groups.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "formats/json_fields.h"
#include "formats/untrusted_text.h"
#include "text/regex.h"

namespace cairn::models {
namespace {

using codecs::CodecId;
using codecs::Df11Group;
using formats::Checkpoint;
using formats::shown;
using formats::Tensor;

constexpr std::string_view kLuts = ".luts";
constexpr std::string_view kWeight = ".weight";

// Which modules a block's group holds, by the pattern that fits the block's whole name.
class Patterns {
 public:
  Patterns(const nlohmann::json& fields, const std::string& file) : file_(file) {
    const auto* patterns = formats::optional_object(fields, "pattern_dict", file);
    if (!patterns)
      fail(ErrorKind::invalid_file,
           "{}: dfloat11_config.pattern_dict is missing; it names each group's modules", file);
    for (const auto& [pattern, modules] : patterns->items())
      patterns_.push_back(
          {text::Regex("\\A(?:" + pattern + ")\\z", fmt::format("{}: dfloat11_config.pattern_dict", file)),
           formats::optional_strings(*patterns, pattern.c_str(), file).value()});
  }

  // The block itself when no module is named: an embedding, the matrix of the scores.
  std::vector<std::string> modules_of(const std::string& block, const Checkpoint& checkpoint) const {
    for (const auto& [regex, modules] : patterns_) {
      const auto spans = regex.cut(block);
      if (spans.size() != 1 || !spans.front().match) continue;
      if (modules.empty()) return {block};
      std::vector<std::string> names;
      for (const auto& module : modules) names.push_back(block + "." + module);
      return names;
    }
    fail(ErrorKind::invalid_file,
         "{}: tensor {}{} belongs to a group, and no pattern of dfloat11_config.pattern_dict fits {}",
         checkpoint.path.string(), shown(block), kLuts, shown(block));
  }

 private:
  std::string file_;
  std::vector<std::pair<text::Regex, std::vector<std::string>>> patterns_;
};

void require_numbers(const nlohmann::json& fields, const char* field, int64_t wanted,
                     const std::string& file) {
  int64_t number = wanted;
  if (const auto at = fields.find(field); at != fields.end() && at->is_array()) {
    const auto numbers = formats::optional_ints(fields, field, 1, int64_t{1} << 20, file);
    number = numbers->size() == 1 ? numbers->front() : 0;
  } else {
    number = formats::optional_int(fields, field, 1, int64_t{1} << 20, file).value_or(wanted);
  }
  if (number != wanted)
    fail(ErrorKind::unsupported, "{}: dfloat11_config.{} is not {}, which cairn does not read", file, field,
         wanted);
}

}  // namespace

Df11Groups::Df11Groups(const Checkpoint& checkpoint, const nlohmann::json& config, const std::string& file) {
  const auto* fields = formats::optional_object(config, "dfloat11_config", file);
  if (!fields) return;
  require_numbers(*fields, "threads_per_block", codecs::kDf11ChunksPerBlock, file);
  require_numbers(*fields, "bytes_per_thread", codecs::kDf11ChunkBytes, file);
  const Patterns patterns(*fields, file);
  for (const auto& luts : checkpoint.tensors) {
    if (!luts.name.ends_with(kLuts)) continue;
    const std::string block = luts.name.substr(0, luts.name.size() - kLuts.size());
    const std::string where = fmt::format("{}: group {}", checkpoint.path.string(), shown(block));
    const auto find = [&](const char* field, CodecId codec) {
      const Tensor* tensor = checkpoint.find(fmt::format("{}.{}", block, field));
      if (tensor && tensor->codec != codec)
        fail(ErrorKind::invalid_file, "{}: field {} is stored as {}; it must be {}", where, field,
             codecs::codec(tensor->codec).name, codecs::codec(codec).name);
      return tensor;
    };
    const auto require = [&](const char* field) -> const Tensor& {
      if (const Tensor* tensor = find(field, CodecId::u8)) return *tensor;
      fail(ErrorKind::invalid_file, "{}: field {} is missing (is a file or a shard incomplete?)", where,
           field);
    };
    const Tensor &signs = require("sign_mantissa"), &codes = require("encoded_exponent");
    const codecs::Df11Fields parts{signs.bytes, codes.bytes, require("gaps").bytes,
                                   require("output_positions").bytes, require("luts").bytes};
    Group group{std::make_shared<const Df11Group>(parts, where), codes.file, signs.file, luts.file};

    std::vector<int64_t> splits;
    if (const Tensor* tensor = find("split_positions", CodecId::i64)) {
      splits.resize(tensor->bytes.size() / 8);
      if (!splits.empty()) std::memcpy(splits.data(), tensor->bytes.data(), splits.size() * 8);
    }
    const auto names = patterns.modules_of(block, checkpoint);
    if (splits.size() + 1 != names.size())
      fail(ErrorKind::invalid_file, "{}: field split_positions has {} numbers; {} matrices need {}", where,
           splits.size(), names.size(), names.size() - 1);
    splits.push_back(group.fields->elements());
    int64_t begin = 0;
    for (size_t i = 0; i < names.size(); begin = splits[i++]) {
      if (splits[i] < begin || splits[i] > group.fields->elements())
        fail(ErrorKind::invalid_file,
             "{}: field split_positions puts {} at elements {} to {} of a group of {}", where,
             shown(names[i]), begin, splits[i], group.fields->elements());
      if (!modules_.try_emplace(names[i], Module{groups_.size(), begin, splits[i]}).second)
        fail(ErrorKind::invalid_file, "{}: the module {} is in two groups", where, shown(names[i]));
    }
    groups_.push_back(std::move(group));
  }
}

std::optional<Df11Groups::Found> Df11Groups::find(const std::string& name, int64_t first_row, int64_t rows,
                                                  int64_t stored_rows, int64_t cols) const {
  if (!name.ends_with(kWeight)) return std::nullopt;
  const auto at = modules_.find(std::string_view(name).substr(0, name.size() - kWeight.size()));
  if (at == modules_.end()) return std::nullopt;
  const Module& module = at->second;
  const Group& group = groups_[module.group];
  const Df11Group& fields = *group.fields;
  const auto elements = checked_mul(uint64_t(stored_rows), uint64_t(cols));
  if (!elements || *elements != uint64_t(module.end - module.begin))
    fail(
        ErrorKind::invalid_file,
        "{}: field split_positions gives {} elements {} to {}; the config of this model asks for a matrix of "
        "[{}, {}]",
        fields.where(), name, module.begin, module.end, stored_rows, cols);
  Found found{group.fields, {}};
  auto& piece = found.piece;
  piece.first_element = module.begin + first_row * cols;
  const int64_t count = rows * cols;
  piece.data = fields.fields().sign_mantissa.data() + piece.first_element;
  piece.bytes = uint64_t(count), piece.file = group.signs_file;
  const auto blocks = fields.blocks_of(piece.first_element, piece.first_element + count);
  const auto codes = fields.fields().encoded_exponent;
  const auto from = size_t(blocks.begin * codecs::kDf11BlockBytes),
             to = std::min(codes.size(), size_t(blocks.end * codecs::kDf11BlockBytes));
  piece.beside[0] = {codes.data() + from, to - from, group.codes_file};
  piece.beside[1] = {fields.fields().luts.data(), fields.fields().luts.size(), group.luts_file};
  return found;
}

}  // namespace cairn::models
