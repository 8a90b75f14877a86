// A model family turns a config into a program; this header is its seam. A family is one file with one Family
// constant and one row in the table of families.cpp.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codecs/stored_weight.h"
#include "formats/checkpoint.h"
#include "models/pooling.h"
#include "program/builder.h"

namespace cairn::models {

// What a family reads. Both Hugging Face folders and GGUF files arrive as config.json keys and Hugging Face
// tensor names (gguf_translation.h), so a family is written once. Differences that a GGUF file brings are
// fields here.
struct Source {
  const nlohmann::json& config;
  std::string file;  // what errors name: ".../config.json" or ".../model.gguf"
  const formats::Checkpoint& checkpoint;
  bool gguf = false;
  program::RopePairing pairing = program::RopePairing::half;  // adjacent: llama2.c, GGUF's llama architecture
  // GGUF's rope_freqs.weight: what each frequency is divided by; replaces config's rope scaling. Empty: none.
  std::vector<float> rope_divisors;
  float norm_offset_stored = 0;  // 1: the file's norm weights already contain Gemma's + 1

  // True when the files hold the tensor of this Hugging Face name.
  bool has(std::string_view tensor) const;
};

struct Family {
  std::string_view name;
  std::span<const std::string_view> architectures;  // config.json "architectures"[0]
  program::Program (*build)(const Source&);
};

std::span<const Family> families();  // families.cpp

struct Model {
  std::string family, architecture, file;
  formats::Checkpoint checkpoint;
  nlohmann::json config;  // in Hugging Face keys
  program::Program program;
  std::vector<codecs::StoredWeight> weights;  // like program.weights
  int64_t vocabulary_size = 0, context_length = 0, layers = 0, hidden_size = 0;
  uint64_t parameters = 0;
  Pooling pooling = Pooling::mean;

  // It reads texts and writes none: bidirectional attention, no scores, no cache that outlives a step.
  bool encoder() const { return !program.logits; }
};

// Opens the files, finds the family, builds the program and binds every weight. Throws Error naming file,
// field or tensor, both values and what to do. Nothing is read but headers and 1-D facts.
Model open_model(const std::filesystem::path&);
Model open_model(formats::Checkpoint);

}  // namespace cairn::models
