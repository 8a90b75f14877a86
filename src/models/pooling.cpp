#include "models/pooling.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"

namespace cairn::models {
namespace {

constexpr std::string_view kFlags[] = {
    "pooling_mode_cls_token",           "pooling_mode_mean_tokens",
    "pooling_mode_max_tokens",          "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"};
constexpr std::string_view kModes[] = {"cls",          "mean",     "max", "mean_sqrt_len_tokens",
                                       "weightedmean", "lasttoken"};

Pooling pooling_of(std::string_view mode, const std::string& file) {
  if (mode == "cls") return Pooling::cls;
  if (mode == "mean" || mode == "mean_sqrt_len_tokens") return Pooling::mean;  // of the same direction
  if (mode == "lasttoken") return Pooling::last;
  fail(ErrorKind::unsupported, "{}: embeddings are pooled by '{}'; cairn has mean, cls and lasttoken", file,
       formats::shown(std::string(mode)));
}

}  // namespace

std::string_view to_string(Pooling pooling) {
  constexpr std::string_view kNames[] = {"mean", "cls", "last"};
  return kNames[size_t(pooling)];
}

Pooling read_pooling(const std::filesystem::path& model) {
  std::filesystem::path folder = "1_Pooling";
  if (const auto modules = model / "modules.json"; std::filesystem::exists(modules)) {
    const auto list = formats::read_json_file(modules);
    if (!list.is_array())
      fail(ErrorKind::invalid_file, "{}: it must be an array of modules", modules.string());
    for (const auto& module : list) {
      const auto type = formats::require_string(module, "type", modules.string());
      const auto kind = type.substr(type.rfind('.') + 1);
      if (kind != "Transformer" && kind != "Pooling" && kind != "Normalize")
        fail(ErrorKind::unsupported,
             "{}: the module '{}' is not supported; cairn computes Transformer, Pooling and Normalize",
             modules.string(), formats::shown(type));
    }
  }
  const auto path = model / folder / "config.json";
  if (!std::filesystem::exists(path)) return Pooling::mean;
  const auto json = formats::read_json_file(path);
  const auto file = path.string();
  if (const auto mode = formats::optional_string(json, "pooling_mode", file)) return pooling_of(*mode, file);
  std::string chosen;
  for (size_t i = 0; i < std::size(kFlags); ++i) {
    if (!formats::optional_bool(json, kFlags[i], file).value_or(false)) continue;
    if (!chosen.empty())
      fail(ErrorKind::unsupported, "{}: embeddings are pooled by '{}' and '{}'; cairn has one at a time",
           file, chosen, kModes[i]);
    chosen = kModes[i];
  }
  return chosen.empty() ? Pooling::mean : pooling_of(chosen, file);
}

void PooledRows::add(const float* rows, int64_t count, int64_t dim) {
  if (count == 0 || (pooling_ == Pooling::cls && !sum_.empty())) return;
  if (pooling_ == Pooling::last) sum_.clear(), rows += (count - 1) * dim;
  if (pooling_ != Pooling::mean) count = 1;
  sum_.resize(size_t(dim));
  for (int64_t r = 0; r < count; ++r)
    for (int64_t d = 0; d < dim; ++d) sum_[size_t(d)] += double(rows[r * dim + d]);
}

std::vector<float> PooledRows::result() const {
  double squares = 0;
  for (const double v : sum_) squares += v * v;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> embedding;
  for (const double v : sum_) embedding.push_back(float(v * scale));
  return embedding;
}

}  // namespace cairn::models
