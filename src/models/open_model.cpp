#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "base/error.h"
#include "formats/json_fields.h"
#include "formats/quantization_config.h"
#include "models/df11_groups.h"
#include "models/gguf_translation.h"
#include "models/model.h"
#include "models/split_weights.h"
#include "program/decode_groups.h"
#include "program/low_rank.h"
#include "program/weight_roles.h"

namespace cairn::models {
namespace {

using codecs::StoredWeight;
using formats::Checkpoint;
using formats::Tensor;

// The stored name of a Hugging Face name.
std::optional<std::string> stored_name(const Checkpoint& checkpoint, std::string_view name) {
  if (checkpoint.format != formats::Format::gguf) return std::string(name);
  return gguf_tensor_name(name, checkpoint.config->value("general.architecture", ""));
}

const Tensor* find_tensor(const Checkpoint& checkpoint, std::string_view name) {
  const auto stored = stored_name(checkpoint, name);
  return stored ? checkpoint.find(*stored) : nullptr;
}

// Finds weights and checks them against what the program asks for.
class Binder {
 public:
  Binder(const Checkpoint& checkpoint, const std::string& family,
         const std::optional<formats::QuantizationConfig>& quantization, const Df11Groups& groups)
      : checkpoint_(checkpoint), family_(family), quantization_(quantization), groups_(groups) {}

  StoredWeight bind(const program::WeightInfo& info) const {
    if (quantization_)
      if (auto split = bind_split(info)) return std::move(*split);
    if (auto grouped = bind_grouped(info)) return std::move(*grouped);
    if (info.shape.size() == 3) return bind_experts(info);
    if (info.shape.size() == 1) return bind_vector(info);
    // GGUF converters store every linear layer as [out, in]; only the original checkpoint is transposed.
    if (info.transposed && checkpoint_.format != formats::Format::gguf) return bind_transposed(info);
    return bind_matrix(info);
  }

 private:
  const Tensor& require(const std::string& name) const {
    if (const Tensor* tensor = find_tensor(checkpoint_, name)) return *tensor;
    fail(ErrorKind::invalid_file,
         "{}: tensor {} is missing; a {} model needs it (is a file or a shard incomplete?)",
         checkpoint_.path.string(), stored_name(checkpoint_, name).value_or(name), family_);
  }

  static std::string text(const std::vector<int64_t>& shape) {
    return fmt::format("[{}]", fmt::join(shape, ", "));
  }

  void require_shape(const Tensor& tensor, const std::vector<int64_t>& expected) const {
    if (tensor.shape != expected)
      fail(ErrorKind::invalid_file, "{}: tensor {} has shape {}; the config of this {} model asks for {}",
           checkpoint_.path.string(), tensor.name, text(tensor.shape), family_, text(expected));
  }

  uint64_t bytes_per_row(const Tensor& tensor, int64_t cols) const {
    const auto& codec = codecs::codec(tensor.codec);
    if (tensor.codec == codecs::CodecId::e4m3)
      fail(ErrorKind::unsupported,
           "{}: tensor {} is stored as e4m3, and no quantization_config says how it is scaled",
           checkpoint_.path.string(), tensor.name);
    if (!codec.decode)
      fail(ErrorKind::unsupported, "{}: tensor {} is stored as {}, which cairn can list but not run",
           checkpoint_.path.string(), tensor.name, codec.name);
    const auto bytes = codecs::row_bytes(codec, uint64_t(cols));
    if (!bytes)
      fail(ErrorKind::invalid_file, "{}: tensor {} has rows of {} elements; {} needs a multiple of {}",
           checkpoint_.path.string(), tensor.name, cols, codec.name, codec.block_elements);
    return *bytes;
  }

