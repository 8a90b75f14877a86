// Finds the tensors of a weight that a quantiser published in several of them: which names it gave them, and
// that they fit together.
#pragma once

#include <optional>
#include <string>

#include "codecs/split_weight.h"
#include "formats/checkpoint.h"
#include "formats/quantization_config.h"

namespace cairn::models {

struct SplitWeight {
  codecs::SplitLayout layout;
  codecs::StoredPiece piece;
  codecs::CodecId codec;  // in which its rows are held
};

// Rows [first_row, first_row + ..) of `name` ("model.layers.0.mlp.up_proj.weight"), a matrix of stored_rows
// by cols. Nullopt when the module is stored plainly. Throws Error naming the tensor, what it has and what it
// should have.
std::optional<SplitWeight> find_split_weight(const formats::Checkpoint&, const formats::QuantizationConfig&,
                                             const std::string& name, int64_t first_row, int64_t stored_rows,
                                             int64_t cols);

}  // namespace cairn::models
