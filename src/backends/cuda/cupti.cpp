#include "backends/cuda/cupti.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "backends/cuda/library_places.h"
#include "base/error.h"
#include "program/trace.h"

namespace cairn::cuda {
namespace {

// Kinds of records, and where their fields lie: the same since CUDA 9.
enum Kind : uint32_t { kCopy = 1, kFill = 2, kDriverCall = 4, kKernel = 10, kExternal = 39 };
constexpr Kind kKinds[] = {kCopy, kFill, kDriverCall, kKernel, kExternal};
constexpr int kCustomId = 3;
constexpr uint32_t kFlushAll = 1;
constexpr size_t kBufferBytes = size_t{1} << 20, kBufferAlignment = 8;

template <typename T>
T field(const std::byte* record, size_t offset) {
  T value;
  std::memcpy(&value, record + offset, sizeof value);
  return value;
}

}  // namespace

struct Cupti::Functions {
  int (*enable)(uint32_t kind);
  int (*disable)(uint32_t kind);
  int (*callbacks)(void (*requested)(uint8_t**, size_t*, size_t*),
                   void (*completed)(void* context, uint32_t stream, uint8_t*, size_t size, size_t valid));
  int (*next)(uint8_t* buffer, size_t valid, std::byte** record);
  int (*flush)(uint32_t flags);
  int (*push)(int kind, uint64_t id);
  int (*pop)(int kind, uint64_t* id);
  int (*timestamp)(uint64_t*);
};

namespace {

// What the library hands over on threads of its own.
struct Records {
  std::mutex mutex;
  int (*next)(uint8_t*, size_t, std::byte**) = nullptr;
  std::map<uint32_t, uint64_t> ids;                            // by correlation
  std::map<uint32_t, std::pair<uint64_t, uint64_t>> launches;  // likewise: begin, end of the call
  struct Run {
    uint32_t correlation;
    std::string name;
    uint64_t start, end;
  };
  std::vector<Run> runs;

  void take(const std::byte* r) {
    switch (field<uint32_t>(r, 0)) {
      case kKernel: {
        const auto* name = field<const char*>(r, 104);
        runs.push_back(
            {field<uint32_t>(r, 92), name ? name : "kernel", field<uint64_t>(r, 16), field<uint64_t>(r, 24)});
        break;
      }
      case kCopy:
        runs.push_back({field<uint32_t>(r, 44), "copy", field<uint64_t>(r, 16), field<uint64_t>(r, 24)});
        break;
      case kFill:
        runs.push_back({field<uint32_t>(r, 44), "fill", field<uint64_t>(r, 16), field<uint64_t>(r, 24)});
        break;
      case kDriverCall:
        launches[field<uint32_t>(r, 32)] = {field<uint64_t>(r, 8), field<uint64_t>(r, 16)};
        break;
      case kExternal: ids[field<uint32_t>(r, 16)] = field<uint64_t>(r, 8); break;
      default: break;
    }
  }
};
Records& records() {
  static Records r;
  return r;
}

void buffer_requested(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
  *size = *buffer ? kBufferBytes : 0;
  *most_records = 0;  // as many as fit
}
void buffer_completed(void*, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  Records& all = records();
  {
    const std::lock_guard lock(all.mutex);
    for (std::byte* record = nullptr; valid > 0 && all.next(buffer, valid, &record) == 0;) all.take(record);
  }
  std::free(buffer);
}

}  // namespace

Cupti::Cupti() {
  static Functions f;
  for (const auto& pattern : library_patterns("cupti", "CAIRN_CUPTI"))
    for (const auto& path : matching_files(pattern)) {
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!library) continue;
      const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
        return function != nullptr;
      };
      if (!find(f.enable, "cuptiActivityEnable") || !find(f.disable, "cuptiActivityDisable") ||
          !find(f.callbacks, "cuptiActivityRegisterCallbacks") ||
          !find(f.next, "cuptiActivityGetNextRecord") || !find(f.flush, "cuptiActivityFlushAll") ||
          !find(f.push, "cuptiActivityPushExternalCorrelationId") ||
          !find(f.pop, "cuptiActivityPopExternalCorrelationId") || !find(f.timestamp, "cuptiGetTimestamp"))
        continue;
      records().next = f.next;
      if (const int result = f.callbacks(buffer_requested, buffer_completed); result != 0) {
        problem_ = fmt::format("{} refuses to record (error {})", path, result);
        continue;
      }
      // Asked for once, now: a machine may forbid it.
      int result = 0;
      for (const Kind kind : kKinds)
        if (result == 0) result = f.enable(kind);
      for (const Kind kind : kKinds) f.disable(kind);
      if (result != 0) {
        problem_ = fmt::format("{} is not permitted to record (error {})", path, result);
        continue;
      }
      functions_ = &f;
      problem_.clear();
      return;
    }
  if (problem_.empty())
    problem_ = "libcupti was not found (it comes with the CUDA toolkit; CAIRN_CUPTI names a file)";
}

Cupti* Cupti::instance(std::string* why) {
  static Cupti cupti;
  if (cupti.functions_) return &cupti;
  if (why) *why = cupti.problem_;
  return nullptr;
}

void Cupti::start() {
  Records& all = records();
  functions_->flush(kFlushAll);
  {
    const std::lock_guard lock(all.mutex);
    all.ids.clear(), all.launches.clear(), all.runs.clear();
  }
  if (!enabled_)
    for (const Kind kind : kKinds) functions_->enable(kind);
  enabled_ = true;
}
void Cupti::push(int64_t id) { functions_->push(kCustomId, uint64_t(id)); }
void Cupti::pop() {
  uint64_t id = 0;
  functions_->pop(kCustomId, &id);
}

std::vector<KernelActivity> Cupti::stop() {
  functions_->flush(kFlushAll);
  // The library's clock and ours, read side by side: the closest of a few readings tells the difference.
  int64_t offset = 0;
  uint64_t closest = UINT64_MAX;
  for (int i = 0; i < 16; ++i) {
    uint64_t theirs = 0;
    const uint64_t before = program::Trace::now_ns();
    functions_->timestamp(&theirs);
    const uint64_t after = program::Trace::now_ns();
    if (after - before < closest)
      closest = after - before, offset = int64_t(before + (after - before) / 2) - int64_t(theirs);
  }
  Records& all = records();
  const std::lock_guard lock(all.mutex);
  std::vector<KernelActivity> activities;
  for (const auto& run : all.runs) {
    const auto id = all.ids.find(run.correlation);
    const auto launch = all.launches.find(run.correlation);
    if (id == all.ids.end() || launch == all.launches.end()) continue;  // not between push and pop
    const auto ours = [&](uint64_t t) { return uint64_t(int64_t(t) + offset); };
    activities.push_back({int64_t(id->second), run.name, ours(launch->second.first),
                          ours(launch->second.second), ours(run.start), ours(run.end)});
  }
  std::sort(activities.begin(), activities.end(),
            [](const auto& a, const auto& b) { return a.launch_ns < b.launch_ns; });
  return activities;
}

}  // namespace cairn::cuda
