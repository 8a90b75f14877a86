// cuBLASLt, opened at run time if it is there: the yardstick of our own products (cuda_gemm_bench). No model
// is run with it: on an H200 matmul_many is as fast, ends in every way a program needs, and keeps a row's
// bits whatever its neighbours.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "backends/cuda/device.h"

namespace cairn::cuda {

class CublasLt {
 public:
  // Null with the reason in *why when there is no cuBLASLt of version 12 or newer. CAIRN_CUBLASLT names a
  // file.
  static std::unique_ptr<CublasLt> open(const Device&, std::string* why);
  ~CublasLt();

  // y[m, n] = x[m, k] w[n, k]^T, all row-major: x and w bf16, y bf16 or f32; add: y += instead. By the
  // algorithm that the library's heuristic puts first for the shape. False when it has none.
  bool multiply(Stream&, Address x, Address w, Address y, bool y_f32, bool add, int64_t m, int64_t n,
                int64_t k);

  const std::string& path() const { return path_; }

 private:
  struct Functions;
  struct Plan;
  CublasLt(const Device&, std::unique_ptr<Functions>, std::string path);
  std::unique_ptr<Functions> functions_;
  std::string path_;
  void* handle_ = nullptr;
  Buffer workspace_;
  std::unique_ptr<Plan> plan_;  // of the last shape
};

}  // namespace cairn::cuda
