// cairn devices: what this machine has, and with --measure what its memory gives.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "command.h"
#include "output.h"
#include "plan/machine.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  bool measure = false, json = false;
  int threads = 0;
};

nlohmann::ordered_json as_json(const plan::Machine& machine, const plan::Bandwidth* bandwidth) {
  nlohmann::ordered_json cpu{{"name", machine.cpu},
                             {"logical_cores", machine.logical_cores},
                             {"physical_cores", machine.physical_cores},
                             {"instructions", to_string(machine.isa)}};
  cpu["caches"] = nlohmann::ordered_json::array();
  for (const auto& cache : machine.caches)
    cpu["caches"].push_back({{"level", cache.level},
                             {"type", cache.type},
                             {"bytes", cache.bytes},
                             {"shared_by_logical_cores", cache.shared_by}});
  nlohmann::ordered_json memory{{"total_bytes", machine.memory.total},
                                {"available_bytes", machine.memory.available}};
  if (bandwidth)
    memory["read"] = {{"median_gb_per_s", bandwidth->median_gb_per_s},
                      {"best_gb_per_s", bandwidth->best_gb_per_s},
                      {"threads", bandwidth->threads},
                      {"bytes_per_repetition", bandwidth->bytes},
                      {"repetitions", bandwidth->repetitions}};
  return {{"cpu", cpu}, {"memory", memory}};
}

std::string as_text(const plan::Machine& machine, const plan::Bandwidth* bandwidth) {
  std::string text = fmt::format("cpu          {}\n", machine.cpu.empty() ? "(unnamed)" : machine.cpu);
  text += fmt::format("cores        {} usable", machine.logical_cores);
  if (machine.physical_cores > 0) text += fmt::format(" (machine: {} physical)", machine.physical_cores);
  text += fmt::format("\ninstructions {}\n", to_string(machine.isa));
  for (const auto& cache : machine.caches) {
    const char* kind = cache.type == "Data" ? "d" : cache.type == "Instruction" ? "i" : "";
    text += fmt::format("cache        L{}{} {}", cache.level, kind, readable_bytes(cache.bytes));
    text += cache.shared_by > 1 ? fmt::format(", shared by {} cores\n", cache.shared_by) : "\n";
  }
  text += fmt::format("memory       {} total, {} available\n", readable_bytes(machine.memory.total),
                      readable_bytes(machine.memory.available));
  if (bandwidth)
    text += fmt::format("memory read  {:.1f} GB/s (median of {} x {}, best {:.1f}; {} {})\n",
                        bandwidth->median_gb_per_s, bandwidth->repetitions, readable_bytes(bandwidth->bytes),
                        bandwidth->best_gb_per_s, bandwidth->threads,
                        bandwidth->threads == 1 ? "thread" : "threads");
  return text;
}

int run(const Options& options) {
  const plan::Machine machine = plan::describe_machine();
  plan::Bandwidth measured;
  if (options.measure) {
    ThreadPool pool(options.threads);
    measured = plan::measure_read_bandwidth(pool, plan::bandwidth_test_bytes(machine));
  }
  const plan::Bandwidth* bandwidth = options.measure ? &measured : nullptr;
  write_out(options.json ? as_json(machine, bandwidth).dump(2) + "\n" : as_text(machine, bandwidth));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_flag("--measure", options->measure, "measure the bandwidth of reading memory (a second)");
  app.add_option("-t,--threads", options->threads, "threads for --measure; 0: every usable core")
      ->check(CLI::Range(0, 4096));
  app.add_flag("--json", options->json, "print JSON");
  return [options] { return run(*options); };
}

const RegisterCommand registered({"devices", "show what this machine can compute with", setup});

}  // namespace
}  // namespace cairn::app
