// What ran when: one record per instruction and step, and the file that Chrome and Perfetto open.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "program/program.h"

namespace cairn::program {

struct TraceRecord {
  int32_t instruction = 0;
  Lane lane = 0;
  uint64_t enqueue_ns = 0, start_ns = 0, end_ns = 0;  // steady clock; on the CPU enqueue equals start
  Work work;
};

class Trace {
 public:
  static uint64_t now_ns();
  void emit(const TraceRecord& record) { records_.push_back(record); }
  const std::vector<TraceRecord>& records() const { return records_; }
  void clear() { records_.clear(); }

 private:
  std::vector<TraceRecord> records_;
};

// Complete events named after the instructions, with bytes, operations, GB/s and GFLOP/s as arguments.
void write_chrome_trace(const Trace&, const Program&, const std::filesystem::path&);

// A table per kind of instruction: calls, time, share, GB/s, GFLOP/s.
std::string summarize(const Trace&, const Program&);

}  // namespace cairn::program
