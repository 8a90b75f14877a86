// Which files of a model repository are needed to run it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::formats {

struct HubSelection {
  std::vector<std::string> files;  // to download, small ones first
  std::string open;                // what to open afterwards: one of them, or "" for the folder
};

// `wanted` is a file of the repository, a GGUF quantization ("q4_k_m", any case), or "" for all that is
// needed: the safetensors with configuration and tokenizer, else the Q4_K_M GGUF or the only one. `read`
// gives the text of a file of the repository (the shard index). Throws Error(not_found) when nothing fits,
// Error(invalid_argument) when more than one model does; both name what there is.
HubSelection select_hub_files(const std::string& repo, const std::vector<std::string>& names,
                              const std::string& wanted,
                              const std::function<std::string(const std::string&)>& read);

}  // namespace cairn::formats
