// When every kernel was launched, began and ended, from NVIDIA's tracing library (CUPTI), opened at run time.
// Facts from the CUPTI API reference.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cairn::cuda {

struct KernelActivity {
  int64_t id = 0;    // what push() said when it was launched
  std::string name;  // of the kernel; "copy" or "fill" for the others
  // Steady clock, nanoseconds: the call that launched it, and its run on the device.
  uint64_t launch_ns = 0, launched_ns = 0, start_ns = 0, end_ns = 0;
};

class Cupti {
 public:
  // Null when it cannot be used, with the reason in *why. $CAIRN_CUPTI names a file.
  static Cupti* instance(std::string* why = nullptr);

  // Starts to record; push() names what is launched from now on by this thread, until pop(). Once started,
  // every launch of the process costs a few microseconds more; the first one after it some 200.
  void start();
  void push(int64_t id);
  void pop();
  // What was recorded since start(), in the order of launches. The device must have finished.
  std::vector<KernelActivity> stop();

 private:
  Cupti();
  struct Functions;
  const Functions* functions_ = nullptr;
  std::string problem_;
  bool enabled_ = false;
};

}  // namespace cairn::cuda
