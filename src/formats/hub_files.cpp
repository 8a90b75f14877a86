#include "formats/hub_files.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::string_view kDefaultQuantization = "Q4_K_M";

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
  return result;
}

// "q8/m-00001-of-00003.gguf" and its sisters are one model, "q8/m".
struct GgufModel {
  std::string name;
  size_t shards = 1;  // by the names
  std::vector<std::string> files;
};

GgufModel gguf_model(std::string_view file) {
  constexpr std::string_view kShard = "-00000-of-00000";
  std::string_view stem = file.substr(0, file.size() - 5);
  size_t shards = 1;
  if (stem.size() > kShard.size()) {
    const std::string_view tail = stem.substr(stem.size() - kShard.size());
    const auto digits = [&](size_t at) {
      return std::all_of(tail.begin() + long(at), tail.begin() + long(at) + 5,
                         [](char c) { return c >= '0' && c <= '9'; });
    };
    if (tail[0] == '-' && digits(1) && tail.substr(6, 4) == "-of-" && digits(10)) {
      shards = size_t(std::stoul(std::string(tail.substr(10))));
      stem.remove_suffix(kShard.size());
    }
  }
  return {std::string(stem), shards, {}};
}

// Projectors and importance matrices share the extension but are no language models.
bool is_companion(std::string_view file) {
  const std::string name = upper(file.substr(file.rfind('/') + 1));
  return name.find("MMPROJ") != std::string::npos || name.find("IMATRIX") != std::string::npos;
}

std::vector<GgufModel> gguf_models(const std::vector<std::string>& names) {
  std::map<std::string, GgufModel> models;
  for (const auto& name : names) {
    if (!name.ends_with(".gguf") || is_companion(name)) continue;
    GgufModel model = gguf_model(name);
    auto& place = models.try_emplace(model.name, model).first->second;
    place.shards = std::max(place.shards, model.shards);
    place.files.push_back(name);
  }
  std::vector<GgufModel> result;
  for (auto& [name, model] : models) {
    std::sort(model.files.begin(), model.files.end());
    result.push_back(std::move(model));
  }
  return result;
}

// "Q4_K" must not find Q4_K_M: after it comes the end, or a character that ends a word.
bool has_tag(std::string_view model, std::string_view tag) {
  const std::string name = upper(model), wanted = upper(tag);
  for (size_t at = name.find(wanted); at != std::string::npos; at = name.find(wanted, at + 1)) {
    const char before = at == 0 ? '/' : name[at - 1];
    const char after = at + wanted.size() == name.size() ? '/' : name[at + wanted.size()];
    const auto ends_word = [](char c) { return c == '-' || c == '.' || c == '/'; };
    if ((ends_word(before) || before == '_') && ends_word(after)) return true;
  }
  return false;
}

std::string list(const std::vector<GgufModel>& models) {
  constexpr size_t kMostListed = 30;
  std::string text;
  for (size_t i = 0; i < std::min(models.size(), kMostListed); ++i)
    text += (i ? ", " : "") + shown(models[i].name + ".gguf");
  return text + (models.size() > kMostListed ? ", ..." : "");
}

HubSelection whole(const std::string& repo, const GgufModel& model) {
  if (model.files.size() != model.shards)
    fail(ErrorKind::not_found, "{}: {} should have {} shards, but {} are there", repo, shown(model.name),
         model.shards, model.files.size());
  return {model.files, model.files.front()};
}

HubSelection by_tag(const std::string& repo, const std::vector<GgufModel>& models, std::string_view tag) {
  std::vector<GgufModel> found;
  for (const auto& model : models)
    if (has_tag(model.name, tag)) found.push_back(model);
  if (found.size() == 1) return whole(repo, found.front());
  if (found.empty())
    fail(ErrorKind::not_found, "{} has no file '{}' and no such GGUF quantization; it has {}", repo,
         shown(tag), models.empty() ? "no GGUF files" : list(models));
  fail(ErrorKind::invalid_argument, "{}: '{}' fits {} files; name one of them: {}", repo, shown(tag),
       found.size(), list(found));
}

