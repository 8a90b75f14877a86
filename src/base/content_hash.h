// A 64-bit hash that tells contents apart: keys of caches, damaged files. About 20 GB/s on a core. The same
// on every machine of one byte order; no protection against somebody who makes collisions on purpose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace cairn {

uint64_t content_hash(std::span<const std::byte>, uint64_t seed = 0);

// Order matters: combine_hashes(a, b) is not combine_hashes(b, a).
uint64_t combine_hashes(uint64_t so_far, uint64_t next);

}  // namespace cairn
