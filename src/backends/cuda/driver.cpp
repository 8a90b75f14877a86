#include "backends/cuda/driver.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace cairn::cuda::driver {
namespace {

constexpr int kOldestDriver = 12000;

struct Loaded {
  Api api{};
  std::string problem;  // empty: usable
  bool expected = false;
};

template <typename F>
bool find(void* library, F& function, const char* name) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

Loaded load() {
  Loaded l;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    l.problem =
        fmt::format("no NVIDIA driver: libcuda.so.1 cannot be opened ({})", why ? why : "unknown reason");
    return l;
  }
  l.expected = true;
  Api& a = l.api;
  std::string missing;
  const auto need = [&](auto& function, const char* name) {
    if (!find(library, function, name)) missing += std::string(missing.empty() ? "" : ", ") + name;
  };
  // The driver keeps old entry points for old programs: the suffixes name the ones that today's header means.
  need(a.init, "cuInit");
  need(a.driver_version, "cuDriverGetVersion");
  need(a.error_name, "cuGetErrorName");
  need(a.error_string, "cuGetErrorString");
  need(a.device_count, "cuDeviceGetCount");
  need(a.device_get, "cuDeviceGet");
  need(a.device_name, "cuDeviceGetName");
  need(a.device_attribute, "cuDeviceGetAttribute");
  need(a.device_memory, "cuDeviceTotalMem_v2");
  need(a.primary_retain, "cuDevicePrimaryCtxRetain");
  need(a.primary_release, "cuDevicePrimaryCtxRelease_v2");
  need(a.context_set, "cuCtxSetCurrent");
  need(a.context_get, "cuCtxGetCurrent");
  need(a.memory_info, "cuMemGetInfo_v2");
  need(a.memory_allocate, "cuMemAlloc_v2");
  need(a.memory_free, "cuMemFree_v2");
  need(a.host_allocate, "cuMemHostAlloc");
  need(a.host_free, "cuMemFreeHost");
  need(a.host_register, "cuMemHostRegister_v2");
  need(a.host_unregister, "cuMemHostUnregister");
  need(a.copy_to_device, "cuMemcpyHtoDAsync_v2");
  need(a.copy_to_host, "cuMemcpyDtoHAsync_v2");
  need(a.copy_on_device, "cuMemcpyDtoDAsync_v2");
  need(a.fill8, "cuMemsetD8Async");
  need(a.stream_create, "cuStreamCreate");
  need(a.stream_destroy, "cuStreamDestroy_v2");
  need(a.stream_synchronize, "cuStreamSynchronize");
  need(a.stream_query, "cuStreamQuery");
  need(a.stream_wait, "cuStreamWaitEvent");
  need(a.event_create, "cuEventCreate");
  need(a.event_destroy, "cuEventDestroy_v2");
  need(a.event_record, "cuEventRecord");
  need(a.event_synchronize, "cuEventSynchronize");
  need(a.event_query, "cuEventQuery");
  need(a.event_elapsed, "cuEventElapsedTime");
  need(a.module_load, "cuModuleLoadData");
  need(a.module_unload, "cuModuleUnload");
  need(a.module_function, "cuModuleGetFunction");
  need(a.function_attribute, "cuFuncGetAttribute");
  need(a.function_set_attribute, "cuFuncSetAttribute");
  need(a.occupancy, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  need(a.launch, "cuLaunchKernelEx");
  need(a.capture_begin, "cuStreamBeginCapture_v2");
  need(a.capture_end, "cuStreamEndCapture");
  need(a.graph_instantiate, "cuGraphInstantiateWithFlags");
  need(a.graph_launch, "cuGraphLaunch");
  need(a.graph_exec_destroy, "cuGraphExecDestroy");
  need(a.graph_destroy, "cuGraphDestroy");
  find(library, a.tensor_map_tiled, "cuTensorMapEncodeTiled");

  int version = 0;
  if (a.driver_version && a.driver_version(&version) == 0 && version < kOldestDriver) {
    l.problem = fmt::format("the NVIDIA driver supports CUDA {}.{}; cairn needs a driver for 12.0 or newer",
                            version / 1000, version % 1000 / 10);
  } else if (!missing.empty()) {
    l.problem = fmt::format("the NVIDIA driver (libcuda.so.1) lacks {}; install a newer one", missing);
  } else if (const Result r = a.init(0); r == kNoDevice) {
    l.problem = "the NVIDIA driver sees no GPU";
    l.expected = false;
  } else if (r != 0) {
    const char* text = nullptr;
    a.error_string(r, &text);
    l.problem =
        fmt::format("the NVIDIA driver does not start: {} (error {})", text ? text : "unknown error", r);
  }
  return l;
}

const Loaded& loaded() {
  static const Loaded l = load();
  return l;
}

}  // namespace

const Api& api() {
  const Loaded& l = loaded();
  if (!l.problem.empty()) fail(ErrorKind::unsupported, "{}", l.problem);
  return l.api;
}

bool gpu_expected() { return loaded().expected; }

bool leaves_device_unusable(Result result) {
  // Of the API reference: errors after which every call returns the same until the process ends.
  switch (result) {
    case 214:  // ECC
    case 220:  // NVLink
    case 226:  // contained
    case 700:  // address
    case 702:  // timeout
    case 710:  // assertion
    case 714:  // stack
    case 715:  // instruction
    case 716:  // alignment
    case 717:  // address space
    case 718:  // program counter
    case 719:  // launch
    case 721:  // tensor memory
    case 999: return true;
    default: return false;
  }
}

void check(Result result, const char* what) {
  if (result == 0) return;
  const Api& a = loaded().api;
  const char *name = nullptr, *text = nullptr;
  a.error_name(result, &name);
  a.error_string(result, &text);
  fail(result == kOutOfMemory ? ErrorKind::out_of_memory : ErrorKind::io, "{} failed: {} ({})", what,
       text ? text : "unknown error", name ? name : std::to_string(result).c_str());
}

}  // namespace cairn::cuda::driver
