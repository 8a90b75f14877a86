// What config.json's "quantization_config" says about weights that a quantiser published. Where each
// module's tensors lie and what shape they have is for who binds them (models/split_weights.h); a module
// that was left in bf16 has its plain tensor.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cairn::formats {

struct QuantizationConfig {
  std::string method;  // "gptq", as the file says it
  // packed: compressed-tensors "pack-quantized"; planes: LUT-GEMM's signs
  enum class Weights : uint8_t { e4m3, gptq, awq, packed, planes, factors };
  Weights weights = Weights::e4m3;
  // e4m3: rows and columns that share a scale, 0 by 0 when the scales' shape says it (one, or one a row).
  int64_t block_rows = 0, block_cols = 0;
  int bits = 4;  // of a code; planes, how many
  // Codes and planes: the sizes that groups of columns may have, 0: the whole row. More than one where parts
  // of the model differ.
  std::vector<int64_t> groups;
  bool zeros_less_one = false;  // GPTQ's first format stores zeros less one
};

// Nullopt when the config has no such field. Throws Error(unsupported) naming the variant and what is
// supported, Error(invalid_file) for fields of the wrong type.
std::optional<QuantizationConfig> read_quantization(const nlohmann::json& config, const std::string& file);

}  // namespace cairn::formats
