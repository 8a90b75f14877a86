// Puts a DecodeGroup before the instructions that read weights of a group.
#pragma once

#include <span>

#include "program/program.h"

namespace cairn::program {

inline constexpr int32_t kGroupPlaces = 2;

// group_of: per weight of the program, the number of its group or -1. A group is decoded once for each run of
// instructions that reads no other group's weights. Precondition: a whole program. Throws Error(unsupported)
// naming an instruction that reads weights of two groups.
Program decode_groups(const Program&, std::span<const int32_t> group_of);

// The matrices of the first `layers` layers are kept in host memory and copied to a device in every step:
// those of a DecodeGroup as they are stored, others (of layers that have none) decoded, as a group of their
// own.
Program keep_on_host(const Program&, int64_t layers);

// The same without DecodeGroups: for executors that hold every weight decoded.
Program without_decode_groups(const Program&);

}  // namespace cairn::program
