// A libnvrtc that compiles nothing, for tests: what it returns only looks like machine code. FAKE_NVRTC sets
// what it pretends, "name=value,...":
//   version (13), fail (a source file that does not compile), newest (the newest architecture, 120)
// FAKE_NVRTC_LOG names a file that gets a line per compilation: the source and its macros.
#include <cstring>
#include <fstream>
#include <mutex>

#include "fake_settings.h"

namespace {
struct Program {
  std::string name, log;
  bool ok = false;
};
constexpr int kArchitectures[] = {80, 86, 89, 90, 100, 120};

int known() {
  const auto newest = fake_number("FAKE_NVRTC", "newest", 120);
  int count = 0;
  for (const int a : kArchitectures) count += a <= newest;
  return count;
}
}  // namespace

extern "C" {

int nvrtcVersion(int* major, int* minor) {
  return *major = int(fake_number("FAKE_NVRTC", "version", 13)), *minor = 0, 0;
}
int nvrtcGetNumSupportedArchs(int* count) { return *count = known(), 0; }
int nvrtcGetSupportedArchs(int* list) {
  for (int i = 0; i < known(); ++i) list[i] = kArchitectures[i];
  return 0;
}
int nvrtcCreateProgram(void** program, const char*, const char* name, int, const char* const*,
                       const char* const*) {
  return *program = new Program{name, {}, false}, 0;
}
int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
  auto& program = *static_cast<Program*>(handle);
  std::string line = program.name;
  for (int i = 0; i < count; ++i)
    if (std::strncmp(options[i], "-D", 2) == 0) line += std::string(" ") + (options[i] + 2);
  if (const char* path = std::getenv("FAKE_NVRTC_LOG")) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    std::ofstream(path, std::ios::app) << line << '\n';
  }
  program.ok = program.name != fake_setting("FAKE_NVRTC", "fail", "");
  program.log = program.ok ? "ptxas info    : Used 1 registers"
                           : program.name + "(7): error: what the fake does not like";
  return program.ok ? 0 : 6;
}
int nvrtcGetCUBINSize(void*, size_t* size) { return *size = 128, 0; }
int nvrtcGetCUBIN(void*, char* cubin) {
  std::memset(cubin, 0, 128);
  std::memcpy(cubin,
              "\x7f"
              "ELF",
              4);
  return 0;
}
int nvrtcGetProgramLogSize(void* handle, size_t* size) {
  return *size = static_cast<Program*>(handle)->log.size() + 1, 0;
}
int nvrtcGetProgramLog(void* handle, char* text) {
  const auto& log = static_cast<Program*>(handle)->log;
  return std::memcpy(text, log.c_str(), log.size() + 1), 0;
}
int nvrtcDestroyProgram(void** handle) {
  delete static_cast<Program*>(*handle);
  return *handle = nullptr, 0;
}

}  // extern "C"
