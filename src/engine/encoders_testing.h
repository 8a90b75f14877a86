// What the tests of encoders share: hidden states of texts in one step, and models of shapes that the tiny
// goldens do not have.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "engine/engine.h"
#include "formats/safetensors_writer.h"
#include "formats/testing.h"

namespace cairn::engine::testing {

using Texts = std::vector<std::vector<int32_t>>;
using HiddenRows = std::vector<std::vector<float>>;  // one a text, [tokens, dim]

// Hidden states of texts that are computed in one step; in_halves: by enqueue() and finish().
inline HiddenRows hidden_of(Engine& engine, std::span<const std::vector<int32_t>> texts,
                            bool in_halves = false) {
  std::vector<std::unique_ptr<kv::Sequence>> sequences;
  std::vector<backends::SequenceStep> steps;
  for (const auto& text : texts) {
    sequences.push_back(std::make_unique<kv::Sequence>(engine.kv()));
    steps.push_back({sequences.back().get(), 0, text, int64_t(text.size()), int64_t(text.size())});
  }
  backends::StepResult result;
  if (in_halves)
    engine.enqueue(steps), result = engine.finish();
  else
    result = engine.step(steps);
  EXPECT_EQ(result.logits, nullptr);
  HiddenRows rows;
  if (!result.hidden) {
    ADD_FAILURE() << "a step of an encoder gave no hidden states";
    for (const auto& text : texts)
      rows.emplace_back(text.size() * size_t(engine.model().hidden_size), std::nanf(""));
    return rows;
  }
  const float* at = result.hidden;
  for (const auto& text : texts) {
    const size_t size = text.size() * size_t(engine.model().hidden_size);
    rows.emplace_back(at, at + size);
    at += size;
  }
  return rows;
}

inline constexpr int64_t kEncoderVocabulary = 96, kEncoderPositions = 640;

struct EncoderShape {
  const char* name;
  int64_t dim, heads, inner;
  int64_t local = 0;  // ModernBERT's window; 0: a BERT
  int64_t rank = 0;   // of its matrices' factors; 0: whole
};

// A folder with a model of random weights, in f32: activations of about unit variance, attention that is
// sharp enough to tell keys apart.
inline std::filesystem::path write_encoder(const formats::testing::TemporaryFolder& folder,
                                           const EncoderShape& shape) {
  struct Tensor {
    std::string name;
    std::vector<int64_t> extents;
    float mean, deviation;
  };
  std::vector<Tensor> tensors;
  const auto table = [&](const std::string& name, int64_t rows) {
    tensors.push_back({name, {rows, shape.dim}, 0, 0.7f});
  };
  const auto norm = [&](const std::string& name, bool bias) {
    tensors.push_back({name + ".weight", {shape.dim}, 1, 0.2f});
    if (bias) tensors.push_back({name + ".bias", {shape.dim}, 0, 0.2f});
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, float gain, bool bias) {
    if (shape.rank > 0) {
      tensors.push_back({name + ".lowrank_u", {out, shape.rank}, 0, gain / std::sqrt(float(shape.rank))});
      tensors.push_back({name + ".lowrank_v", {shape.rank, in}, 0, 1 / std::sqrt(float(in))});
    } else {
      tensors.push_back({name + ".weight", {out, in}, 0, gain / std::sqrt(float(in))});
    }
    if (bias) tensors.push_back({name + ".bias", {out}, 0, 0.3f});
  };
  constexpr float kSharp = 1.6f;
  nlohmann::json config{{"vocab_size", kEncoderVocabulary},
                        {"hidden_size", shape.dim},
                        {"num_attention_heads", shape.heads},
                        {"intermediate_size", shape.inner},
                        {"max_position_embeddings", kEncoderPositions}};
  if (shape.local > 0) {
    config["architectures"] = {"ModernBertModel"};
    config["num_hidden_layers"] = 4, config["local_attention"] = shape.local;
    table("embeddings.tok_embeddings.weight", kEncoderVocabulary);
    norm("embeddings.norm", false);
    for (int layer = 0; layer < 4; ++layer) {
      const auto prefix = "layers." + std::to_string(layer) + ".";
      if (layer > 0) norm(prefix + "attn_norm", false);
      linear(prefix + "attn.Wqkv", 3 * shape.dim, shape.dim, kSharp, false);
      linear(prefix + "attn.Wo", shape.dim, shape.dim, 1, false);
      norm(prefix + "mlp_norm", false);
      linear(prefix + "mlp.Wi", 2 * shape.inner, shape.dim, 1, false);
      linear(prefix + "mlp.Wo", shape.dim, shape.inner, 1, false);
    }
    norm("final_norm", false);
  } else {
    config["architectures"] = {"BertModel"};
    config["num_hidden_layers"] = 2;
    table("embeddings.word_embeddings.weight", kEncoderVocabulary);
    table("embeddings.position_embeddings.weight", kEncoderPositions);
    table("embeddings.token_type_embeddings.weight", 2);
    norm("embeddings.LayerNorm", true);
    for (int layer = 0; layer < 2; ++layer) {
      const auto prefix = "encoder.layer." + std::to_string(layer) + ".";
      for (const char* name : {"query", "key"})
        linear(prefix + "attention.self." + name, shape.dim, shape.dim, kSharp, true);
      linear(prefix + "attention.self.value", shape.dim, shape.dim, 1, true);
      linear(prefix + "attention.output.dense", shape.dim, shape.dim, 1, true);
      norm(prefix + "attention.output.LayerNorm", true);
      linear(prefix + "intermediate.dense", shape.inner, shape.dim, 1, true);
      linear(prefix + "output.dense", shape.dim, shape.inner, 1, true);
      norm(prefix + "output.LayerNorm", true);
    }
  }
  if (shape.rank > 0) config["quantization_config"] = {{"quant_method", "lowrank"}};
  folder.write("config.json", config.dump());
  formats::SafetensorsWriter writer(folder.path() / "model.safetensors");
  for (const auto& t : tensors) writer.add_tensor(t.name, "F32", t.extents);
  std::mt19937 random(11);
  for (const auto& t : tensors) {
    std::normal_distribution<float> normal(t.mean, t.deviation);
    int64_t count = 1;
    for (const int64_t extent : t.extents) count *= extent;
    std::vector<float> values(size_t(count), 0.f);
    for (auto& v : values) v = normal(random);
    writer.write(std::as_bytes(std::span(values)));
  }
  writer.finish();
  return folder.path();
}

inline Texts random_texts(std::initializer_list<size_t> lengths) {
  std::mt19937 random(5);
  Texts texts;
  for (const size_t length : lengths) {
    texts.emplace_back();
    for (size_t i = 0; i < length; ++i)
      texts.back().push_back(int32_t(random() % uint32_t(kEncoderVocabulary)));
  }
  return texts;
}

}  // namespace cairn::engine::testing
