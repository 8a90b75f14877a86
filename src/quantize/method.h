// The seam of `cairn quantize` for Hugging Face folders: a method turns the matrices of one transformer block
// after another into tensors of the output folder. A method is one file with one Method constant and one row
// in the table of methods.cpp; docs/add_a_codec.md walks through one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "quantize/settings.h"
#include "quantize/symmetric.h"

namespace cairn::quantize {

// What a method wants to know of the rows that a matrix multiplies (y = x W^T), from calibration text.
enum class Moments : uint8_t {
  none,      // no calibration
  squares,   // mean of x_i^2, [cols]: what an importance matrix is
  products,  // mean of x_i x_j: GPTQ's Hessian over 2, what activation-whitening needs
};

struct InputMoments {
  int64_t rows = 0;  // that were seen: for an expert, those that chose it
  int64_t cols = 0;
  // One of them, as was asked; zeros when no row was seen.
  std::vector<float> squares;  // [cols]
  SymmetricMatrix products;
};

// A stored matrix [rows, cols] that products of the block multiply with; of a mixture, one expert's.
struct Matrix {
  std::string name;  // of the stored tensor: "model.layers.0.mlp.up_proj.weight"
  int64_t rows = 0, cols = 0;
  bool expert = false;
  const formats::Tensor* stored = nullptr;  // its bytes: f32, f16 or bf16, row after row
  // Null without calibration. Matrices with the same inputs (q, k and v) share it, and one call of encode()
  // gets all of them, so it may be overwritten, and emptied when the last has been encoded.
  std::shared_ptr<InputMoments> inputs = {};
  const MappedFile* file = nullptr;  // that holds the stored bytes; null: memory

  std::string module() const;         // the name without ".weight"
  std::vector<float> values() const;  // decoded, [rows, cols]; the file's pages may leave afterwards
};

struct OutputTensor {
  std::string name, dtype;  // dtype as safetensors spells it: "I32"
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

struct Encoded {
  std::vector<OutputTensor> tensors;
  std::vector<std::string> lines;  // for the report, where something deserves a word
};

// One run of a method. Calls come in the order of the model's blocks, from one thread; after a kill, only
// for what was not finished.
class Encoder {
 public:
  virtual ~Encoder() = default;
  virtual Moments moments() const { return Moments::none; }
  // The matrices of a block one input after another, and each input computed with what was encoded before;
  // else all inputs of a block are collected first.
  virtual bool sequential() const { return false; }
  // The matrix of the scores (lm_head), where it is no table at once: a block of its own, without inputs.
  virtual bool wants_head() const { return false; }
  // Tables whose rows are looked up (embeddings), also where they make the scores too.
  virtual bool wants_tables() const { return false; }
  // Empty, or why this matrix stays as it is: "100 columns are no multiple of the group of 128".
  virtual std::string keeps(const Matrix&) const = 0;
  // What encode() will be given of a block, all blocks before the first config() and encode().
  virtual void sees(std::span<const Matrix>) {}
  // All matrices of a block (of a step, when sequential) but those that keeps() named, in the program's
  // order. Throws Error naming the matrix for values that are not finite.
  virtual Encoded encode(std::span<const Matrix>, ThreadPool&) = 0;
  // The tensors of a block's file as they were read back, for methods that promise what can be checked.
  virtual void verify(std::span<const formats::Tensor>, std::span<const Matrix>, ThreadPool&) const {}
  // config.json's "quantization_config" or other field, from the settings and what the method saw.
  virtual nlohmann::ordered_json config() const = 0;
  virtual std::string_view config_field() const { return "quantization_config"; }
};

struct Method {
  std::string_view name;     // "gptq", what --codec says
  std::string_view summary;  // for --help
  std::span<const Setting> settings;
  std::unique_ptr<Encoder> (*make)(const Settings&);  // throws Error(invalid_argument) naming the setting
};

std::span<const Method* const> methods();
const Method* find_method(std::string_view name);  // null when unknown

}  // namespace cairn::quantize