// As open_safetensors_folder reads them: the index decides, else model.safetensors, else the only one.
std::vector<std::string> weights(const std::string& repo, const std::vector<std::string>& names,
                                 const std::function<std::string(const std::string&)>& read) {
  if (contains(names, kIndexName)) {
    const auto index = parse_json(read(kIndexName), fmt::format("{} of {}", kIndexName, repo));
    const auto map = index.is_object() ? index.find("weight_map") : index.end();
    if (!index.is_object() || map == index.end() || !map->is_object())
      fail(ErrorKind::invalid_file, "{} of {}: the object 'weight_map' is missing", kIndexName, repo);
    std::set<std::string> shards;
    for (const auto& shard : *map) {
      if (!shard.is_string())
        fail(ErrorKind::invalid_file, "{} of {}: 'weight_map' gives no file name", kIndexName, repo);
      shards.insert(shard.get<std::string>());
    }
    for (const auto& shard : shards)
      if (!contains(names, shard))
        fail(ErrorKind::not_found, "{} of {} names the shard '{}', which is not there", kIndexName, repo,
             shown(shard));
    return {shards.begin(), shards.end()};
  }
  if (contains(names, "model.safetensors")) return {"model.safetensors"};
  std::vector<std::string> found;
  for (const auto& name : names)
    if (name.ends_with(".safetensors") && name.find('/') == std::string::npos) found.push_back(name);
  if (found.size() > 1)
    fail(ErrorKind::invalid_argument,
         "{} has {} *.safetensors files but no {} that says which belong together", repo, found.size(),
         kIndexName);
  return found;
}

// Configuration, tokenizer and templates: small files at the top.
bool is_side_file(std::string_view name) {
  if (name.starts_with("additional_chat_templates/") && name.ends_with(".jinja")) return true;
  if (name.find('/') != std::string_view::npos) return false;
  if (name.ends_with(".index.json")) return name == kIndexName;
  return name.ends_with(".json") || name.ends_with(".model") || name.ends_with(".tiktoken") ||
         name.ends_with(".jinja") || name == "merges.txt" || name == "vocab.txt";
}

HubSelection everything_needed(const std::string& repo, const std::vector<std::string>& names,
                               const std::function<std::string(const std::string&)>& read) {
  const auto tensors = weights(repo, names, read);
  if (!tensors.empty()) {
    HubSelection selection;
    for (const auto& name : names)
      if (is_side_file(name)) selection.files.push_back(name);
    selection.files.insert(selection.files.end(), tensors.begin(), tensors.end());
    return selection;
  }
  const auto models = gguf_models(names);
  if (models.size() == 1) return whole(repo, models.front());
  if (!models.empty()) {
    std::vector<GgufModel> usual;
    for (const auto& model : models)
      if (has_tag(model.name, kDefaultQuantization)) usual.push_back(model);
    if (usual.size() == 1) return whole(repo, usual.front());
    fail(ErrorKind::invalid_argument, "{} has {} GGUF models; name one, as in {}:Q8_0: {}", repo,
         models.size(), repo, list(models));
  }
  const bool pickles = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth");
  });
  fail(ErrorKind::not_found, "{} has neither *.safetensors nor GGUF files{}", repo,
       pickles ? "; Python pickles (.bin, .pt) run code when read and are not opened" : "");
}

}  // namespace

HubSelection select_hub_files(const std::string& repo, const std::vector<std::string>& names,
                              const std::string& wanted,
                              const std::function<std::string(const std::string&)>& read) {
  if (wanted.empty()) return everything_needed(repo, names, read);
  if (!contains(names, wanted)) return by_tag(repo, gguf_models(names), wanted);
  if (!wanted.ends_with(".gguf")) return {{wanted}, wanted};
  const std::string model_name = gguf_model(wanted).name;
  for (const auto& model : gguf_models(names))
    if (model.name == model_name) return {whole(repo, model).files, wanted};
  return {{wanted}, wanted};
}

}  // namespace cairn::formats
