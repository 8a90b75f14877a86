// What instructions name: values (SSA, written once), weights (named in the model's files) and their shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace cairn::program {

using tensor::DType;

// A value of the program: an activation, an input or an output. Default-constructed: absent.
struct Value {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  bool operator==(const Value&) const = default;
};

// A weight of the program's table. Default-constructed: absent (no bias, no gain).
struct Weight {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  bool operator==(const Weight&) const = default;
};

// A number of rows known at each step only. The arena is planned for stated upper bounds (Bounds below).
enum class Symbol : uint8_t {
  none,    // a constant
  tokens,  // rows of this step, all sequences together
  logits,  // rows whose next-token scores are wanted
};

struct Extent {
  int64_t size = 1;  // the constant, or a factor of the symbol (top_k * tokens)
  Symbol symbol = Symbol::none;
  bool operator==(const Extent&) const = default;
};

// The value of each symbol: at a step, or the largest it may get.
struct Bounds {
  int64_t tokens = 0, logits = 0;
  int64_t of(Symbol symbol) const {
    return symbol == Symbol::tokens ? tokens : symbol == Symbol::logits ? logits : 1;
  }
  int64_t of(Extent extent) const { return extent.size * of(extent.symbol); }
};

using Shape = std::vector<Extent>;  // outermost first; the first extent counts rows

struct ValueInfo {
  std::string name;  // "layers.3.attn.q", printed as %q.12
  DType dtype = DType::f32;
  Shape shape;
  bool operator==(const ValueInfo&) const = default;
};

// Which part of which stored tensor a weight is.
struct WeightInfo {
  std::string name;            // the tensor's name in the model's own (Hugging Face) naming
  std::vector<int64_t> shape;  // what the instruction sees: [out, in], [experts, out, in] or [n]
  int64_t first_row = 0;       // a row range of a fused tensor (qkv): rows first_row .. first_row + shape[0]
  int64_t stored_rows = 0;     // rows of the whole stored tensor; 0: shape[0]
  bool transposed = false;     // stored [in, out] (GPT-2's Conv1D)
  uint64_t bytes = 0;          // as stored, for work(); filled when the files are known
  bool operator==(const WeightInfo&) const = default;
};

}  // namespace cairn::program
