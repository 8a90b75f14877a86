#include "quantize/blocks.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace cairn::quantize {
namespace {

using codecs::CodecId;
using program::Value;
using program::Weight;

class Finder {
 public:
  Finder(const models::Model& model, bool head, bool tables) : model_(model), head_(head), tables_(tables) {
    blocks_.resize(size_t(model.layers) + 1);
    for (size_t b = 0; b < blocks_.size(); ++b) blocks_[b].layer = int32_t(b) - 1;
  }

  std::vector<Block> find() {
    const auto& files = model_.checkpoint;
    for (const auto& instruction : model_.program.instructions) {
      if (instruction.layer >= model_.layers)
        fail(ErrorKind::unsupported, "{}: instruction {} is of layer {}, but only {} layers have a cache",
             model_.file, instruction.name, instruction.layer, model_.layers);
      block_ = &blocks_[size_t(instruction.layer + 1)];
      for (const Weight w : program::uses(instruction.operation).weights)
        for (const size_t tensor : tensors_of(model_.program.info(w))) claim(tensor);
      std::visit([&](const auto& op) { products(op); }, instruction.operation);
    }
    block_ = &blocks_[0];
    for (size_t t = 0; t < files.tensors.size(); ++t) claim(t);  // what no instruction reads
    for (auto& block : blocks_) std::sort(block.tensors.begin(), block.tensors.end());
    return std::move(blocks_);
  }

 private:
  void claim(size_t tensor) {
    if (owned_.insert(tensor).second) block_->tensors.push_back(tensor);
  }

  // Stored tensors of a weight; those of single experts in order.
  std::vector<size_t> tensors_of(const program::WeightInfo& info) const {
    const auto& index = model_.checkpoint.index;
    if (const auto found = index.find(info.name); found != index.end()) return {found->second};
    std::vector<size_t> result;
    const auto star = info.name.find('*');
    for (int64_t e = 0; star != std::string::npos && e < info.shape[0]; ++e) {
      std::string name = info.name;
      const auto found = index.find(name.replace(star, 1, std::to_string(e)));
      if (found != index.end()) result.push_back(found->second);
    }
    return result;
  }

  template <typename Op>
  void products(const Op&) {}
  void products(const program::MatMul& op) {
    for (const auto& p : op.products) matrix(p.weight, op.x);
  }
  void products(const program::GatedMatMul& op) { matrix(op.gate, op.x), matrix(op.up, op.x); }
  void products(const program::ExpertMatMul& op) {
    for (const auto& p : op.products) matrix(p.weight, op.x);
  }
  void products(const program::Embed& op) {
    if (tables_) matrix(op.table, {});
  }
  void products(const program::Logits& op) {
    if (head_)
      matrix(op.weight, op.x);
    else
      keep(model_.program.info(op.weight).name, "it makes the scores");
  }

  void keep(const std::string& name, std::string why) {
    if (noted_.insert(name).second) block_->kept.emplace_back(name, std::move(why));
  }

  bool is_table(const std::string& name) const {
    for (const auto& instruction : model_.program.instructions)
      if (const auto* embed = std::get_if<program::Embed>(&instruction.operation))
        if (model_.program.info(embed->table).name == name) return true;
    return false;
  }

  void matrix(Weight w, Value x) {
    const auto& info = model_.program.info(w);
    const auto found = tensors_of(info);
    if (!tables_ && is_table(info.name)) return keep(info.name, "its rows are looked up");
    if (info.transposed) return keep(info.name, "it is stored transposed");
    if (info.shape.size() == 3 && found.size() == 1 && info.shape[0] != 1)
      return keep(info.name, "its experts lie in one tensor");
    for (size_t e = 0; e < found.size(); ++e) {
      const auto& tensor = model_.checkpoint.tensors[found[e]];
      if (!tensor.name.ends_with(".weight")) {
        keep(tensor.name, "its name does not end in .weight");
        continue;
      }
      if (tensor.codec != CodecId::f32 && tensor.codec != CodecId::f16 && tensor.codec != CodecId::bf16)
        fail(ErrorKind::unsupported, "{}: tensor {} is {}; only f32, f16 and bf16 can be quantized",
             model_.file, tensor.name, codecs::codec(tensor.codec).name);
      if (tensor.shape.size() != 2) {
        keep(tensor.name, "it has not two dimensions");
        continue;
      }
      if (!noted_.insert(tensor.name).second) continue;  // another row range of a fused tensor
      const bool expert = info.shape.size() == 3;
      const auto& files = model_.checkpoint.files;
      const auto* file = size_t(tensor.file) < files.size() ? &files[size_t(tensor.file)] : nullptr;
      block_->matrices.push_back(
          {{tensor.name, tensor.shape[0], tensor.shape[1], expert, &tensor, nullptr, file},
           x,
           expert ? int32_t(e) : -1});
    }
  }

  const models::Model& model_;
  const bool head_, tables_;
  std::vector<Block> blocks_;
  Block* block_ = nullptr;
  std::set<size_t> owned_;
  std::set<std::string> noted_;
};

}  // namespace

std::vector<Block> blocks_of(const models::Model& model, bool head, bool tables) {
  if (model.checkpoint.format == formats::Format::gguf)
    fail(ErrorKind::unsupported, "{} is a GGUF file; this method starts from a Hugging Face folder",
         model.file);
  if (model.config.contains("quantization_config") || model.config.contains("dfloat11_config"))
    fail(ErrorKind::unsupported, "{}: the weights are quantized already ({}); start from the original",
         model.file, model.config.contains("dfloat11_config") ? "dfloat11_config" : "quantization_config");
  return Finder(model, head, tables).find();
}

}  // namespace cairn::quantize
