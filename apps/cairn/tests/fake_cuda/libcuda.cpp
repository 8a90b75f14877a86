// A libcuda.so.1 without a GPU, for tests of what the program does with one and when one fails. Memory is the
// host's, copies copy, kernels do nothing. FAKE_CUDA sets what it pretends, "name=value,...":
//   version (12080), init (a result), devices (1), capability (90), free and total (bytes), sms (132),
//   fail_at and error: from the fail_at-th launch on, everything that waits or launches returns `error`,
//   retain (a result of opening the device), module (a result of loading a module)
// FAKE_CUDA_LOG names a file that gets a line per loaded module, and one with the counts at the end.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>

#include "fake_settings.h"

namespace {

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kInvalidImage = 200;

long long number(const char* name, long long otherwise) { return fake_number("FAKE_CUDA", name, otherwise); }

struct State {
  std::mutex mutex;
  std::map<uint64_t, size_t> memory;
  size_t used = 0, most = 0;
  std::atomic<long long> launches{0}, graphs{0};
  std::atomic<int> lost{0};
  const size_t total = size_t(number("total", 144ll << 30)), free = size_t(number("free", 140ll << 30));
  const long long fail_at = number("fail_at", -1);
  const int error = int(number("error", 719));

  void log(const std::string& line) {
    const char* path = std::getenv("FAKE_CUDA_LOG");
    if (!path) return;
    const std::lock_guard lock(mutex);
    std::ofstream(path, std::ios::app) << line << '\n';
  }
  ~State() {
    log("launches " + std::to_string(launches) + ", graphs " + std::to_string(graphs) + ", most bytes " +
        std::to_string(most));
  }
};
State& state() {
  static State s;
  return s;
}

int launched(long long count) {
  State& s = state();
  const long long last = s.launches += count;
  if (s.fail_at >= 0 && last > s.fail_at) s.lost = s.error;
  return s.lost;
}

int allocate(uint64_t* address, size_t bytes) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (bytes > s.free - std::min(s.free, s.used)) return kOutOfMemory;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return kOutOfMemory;
  *address = reinterpret_cast<uint64_t>(p);
  s.memory[*address] = bytes;
  s.used += bytes;
  s.most = std::max(s.most, s.used);
  return 0;
}
int release(uint64_t address) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  const auto found = s.memory.find(address);
  if (found == s.memory.end()) return kInvalidValue;
  munmap(reinterpret_cast<void*>(address), found->second);
  s.used -= found->second;
  s.memory.erase(found);
  return 0;
}

struct Text {
  int result;
  const char *name, *text;
};
constexpr Text kTexts[] = {
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"}};

void* handle() {
  static std::atomic<uintptr_t> next{16};
  return reinterpret_cast<void*>(next += 16);
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
  const auto result = int(number("init", 0));
  return result != 0 ? result : number("devices", 1) == 0 ? 100 : 0;
}
int cuDriverGetVersion(int* version) { return *version = int(number("version", 12080)), 0; }
int cuGetErrorName(int result, const char** name) {
  for (const auto& t : kTexts)
    if (t.result == result) return *name = t.name, 0;
  return *name = nullptr, kInvalidValue;
}
int cuGetErrorString(int result, const char** text) {
  for (const auto& t : kTexts)
    if (t.result == result) return *text = t.text, 0;
  return *text = nullptr, kInvalidValue;
}
int cuDeviceGetCount(int* count) { return *count = int(number("devices", 1)), 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char* name, int size, int) { return std::snprintf(name, size_t(size), "Fake GPU"), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const auto capability = int(number("capability", 90));
  switch (attribute) {
    case 16: *value = int(number("sms", 132)); break;
    case 38: *value = 50 << 20; break;
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 97: *value = 227 << 10; break;
    default: *value = 0;
  }
  return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = state().total, 0; }
int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = reinterpret_cast<void*>(uintptr_t{8});
  return int(number("retain", 0));
}
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
thread_local void* current_context = nullptr;
int cuCtxSetCurrent(void* context) { return current_context = context, 0; }
int cuCtxGetCurrent(void** context) { return *context = current_context, 0; }
int cuMemGetInfo_v2(size_t* free, size_t* total) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  *total = s.total, *free = s.free - std::min(s.free, s.used);
  return s.lost;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) { return allocate(address, bytes); }
int cuMemFree_v2(uint64_t address) { return release(address); }
int cuMemHostAlloc(void** data, size_t bytes, unsigned) {
  return *data = std::calloc(bytes, 1), *data ? 0 : kOutOfMemory;
}
int cuMemFreeHost(void* data) { return std::free(data), 0; }
int cuMemHostRegister_v2(void*, size_t, unsigned) { return 0; }
int cuMemHostUnregister(void*) { return 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  return std::memcpy(reinterpret_cast<void*>(to), from, bytes), state().lost.load();
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  return std::memcpy(to, reinterpret_cast<const void*>(from), bytes), state().lost.load();
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
  return std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes),
         state().lost.load();
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) {
  return std::memset(reinterpret_cast<void*>(to), value, bytes), state().lost.load();
}
int cuStreamCreate(void** stream, unsigned) { return *stream = handle(), 0; }
int cuStreamDestroy_v2(void*) { return 0; }
int cuStreamSynchronize(void*) { return state().lost; }
int cuStreamQuery(void*) { return state().lost; }
int cuStreamWaitEvent(void*, void*, unsigned) { return state().lost; }
int cuEventCreate(void** event, unsigned) { return *event = handle(), 0; }
int cuEventDestroy_v2(void*) { return 0; }
int cuEventRecord(void*, void*) { return state().lost; }
int cuEventSynchronize(void*) { return state().lost; }
int cuEventQuery(void*) { return state().lost; }
int cuEventElapsedTime(float* milliseconds, void*, void*) { return *milliseconds = 1, state().lost.load(); }
int cuModuleLoadData(void** module, const void* image) {
  if (const auto result = int(number("module", 0)); result != 0) return result;
  if (std::memcmp(image,
                  "\x7f"
                  "ELF",
                  4) != 0)
    return kInvalidImage;
  state().log("module");
  return *module = handle(), 0;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char*) { return *function = handle(), 0; }
int cuFuncGetAttribute(int* value, int, void*) { return *value = 0, 0; }
int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) { return *blocks = 2, 0; }
int cuLaunchKernelEx(const void*, void*, void**, void**) { return launched(1); }
int cuStreamBeginCapture_v2(void*, int) { return state().lost; }
int cuStreamEndCapture(void*, void** graph) { return *graph = handle(), state().lost.load(); }
int cuGraphInstantiateWithFlags(void** exec, void*, unsigned long long) {
  return *exec = handle(), state().lost.load();
}
int cuGraphLaunch(void*, void*) {
  ++state().graphs;
  return launched(100);
}
int cuGraphExecDestroy(void*) { return 0; }
int cuGraphDestroy(void*) { return 0; }
int cuTensorMapEncodeTiled(void* map, int, unsigned, void*, const uint64_t*, const uint64_t*, const unsigned*,
                           const unsigned*, int, int, int, int) {
  return std::memset(map, 0, 128), 0;
}

}  // extern "C"
