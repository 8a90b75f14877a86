// For tests only: the tiny encoders of testdata and what transformers computes
// (tools/make_encoder_goldens.py).
#pragma once

#include <string>
#include <vector>

#include "models/family_goldens.h"

namespace cairn::models::testing {

struct EncoderGolden {
  std::filesystem::path model;
  std::vector<std::string> sentences;          // the last texts are theirs, where there is a tokenizer
  std::vector<std::vector<int32_t>> texts;     // token ids
  std::vector<std::vector<float>> hidden;      // one a text, [tokens, dim]
  std::vector<std::vector<float>> embeddings;  // one a text
  double scale = 0;                            // the largest |hidden|
};

inline std::vector<float> read_floats(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::vector<float> values(size_t(file.tellg()) / sizeof(float));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(values.data()), std::streamsize(values.size() * sizeof(float)));
  return values;
}

inline EncoderGolden read_encoder_golden(const std::filesystem::path& folder) {
  EncoderGolden golden;
  golden.model = folder;
  const auto json = nlohmann::json::parse(std::ifstream(folder / "golden.json"));
  golden.sentences = json["sentences"].get<std::vector<std::string>>();
  golden.texts = json["texts"].get<std::vector<std::vector<int32_t>>>();
  const auto hidden = read_floats(folder / "hidden.f32"), embeddings = read_floats(folder / "embeddings.f32");
  const size_t dim = embeddings.size() / golden.texts.size();
  auto row = hidden.begin(), embedding = embeddings.begin();
  for (const auto& text : golden.texts) {
    const auto size = std::ptrdiff_t(text.size() * dim);
    golden.hidden.emplace_back(row, row + size), row += size;
    golden.embeddings.emplace_back(embedding, embedding + std::ptrdiff_t(dim));
    embedding += std::ptrdiff_t(dim);
  }
  for (const float v : hidden) golden.scale = std::max(golden.scale, double(std::abs(v)));
  return golden;
}

inline std::vector<std::filesystem::path> golden_encoders() {
  std::vector<std::filesystem::path> models;
  for (const auto& entry : std::filesystem::directory_iterator(goldens_folder() / "encoders"))
    models.push_back(entry.path());
  std::sort(models.begin(), models.end());
  return models;
}

// The largest difference; infinite when one is not a number.
inline double largest_difference(const float* a, const std::vector<float>& b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    if (!(d <= worst)) worst = std::isnan(d) ? HUGE_VAL : d;
  }
  return worst;
}

}  // namespace cairn::models::testing
