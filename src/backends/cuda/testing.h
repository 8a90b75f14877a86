// For tests on a GPU: one device per process, or a loud reason why there is none; data up and down.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "backends/cuda/registry.h"

namespace cairn::cuda::testing {

struct Gpu {
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};

  static Gpu* instance(std::string* why) {
    if (list_devices(why).empty()) return nullptr;
    static Gpu gpu;
    return &gpu;
  }

  template <typename T>
  Buffer upload(const std::vector<T>& values) {
    Buffer b(device, values.size() * sizeof(T));
    stream.upload(b.address(), values.data(), b.size());
    stream.synchronize();
    return b;
  }
  // Every byte 0xff: NaN as a float, -1 as an integer.
  Buffer poisoned(size_t bytes) {
    Buffer b(device, bytes);
    stream.fill(b.address(), 0xff, bytes);
    return b;
  }
  template <typename T>
  std::vector<T> download(const Buffer& b) {
    std::vector<T> values(b.size() / sizeof(T));
    stream.download(values.data(), b.address(), values.size() * sizeof(T));
    stream.synchronize();
    return values;
  }
};

// Declares `gpu` or skips the test with the reason.
#define CAIRN_NEED_GPU(gpu)                                                                            \
  std::string no_gpu_because;                                                                          \
  ::cairn::cuda::testing::Gpu* gpu##_pointer = ::cairn::cuda::testing::Gpu::instance(&no_gpu_because); \
  if (!gpu##_pointer) GTEST_SKIP() << "not tested on a GPU: " << no_gpu_because;                       \
  auto& gpu = *gpu##_pointer

inline uint16_t bf16_of(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
inline float of_bf16(uint16_t b) {
  const uint32_t u = uint32_t{b} << 16;
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}

inline std::vector<float> normal(size_t count, unsigned seed, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> d(0, deviation);
  std::vector<float> values(count);
  for (float& v : values) v = d(random);
  return values;
}
inline std::vector<uint16_t> as_bf16(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  out.reserve(values.size());
  for (const float v : values) out.push_back(bf16_of(v));
  return out;
}
inline std::vector<float> as_float(const std::vector<uint16_t>& values) {
  std::vector<float> out;
  out.reserve(values.size());
  for (const uint16_t v : values) out.push_back(of_bf16(v));
  return out;
}

}  // namespace cairn::cuda::testing