  StoredWeight bind_vector(const program::WeightInfo& info) const {
    const Tensor& tensor = require(info.name);
    const int64_t n = info.shape[0];
    require_shape(tensor, {info.stored_rows != 0 ? info.stored_rows : n});
    if (codecs::codec(tensor.codec).block_elements != 1)
      fail(ErrorKind::unsupported, "{}: the vector {} is stored in {} blocks", checkpoint_.path.string(),
           tensor.name, codecs::codec(tensor.codec).name);
    const uint64_t first = bytes_per_row(tensor, info.first_row);
    return {tensor.codec,
            1,
            n,
            false,
            0,
            0,
            {{tensor.bytes.data() + first, bytes_per_row(tensor, n), tensor.file}}};
  }

  StoredWeight bind_matrix(const program::WeightInfo& info) const {
    const Tensor& tensor = require(info.name);
    const int64_t rows = info.shape[0], cols = info.shape[1];
    const int64_t stored_rows = info.stored_rows != 0 ? info.stored_rows : rows;
    // GGUF stores a layer of one output as a vector.
    if (stored_rows != 1 || tensor.shape != std::vector<int64_t>{cols})
      require_shape(tensor, {stored_rows, cols});
    const uint64_t row = bytes_per_row(tensor, cols);
    return {tensor.codec,
            rows,
            cols,
            false,
            0,
            0,
            {{tensor.bytes.data() + uint64_t(info.first_row) * row, row * uint64_t(rows), tensor.file}}};
  }

  StoredWeight bind_transposed(const program::WeightInfo& info) const {
    const Tensor& tensor = require(info.name);
    const int64_t rows = info.shape[0], cols = info.shape[1];
    const int64_t stored = info.stored_rows != 0 ? info.stored_rows : rows;
    require_shape(tensor, {cols, stored});
    if (codecs::codec(tensor.codec).block_elements != 1)
      fail(ErrorKind::unsupported, "{}: tensor {} is stored transposed in {} blocks",
           checkpoint_.path.string(), tensor.name, codecs::codec(tensor.codec).name);
    return {tensor.codec,
            rows,
            cols,
            true,
            info.first_row,
            stored,
            {{tensor.bytes.data(), tensor.bytes.size(), tensor.file}}};
  }

  // One weight per expert, either one stacked tensor or tensors whose names hold the expert's number.
  StoredWeight bind_experts(const program::WeightInfo& info) const {
    const int64_t experts = info.shape[0], rows = info.shape[1], cols = info.shape[2];
    StoredWeight bound{codecs::CodecId::f32, rows, cols, false, 0, 0, {}};
    const auto star = info.name.find('*');
    const bool stacked = star == std::string::npos || checkpoint_.format == formats::Format::gguf ||
                         find_tensor(checkpoint_, info.name) != nullptr;
    for (int64_t e = 0; e < experts; ++e) {
      std::string name = info.name;
      if (!stacked) name.replace(star, 1, std::to_string(e));
      const Tensor& tensor = require(name);
      require_shape(tensor,
                    stacked ? std::vector<int64_t>{experts, rows, cols} : std::vector<int64_t>{rows, cols});
      if (e > 0 && tensor.codec != bound.codec)
        fail(ErrorKind::unsupported,
             "{}: tensor {} is stored as {}, expert 0 as {}; the experts of a layer must share one codec",
             checkpoint_.path.string(), tensor.name, codecs::codec(tensor.codec).name,
             codecs::codec(bound.codec).name);
      bound.codec = tensor.codec;
      const uint64_t bytes = bytes_per_row(tensor, cols) * uint64_t(rows);
      bound.pieces.push_back({tensor.bytes.data() + (stacked ? uint64_t(e) * bytes : 0), bytes, tensor.file});
    }
    return bound;
  }

