#include "formats/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"
#include "formats/llama2c.h"
#include "formats/safetensors.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool begins_with(const fs::path& path, std::string_view magic) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

// PyTorch's torch.save: a zip archive, or a bare pickle of protocol 2 and up. Unpickling runs code.
bool is_pickle(const fs::path& path) {
  return begins_with(path, "PK\x03\x04") || begins_with(path, "\x80\x02") || begins_with(path, "\x80\x03") ||
         begins_with(path, "\x80\x04") || begins_with(path, "\x80\x05");
}

[[noreturn]] void refuse_pickle(const fs::path& path) {
  fail(ErrorKind::unsupported,
       "{} is a Python pickle, which runs code when it is read; cairn does not open it. Use the model's "
       "safetensors or "
       "GGUF files, or convert it",
       path.string());
}

// The config of a model folder. Its architecture decides what is built, so it must name one.
void read_config(const fs::path& folder, Checkpoint& checkpoint) {
  const auto path = folder / "config.json";
  if (!fs::exists(path))
    fail(ErrorKind::not_found, "{} is missing: a model folder holds config.json beside its *.safetensors",
         path.string());
  const std::string name = path.string();
  json config = read_json_file(path);
  if (!config.is_object()) fail(ErrorKind::invalid_file, "{}: must be a JSON object", name);
  const auto architectures = optional_strings(config, "architectures", name);
  const auto type = optional_string(config, "model_type", name);
  if ((!architectures || architectures->empty()) && !type)
    fail(ErrorKind::invalid_file,
         "{}: neither 'architectures' nor 'model_type' is there, so what to build is not known", name);
  const auto generation = folder / "generation_config.json";
  if (fs::exists(generation)) {
    json values = read_json_file(generation);
    if (!values.is_object()) fail(ErrorKind::invalid_file, "{}: must be a JSON object", generation.string());
    config["generation_config"] = std::move(values);
  }
  checkpoint.config = std::make_shared<const json>(std::move(config));
  checkpoint.config_name = name;
}

Checkpoint open_model_gguf(const fs::path& path) {
  Checkpoint checkpoint = open_gguf(path);
  if (require_string(*checkpoint.config, "general.architecture", checkpoint.config_name).empty())
    fail(ErrorKind::invalid_file, "{}: 'general.architecture' is empty", checkpoint.config_name);
  return checkpoint;
}

// The one GGUF model of a folder: a single file, or the first of the shards of one model.
Checkpoint open_gguf_folder(const fs::path& folder, const std::vector<fs::path>& files) {
  std::set<std::string> models;
  for (const auto& file : files) {
    const std::string name = file.filename().string();
    const size_t shard = name.find("-of-");
    models.insert(shard != std::string::npos && shard > 6 ? name.substr(0, shard - 6) : name);
  }
  if (models.size() > 1)
    fail(ErrorKind::invalid_argument, "{} holds {} GGUF models ({} and others); name one of the files",
         folder.string(), models.size(), *models.begin());
  return open_model_gguf(files.front());
}

Checkpoint open_folder(const fs::path& folder) {
  if (has_safetensors(folder)) {
    Checkpoint checkpoint;
    checkpoint.path = folder;
    read_config(folder, checkpoint);
    open_safetensors_folder(folder, checkpoint);
    return checkpoint;
  }
  std::vector<fs::path> gguf;
  std::optional<fs::path> pickle;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    if (extension == ".gguf") gguf.push_back(entry.path());
    if (extension == ".pt" || extension == ".pth" || extension == ".ckpt" ||
        (extension == ".bin" && entry.is_regular_file() && is_pickle(entry.path())))
      pickle = entry.path();
  }
  std::sort(gguf.begin(), gguf.end());
  if (!gguf.empty()) return open_gguf_folder(folder, gguf);
  if (pickle) refuse_pickle(*pickle);
  fail(ErrorKind::not_found, "{} holds no model: no *.safetensors and no .gguf file", folder.string());
}

Checkpoint open_file(const fs::path& path) {
  const auto extension = path.extension();
  if (extension == ".gguf" || begins_with(path, "GGUF")) return open_model_gguf(path);
  if (extension == ".safetensors") {
    Checkpoint checkpoint;
    checkpoint.path = path;
    read_config(path.parent_path(), checkpoint);
    open_safetensors_file(path, checkpoint);
    return checkpoint;
  }
  if (extension == ".pt" || extension == ".pth" || extension == ".ckpt" || is_pickle(path))
    refuse_pickle(path);
  if (extension == ".bin") return open_llama2c(path);
  fail(ErrorKind::unsupported, "{} is no model file: neither GGUF, nor *.safetensors, nor a llama2.c .bin",
       path.string());
}

// How many changes of one character turn a into b (Levenshtein), for "did you mean".
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

int64_t Tensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

const char* to_string(Format format) {
  switch (format) {
    case Format::safetensors: return "safetensors";
    case Format::gguf: return "GGUF";
    case Format::llama2c: return "llama2.c";
  }
  return "unknown";
}

const Tensor* Checkpoint::find(std::string_view name) const {
  if (const auto found = index.find(name); found != index.end()) return &tensors[found->second];
  if (const auto found = unreadable.find(name); found != unreadable.end())
    fail(ErrorKind::unsupported, "{}: tensor '{}' is stored as {}, which cairn does not execute",
         path.string(), name, found->second);
  return nullptr;
}

const Tensor& Checkpoint::require(std::string_view name) const {
  if (const Tensor* tensor = find(name)) return *tensor;
  constexpr size_t kMostCompared = 20000;  // a suggestion is not worth more
  const std::string* nearest = nullptr;
  size_t distance = name.size() / 3 + 1;
  for (size_t i = 0; i < std::min(tensors.size(), kMostCompared); ++i)
    if (const size_t changes = edit_distance(name, tensors[i].name); changes < distance) {
      nearest = &tensors[i].name;
      distance = changes;
    }
  fail(ErrorKind::invalid_file, "{}: tensor '{}' is missing among its {}{}", path.string(), name,
       tensors.size(), nearest ? fmt::format(" (the nearest name is '{}')", shown(*nearest)) : "");
}

Checkpoint open_checkpoint(const std::filesystem::path& path) try {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) fail(ErrorKind::not_found, "{} does not exist", path.string());
  return fs::is_directory(status) ? open_folder(path) : open_file(path);
} catch (const fs::filesystem_error& error) {
  fail(ErrorKind::io, "{} cannot be read: {}", path.string(), error.what());
}

}  // namespace cairn::formats
