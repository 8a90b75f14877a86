// What a MODEL argument may be, and where its files lie.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace cairn::app {

// The help text of every MODEL argument.
inline constexpr const char* kModelHelp = "a model's folder, a GGUF file, or org/name[:file] from a hub";

// "" is the model that ships with cairn. Else a folder or file that exists, else org/name[:file] among the
// pulled models. Throws Error(not_found) that says what was looked for and how to get it; nothing is
// downloaded.
std::filesystem::path resolve_model(const std::string& argument);

// The shipped model, looked for in $CAIRN_MODELS, beside the program (../share/cairn/models or the source
// checkout that it was built in). Throws Error(not_found) naming the places.
std::filesystem::path shipped_model();
std::vector<std::filesystem::path> shipped_model_folders();

}  // namespace cairn::app
