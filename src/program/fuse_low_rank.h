// Low-rank products (low_rank.h) executed one after another have values between them that are as wide as the
// whole weights'. FlashSVD (arXiv 2508.01506) keeps what is in memory narrow: {U, activation, V} and {U of q,
// k and v, attention} become one instruction each, which expands tile by tile.
#pragma once

#include "program/program.h"

namespace cairn::program {

// LowRankMlp where a U, an activation and a V follow each other; LowRankAttention where all attention of the
// program reads q, k and v straight from their U's and no later step reads the cache. expand() is the way
// back.
Program fuse_low_rank(const Program&);

}  // namespace cairn::program
