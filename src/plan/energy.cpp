#include "plan/energy.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <optional>
#include <type_traits>
#include <vector>

namespace cairn::plan {
namespace {

namespace fs = std::filesystem;

std::optional<uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

class RaplMeter : public EnergyMeter {
 public:
  struct Package {
    fs::path counter;    // microjoules
    uint64_t range = 0;  // the counter begins again at 0 after this
    uint64_t last = 0, counted = 0;
  };
  explicit RaplMeter(std::vector<Package> packages) : packages_(std::move(packages)) {}

  double joules() override {
    double sum = 0;
    for (auto& p : packages_) {
      if (const auto now = read_number(p.counter)) {
        p.counted += *now >= p.last ? *now - p.last : p.range - p.last + *now;
        p.last = *now;
      }
      sum += double(p.counted) * 1e-6;
    }
    return sum;
  }
  std::string what() const override {
    return fmt::format("RAPL, {} package{}", packages_.size(), packages_.size() == 1 ? "" : "s");
  }

 private:
  std::vector<Package> packages_;
};

// As nvml.h declares them.
struct Nvml {
  using Handle = struct NvmlDevice*;
  int (*init)();
  int (*by_pci)(const char* bus, Handle*);
  int (*energy)(Handle, unsigned long long* millijoules);
};

class NvmlMeter : public EnergyMeter {
 public:
  NvmlMeter(const Nvml& nvml, Nvml::Handle handle, unsigned long long first)
      : nvml_(nvml), handle_(handle), first_(first), last_(first) {}
  double joules() override {
    unsigned long long now = 0;
    if (nvml_.energy(handle_, &now) == 0) last_ = now;
    return double(last_ - first_) * 1e-3;
  }
  std::string what() const override { return "NVML, the whole board"; }

 private:
  Nvml nvml_;
  Nvml::Handle handle_;
  unsigned long long first_, last_;
};

}  // namespace

std::unique_ptr<EnergyMeter> rapl_meter(std::string* why, const fs::path& root) {
  std::vector<RaplMeter::Package> packages;
  bool refused = false;
  std::error_code error;
  // intel-rapl:0 is a package, intel-rapl:0:1 a part of it. AMD's processors appear under the same name.
  for (const auto& entry : fs::directory_iterator(root / "sys/class/powercap", error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("intel-rapl:") || std::count(name.begin(), name.end(), ':') != 1) continue;
    std::ifstream label(entry.path() / "name");
    std::string what;
    label >> what;
    if (!what.starts_with("package")) continue;  // psys counts packages again
    RaplMeter::Package p{entry.path() / "energy_uj"};
    const auto now = read_number(p.counter), range = read_number(entry.path() / "max_energy_range_uj");
    if (!now || !range) {
      refused = true;
      continue;
    }
    p.last = *now, p.range = *range;
    packages.push_back(std::move(p));
  }
  if (!packages.empty()) return std::make_unique<RaplMeter>(std::move(packages));
  *why = refused ? "RAPL's counters in /sys/class/powercap can be read by root only"
                 : "this machine shows no RAPL counters (/sys/class/powercap); virtual machines have none";
  return nullptr;
}

std::unique_ptr<EnergyMeter> nvml_meter(const std::string& pci, std::string* why) {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    *why = "libnvidia-ml.so.1 is not on this machine";
    return nullptr;
  }
  Nvml nvml;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    return function != nullptr;
  };
  Nvml::Handle handle = nullptr;
  unsigned long long first = 0;
  if (!find(nvml.init, "nvmlInit_v2") || !find(nvml.by_pci, "nvmlDeviceGetHandleByPciBusId_v2") ||
      !find(nvml.energy, "nvmlDeviceGetTotalEnergyConsumption"))
    *why = "libnvidia-ml.so.1 is older than energy counters";
  else if (nvml.init() != 0 || nvml.by_pci(pci.c_str(), &handle) != 0 || nvml.energy(handle, &first) != 0)
    *why = "NVML does not count this GPU's energy";
  else
    return std::make_unique<NvmlMeter>(nvml, handle, first);
  return nullptr;  // the library stays open: others of this process may use it
}

}  // namespace cairn::plan
