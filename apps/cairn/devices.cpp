// cairn devices: what this machine has, and with --measure what its memory gives.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "backends/cuda/ceilings.h"
#include "backends/cuda/nvrtc.h"
#include "base/error.h"
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
  return {{"cpu", cpu}, {"memory", memory}, {"gpus", nlohmann::ordered_json::array()}};
}

// The GPUs, or why there are none.
struct Gpus {
  struct Row {
    cuda::DeviceFacts facts;
    size_t free_bytes = 0;
    double read_gb_per_s = 0;  // 0: not measured
  };
  std::vector<Row> rows;
  std::string why_none, compiler;

  explicit Gpus(bool measure) {
    for (const auto& facts : cuda::list_devices(&why_none)) {
      rows.push_back({facts});
      const cuda::Device device(facts.ordinal);
      rows.back().free_bytes = device.free_bytes();
      if (measure) rows.back().read_gb_per_s = cuda::measure_read_bandwidth(device).median_gb_per_s;
    }
    try {
      const auto& nvrtc = cuda::Nvrtc::instance();
      compiler =
          fmt::format("NVRTC {}.{} ({})", nvrtc.version() / 1000, nvrtc.version() % 1000 / 10, nvrtc.path());
    } catch (const Error& e) {
      compiler = e.what();
    }
  }

  void add_to(nlohmann::ordered_json& json) const {
    for (const auto& row : rows) {
      const auto& f = row.facts;
      json["gpus"].push_back(
          {{"index", f.ordinal},
           {"name", f.name},
           {"pci", f.pci},
           {"compute_capability", fmt::format("{}.{}", f.capability / 10, f.capability % 10)},
           {"multiprocessors", f.multiprocessors},
           {"memory_bytes", f.memory_bytes},
           {"free_bytes", row.free_bytes},
           {"l2_bytes", f.l2_bytes},
           {"driver", fmt::format("{}.{}", f.driver_version / 1000, f.driver_version % 1000 / 10)}});
      if (row.read_gb_per_s > 0) json["gpus"].back()["read_gb_per_s"] = row.read_gb_per_s;
    }
    if (rows.empty()) json["no_gpu_because"] = why_none;
    json["gpu_compiler"] = compiler;
  }

  std::string text() const {
    if (rows.empty()) return fmt::format("gpu          none: {}\n", why_none);
    std::string text;
    for (const auto& row : rows) {
      const auto& f = row.facts;
      text += fmt::format(
          "gpu {}        {}, {} of {} free, compute capability {}.{}, {} multiprocessors, L2 {}, PCI {}, "
          "driver for CUDA {}.{}\n",
          f.ordinal, f.name, readable_bytes(row.free_bytes), readable_bytes(f.memory_bytes),
          f.capability / 10, f.capability % 10, f.multiprocessors, readable_bytes(f.l2_bytes), f.pci,
          f.driver_version / 1000, f.driver_version % 1000 / 10);
      if (row.read_gb_per_s > 0)
        text += fmt::format("gpu {} read   {:.0f} GB/s\n", f.ordinal, row.read_gb_per_s);
    }
    return text + fmt::format("gpu compiler {}\n", compiler);
  }
};

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
  const Gpus gpus(options.measure);
  auto json = as_json(machine, bandwidth);
  gpus.add_to(json);
  write_out(options.json ? json.dump(2) + "\n" : as_text(machine, bandwidth) + gpus.text());
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
