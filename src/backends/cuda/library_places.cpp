#include "backends/cuda/library_places.h"

#include <glob.h>

#include <algorithm>
#include <cstdlib>

namespace cairn::cuda {

std::vector<std::string> library_patterns(const std::string& name, const char* variable) {
  if (const char* file = std::getenv(variable); file && *file) return {file};
  const std::string base = "lib" + name + ".so";
  std::vector<std::string> patterns = {base + ".13", base + ".12", base};
  for (const char* root :
       {"/usr/local/cuda/lib64", "/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/cuda-1*/lib64",
        "/usr/local/cuda-1*/extras/CUPTI/lib64", "/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu"})
    patterns.push_back(std::string(root) + "/" + base + ".1[0-9]*");
  std::vector<std::string> pythons = {"/usr/local/lib/python3*/dist-packages",
                                      "/usr/lib/python3*/dist-packages"};
  if (const char* environment = std::getenv("VIRTUAL_ENV"))
    pythons.push_back(std::string(environment) + "/lib/python3*/site-packages");
  if (const char* prefix = std::getenv("CONDA_PREFIX"))
    pythons.push_back(std::string(prefix) + "/lib/python3*/site-packages");
  if (const char* home = std::getenv("HOME"))
    pythons.push_back(std::string(home) + "/.local/lib/python3*/site-packages");
  for (const auto& p : pythons) patterns.push_back(p + "/nvidia/*/lib/" + base + ".1[0-9]*");
  return patterns;
}

std::vector<std::string> matching_files(const std::string& pattern) {
  if (pattern.find('/') == std::string::npos) return {pattern};
  glob_t found{};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  std::erase_if(paths, [](const std::string& p) { return p.find(".alt.") != std::string::npos; });
  std::reverse(paths.begin(), paths.end());
  return paths;
}

}  // namespace cairn::cuda
