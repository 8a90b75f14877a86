// The times of one step's instructions on the device: by CUPTI, kernel by kernel, where it can be had, else
// by events between the instructions, which cost a few microseconds each and see no single kernels.
#pragma once

#include <functional>
#include <vector>

#include "backends/cuda/cupti.h"
#include "backends/cuda/device.h"
#include "program/trace.h"

namespace cairn::cuda {

class StepTrace {
 public:
  // For `count` instructions from `first` on. The stream must be idle.
  StepTrace(Stream&, program::Trace&, size_t first, size_t count);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Runs f, which launches the next instruction.
  template <typename F>
  void instruction(F&& f) {
    before();
    f();
    after();
  }
  // After the stream was synchronized: writes a record per instruction, and kernels if they were seen. f(i):
  // what the trace says of instruction i beside its times.
  void finish(const std::function<program::TraceRecord(size_t)>& f);

 private:
  void before();
  void after();
  Stream& stream_;
  program::Trace& trace_;
  size_t first_, next_ = 0;
  Cupti* cupti_ = nullptr;
  bool recording_ = false;
  std::vector<Event> events_;
  std::vector<uint64_t> enqueued_;
  uint64_t begin_ns_ = 0;
};

}  // namespace cairn::cuda
