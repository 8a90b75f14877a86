#pragma once

#include <string_view>
#include <vector>

#include "program/value.h"

namespace cairn::program {

// Some weights are stored together in a codec whose unit is a group (DFloat11), or in host memory: no product
// reads them as they lie. This puts all of a group's into a place made for it, from which instructions read
// them until the next DecodeGroup. Places are numbered in turns, so that a group may be decoded while the one
// before it is read.
struct DecodeGroup {
  static constexpr const char* kName = "decode_group";
  std::vector<Weight> weights;  // [out, in] or [experts, out, in], in the order in which they are stored
  int32_t place = 0;
  bool for_lookup = false;  // only rows are looked up: an executor that makes single rows does not need it
  bool on_host = false;     // a device copies what is stored when the group is wanted, and does not keep it
  uint64_t bytes = 0;       // as stored, for work()
  bool operator==(const DecodeGroup&) const = default;
  void describe(auto& d) const {
    for (const Weight w : weights) d.weight("w", w);
    d.field("place", place);
    if (on_host) d.field("stored", std::string_view("on the host"));
  }
};

}  // namespace cairn::program
