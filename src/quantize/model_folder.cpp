#include "quantize/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "models/fingerprint.h"
#include "quantize/blocks.h"
#include "quantize/calibration.h"

namespace cairn::quantize {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kKey = "cairn_quantize";  // of a shard's metadata: which run made it
constexpr uintmax_t kLargestSideFile = uintmax_t{256} << 20;

bool holds_weights(const fs::path& file) {
  static constexpr std::string_view kEndings[] = {".safetensors", ".bin",  ".pt",   ".pth",     ".gguf",
                                                  ".h5",          ".onnx", ".ckpt", ".msgpack", ".npz"};
  return file.filename() != "tokenizer.bin" &&
         std::find(std::begin(kEndings), std::end(kEndings), file.extension()) != std::end(kEndings);
}

class Folder {
 public:
  Folder(const models::Model& model, Encoder& encoder, const FolderJob& job, ThreadPool& pool)
      : model_(model),
        files_(model.checkpoint),
        encoder_(encoder),
        job_(job),
        pool_(pool),
        partial_(job.out.string() + ".partial"),
        blocks_(blocks_of(model, encoder.wants_head(), encoder.wants_tables())) {}

  FolderReport write() {
    prepare();
    for (const auto& block : blocks_) {
      for (const size_t t : block.tensors) report_.all_before += total_bytes_of(t);
      for (const auto& kept : block.kept) report_.kept.push_back(kept);
    }
    fs::create_directories(partial_);
    if (encoder_.moments() != Moments::none)
      calibration_ = std::make_unique<Calibration>(model_, job_.samples, partial_, pool_);
    for (size_t b = 0; b < blocks_.size(); ++b) write_block(b);
    write_index();
    write_config();
    copy_side_files();
    for (const auto& [name, type] : files_.unreadable)
      report_.lines.push_back(fmt::format("{}: left out ({}, which no model computes with)", name, type));
    if (fs::exists(job_.out)) fs::remove_all(job_.out);
    fs::rename(partial_, job_.out);
    return std::move(report_);
  }

 private:
  uint64_t total_bytes_of(size_t tensor) const { return files_.tensors[tensor].bytes.size(); }

  void prepare() {
    if (fs::exists(job_.out)) {
      if (!job_.overwrite)
        fail(ErrorKind::invalid_argument, "{} exists already; say --overwrite to replace it",
             job_.out.string());
      if (!fs::is_directory(job_.out) || (!fs::is_empty(job_.out) && !fs::exists(job_.out / "config.json")))
        fail(ErrorKind::invalid_argument, "{} is no model folder; cairn does not replace it",
             job_.out.string());
      if (fs::equivalent(job_.out, source_folder()))
        fail(ErrorKind::invalid_argument, "{} would be read and written at once; give another name",
             job_.out.string());
    }
    bool any = false;
    std::string refused;
    for (auto& block : blocks_)
      std::erase_if(block.matrices, [&](const BlockMatrix& m) {
        auto why = encoder_.keeps(m.matrix);
        any = any || why.empty();
        if (why.empty()) return false;
        refused = fmt::format("; {}: {}", m.matrix.name, why);
        block.kept.emplace_back(m.matrix.name, std::move(why));
        return true;
      });
    if (!any)
      fail(ErrorKind::invalid_argument, "{}: no matrix can be quantized like this{}", model_.file, refused);
    for (const auto& block : blocks_) encoder_.sees(matrices_of(block));
    const auto config = encoder_.config().dump();
    auto name = models::fingerprint(model_) + " " + job_.settings + " " + config;
    if (encoder_.moments() != Moments::none)
      for (const auto& sample : job_.samples)
        name += fmt::format(" {:x}", content_hash(std::as_bytes(std::span(sample))));
    key_ = fmt::format("{:016x}", content_hash(std::as_bytes(std::span(name))));
  }

  fs::path source_folder() const {
    return fs::is_directory(files_.path) ? files_.path : fs::absolute(files_.path).parent_path();
  }

