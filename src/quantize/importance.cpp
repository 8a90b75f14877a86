#include "quantize/importance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "models/gguf_translation.h"
#include "quantize/calibration.h"

namespace cairn::quantize {
namespace {

// No column counts for nothing: its inputs may be 0 on this text only.
constexpr float kLeastShare = 1e-4f;  // of the mean

struct Wanted {
  std::string tensor;
  program::Value x;
  int64_t experts = 0;  // 0: none
};

std::vector<Wanted> wanted_of(const models::Model& model, int32_t layer, const std::string& architecture) {
  std::vector<Wanted> result;
  const auto add = [&](program::Weight w, program::Value x) {
    const auto& info = model.program.info(w);
    if (const auto name = models::gguf_tensor_name(info.name, architecture))
      result.push_back({*name, x, info.shape.size() == 3 ? info.shape[0] : 0});
  };
  for (const auto& instruction : model.program.instructions) {
    if (instruction.layer != layer) continue;
    if (const auto* op = std::get_if<program::MatMul>(&instruction.operation))
      for (const auto& p : op->products) add(p.weight, op->x);
    if (const auto* op = std::get_if<program::GatedMatMul>(&instruction.operation))
      add(op->gate, op->x), add(op->up, op->x);
    if (const auto* op = std::get_if<program::ExpertMatMul>(&instruction.operation))
      for (const auto& p : op->products) add(p.weight, op->x);
  }
  return result;
}

void append(const InputMoments& moments, std::vector<float>& to) {
  const double mean =
      std::accumulate(moments.squares.begin(), moments.squares.end(), 0.0) / double(moments.squares.size());
  for (const float value : moments.squares)
    to.push_back(mean > 0 ? std::max(value, kLeastShare * float(mean)) : 1.f);
}

}  // namespace

formats::Importance importance_of(const models::Model& model, std::vector<std::vector<int32_t>> samples,
                                  const std::filesystem::path& folder, ThreadPool& pool,
                                  const std::function<void(int64_t)>& on_rows) {
  const auto architecture = model.checkpoint.config->value("general.architecture", "");
  Calibration calibration(model, std::move(samples), folder, pool);
  formats::Importance result;
  for (int32_t layer = 0; layer < model.layers; ++layer) {
    const auto wanted = wanted_of(model, layer, architecture);
    std::map<std::pair<int32_t, int32_t>, InputMoments> found;
    for (const auto& w : wanted)
      for (int64_t e = 0; e < std::max<int64_t>(w.experts, 1); ++e)
        found[{w.x.id, w.experts > 0 ? int32_t(e) : -1}];
    std::vector<Tap> taps;
    for (auto& [key, moments] : found) taps.push_back({{key.first}, key.second, Moments::squares, &moments});
    calibration.pass(model, layer, taps, true, on_rows);
    for (const auto& [key, moments] : found)
      for (size_t c = 0; c < moments.squares.size(); ++c)
        if (!std::isfinite(moments.squares[c]))
          fail(ErrorKind::invalid_argument,
               "{}: layer {}: the calibration text gives an input a mean square of {}; the model computes no "
               "numbers on this text",
               model.file, layer, moments.squares[c]);
    for (const auto& w : wanted) {
      auto& values = result[w.tensor];
      if (!values.empty()) continue;  // another row range of a fused tensor
      for (int64_t e = 0; e < std::max<int64_t>(w.experts, 1); ++e)
        append(found.at({w.x.id, w.experts > 0 ? int32_t(e) : -1}), values);
    }
  }
  return result;
}

}  // namespace cairn::quantize
