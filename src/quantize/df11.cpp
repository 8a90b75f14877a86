#include "quantize/df11.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "codecs/df11.h"

namespace cairn::quantize {
namespace {

using codecs::CodecId;

// "model.layers.3.mlp.up_proj" is "mlp.up_proj" of the block "model.layers.3"; "lm_head" is a block itself.
struct Place {
  std::string block, module;
};
Place place_of(const std::string& module) {
  for (size_t begin = 0; begin < module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    if (end > begin && end < module.size() &&
        std::all_of(module.begin() + long(begin), module.begin() + long(end),
                    [](unsigned char c) { return std::isdigit(c); }))
      return {module.substr(0, end), module.substr(end + 1)};
    begin = end + 1;
  }
  return {module, {}};
}

struct Group {
  std::string block;
  std::vector<const Matrix*> matrices;
};
std::vector<Group> groups_of(std::span<const Matrix> matrices) {
  std::vector<Group> groups;
  for (const auto& matrix : matrices) {
    const auto block = place_of(matrix.module()).block;
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.block == block; });
    if (group == groups.end()) group = groups.insert(group, {block, {}});
    group->matrices.push_back(&matrix);
  }
  return groups;
}

std::string escaped(std::string_view name) {
  std::string pattern;
  for (const char c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') pattern += '\\';
    pattern += c;
  }
  return pattern;
}

OutputTensor tensor_of(std::string name, const char* dtype, std::vector<int64_t> shape,
                       std::span<const std::byte> bytes) {
  return {std::move(name), dtype, std::move(shape), {bytes.begin(), bytes.end()}};
}

class Df11 final : public Encoder {
 public:
  bool wants_head() const override { return true; }
  bool wants_tables() const override { return true; }

  std::string keeps(const Matrix& m) const override {
    if (m.stored->codec == CodecId::bf16) return {};
    return fmt::format("it is stored as {}; df11 stores bf16 only: convert it, or pick another codec",
                       codecs::codec(m.stored->codec).name);
  }

  void sees(std::span<const Matrix> matrices) override {
    for (const auto& group : groups_of(matrices)) {
      std::vector<std::string> modules;
      for (const auto* matrix : group.matrices) {
        const auto module = place_of(matrix->module()).module;
        if (!module.empty()) modules.push_back(module);
      }
      blocks_[modules].push_back(group.block);
    }
  }

  Encoded encode(std::span<const Matrix> matrices, ThreadPool&) override {
    Encoded result;
    for (const auto& group : groups_of(matrices)) {
      std::vector<std::span<const std::byte>> parts;
      for (const auto* matrix : group.matrices) parts.push_back(matrix->stored->bytes);
      auto encoded = codecs::encode_df11(parts);
      if (!encoded.encoded) {
        for (const auto* matrix : group.matrices)
          result.tensors.push_back(
              tensor_of(matrix->name, "BF16", {matrix->rows, matrix->cols}, matrix->stored->bytes));
        result.lines.push_back(fmt::format("{}: stored as it is; {}", group.block, encoded.why_not));
        continue;
      }
      auto& e = *encoded.encoded;
      const auto bytes = double(2 * e.sign_mantissa.size());
      result.lines.push_back(fmt::format("{}: {:.2f} % of bf16 (entropy bound {:.2f} %)", group.block,
                                         100 * double(e.bytes()) / bytes, 100 * (8 + e.entropy) / 16));
      const auto add = [&](const char* field, std::vector<std::byte>&& field_bytes, bool tables = false) {
        const auto size = int64_t(field_bytes.size());
        result.tensors.push_back({group.block + field, "U8",
                                  tables ? std::vector<int64_t>{size / 256, 256} : std::vector<int64_t>{size},
                                  std::move(field_bytes)});
      };
      add(".luts", std::move(e.luts), true);
      add(".gaps", std::move(e.gaps));
      add(".output_positions", std::move(e.output_positions));
      add(".encoded_exponent", std::move(e.encoded_exponent));
      add(".sign_mantissa", std::move(e.sign_mantissa));
      result.tensors.push_back(tensor_of(group.block + ".split_positions", "I64",
                                         {int64_t(e.split_positions.size())},
                                         std::as_bytes(std::span(e.split_positions))));
    }
    return result;
  }

  // Every weight again from the file, against the source.
  void verify(std::span<const formats::Tensor> shard, std::span<const Matrix> matrices,
              ThreadPool& pool) const override {
    const auto find = [&](const std::string& name) {
      for (const auto& tensor : shard)
        if (tensor.name == name) return tensor.bytes;
      return std::span<const std::byte>();
    };
    for (const auto& group : groups_of(matrices)) {
      if (find(group.block + ".luts").empty()) continue;  // stored as it is
      const codecs::Df11Group fields(
          {find(group.block + ".sign_mantissa"), find(group.block + ".encoded_exponent"),
           find(group.block + ".gaps"), find(group.block + ".output_positions"), find(group.block + ".luts")},
          "what was written: group " + group.block);
      pool.split(fields.blocks(), 1, [&](Range blocks) { fields.verify(blocks); });
      int64_t begin = 0;
      for (const auto* matrix : group.matrices) {
        pool.split(matrix->rows, 1, [&](Range rows) {
          std::vector<uint16_t> line(size_t(matrix->cols));
          for (int64_t row = rows.begin; row < rows.end; ++row) {
            const int64_t at = begin + row * matrix->cols;
            fields.decode(at, at + matrix->cols, line.data());
            if (std::memcmp(line.data(), matrix->stored->bytes.data() + row * matrix->cols * 2,
                            size_t(matrix->cols) * 2) != 0)
              fail(ErrorKind::io, "{}: row {} is not what was written (is the disk or the memory faulty?)",
                   matrix->name, row);
          }
        });
        begin += matrix->rows * matrix->cols;
      }
    }
  }

  std::string_view config_field() const override { return "dfloat11_config"; }
  // As published checkpoints have it: which modules make up the group of a block, by the block's name.
  nlohmann::ordered_json config() const override {
    nlohmann::ordered_json patterns = nlohmann::ordered_json::object();
    for (const auto& [modules, blocks] : blocks_) {
      if (modules.empty()) {
        for (const auto& block : blocks) patterns[escaped(block)] = nlohmann::ordered_json::array();
        continue;
      }
      // Layers that are alike: their numbers, or any number when all are.
      std::map<std::string, std::string> numbers;
      for (const auto& block : blocks) {
        const auto dot = block.rfind('.') + 1;  // 0: a number alone
        auto& some = numbers[block.substr(0, dot)];
        some += (some.empty() ? "" : "|") + block.substr(dot);
      }
      const bool all =
          std::count_if(blocks_.begin(), blocks_.end(), [](const auto& b) { return !b.first.empty(); }) == 1;
      for (const auto& [prefix, some] : numbers)
        patterns[escaped(prefix) + (all ? "\\d+" : "(?:" + some + ")")] = modules;
    }
    return {{"version", "0.5.0"},
            {"threads_per_block", {codecs::kDf11ChunksPerBlock}},
            {"bytes_per_thread", codecs::kDf11ChunkBytes},
            {"pattern_dict", std::move(patterns)}};
  }

 private:
  std::map<std::vector<std::string>, std::vector<std::string>> blocks_;  // by the modules that they hold
};

}  // namespace

const Method kDf11 = {"df11",
                      "bf16 without loss in about 11 bits (DFloat11), as its published checkpoints",
                      {},
                      [](const Settings&) -> std::unique_ptr<Encoder> { return std::make_unique<Df11>(); }};

}  // namespace cairn::quantize
