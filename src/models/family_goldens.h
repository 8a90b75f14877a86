// For tests only: the tiny models of testdata and what transformers answers (tools/make_family_goldens.py).
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cairn::models::testing {

struct GoldenRun {
  std::vector<int32_t> prompt, greedy;
  int64_t rope_length = 0;
  std::vector<int64_t> logit_positions;    // in prompt followed by greedy
  std::vector<std::vector<float>> logits;  // one row per position
};

struct Golden {
  std::string name;
  std::filesystem::path model;  // the folder, or the GGUF file with the same weights
  std::vector<GoldenRun> runs;
  double scale = 0;  // the largest |logit|
};

inline std::filesystem::path goldens_folder() {
  return std::filesystem::path(CAIRN_SOURCE_DIR) / "src/models/testdata";
}

inline Golden read_golden(const std::filesystem::path& model) {
  Golden golden{model.filename().string(), model, {}, 0};
  const auto folder = model.extension() == ".gguf" ? model.parent_path() / model.stem() : model;
  const auto json = nlohmann::json::parse(std::ifstream(folder / "golden.json"));
  std::ifstream rows(folder / "logits.f32", std::ios::binary | std::ios::ate);
  size_t count = 0;
  for (const auto& run : json["runs"]) count += run["logit_positions"].size();
  const size_t vocabulary = size_t(rows.tellg()) / sizeof(float) / count;
  rows.seekg(0);
  for (const auto& run : json["runs"]) {
    GoldenRun r{run["prompt"], run["greedy"], run["rope_length"], run["logit_positions"], {}};
    for (size_t i = 0; i < r.logit_positions.size(); ++i) {
      std::vector<float> row(vocabulary);
      rows.read(reinterpret_cast<char*>(row.data()), std::streamsize(vocabulary * sizeof(float)));
      for (float logit : row) golden.scale = std::max(golden.scale, double(std::abs(logit)));
      r.logits.push_back(std::move(row));
    }
    golden.runs.push_back(std::move(r));
  }
  return golden;
}

// Every folder with scores and every GGUF file.
inline std::vector<std::filesystem::path> golden_models() {
  std::vector<std::filesystem::path> models;
  for (const auto& entry : std::filesystem::directory_iterator(goldens_folder()))
    if (std::filesystem::exists(entry.path() / "logits.f32") || entry.path().extension() == ".gguf")
      models.push_back(entry.path());
  std::sort(models.begin(), models.end());
  return models;
}

// "qwen3-moe.gguf" as a test's name.
inline std::string test_name(const std::filesystem::path& model) {
  std::string name = model.filename().string();
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace cairn::models::testing