  // A matrix, or the experts' matrices, whose codes and scales are tensors of their own; nullopt when stored
  // plainly.
  std::optional<StoredWeight> bind_split(const program::WeightInfo& info) const {
    const bool experts = info.shape.size() == 3;
    if (info.shape.size() == 1) return std::nullopt;
    const int64_t rows = info.shape[experts ? 1 : 0], cols = info.shape.back();
    const auto star = info.name.find('*');
    const bool one_by_one = experts && star != std::string::npos;
    StoredWeight bound{codecs::CodecId::f32, rows, cols, false, 0, 0, {}, {}};
    for (int64_t e = 0; e < (experts ? info.shape[0] : 1); ++e) {
      std::string name = info.name;
      if (one_by_one) name.replace(star, 1, std::to_string(e));
      auto found = find_split_weight(checkpoint_, *quantization_, name, info.first_row,
                                     info.stored_rows != 0 ? info.stored_rows : rows, cols);
      if (!found && e == 0) return std::nullopt;
      if (found && (info.transposed || (experts && !one_by_one)))
        fail(ErrorKind::unsupported, "{}: tensor {} is quantized, which cairn does not run in a {} model",
             checkpoint_.path.string(), found->layout.name, family_);
      if (!found || (e > 0 && (found->codec != bound.codec || !same_layout(found->layout, *bound.split))))
        fail(ErrorKind::unsupported,
             "{}: tensor {} is stored otherwise than expert 0's; the experts of a layer must share one form",
             checkpoint_.path.string(), name);
      bound.codec = found->codec;
      if (e == 0) bound.split = std::make_shared<const codecs::SplitLayout>(std::move(found->layout));
      bound.pieces.push_back(found->piece);
    }
    return bound;
  }

  // A matrix, or the experts' matrices, in a group stored as DFloat11; nullopt when stored plainly.
  std::optional<StoredWeight> bind_grouped(const program::WeightInfo& info) const {
    if (info.shape.size() == 1) return std::nullopt;
    const bool experts = info.shape.size() == 3;
    const int64_t rows = info.shape[experts ? 1 : 0], cols = info.shape.back();
    const auto star = info.name.find('*');
    StoredWeight bound{codecs::CodecId::bf16, rows, cols, false, 0, 0, {}, {}};
    for (int64_t e = 0; e < (experts ? info.shape[0] : 1); ++e) {
      std::string name = info.name;
      if (experts && star != std::string::npos) name.replace(star, 1, std::to_string(e));
      const auto found =
          groups_.find(name, info.first_row, rows, info.stored_rows != 0 ? info.stored_rows : rows, cols);
      if (!found && e == 0) return std::nullopt;
      if (!found || info.transposed || (experts && star == std::string::npos) ||
          (e > 0 && found->group != bound.group))
        fail(ErrorKind::unsupported, "{}: tensor {} {}, which cairn does not run in a {} model",
             checkpoint_.path.string(), name,
             found ? "is stored as DFloat11" : "is stored plainly and that of expert 0 as DFloat11", family_);
      bound.group = found->group;
      bound.pieces.push_back(found->piece);
    }
    return bound;
  }

  // But for the name.
  static bool same_layout(codecs::SplitLayout a, const codecs::SplitLayout& b) {
    a.name = b.name;
    return a == b;
  }

