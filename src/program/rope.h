#pragma once

#include "program/value.h"

namespace cairn::program {

// Which two elements of a head one angle turns.
enum class RopePairing : uint8_t {
  half,      // (i, i + rotary_dim / 2): Hugging Face checkpoints
  adjacent,  // (2i, 2i + 1): llama2.c, GGUF files of the llama architecture
};

// Rotary position embedding (Su et al. 2021) on the first rotary_dim elements of each head; the rest pass
// through. Angles come from the program's rope table: position * inverse_frequencies[i], amplitudes times its
// attention_factor.
struct Rope {
  static constexpr const char* kName = "rope";
  Value x;          // [tokens, heads * head_dim]
  Value positions;  // [tokens] i32
  Value y;          // like x; may share x's storage
  int64_t heads = 1, head_dim = 0, rotary_dim = 0;
  RopePairing pairing = RopePairing::half;
  int32_t table = 0;  // index into Program::ropes
  bool operator==(const Rope&) const = default;
  void describe(auto& d) const {
    d.in("x", x), d.in("positions", positions), d.out("y", y);
    d.field("heads", heads), d.field("head_dim", head_dim);
    if (rotary_dim != head_dim) d.field("rotary_dim", rotary_dim);
    if (pairing == RopePairing::adjacent) d.field("pairing", std::string_view("adjacent"));
    if (table != 0) d.field("table", table);
  }
};

}  // namespace cairn::program
