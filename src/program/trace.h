// What ran when: one record per instruction and step, and the file that Chrome and Perfetto open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "program/program.h"

namespace cairn::program {

struct TraceRecord {
  int32_t instruction = 0;
  Lane lane = 0;
  uint64_t enqueue_ns = 0, start_ns = 0, end_ns = 0;  // steady clock; on the CPU enqueue equals start
  Work work;
};

// A kernel or copy on a device, and the call that launched it: several per instruction, or one that stands
// for all of the instruction's where single ones were not seen (name: empty).
struct KernelRecord {
  int32_t instruction = 0, step = 0;  // step: filled in by emit
  std::string name;
  uint64_t launch_ns = 0, launched_ns = 0, start_ns = 0, end_ns = 0;
};

class Trace {
 public:
  static uint64_t now_ns();
  void emit(const TraceRecord& record) { records_.push_back(record); }
  const std::vector<TraceRecord>& records() const { return records_; }
  void clear() { records_.clear(), kernels_.clear(), steps_ = 0; }

  // For devices that work beside the host. clock: how times are taken, for people.
  void begin_step(std::string clock) { clock_ = std::move(clock), ++steps_; }
  void emit(KernelRecord record) {
    record.step = steps_ - 1;
    kernels_.push_back(std::move(record));
  }
  const std::vector<KernelRecord>& kernels() const { return kernels_; }
  const std::string& clock() const { return clock_; }

 private:
  std::vector<TraceRecord> records_;
  std::vector<KernelRecord> kernels_;
  std::string clock_;
  int32_t steps_ = 0;
};

// Complete events named after the instructions, with bytes, operations, GB/s and GFLOP/s as arguments.
void write_chrome_trace(const Trace&, const Program&, const std::filesystem::path&);

// A table per kind of instruction: calls, time, share, GB/s, GFLOP/s.
std::string summarize(const Trace&, const Program&);

}  // namespace cairn::program
