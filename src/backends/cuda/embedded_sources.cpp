#include "backends/cuda/embedded.h"
#include "backends/cuda/registry.h"
#include "base/error.h"

namespace cairn::cuda {

std::string_view embedded_source(std::string_view name) {
  for (const auto& file : embedded_files())
    if (file.name == name) return file.text;
  fail(ErrorKind::not_found, "no kernel source is named {}", name);
}

std::vector<std::string_view> embedded_names() {
  std::vector<std::string_view> names;
  for (const auto& file : embedded_files()) names.push_back(file.name);
  return names;
}

}  // namespace cairn::cuda
