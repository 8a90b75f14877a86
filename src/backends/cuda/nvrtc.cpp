#include "backends/cuda/nvrtc.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>

#include "backends/cuda/library_places.h"
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

Nvrtc::Nvrtc() {
  static Functions f;
  std::string looked;
  for (const auto& pattern : library_patterns("nvrtc", "CAIRN_NVRTC")) {
    for (const auto& path : matching_files(pattern)) {
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