  std::string shard_name(size_t block) const {
    return fmt::format("model-{:05}-of-{:05}.safetensors", block + 1, blocks_.size());
  }

  // A shard of an earlier run with the same source and settings.
  bool finished(const fs::path& path) const {
    if (!fs::exists(path)) return false;
    try {
      const auto shard = formats::read_safetensors(path);
      const auto key = shard.metadata.find(kKey);
      return key != shard.metadata.end() && key->second == key_;
    } catch (const Error&) {
      return false;
    }
  }

  void progress(uint64_t bytes) {
    done_ += bytes;
    if (job_.on_progress) job_.on_progress(done_, report_.all_before);
  }

  void write_block(size_t b) {
    const Block& block = blocks_[b];
    const auto path = partial_ / shard_name(b);
    for (const auto& m : block.matrices) {
      ++report_.matrices;
      report_.weights += uint64_t(m.matrix.stored->elements());
      report_.before += m.matrix.stored->bytes.size();
    }
    uint64_t kept_bytes = 0;
    for (const size_t t : block.tensors)
      if (!is_matrix(block, t)) kept_bytes += total_bytes_of(t);
    if (finished(path)) {
      ++report_.resumed;
      for (const size_t t : block.tensors) progress(total_bytes_of(t));
      const auto shard = formats::read_safetensors(path);
      if (calibration_ && block.layer >= 0)
        calibration_->pass(with(block, shard.tensors, shard.unreadable), block.layer, {}, true);
    } else {
      const auto encoded = encode(block);
      try {
        write_shard(path, block, encoded);
      } catch (const Error& error) {
        throw Error(error.kind(),
                    fmt::format("{}\nhint: what is finished stays in {}; the same command goes on there",
                                error.what(), partial_.string()));
      }
    }
    // What is there is what counts, also for the sums.
    const auto shard = formats::read_safetensors(path);
    encoder_.verify(shard.tensors, matrices_of(block), pool_);
    for (const auto& tensor : shard.tensors) names_[tensor.name] = b;
    for (const auto& [name, type] : shard.unreadable) names_[name] = b;
    report_.all_after += bytes_of_data(shard);
    report_.after += bytes_of_data(shard) - kept_bytes;
  }

  static std::vector<Matrix> matrices_of(const Block& block) {
    std::vector<Matrix> matrices;
    for (const auto& m : block.matrices) matrices.push_back(m.matrix);
    return matrices;
  }

  static uint64_t bytes_of_data(const formats::Safetensors& shard) {
    const auto all = shard.file.bytes();
    uint64_t header = 0;
    std::memcpy(&header, all.data(), sizeof header);
    return all.size() - sizeof header - header;
  }

  static bool is_matrix(const Block& block, const formats::Tensor* tensor) {
    return std::any_of(block.matrices.begin(), block.matrices.end(),
                       [&](const BlockMatrix& m) { return m.matrix.stored == tensor; });
  }
  bool is_matrix(const Block& block, size_t tensor) const {
    return is_matrix(block, &files_.tensors[tensor]);
  }

  // The source with tensors of a block in place of those that they encode.
  models::Model with(const Block& block, std::span<const formats::Tensor> tensors,
                     const std::map<std::string, std::string, std::less<>>& unreadable = {}) const {
    formats::Checkpoint checkpoint;
    checkpoint.format = files_.format;
    checkpoint.path = files_.path;
    checkpoint.files = files_.files;
    checkpoint.owned = files_.owned;
    checkpoint.unreadable = unreadable;
    auto config = *files_.config;
    config["quantization_config"] = nlohmann::json::parse(encoder_.config().dump());
    checkpoint.config = std::make_shared<const nlohmann::json>(std::move(config));
    checkpoint.config_name = files_.config_name;
    const auto add = [&](const formats::Tensor& tensor) {
      if (checkpoint.index.emplace(tensor.name, checkpoint.tensors.size()).second)
        checkpoint.tensors.push_back(tensor);
    };
    std::set<std::string, std::less<>> encoded;  // modules
    for (formats::Tensor tensor : tensors) {
      encoded.insert(tensor.name.substr(0, tensor.name.rfind('.')));
      tensor.file = -1;  // of none of the source's files
      add(tensor);
    }
    for (const auto& [name, type] : unreadable) encoded.insert(name.substr(0, name.rfind('.')));
    for (const auto& tensor : files_.tensors)
      if (!is_matrix(block, &tensor) || !encoded.contains(tensor.name.substr(0, tensor.name.rfind('.'))))
        add(tensor);
    return models::open_model(std::move(checkpoint));
  }

