// How long products with weights of each codec take on this machine, and what they cost in energy: the same
// kernels that a model runs, on weights that lie outside of the caches. Measured by codec_times.cpp (CPU) and
// codec_times_cuda.cpp (GPU), told by codec_report.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "codecs/codec.h"
#include "plan/energy.h"

namespace cairn::cuda {
class Device;
}

namespace cairn::plan {

struct WeightShape {
  int64_t n = 0, k = 0;  // y[rows, n] = x[rows, k] w[n, k]^T
};

struct CodecTime {
  std::string codec;
  int64_t n = 0, k = 0, rows = 0;
  double seconds = 0;    // of one product, rows prepared and multiplied: the median
  uint64_t bytes = 0;    // of the weight as the kernels read it
  double joules = 0;     // of one product; 0: not counted
  std::string how = {};  // what is unlike the other codecs: "decoded to bf16 first"

  double bits() const { return 8.0 * double(bytes) / double(n * k); }  // per weight
  double bytes_per_s() const { return double(bytes) / seconds; }
  double operations_per_s() const { return 2.0 * double(rows) * double(n) * double(k) / seconds; }
};

struct CodecTimes {
  std::string machine;          // "NVIDIA H200", "Intel Xeon ..., 2 threads, amx"
  double read_bytes_per_s = 0;  // the ceilings: the better of before and after
  double operations_per_s = 0;  // of bf16 products; 0: not measured
  std::string energy;           // what the joules are of, or why there are none
  bool has_energy = false;
  std::string unsteady;               // not empty: how far the two measurements of a ceiling were apart
  std::vector<CodecTime> times;       // codec by codec, shape by shape, rows ascending
  std::vector<std::string> left_out;  // "df11: bf16 once it is loaded"
};

struct CodecBench {
  std::vector<std::string> codecs;  // empty: all that the device multiplies
  std::vector<WeightShape> shapes;
  std::vector<int64_t> rows;  // ascending; on a GPU up to 64 extend answers, more are prompts
  double seconds = 0.3;       // to spend on each product at least
  // Called before each codec.
  std::function<void(const std::string& codec, size_t done, size_t all)> progress = {};
};

// Throw Error(invalid_argument) for a codec that is unknown or not multiplied there, and shapes that no codec
// of the list divides; a single codec that does not fit a shape is left out and says so.
CodecTimes measure_codecs(const CodecBench&, ThreadPool&);
CodecTimes measure_codecs(const CodecBench&, const cuda::Device&, ThreadPool&);

// The codecs that `what` names, or all that hold weights. Throws Error(invalid_argument).
std::vector<const codecs::Codec*> codecs_to_measure(const CodecBench& what);

// Bytes of a weight with finite values in every codec: 16-bit words below f16's infinity whatever field they
// fall into, and 32-bit ones far above f32's subnormal numbers, which processors multiply much slower.
std::vector<std::byte> random_weight(const codecs::Codec&, const WeightShape&);

}  // namespace cairn::plan
