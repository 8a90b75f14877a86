// For fuzzers only: mutation that starts from seeds made by code, so that no corpus lies in the repository.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace cairn::formats {

// An input too short to be anything becomes a seed; now and then another one does, too; all others are
// mutated.
inline size_t mutate_from(const std::vector<std::string>& seeds, uint8_t* data, size_t size, size_t max_size,
                          unsigned random) {
  constexpr size_t kShortest = 8;
  constexpr unsigned kReseedOneIn = 1024;
  if (size < kShortest || random % kReseedOneIn == 0) {
    const std::string& seed = seeds[random / kReseedOneIn % seeds.size()];
    size = std::min(seed.size(), max_size);
    std::memcpy(data, seed.data(), size);
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

}  // namespace cairn::formats
