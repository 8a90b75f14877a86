#include "backends/cuda/nvrtc.h"

#include <dlfcn.h>
#include <glob.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace cairn::cuda {

struct Nvrtc::Functions {
  using Program = struct ProgramTag*;
  int (*version)(int*, int*);
  int (*architecture_count)(int*);
  int (*architectures)(int*);
  int (*create)(Program*, const char* source, const char* name, int headers, const char* const* contents,
                const char* const* names);
  int (*compile)(Program, int options, const char* const*);
  int (*cubin_size)(Program, size_t*);
  int (*cubin)(Program, char*);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*destroy)(Program*);
};

namespace {

// Shell patterns, tried in this order; of several matches the last in name order (the newest) comes first.
std::vector<std::string> places() {
  std::vector<std::string> patterns;
  if (const char* file = std::getenv("CAIRN_NVRTC"); file && *file) return {file};
  for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) patterns.emplace_back(name);
  for (const char* root :
       {"/usr/local/cuda/lib64", "/usr/local/cuda-1*/lib64", "/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu"})
    patterns.push_back(std::string(root) + "/libnvrtc.so.1[0-9]*");
  std::vector<std::string> pythons = {"/usr/local/lib/python3*/dist-packages",
                                      "/usr/lib/python3*/dist-packages"};
  if (const char* environment = std::getenv("VIRTUAL_ENV"))
    pythons.push_back(std::string(environment) + "/lib/python3*/site-packages");
  if (const char* prefix = std::getenv("CONDA_PREFIX"))
    pythons.push_back(std::string(prefix) + "/lib/python3*/site-packages");
  if (const char* home = std::getenv("HOME"))
    pythons.push_back(std::string(home) + "/.local/lib/python3*/site-packages");
  for (const auto& p : pythons) patterns.push_back(p + "/nvidia/*/lib/libnvrtc.so.1[0-9]*");
  return patterns;
}

std::vector<std::string> matches(const std::string& pattern) {
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

}  // namespace

Nvrtc::Nvrtc() {
  static Functions f;
  std::string looked;
  for (const auto& pattern : places()) {
    for (const auto& path : matches(pattern)) {
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!library) continue;
      const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
        return function != nullptr;
      };
      if (!find(f.version, "nvrtcVersion") || !find(f.architecture_count, "nvrtcGetNumSupportedArchs") ||
          !find(f.architectures, "nvrtcGetSupportedArchs") || !find(f.create, "nvrtcCreateProgram") ||
          !find(f.compile, "nvrtcCompileProgram") || !find(f.cubin_size, "nvrtcGetCUBINSize") ||
          !find(f.cubin, "nvrtcGetCUBIN") || !find(f.log_size, "nvrtcGetProgramLogSize") ||
          !find(f.log, "nvrtcGetProgramLog") || !find(f.destroy, "nvrtcDestroyProgram"))
        continue;
      int major = 0, minor = 0, count = 0;
      if (f.version(&major, &minor) != 0 || major < 12) continue;
      f.architecture_count(&count);
      architectures_.resize(size_t(std::max(count, 0)));
      f.architectures(architectures_.data());
      version_ = major * 1000 + minor * 10;
      path_ = path;
      functions_ = &f;
      return;
    }
    looked += (looked.empty() ? "" : ", ") + pattern;
  }
  fail(ErrorKind::unsupported,
       "NVRTC (CUDA's run-time compiler, 12.0 or newer) was not found; install the CUDA toolkit or `pip "
       "install "
       "nvidia-cuda-nvrtc`, or name the file in CAIRN_NVRTC. Looked for: {}",
       looked);
}

const Nvrtc& Nvrtc::instance() {
  static const Nvrtc nvrtc;
  return nvrtc;
}

bool Nvrtc::supports(std::string_view architecture) const {
  int number = 0;
  if (!architecture.starts_with("sm_")) return false;
  std::from_chars(architecture.data() + 3, architecture.data() + architecture.size(), number);
  return std::find(architectures_.begin(), architectures_.end(), number) != architectures_.end();
}

NvrtcResult Nvrtc::compile(const std::string& source, const std::string& name,
                           const std::vector<std::pair<std::string, std::string>>& headers,
                           const std::vector<std::string>& options) const {
  const auto& f = *functions_;
  std::vector<const char*> header_names, header_texts, arguments;
  for (const auto& [header, text] : headers)
    header_names.push_back(header.c_str()), header_texts.push_back(text.c_str());
  for (const auto& option : options) arguments.push_back(option.c_str());
  NvrtcResult result;
  Functions::Program program = nullptr;
  if (f.create(&program, source.c_str(), name.c_str(), int(headers.size()), header_texts.data(),
               header_names.data()) != 0) {
    result.log = "NVRTC could not start";
    return result;
  }
  result.ok = f.compile(program, int(arguments.size()), arguments.data()) == 0;
  size_t size = 0;
  if (f.log_size(program, &size) == 0 && size > 1) {
    result.log.resize(size);
    f.log(program, result.log.data());
    result.log.resize(size - 1);  // its terminator
  }
  if (result.ok) {
    result.ok = f.cubin_size(program, &size) == 0 && size > 0;
    if (result.ok) {
      result.cubin.resize(size);
      f.cubin(program, result.cubin.data());
    }
  }
  f.destroy(&program);
  return result;
}

}  // namespace cairn::cuda
