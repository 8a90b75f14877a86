// Kernels as source: every .cu file in kernels/ is embedded in the binary and compiled by NVRTC for the
// device at hand with constants baked in (a Variant), or read from the disk cache or a shipped pack.
//
// A family is one .cu file with the list of variants that must always compile: tests compile all of them for
// all supported architectures without a GPU and refuse spills and local memory.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cuda/device.h"

namespace cairn::cuda {

// One compiled module. Constants reach the source as macros, in the order given; the same list means the same
// module.
struct Variant {
  std::string source;                // "norm.cu"
  std::vector<std::string> defines;  // "COLS=4096"
  bool operator==(const Variant&) const = default;
  std::string id() const;  // "norm.cu COLS=4096": unique, readable
};

// A row of the table of families (families.cpp). To add a kernel: its .cu, its launcher, and a row.
struct Family {
  std::string_view source;     // file in kernels/
  std::string_view what;       // "RMS and layer norms, row by row"
  std::string_view reference;  // what it is tested against: "cpu::RowKernels (row_kernels_gpu_test.cpp)"
  // Variants that the compile test builds and `cairn kernels` packs, for an architecture such as 80, 86,
  // 89, 90.
  std::vector<Variant> (*stock)(int capability);
};
std::span<const Family> kernel_families();

// The text of an embedded file ("norm.cu", "device.cuh"). Throws Error(not_found).
std::string_view embedded_source(std::string_view name);
std::vector<std::string_view> embedded_names();

struct Compiled {
  std::string cubin;
  std::string log;  // the assembler's report: registers, spills, shared memory
};
// Compiles with NVRTC for an architecture ("sm_90a"). Throws Error(unsupported) "NVRTC cannot be opened:
// looked for
// ..." or Error(invalid_file) with the variant, the first lines of the compiler's log, and where the full log
// lies.
Compiled compile(const Variant&, std::string_view architecture);

// Throws Error(unsupported) when kernels for this device could come from nowhere: no pack, and no NVRTC that
// knows it.
void require_kernel_source(const DeviceFacts&);

// Compiles variants into a folder from which any start reads them: beside the program as `kernels`, or named
// by $CAIRN_KERNELS. On all cores; progress(done, total) is called by one thread at a time. Returns the
// bytes.
size_t write_pack(std::span<const Variant>, std::string_view architecture,
                  const std::filesystem::path& folder, const std::function<void(int, int)>& progress = {});

class KernelCache {
 public:
  // Compiled modules are kept in the cache folder (base/cache_folder.h) under kernels/, by the compiler's
  // version and a hash of sources and options; a pack is asked first.
  explicit KernelCache(const Device&);
  ~KernelCache();

  // Compiles or loads what is missing, on as many threads as there are cores. progress(done, total).
  void prepare(std::span<const Variant>, const std::function<void(int, int)>& progress = {});
  // The kernel `entry` (declared extern "C") of a variant; compiles when it was not prepared.
  Kernel get(const Variant&, const std::string& entry);

  int compiled() const { return compiled_; }  // modules that NVRTC compiled in this process
  double prepare_seconds() const { return prepare_seconds_; }

 private:
  struct Module;
  Module& module(const Variant&);
  const Device& device_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Module>> modules_;
  int compiled_ = 0;
  double prepare_seconds_ = 0;
};

}  // namespace cairn::cuda
