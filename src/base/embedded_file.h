// A file that the binary carries. cairn_folder(x EMBED folder) makes a source that defines
// cairn::<last part of x>::embedded_files() (cmake/embed_files.cmake); that folder declares it.
#pragma once

#include <string_view>

namespace cairn {

struct EmbeddedFile {
  std::string_view name, text;
};

}  // namespace cairn