  const Checkpoint& checkpoint_;
  const std::string& family_;
  const std::optional<formats::QuantizationConfig>& quantization_;
  const Df11Groups& groups_;
};

const Family& find_family(const std::string& architecture, const std::string& file) {
  std::string known;
  for (const auto& family : families())
    for (const auto name : family.architectures) {
      if (name == architecture) return family;
      known += fmt::format("{}{}", known.empty() ? "" : ", ", name);
    }
  fail(ErrorKind::unsupported, "{}: the architecture '{}' is not supported; cairn runs {}", file,
       architecture, known);
}

// A multimodal model's folder nests the text model's fields; what is outside counts where it is silent.
nlohmann::json text_config(const nlohmann::json& config, const std::string& file) {
  const auto* text = formats::optional_object(config, "text_config", file);
  if (!text) return config;
  nlohmann::json merged = *text;
  for (const char* field : {"architectures", "tie_word_embeddings", "quantization_config", "dfloat11_config"})
    if (config.contains(field) && (field == std::string_view("architectures") || !merged.contains(field)))
      merged[field] = config[field];
  return merged;
}

std::vector<float> read_divisors(const Checkpoint& checkpoint) {
  const Tensor* tensor = checkpoint.find("rope_freqs.weight");
  if (!tensor) return {};
  if (tensor->shape.size() != 1 || tensor->codec != codecs::CodecId::f32)
    fail(ErrorKind::invalid_file, "{}: tensor rope_freqs.weight must be one row of f32",
         checkpoint.path.string());
  std::vector<float> divisors(size_t(tensor->shape[0]));
  std::memcpy(divisors.data(), tensor->bytes.data(), divisors.size() * sizeof(float));
  return divisors;
}

// The number of each weight's group, -1: none.
std::vector<int32_t> groups_of(std::span<const StoredWeight> weights) {
  std::map<const void*, int32_t> numbers;
  std::vector<int32_t> groups;
  for (const auto& weight : weights)
    groups.push_back(
        weight.group ? numbers.try_emplace(weight.group.get(), int32_t(numbers.size())).first->second : -1);
  return groups;
}

// How many tokens a sequence may have: what the file states, or more where a rope scaling is there to stretch
// it.
int64_t longest_context(const program::Program& program, int64_t stated) {
  int64_t longest = stated;
  for (const auto& rope : program.ropes) {
    const auto& scaling = rope.scaling;
    longest =
        std::max(longest, rope.max_position);  // the library's default where the file leaves the field out
    const double factor = std::min(scaling.factor.value_or(1), 1e6);
    if (scaling.kind == program::RopeScaling::Kind::dynamic_ntk)
      longest = std::max(longest, int64_t(double(rope.max_position) * factor));
    if (scaling.kind == program::RopeScaling::Kind::yarn)
      longest = std::max(longest, int64_t(double(scaling.original_max_position) * factor));
  }
  return longest;
}

// The rank of a weight that is stored as two factors; nullopt when it is stored plainly.
std::optional<int64_t> stored_rank(const Checkpoint& checkpoint, const program::WeightInfo& info) {
  if (checkpoint.find(info.name)) return std::nullopt;
  const std::string module = info.name.substr(0, info.name.rfind('.'));
  const Tensor* v = checkpoint.find(module + std::string(program::kLowRankV));
  if (!v) return std::nullopt;  // the binder says that the weight is missing
  using codecs::CodecId;
  for (const Tensor* factor : {v, checkpoint.find(module + std::string(program::kLowRankU))})
    if (factor && factor->codec != CodecId::f32 && factor->codec != CodecId::f16 &&
        factor->codec != CodecId::bf16)
      fail(ErrorKind::unsupported, "{}: tensor {} is stored as {}; factors are f32, f16 or bf16",
           checkpoint.path.string(), factor->name, codecs::codec(factor->codec).name);
  const int64_t rows = info.stored_rows != 0 ? info.stored_rows : info.shape[0], cols = info.shape.back();
  if (v->shape.size() != 2 || v->shape[1] != cols)
    fail(ErrorKind::invalid_file,
         "{}: tensor {} has shape [{}]; it "
         "must have two dimensions and {} columns, as {} has",
         checkpoint.path.string(), v->name, fmt::join(v->shape, ", "), cols, info.name);
  if (v->shape[0] < 1 || v->shape[0] > std::min(rows, cols))
    fail(ErrorKind::invalid_file,
         "{}: tensor {} has rank {}; it must lie between 1 and {} for a weight of {} by {}",
         checkpoint.path.string(), v->name, v->shape[0], std::min(rows, cols), rows, cols);
  return v->shape[0];
}

// How many ids and positions the program's tables have rows for.
struct EmbeddingTables {
  int64_t ids = 0, positions = INT64_MAX;
};
EmbeddingTables embedding_tables(const program::Program& program) {
  EmbeddingTables tables;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::Embed>(&instruction.operation)) {
      const int64_t rows = program.info(op->table).shape[0] - op->offset;
      if (op->ids == program.ids) tables.ids = rows;
      if (op->ids == program.positions) tables.positions = std::min(tables.positions, rows);
    }
  return tables;
}

}  // namespace

