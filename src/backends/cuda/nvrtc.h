// NVIDIA's run-time compiler, opened at run time. Facts from the NVRTC API reference.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn::cuda {

struct NvrtcResult {
  bool ok = false;
  std::string cubin, log;
};

class Nvrtc {
 public:
  // Opens the newest libnvrtc of the usual places: $CAIRN_NVRTC (a file), the loader's path,
  // /usr/local/cuda*, pip's nvidia packages of the python on PATH. Throws Error(unsupported) naming them.
  static const Nvrtc& instance();

  int version() const { return version_; }  // 13000 for 13.0
  const std::string& path() const { return path_; }
  bool supports(std::string_view architecture) const;  // "sm_90a"
  NvrtcResult compile(const std::string& source, const std::string& name,
                      const std::vector<std::pair<std::string, std::string>>& headers,
                      const std::vector<std::string>& options) const;

 private:
  Nvrtc();
  struct Functions;
  const Functions* functions_;
  int version_ = 0;
  std::string path_;
  std::vector<int> architectures_;
};

}  // namespace cairn::cuda
