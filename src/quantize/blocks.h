// Which stored tensors belong to which transformer block of a model, and which of them products multiply
// with.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"
#include "quantize/method.h"

namespace cairn::quantize {

// A product's matrix and the value whose rows it multiplies.
struct BlockMatrix {
  Matrix matrix;  // without inputs
  program::Value x;
  int32_t expert = -1;  // of a mixture: sees the rows that chose it
};

struct Block {
  int32_t layer = -1;                 // -1: what lies outside of the blocks
  std::vector<size_t> tensors;        // in Checkpoint::tensors, all that belong to it
  std::vector<BlockMatrix> matrices;  // in the program's order; each stored tensor once
  // Matrices that no method can have: name and why.
  std::vector<std::pair<std::string, std::string>> kept;
};

// The first entry is what lies outside; the others follow in the order of their layers. head: the scores'
// matrix counts as a matrix there; tables: and so do tables whose rows are looked up. Throws
// Error(unsupported) when the model is quantized already or is a GGUF file. The model must outlive the
// result.
std::vector<Block> blocks_of(const models::Model&, bool head, bool tables = false);

}  // namespace cairn::quantize
