// Where NVIDIA's libraries lie on machines of many kinds.
#pragma once

#include <string>
#include <vector>

namespace cairn::cuda {

// Shell patterns for lib<name>.so, tried in this order: the file that the environment's `variable` names
// (then nothing else), the loader's path, CUDA toolkits, pip's nvidia packages of the pythons on this
// machine.
std::vector<std::string> library_patterns(const std::string& name, const char* variable);
// The files that fit a pattern, the last in name order (the newest) first; a pattern without a slash is for
// the loader and fits itself.
std::vector<std::string> matching_files(const std::string& pattern);

}  // namespace cairn::cuda