  models::Model with(const Block& block, const Encoded& encoded) const {
    std::vector<formats::Tensor> tensors;
    std::map<std::string, std::string, std::less<>> unreadable;
    for (const auto& t : encoded.tensors) {
      if (const auto codec = formats::safetensors_codec(t.dtype))
        tensors.push_back({.name = t.name, .codec = *codec, .shape = t.shape, .bytes = t.bytes, .file = -1});
      else
        unreadable.emplace(t.name, t.dtype);
    }
    return with(block, tensors, unreadable);
  }

  // Matrices that are encoded together: of a block, or of one input after another.
  std::vector<std::vector<const BlockMatrix*>> steps_of(const Block& block) const {
    std::vector<std::vector<const BlockMatrix*>> steps;
    for (const auto& m : block.matrices) {
      if (steps.empty() || (encoder_.sequential() && calibration_ && steps.back().front()->x != m.x))
        steps.emplace_back();
      steps.back().push_back(&m);
    }
    return steps;
  }

  Encoded encode(const Block& block) {
    Encoded all;
    const bool calibrates = calibration_ && block.layer >= 0;
    for (const auto& step : steps_of(block)) {
      std::vector<Matrix> matrices;
      for (const auto* m : step) matrices.push_back(m->matrix);
      if (calibrates) collect(block, step, all, matrices);
      auto encoded = encoder_.encode(matrices, pool_);
      for (const auto& m : matrices) {
        drop(*m.stored);
        progress(m.stored->bytes.size());
      }
      for (auto& tensor : encoded.tensors) all.tensors.push_back(std::move(tensor));
      for (auto& line : encoded.lines) report_.lines.push_back(std::move(line));
    }
    if (calibrates) calibration_->pass(with(block, all), block.layer, {}, true);
    return all;
  }

  // Gives the matrices their inputs, as the model computes them with what is encoded already.
  void collect(const Block& block, std::span<const BlockMatrix* const> step, const Encoded& so_far,
               std::vector<Matrix>& matrices) {
    std::vector<Tap> taps;
    std::vector<std::shared_ptr<InputMoments>> inputs;
    for (size_t i = 0; i < step.size(); ++i) {
      const auto same = std::find_if(taps.begin(), taps.end(), [&](const Tap& tap) {
        return tap.x == step[i]->x && tap.expert == step[i]->expert;
      });
      if (same == taps.end()) {
        inputs.push_back(std::make_shared<InputMoments>());
        taps.push_back({step[i]->x, step[i]->expert, encoder_.moments(), inputs.back().get()});
        matrices[i].inputs = inputs.back();
      } else {
        matrices[i].inputs = inputs[size_t(same - taps.begin())];
      }
    }
    if (so_far.tensors.empty())
      calibration_->pass(model_, block.layer, taps, false);
    else
      calibration_->pass(with(block, so_far), block.layer, taps, false);
  }

  void drop(const formats::Tensor& tensor) const {
    if (size_t(tensor.file) < files_.files.size()) files_.files[size_t(tensor.file)].drop(tensor.bytes);
  }

