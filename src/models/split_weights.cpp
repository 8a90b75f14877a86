#include "models/split_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::models {
namespace {

using codecs::CodecId;
using codecs::SplitCodes;
using codecs::SplitPart;
using formats::Checkpoint;
using formats::QuantizationConfig;
using formats::Tensor;
using Shape = std::vector<int64_t>;

std::string text(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

class Finder {
 public:
  Finder(const Checkpoint& checkpoint, const QuantizationConfig& config, std::string module,
         int64_t first_row, int64_t stored_rows, int64_t cols)
      : checkpoint_(checkpoint),
        config_(config),
        module_(std::move(module)),
        rows_(stored_rows),
        cols_(cols) {
    found_.layout.first_row = first_row;
    found_.layout.stored_rows = stored_rows;
  }

  std::optional<SplitWeight> find() {
    switch (config_.weights) {
      case QuantizationConfig::Weights::e4m3: {
        const Tensor* codes = find(".weight");
        if (!codes || codes->codec != CodecId::e4m3) return std::nullopt;
        bind_e4m3(*codes);
        break;
      }
      case QuantizationConfig::Weights::gptq:
      case QuantizationConfig::Weights::awq: {
        const Tensor* codes = find(".qweight");
        if (!codes) return std::nullopt;
        bind_columns_of_words(*codes);
        break;
      }
      case QuantizationConfig::Weights::planes: {
        const Tensor* codes = find(".bW");
        if (!codes) return std::nullopt;
        bind_planes(*codes);
        break;
      }
      case QuantizationConfig::Weights::factors: return std::nullopt;  // program/low_rank.h
      case QuantizationConfig::Weights::packed: {
        const Tensor* codes = find(".weight_packed");
        if (!codes) return std::nullopt;
        bind_packed(*codes);
        break;
      }
    }
    found_.codec = codecs::codec_of_split(found_.layout, cols_, part(SplitPart::groups).data != nullptr);
    return std::move(found_);
  }

 private:
  const Tensor* find(const char* suffix) const { return checkpoint_.find(module_ + suffix); }
  const Tensor& require(const char* suffix) const {
    if (const Tensor* tensor = find(suffix)) return *tensor;
    fail(ErrorKind::invalid_file, "{}: tensor {}{} is missing; weights quantized with {} have it beside {}",
         checkpoint_.path.string(), module_, suffix, formats::shown(config_.method), found_.layout.name);
  }
  codecs::StoredPart& part(SplitPart which) { return found_.piece.beside[size_t(which)]; }
  static codecs::StoredPart part_of(const Tensor& tensor) {
    return {tensor.bytes.data(), tensor.bytes.size(), tensor.file};
  }

  void require_codec(const Tensor& tensor, std::initializer_list<CodecId> allowed) const {
    if (std::find(allowed.begin(), allowed.end(), tensor.codec) != allowed.end()) return;
    std::string names;
    for (const auto id : allowed)
      names += fmt::format("{}{}", names.empty() ? "" : " or ", codecs::codec(id).name);
    fail(ErrorKind::invalid_file, "{}: tensor {} is stored as {}; it must be {}", checkpoint_.path.string(),
         tensor.name, codecs::codec(tensor.codec).name, names);
  }
  void require_shape(const Tensor& tensor, const Shape& expected) const {
    if (tensor.shape != expected)
      fail(ErrorKind::invalid_file, "{}: tensor {} has shape {}; a weight of {} needs {}",
           checkpoint_.path.string(), tensor.name, text(tensor.shape), text({rows_, cols_}), text(expected));
  }
  // Codes fill words of 32 bits: 8 of them one, or 32 of 3 bits three.
  void require_words(const char* what, int64_t count) const {
    const int bits = config_.bits;
    const int64_t least = bits == 3 ? 32 : 32 / bits;
    if (count % least != 0)
      fail(ErrorKind::unsupported, "{}: tensor {} has {} {}; {}-bit codes need a multiple of {}",
           checkpoint_.path.string(), found_.layout.name, count, what, bits, least);
  }
  void set_codes(const Tensor& tensor, SplitCodes codes) {
    found_.layout.name = tensor.name;
    found_.layout.codes = codes;
    found_.piece.data = tensor.bytes.data();
    found_.piece.bytes = tensor.bytes.size();
    found_.piece.file = tensor.file;
  }
  void set_scales(const Tensor& tensor) {
    require_codec(tensor, {CodecId::f32, CodecId::f16, CodecId::bf16});
    found_.layout.scale_codec = tensor.codec;
    part(SplitPart::scales) = part_of(tensor);
  }
  // How many columns share a scale when there are `groups` scales.
  void set_groups(const Tensor& scales, int64_t groups) {
    for (const int64_t size : config_.groups) {
      const int64_t group = size == 0 ? cols_ : size;
      if (ceil_div(cols_, group) != groups) continue;
      found_.layout.group = group, found_.layout.groups = groups;
      return;
    }
    fail(ErrorKind::invalid_file,
         "{}: tensor {} has {} scales for {} columns; quantization_config has group_size {}",
         checkpoint_.path.string(), scales.name, groups, cols_, fmt::join(config_.groups, ", "));
  }

  // The group of every column, where columns were quantised in another order than they lie.
  void set_column_groups(const char* suffix) {
    const Tensor* tensor = find(suffix);
    if (!tensor) return;
    require_codec(*tensor, {CodecId::i32});
    require_shape(*tensor, {cols_});
    bool in_order = true, all_zero = true;  // some quantisers leave zeros where there is no order
    for (int64_t col = 0; col < cols_; ++col) {
      int32_t group;
      std::memcpy(&group, tensor->bytes.data() + col * 4, 4);
      if (group < 0 || group >= found_.layout.groups)
        fail(ErrorKind::invalid_file, "{}: tensor {} puts column {} in group {}; there are {}",
             checkpoint_.path.string(), tensor->name, col, group, found_.layout.groups);
      in_order = in_order && group == col / found_.layout.group;
      all_zero = all_zero && group == 0;
    }
    if (!in_order && !all_zero) part(SplitPart::groups) = part_of(*tensor);
  }

  void bind_e4m3(const Tensor& codes) {
    set_codes(codes, SplitCodes::e4m3_rows);
    require_shape(codes, {rows_, cols_});
    const Tensor* inverse = find(".weight_scale_inv");
    const Tensor& scales = inverse ? *inverse : require(".weight_scale");
    set_scales(scales);
    auto& layout = found_.layout;
    const bool blocks = config_.block_rows > 0;
    const Shape of_blocks =
        blocks ? Shape{ceil_div(rows_, config_.block_rows), ceil_div(cols_, config_.block_cols)} : Shape{};
    layout.group = cols_, layout.groups = 1, layout.row_stride = 1, layout.group_stride = 0;
    if (blocks && scales.shape == of_blocks) {
      layout.rows_per_scale = config_.block_rows;
      layout.group = config_.block_cols, layout.groups = of_blocks[1];
      layout.row_stride = of_blocks[1], layout.group_stride = 1;
    } else if (scales.elements() == 1) {
      layout.rows_per_scale = rows_;
    } else if (scales.shape != Shape{rows_} && scales.shape != Shape{rows_, 1}) {
      fail(ErrorKind::invalid_file, "{}: tensor {} has shape {}; the scales of {} may be [1], {}{}",
           checkpoint_.path.string(), scales.name, text(scales.shape), text({rows_, cols_}), text({rows_, 1}),
           blocks ? fmt::format(" or {} by weight_block_size {}", text(of_blocks),
                                text({config_.block_rows, config_.block_cols}))
                  : "");
    }
  }

  void bind_columns_of_words(const Tensor& codes) {
    const bool gptq = config_.weights == QuantizationConfig::Weights::gptq;
    auto& layout = found_.layout;
    set_codes(codes, gptq ? SplitCodes::ints_by_cols : SplitCodes::int4_by_rows);
    layout.bits = config_.bits;
    require_words("columns", cols_), require_words("rows", rows_);
    require_codec(codes, {CodecId::i32});
    require_shape(codes, gptq ? Shape{cols_ / 32 * layout.bits + cols_ % 32 * layout.bits / 32, rows_}
                              : Shape{cols_, rows_ / 8});
    const Tensor& scales = require(".scales");
    set_scales(scales);
    if (scales.shape.size() != 2 || scales.shape[1] != rows_ || scales.shape[0] < 1)
      require_shape(scales, {ceil_div(cols_, group_or_all()), rows_});
    set_groups(scales, scales.shape[0]);
    layout.row_stride = 1, layout.group_stride = rows_;
    const Tensor& zeros = require(".qzeros");
    require_codec(zeros, {CodecId::i32});
    layout.zero_rows = rows_ / 32 * layout.bits + rows_ % 32 * layout.bits / 32;
    require_shape(zeros, {layout.groups, layout.zero_rows});
    part(SplitPart::zeros) = part_of(zeros);
    layout.zero_offset = config_.zeros_less_one ? 1 : 0;
    if (gptq) set_column_groups(".g_idx");
  }

  void bind_packed(const Tensor& codes) {
    auto& layout = found_.layout;
    set_codes(codes, SplitCodes::int4_rows);
    require_words("columns", cols_);
    require_codec(codes, {CodecId::i32});
    require_shape(codes, {rows_, cols_ / 8});
    const Tensor& scales = require(".weight_scale");
    set_scales(scales);
    const bool per_row = scales.shape == Shape{rows_};
    if (!per_row && (scales.shape.size() != 2 || scales.shape[0] != rows_ || scales.shape[1] < 1))
      require_shape(scales, {rows_, ceil_div(cols_, group_or_all())});
    set_groups(scales, per_row ? 1 : scales.shape[1]);
    layout.row_stride = layout.groups, layout.group_stride = 1;
    if (const Tensor* zeros = find(".weight_zero_point")) {
      require_codec(*zeros, {CodecId::i32});
      require_shape(*zeros, {ceil_div(rows_, 8), layout.groups});
      part(SplitPart::zeros) = part_of(*zeros);
      layout.zero_rows = ceil_div(rows_, 8);
    }
    set_column_groups(".weight_g_idx");
  }

  void bind_planes(const Tensor& codes) {
    auto& layout = found_.layout;
    set_codes(codes, SplitCodes::planes_by_cols);
    layout.bits = config_.bits;
    const int64_t planes = config_.bits;
    if (cols_ % 32 != 0)
      fail(ErrorKind::unsupported, "{}: tensor {} has {} columns; planes of signs need a multiple of 32",
           checkpoint_.path.string(), codes.name, cols_);
    require_codec(codes, {CodecId::i32});
    require_shape(codes, {cols_ / 32, planes, rows_});
    const Tensor& alphas = require(".alpha");
    require_codec(alphas, {CodecId::f16});
    layout.scale_codec = alphas.codec;
    part(SplitPart::scales) = part_of(alphas);
    if (alphas.shape.size() != 3 || alphas.shape[0] < 1 || alphas.shape[1] != planes ||
        alphas.shape[2] != rows_)
      require_shape(alphas, {ceil_div(cols_, group_or_all()), planes, rows_});
    set_groups(alphas, alphas.shape[0]);
    layout.row_stride = 1, layout.group_stride = planes * rows_;
    if (const Tensor* biases = find(".q_bias")) {
      require_codec(*biases, {CodecId::f16, CodecId::f32});
      require_shape(*biases, {layout.groups, rows_});
      layout.bias_codec = biases->codec;
      part(SplitPart::zeros) = part_of(*biases);
    }
  }

  int64_t group_or_all() const {
    return config_.groups.empty() || config_.groups.front() == 0 ? cols_ : config_.groups.front();
  }

  const Checkpoint& checkpoint_;
  const QuantizationConfig& config_;
  std::string module_;
  int64_t rows_, cols_;
  SplitWeight found_;
};

}  // namespace

std::optional<SplitWeight> find_split_weight(const Checkpoint& checkpoint, const QuantizationConfig& config,
                                             const std::string& name, int64_t first_row, int64_t stored_rows,
                                             int64_t cols) {
  constexpr std::string_view kWeight = ".weight";
  if (!name.ends_with(kWeight)) return std::nullopt;
  return Finder(checkpoint, config, name.substr(0, name.size() - kWeight.size()), first_row, stored_rows,
                cols)
      .find();
}

}  // namespace cairn::models
