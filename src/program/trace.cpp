#include "program/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <span>

#include "base/mapped_file.h"

namespace cairn::program {
namespace {

// Instruction names come from tensor names of files: quotes and control characters must not break the JSON.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

uint64_t Trace::now_ns() {
  return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                      std::chrono::steady_clock::now().time_since_epoch())
                      .count());
}

void write_chrome_trace(const Trace& trace, const Program& program, const std::filesystem::path& path) {
  uint64_t origin = ~uint64_t{0};
  for (const auto& record : trace.records()) origin = std::min(origin, record.start_ns);
  std::string text = "{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n";
  bool first = true;
  for (const auto& record : trace.records()) {
    const auto& instruction = program.instructions[size_t(record.instruction)];
    const double us = double(record.end_ns - record.start_ns) / 1e3;
    // What another instruction has done on the way took no time of its own: no rate either.
    const double per_second = us > 0 ? 1e6 / us : 0;
    text += fmt::format(
        "{}{{\"name\": \"{}\", \"cat\": \"{}\", \"ph\": \"X\", \"pid\": 1, \"tid\": {}, \"ts\": {:.3f}, "
        "\"dur\": {:.3f}, "
        "\"args\": {{\"instruction\": {}, \"layer\": {}, \"enqueue_us\": {:.3f}, \"bytes\": {}, "
        "\"operations\": {}, "
        "\"GB/s\": {:.3f}, \"GFLOP/s\": {:.3f}}}}}",
        first ? "" : ",\n", escaped(instruction.name), name_of(instruction.operation), record.lane,
        double(record.start_ns - origin) / 1e3, us, record.instruction, instruction.layer,
        (double(record.enqueue_ns) - double(origin)) / 1e3, record.work.bytes(), record.work.operations,
        double(record.work.bytes()) * per_second / 1e9, double(record.work.operations) * per_second / 1e9);
    first = false;
  }
  // Single kernels on a second line, from which the launching calls can be followed.
  for (const auto& k : trace.kernels()) {
    if (k.name.empty()) continue;
    const auto& instruction = program.instructions[size_t(k.instruction)];
    const auto us = [&](uint64_t t) { return (double(t) - double(origin)) / 1e3; };
    text += fmt::format(
        "{}{{\"name\": \"{}\", \"cat\": \"kernel\", \"ph\": \"X\", \"pid\": 1, \"tid\": 100, \"ts\": {:.3f}, "
        "\"dur\": {:.3f}, \"args\": {{\"instruction\": \"{}\", \"launch_us\": {:.3f}, \"launch_call_us\": "
        "{:.3f}}}}}",
        first ? "" : ",\n", escaped(k.name), us(k.start_ns), double(k.end_ns - k.start_ns) / 1e3,
        escaped(instruction.name), us(k.launch_ns), double(k.launched_ns - k.launch_ns) / 1e3);
    first = false;
  }
  text += "\n]}\n";
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

std::string summarize(const Trace& trace, const Program& program) {
  struct Total {
    int64_t calls = 0;
    double seconds = 0;
    Work work;
  };
  std::map<std::string, Total> totals;
  double all = 0;
  for (const auto& record : trace.records()) {
    const auto& instruction = program.instructions[size_t(record.instruction)];
    // "layers.3.q_proj+k_proj" counts as "matmul q_proj+k_proj"
    const auto dot = instruction.name.rfind('.');
    auto& total =
        totals[fmt::format("{} {}", name_of(instruction.operation),
                           dot == std::string::npos ? instruction.name : instruction.name.substr(dot + 1))];
    const double seconds = double(record.end_ns - record.start_ns) * 1e-9;
    ++total.calls;
    total.seconds += seconds;
    total.work += record.work;
    all += seconds;
  }
  std::vector<std::pair<std::string, Total>> rows(totals.begin(), totals.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::string text = fmt::format("{:<44}{:>8}{:>12}{:>8}{:>10}{:>12}\n", "instruction", "calls", "ms", "%",
                                 "GB/s", "GFLOP/s");
  for (const auto& [name, total] : rows) {
    const double per_second = total.seconds > 0 ? 1 / total.seconds : 0;
    text += fmt::format("{:<44}{:>8}{:>12.3f}{:>8.1f}{:>10.2f}{:>12.1f}\n", name, total.calls,
                        total.seconds * 1e3, 100 * total.seconds / std::max(all, 1e-12),
                        double(total.work.bytes()) * per_second / 1e9,
                        double(total.work.operations) * per_second / 1e9);
  }
  return text;
}

}  // namespace cairn::program
