// The files of kernels/ inside the binary (the .cpp is made by cmake/embed_files.cmake).
#pragma once

#include <string_view>
#include <vector>

namespace cairn::cuda {

struct EmbeddedFile {
  std::string_view name, text;
};
const std::vector<EmbeddedFile>& embedded_files();

}  // namespace cairn::cuda