  void write_shard(const fs::path& path, const Block& block, const Encoded& encoded) {
    formats::SafetensorsWriter writer(path);
    writer.add_metadata("format", "pt");
    writer.add_metadata(kKey, key_);
    for (const size_t t : block.tensors) {
      const auto& tensor = files_.tensors[t];
      if (is_matrix(block, t)) continue;
      const auto type = formats::safetensors_type(tensor.codec);
      if (type.empty())
        fail(ErrorKind::unsupported, "{}: tensor {} is {}, which safetensors files do not hold", model_.file,
             tensor.name, codecs::codec(tensor.codec).name);
      writer.add_tensor(tensor.name, type, tensor.shape);
    }
    for (const auto& tensor : encoded.tensors) writer.add_tensor(tensor.name, tensor.dtype, tensor.shape);
    for (const size_t t : block.tensors) {
      if (is_matrix(block, t)) continue;
      constexpr size_t kPiece = size_t{16} << 20;
      const auto& tensor = files_.tensors[t];
      for (size_t at = 0; at < tensor.bytes.size(); at += kPiece) {
        const auto piece = tensor.bytes.subspan(at, std::min(kPiece, tensor.bytes.size() - at));
        writer.write(piece);
        if (size_t(tensor.file) < files_.files.size()) files_.files[size_t(tensor.file)].drop(piece);
        progress(piece.size());
      }
    }
    for (const auto& tensor : encoded.tensors) writer.write(tensor.bytes);
    writer.finish();
  }

  static void write_text(const fs::path& path, const std::string& text) {
    write_file_atomically(path, std::as_bytes(std::span(text)));
  }

  void write_index() {
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    for (const auto& [name, block] : names_) map[name] = shard_name(block);
    const nlohmann::ordered_json index = {{"metadata", {{"total_size", report_.all_after}}},
                                          {"weight_map", std::move(map)}};
    write_text(partial_ / kIndexName, index.dump(2) + "\n");
  }

  // As in the source, but for the field that says how the weights lie.
  void write_config() {
    const auto path = source_folder() / "config.json";
    auto config = files_.format == formats::Format::safetensors && fs::exists(path)
                      ? nlohmann::ordered_json::parse(read_text_file(path))
                      : nlohmann::ordered_json(*files_.config);
    config[std::string(encoder_.config_field())] = encoder_.config();
    write_text(partial_ / "config.json", config.dump(2) + "\n");
  }

  void copy_side_files() {
    for (const auto& entry : fs::directory_iterator(source_folder())) {
      const auto name = entry.path().filename();
      if (!entry.is_regular_file() || name == "config.json" || name == kIndexName ||
          name.string().starts_with(".") || holds_weights(entry.path()))
        continue;
      // Beside a single file may lie anything.
      if (!fs::is_directory(files_.path) && name.string().find("token") == std::string::npos) continue;
      if (entry.file_size() > kLargestSideFile) {
        report_.lines.push_back(fmt::format("{}: not copied ({} bytes)", name.string(), entry.file_size()));
        continue;
      }
      std::error_code error;
      fs::copy_file(entry.path(), partial_ / name, fs::copy_options::overwrite_existing, error);
      if (error)
        fail(ErrorKind::io, "cannot copy {} to {}: {}", entry.path().string(), partial_.string(),
             error.message());
      fs::permissions(partial_ / name, fs::perms::owner_write, fs::perm_options::add, error);
    }
    // How an encoder's rows become an embedding (models/pooling.h).
    if (const auto pooling = source_folder() / "1_Pooling/config.json"; fs::exists(pooling)) {
      fs::create_directories(partial_ / "1_Pooling");
      fs::copy_file(pooling, partial_ / "1_Pooling/config.json", fs::copy_options::overwrite_existing);
    }
  }

  const models::Model& model_;
  const formats::Checkpoint& files_;
  Encoder& encoder_;
  const FolderJob& job_;
  ThreadPool& pool_;
  const fs::path partial_;
  std::vector<Block> blocks_;
  std::string key_;
  std::unique_ptr<Calibration> calibration_;  // null: the method has no use for it
  std::map<std::string, size_t> names_;       // of the output's tensors: in which shard
  uint64_t done_ = 0;
  FolderReport report_;
};

}  // namespace

FolderReport quantize_folder(const models::Model& model, Encoder& encoder, const FolderJob& job,
                             ThreadPool& pool) {
  return Folder(model, encoder, job, pool).write();
}

}  // namespace cairn::quantize
