#include "model_path.h"

#include <cstdlib>

#include "base/error.h"
#include "command.h"
#include "formats/hub.h"

namespace cairn::app {
namespace {

constexpr const char* kShippedModel = "cairn-stories/cairn-stories-q8_0.gguf";

// What lies beside a path that does not exist and is spelt nearly like it; empty when nothing does.
std::string neighbour(const std::filesystem::path& missing) {
  const auto folder = missing.has_parent_path() ? missing.parent_path() : std::filesystem::path(".");
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (names.size() < 10'000) names.push_back(entry->path().filename().string());
  const std::string name = nearest(missing.filename().string(), names);
  return name.empty() ? name
                      : (missing.has_parent_path() ? folder / name : std::filesystem::path(name)).string();
}

}  // namespace

std::vector<std::filesystem::path> shipped_model_folders() {
  std::vector<std::filesystem::path> folders;
  if (const char* wish = std::getenv("CAIRN_MODELS"); wish && *wish) folders.emplace_back(wish);
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(program.parent_path().parent_path() / "share/cairn/models");
  folders.push_back(std::filesystem::path(CAIRN_SOURCE_DIR) / "models");
  // A checkout that was moved after the build: build/release/cairn.
  if (!error) folders.push_back(program.parent_path().parent_path().parent_path() / "models");
  return folders;
}

std::filesystem::path shipped_model() {
  std::string places;
  for (const auto& folder : shipped_model_folders()) {
    const auto path = folder / kShippedModel;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) return path;
    places += (places.empty() ? "" : ", ") + folder.string();
  }
  fail(ErrorKind::not_found,
       "the model that ships with cairn, {}, is in none of these folders: {}\n"
       "hint: name a model, or set CAIRN_MODELS to the folder that holds it",
       kShippedModel, places);
}

std::filesystem::path resolve_model(const std::string& argument) {
  if (argument.empty()) return shipped_model();
  std::error_code error;
  if (std::filesystem::exists(argument, error)) return argument;
  if (error && error != std::errc::not_a_directory)
    fail(ErrorKind::io, "cannot look at {}: {}", argument, error.message());
  const bool hub_name = formats::is_model_name(argument);
  if (hub_name)
    if (const auto cached = formats::find_cached(formats::parse_model_name(argument),
                                                 formats::pull_options_from_environment()))
      return *cached;
  const std::string near = neighbour(argument);
  if (hub_name && near.empty())
    fail(ErrorKind::not_found,
         "there is no file or folder '{0}', and no model of that name was pulled\nhint: `cairn pull {0}` "
         "fetches it",
         argument);
  fail(ErrorKind::not_found, "there is no file or folder '{}'{}", argument,
       near.empty() ? std::string() : "\nhint: did you mean " + near + "?");
}

}  // namespace cairn::app
