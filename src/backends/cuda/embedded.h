// The files of kernels/ inside the binary (the .cpp is made by cmake/embed_files.cmake).
#pragma once

#include <vector>

#include "base/embedded_file.h"

namespace cairn::cuda {

const std::vector<EmbeddedFile>& embedded_files();

}  // namespace cairn::cuda
