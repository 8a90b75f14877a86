// What a measurement took in electrical energy, where the machine counts it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace cairn::plan {

class EnergyMeter {
 public:
  virtual ~EnergyMeter() = default;
  // Joules since the meter was made. To be asked more often than the counter wraps (RAPL: about a minute at
  // full power).
  virtual double joules() = 0;
  // What is counted: "RAPL, 2 packages", "NVML, the whole board".
  virtual std::string what() const = 0;
};

// RAPL's counters of the processor packages (Linux powercap). Null with the reason in *why where there are
// none or they are root's alone. root: for tests.
std::unique_ptr<EnergyMeter> rapl_meter(std::string* why, const std::filesystem::path& root = "/");

// NVML's counter of the GPU at a PCI address ("0000:41:00.0"); null likewise. It is renewed every 20 to 100
// ms: measure half a second at least.
std::unique_ptr<EnergyMeter> nvml_meter(const std::string& pci, std::string* why);

}  // namespace cairn::plan
