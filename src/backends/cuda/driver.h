// The part of the CUDA driver's C interface that cairn calls, opened at run time: the build needs no CUDA.
// Names and numbers are those of the CUDA Driver API reference; handles are opaque pointers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cairn::cuda::driver {

using Result = int;  // 0: success
using DeviceOrdinal = int;
using Address = uint64_t;  // of device memory
struct ContextTag;
struct ModuleTag;
struct FunctionTag;
struct StreamTag;
struct EventTag;
struct GraphTag;
struct GraphExecTag;
using Context = ContextTag*;
using Module = ModuleTag*;
using Function = FunctionTag*;
using StreamHandle = StreamTag*;
using EventHandle = EventTag*;
using GraphHandle = GraphTag*;
using GraphExec = GraphExecTag*;

// Results that are handled apart.
inline constexpr Result kOutOfMemory = 2, kNoDevice = 100, kNotReady = 600;

// Device attributes.
inline constexpr int kSharedMemoryPerBlock = 8, kPciBus = 33, kPciDevice = 34, kPciDomain = 50,
                     kClockKHz = 13, kMultiprocessors = 16, kMemoryClockKHz = 36, kMemoryBusBits = 37,
                     kL2Bytes = 38, kCapabilityMajor = 75, kCapabilityMinor = 76,
                     kSharedMemoryPerMultiprocessor = 81, kSharedMemoryPerBlockOptIn = 97;

// Function attributes.
inline constexpr int kFunctionLocalBytes = 3, kFunctionRegisters = 4, kFunctionDynamicSharedBytes = 8,
                     kFunctionSharedCarveout = 9, kFunctionNonPortableCluster = 14;

inline constexpr unsigned kStreamNonBlocking = 1, kEventDisableTiming = 2;
inline constexpr int kCaptureThreadLocal = 1;

struct LaunchAttribute {
  enum Id : uint32_t { cooperative = 2, cluster_dimension = 4, programmatic_serialization = 6 };
  Id id;
  uint32_t unused = 0;
  union {
    char all[64];
    int flag;
    unsigned cluster[3];
  };
};
static_assert(sizeof(LaunchAttribute) == 72);

struct LaunchConfig {
  unsigned grid[3], block[3], shared_bytes;
  StreamHandle stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

struct alignas(64) TensorMap {
  uint64_t opaque[16];
};
enum TensorType : int { kTensorU8 = 0, kTensorF16 = 6, kTensorF32 = 7, kTensorBf16 = 9 };
enum TensorSwizzle : int { kNoSwizzle = 0, kSwizzle32 = 1, kSwizzle64 = 2, kSwizzle128 = 3 };

struct Api {
  Result (*init)(unsigned);
  Result (*driver_version)(int*);
  Result (*error_name)(Result, const char**);
  Result (*error_string)(Result, const char**);
  Result (*device_count)(int*);
  Result (*device_get)(DeviceOrdinal*, int);
  Result (*device_name)(char*, int, DeviceOrdinal);
  Result (*device_attribute)(int*, int attribute, DeviceOrdinal);
  Result (*device_memory)(size_t*, DeviceOrdinal);
  Result (*primary_retain)(Context*, DeviceOrdinal);
  Result (*primary_release)(DeviceOrdinal);
  Result (*context_set)(Context);
  Result (*context_get)(Context*);
  Result (*memory_info)(size_t* free, size_t* total);
  Result (*memory_allocate)(Address*, size_t);
  Result (*memory_free)(Address);
  Result (*host_allocate)(void**, size_t, unsigned flags);
  Result (*host_free)(void*);
  Result (*host_register)(void*, size_t, unsigned flags);
  Result (*host_unregister)(void*);
  Result (*copy_to_device)(Address, const void*, size_t, StreamHandle);
  Result (*copy_to_host)(void*, Address, size_t, StreamHandle);
  Result (*copy_on_device)(Address, Address, size_t, StreamHandle);
  Result (*fill8)(Address, unsigned char, size_t, StreamHandle);
  Result (*stream_create)(StreamHandle*, unsigned flags);
  Result (*stream_destroy)(StreamHandle);
  Result (*stream_synchronize)(StreamHandle);
  Result (*stream_query)(StreamHandle);
  Result (*stream_wait)(StreamHandle, EventHandle, unsigned flags);
  Result (*event_create)(EventHandle*, unsigned flags);
  Result (*event_destroy)(EventHandle);
  Result (*event_record)(EventHandle, StreamHandle);
  Result (*event_synchronize)(EventHandle);
  Result (*event_query)(EventHandle);
  Result (*event_elapsed)(float* milliseconds, EventHandle, EventHandle);
  Result (*module_load)(Module*, const void* image);
  Result (*module_unload)(Module);
  Result (*module_function)(Function*, Module, const char* name);
  Result (*function_attribute)(int*, int attribute, Function);
  Result (*function_set_attribute)(Function, int attribute, int value);
  Result (*occupancy)(int* blocks, Function, int block_size, size_t shared_bytes);
  Result (*launch)(const LaunchConfig*, Function, void** parameters, void** extra);
  Result (*capture_begin)(StreamHandle, int mode);
  Result (*capture_end)(StreamHandle, GraphHandle*);
  Result (*graph_instantiate)(GraphExec*, GraphHandle, unsigned long long flags);
  Result (*graph_launch)(GraphExec, StreamHandle);
  Result (*graph_exec_destroy)(GraphExec);
  Result (*graph_destroy)(GraphHandle);
  Result (*tensor_map_tiled)(TensorMap*, int type, uint32_t rank, void* address, const uint64_t* dims,
                             const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,
                             int interleave, int swizzle, int l2_promotion,
                             int out_of_bounds);  // may be null
};

// The loaded driver. Throws Error(unsupported) that says which library was looked for and what is missing:
// "no NVIDIA driver (libcuda.so.1 cannot be opened: ...)", "the NVIDIA driver 11.4 is too old (12.0 or
// newer)".
const Api& api();

// Whether a driver is here that should see a GPU: a person wants to know why it is not used.
bool gpu_expected();

// Throws Error(io), or Error(out_of_memory) for result 2: "copying to the GPU failed: unspecified launch
// failure (CUDA_ERROR_...)". what: what was being done.
void check(Result, const char* what);

// Errors that stay: an earlier kernel or the device itself failed, and this process can no more use it.
bool leaves_device_unusable(Result);

}  // namespace cairn::cuda::driver
