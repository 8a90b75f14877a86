#pragma once

#include "program/value.h"

namespace cairn::program {

// y[t,:] = table[ids[t] + offset,:] * scale; without ids, every row is table[offset,:]
struct Embed {
  static constexpr const char* kName = "embed";
  Value ids;     // [tokens] i32: token ids or positions; absent: zeros
  Weight table;  // [rows, dim]
  Value y;       // [tokens, dim]
  float scale = 1;
  int64_t offset = 0;  // OPT's positions start at row 2
  bool operator==(const Embed&) const = default;
  void describe(auto& d) const {
    if (ids) d.in("ids", ids);
    d.weight("table", table), d.out("y", y);
    if (scale != 1) d.field("scale", scale);
    if (offset != 0) d.field("offset", offset);
  }
};

// y[r,:] = x[rows[r],:]
struct GatherRows {
  static constexpr const char* kName = "gather_rows";
  Value x;     // [tokens, dim]
  Value rows;  // [logits] i32
  Value y;     // [logits, dim]
  bool operator==(const GatherRows&) const = default;
  void describe(auto& d) const { d.in("x", x), d.in("rows", rows), d.out("y", y); }
};

}  // namespace cairn::program
