#include "formats/quantization_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json_fields.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

using nlohmann::json;
using Weights = QuantizationConfig::Weights;

constexpr int64_t kMostColumns = int64_t{1} << 31;
constexpr const char* kSupported =
    "cairn runs fp8 (e4m3 with one scale a tensor, a row or a block of weight_block_size), fbgemm_fp8, "
    "compressed-tensors float-quantized and pack-quantized with 4 bits, gptq with 2, 3, 4 or 8 bits, awq "
    "with 4 "
    "bits in gemm order, bcq with 1 to 4 bits, lowrank; else use the original model or a GGUF file of it";

class Reader {
 public:
  Reader(const json& fields, const std::string& file) : fields_(fields), file_(file) {
    result_.method = optional_string(fields, "quant_method", file).value_or("an unnamed method");
  }

  QuantizationConfig read() {
    if (result_.method == "fp8" || result_.method == "fbgemm_fp8") {
      read_fp8();
    } else if (result_.method == "gptq") {
      read_gptq();
    } else if (result_.method == "awq") {
      read_awq();
    } else if (result_.method == "bcq") {
      read_bcq();
    } else if (result_.method == "lowrank") {
      result_.weights = Weights::factors;
    } else if (result_.method == "compressed-tensors" || result_.method == "compressed_tensors") {
      read_compressed_tensors();
    } else {
      refuse("which cairn does not read");
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::unsupported, "{}: the weights are quantized with {} (quantization_config), {}\nhint: {}",
         file_, shown(result_.method), why, kSupported);
  }
  // The field, when it is there, must be one of these.
  void require_one_of(const json& object, const char* field,
                      std::initializer_list<std::string_view> allowed) {
    const auto value = optional_string(object, field, file_);
    if (value && std::find(allowed.begin(), allowed.end(), *value) == allowed.end())
      refuse(fmt::format("with {} '{}', which cairn does not read", field, shown(*value)));
  }
  int require_bits(const json& object, const char* field, std::initializer_list<int64_t> allowed,
                   int64_t otherwise = 4) {
    const auto bits = optional_int(object, field, 1, 64, file_).value_or(otherwise);
    if (std::find(allowed.begin(), allowed.end(), bits) == allowed.end())
      refuse(fmt::format("with {} {}, which cairn does not read", field, bits));
    return int(bits);
  }
  // -1 stands for whole rows.
  int64_t group_of(const json& object) {
    return std::max<int64_t>(0, optional_int(object, "group_size", -1, kMostColumns, file_).value_or(-1));
  }

  void read_block(const json& object, const char* field) {
    const auto block = optional_ints(object, field, 1, kMostColumns, file_);
    if (!block) return;
    if (block->size() != 2)
      fail(ErrorKind::invalid_file, "{}: quantization_config.{} has {} numbers; it must be rows and columns",
           file_, field, block->size());
    result_.block_rows = (*block)[0], result_.block_cols = (*block)[1];
  }

  void read_fp8() {
    result_.weights = Weights::e4m3;
    require_one_of(fields_, "fmt", {"e4m3", "float8_e4m3fn"});
    read_block(fields_, "weight_block_size");
  }
  void read_gptq() {
    result_.weights = Weights::gptq;
    result_.bits = require_bits(fields_, "bits", {2, 3, 4, 8});
    for (const char* field : {"checkpoint_format", "format"})
      require_one_of(fields_, field, {"gptq", "gptq_v2"});
    const auto format = optional_string(fields_, "checkpoint_format", file_);
    result_.zeros_less_one =
        (format ? *format : optional_string(fields_, "format", file_).value_or("gptq")) == "gptq";
    result_.groups = {group_of(fields_)};
  }
  void read_awq() {
    result_.weights = Weights::awq;
    for (const char* field : {"bits", "w_bit"}) require_bits(fields_, field, {4});
    require_one_of(fields_, "version", {"gemm", "GEMM"});
    if (!optional_bool(fields_, "zero_point", file_).value_or(true))
      refuse("without zero_point, which cairn does not read");
    result_.groups = {group_of(fields_)};
  }
  void read_bcq() {
    result_.weights = Weights::planes;
    if (!fields_.contains("bits"))
      fail(ErrorKind::invalid_file, "{}: quantization_config.bits is missing; bcq needs the number of planes",
           file_);
    result_.bits = require_bits(fields_, "bits", {1, 2, 3, 4});
    result_.groups = {group_of(fields_)};
  }
  void read_compressed_tensors() {
    const std::string format = require_string(fields_, "format", file_);
    if (format == "float-quantized" || format == "naive-quantized")
      result_.weights = Weights::e4m3;
    else if (format == "pack-quantized")
      result_.weights = Weights::packed;
    else
      refuse(fmt::format("in the format '{}', which cairn does not read", shown(format)));
    const json* groups = optional_object(fields_, "config_groups", file_);
    if (!groups || groups->empty())
      fail(ErrorKind::invalid_file, "{}: quantization_config.config_groups is missing or empty", file_);
    for (const auto& [name, group] : groups->items()) {
      const json* weights = optional_object(group, "weights", file_);
      if (!weights) continue;  // nothing but activations
      const bool e4m3 = result_.weights == Weights::e4m3;
      const int64_t bits = e4m3 ? 8 : 4;
      require_bits(*weights, "num_bits", {bits}, bits);
      if (e4m3)
        require_one_of(*weights, "type", {"float"});
      else
        require_one_of(*weights, "type", {"int"});
      if (e4m3)
        require_one_of(*weights, "strategy", {"tensor", "channel", "block"});
      else
        require_one_of(*weights, "strategy", {"group", "channel"});
      if (e4m3) read_block(*weights, "block_structure");
      result_.groups.push_back(group_of(*weights));
    }
  }

  const json& fields_;
  const std::string& file_;
  QuantizationConfig result_;
};

}  // namespace

std::optional<QuantizationConfig> read_quantization(const json& config, const std::string& file) {
  const auto* fields = optional_object(config, "quantization_config", file);
  if (!fields) return std::nullopt;
  return Reader(*fields, file).read();
}

}  // namespace cairn::formats