bool Source::has(std::string_view tensor) const { return find_tensor(checkpoint, tensor) != nullptr; }

Model open_model(const std::filesystem::path& path) { return open_model(formats::open_checkpoint(path)); }

Model open_model(Checkpoint checkpoint) {
  Model model;
  model.checkpoint = std::move(checkpoint);
  const Checkpoint& files = model.checkpoint;
  const bool gguf = files.format == formats::Format::gguf;
  model.file = files.format == formats::Format::safetensors && std::filesystem::is_directory(files.path)
                   ? (files.path / "config.json").string()
                   : files.path.string();
  model.config = gguf ? config_of_gguf(files) : text_config(*files.config, model.file);
  auto quantization = formats::read_quantization(model.config, model.file);
  const auto architectures = formats::optional_strings(model.config, "architectures", model.file);
  if (!architectures || architectures->empty())
    fail(ErrorKind::invalid_file,
         "{}: the field architectures is missing or empty; it must name the model class", model.file);
  model.architecture = architectures->front();
  const Family& family = find_family(model.architecture, model.file);
  model.family = family.name;

  Source source{model.config, model.file, files, gguf, program::RopePairing::half, {}, 0};
  if (formats::optional_string(model.config, "cairn_rope_pairing", model.file) == "adjacent" ||
      (gguf && files.config->value("general.architecture", "") == "llama"))
    source.pairing = program::RopePairing::adjacent;
  if (gguf) {
    source.rope_divisors = read_divisors(files);
    source.norm_offset_stored = 1;
  }
  model.program = family.build(source);

  if (quantization && quantization->weights == formats::QuantizationConfig::Weights::factors) {
    model.program = program::split_low_rank(
        model.program, [&](const program::WeightInfo& info) { return stored_rank(files, info); });
    quantization.reset();  // every tensor is plain
  }
  const Df11Groups groups(files, model.config, model.file);
  const Binder binder(files, model.family, quantization, groups);
  model.weights.reserve(model.program.weights.size());
  for (auto& info : model.program.weights) {
    model.weights.push_back(binder.bind(info));
    for (const auto& piece : model.weights.back().pieces) info.bytes += piece.all_bytes();
    uint64_t elements = 1;
    for (const int64_t extent : info.shape) elements *= uint64_t(extent);
    model.parameters += elements;
  }
  if (quantization) {
    const auto roles = program::weight_roles(model.program);
    for (size_t i = 0; i < roles.size(); ++i)
      if (roles[i].table && model.weights[i].split)
        fail(ErrorKind::unsupported, "{}: tensor {} is a quantized table, whose rows cairn does not look up",
             files.path.string(), model.weights[i].split->name);
  }
  model.program = program::decode_groups(model.program, groups_of(model.weights));
  const auto tables = embedding_tables(model.program);
  model.vocabulary_size = model.encoder() ? tables.ids : model.program.width(model.program.logits);
  model.hidden_size = model.program.width(model.program.hidden);
  for (const auto& instruction : model.program.instructions)
    model.layers = std::max(model.layers, int64_t{instruction.layer} + 1);
  if (!gguf) model.pooling = read_pooling(files.path);
  const auto length = [&](const char* field) {
    return formats::optional_int(model.config, field, 1, int64_t{1} << 40, model.file);
  };
  const auto stated = length("max_position_embeddings").value_or(length("n_positions").value_or(2048));
  model.context_length = std::min(longest_context(model.program, stated), tables.positions);
  return model;
}

}  // namespace cairn::models
