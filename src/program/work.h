// What an instruction does, counted: read by cost, traces, benches and (later) simulation. One function per
// instruction fills it.
#pragma once

#include <cstdint>

namespace cairn::program {

struct Work {
  uint64_t weight_bytes = 0;      // stored weights read once per step
  uint64_t activation_bytes = 0;  // values read and written
  uint64_t kv_bytes = 0;          // KV cache read and written
  uint64_t wire_bytes = 0;        // sent to other ranks (none yet)
  uint64_t operations = 0;        // multiplies and adds counted separately

  uint64_t bytes() const { return weight_bytes + activation_bytes + kv_bytes; }
  Work& operator+=(const Work& other) {
    weight_bytes += other.weight_bytes;
    activation_bytes += other.activation_bytes;
    kv_bytes += other.kv_bytes;
    wire_bytes += other.wire_bytes;
    operations += other.operations;
    return *this;
  }
};

// The sizes of one step, as work() needs them.
struct StepSizes {
  int64_t tokens = 1, logits = 1;
  int64_t context = 0;                // tokens in the cache before this step, per sequence
  int64_t sequences = 1;              // that share the step's tokens evenly
  int kv_bytes_per_element_x16 = 32;  // 16 * bytes per cached element (q8_0 is 17)
  // How many distinct experts a step with this many token-expert pairs reads, at most.
  static int64_t experts_read(int64_t experts, int64_t pairs) { return pairs < experts ? pairs : experts; }
};

}  // namespace cairn::program
