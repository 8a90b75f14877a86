// Weights that are stored as two factors: W = U V with U [out, rank] and V [rank, in], in the files as
// NAME.lowrank_u and NAME.lowrank_v instead of NAME.weight. A product x W^T becomes (x V^T) U^T: fewer bytes
// and operations below the rank out * in / (out + in).
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "program/program.h"

namespace cairn::program {

inline constexpr std::string_view kLowRankU = ".lowrank_u", kLowRankV = ".lowrank_v";

// Every MatMul and Logits of a weight for which rank_of gives a rank multiplies with V and then with U; the
// parts of a fused weight share V's product. Throws Error(unsupported) naming a weight with a rank that is a
// table or an expert's.
Program split_low_rank(const Program&,
                       const std::function<std::optional<int64_t>(const WeightInfo&)>& rank_of);

}  // namespace cairn::program
