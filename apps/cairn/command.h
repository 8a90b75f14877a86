// The subcommands of the program. Each is one file that registers a row and needs no edit anywhere else:
//
//   std::function<int()> setup(CLI::App& app) {
//     auto options = std::make_shared<Options>();
//     app.add_option("model", options->model, "folder, file or org/name");
//     return [options] { return run(*options); };
//   }
//   const RegisterCommand registered({"inspect", "show what a model file holds", setup});
//
// Help, completion scripts and suggestions for misspelt names are generated from these rows.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace cairn::app {

struct Command {
  std::string_view name;  // one word, or two ("bench serve") for a form of a command that stands on its own
  std::string_view help;  // one line, lower case, no full stop
  // Adds the command's flags to `app`; what it returns runs after they were parsed and gives the exit code.
  // Errors are thrown (base/error.h); main prints them and picks the code.
  std::function<int()> (*setup)(CLI::App& app);
};

struct RegisterCommand {
  explicit RegisterCommand(const Command&);
};

std::span<const Command> commands();  // sorted by name
const Command* find_command(std::string_view name);

// The one of `known` that a misspelt `word` most likely meant; empty when none is near.
std::string nearest(std::string_view word, std::span<const std::string> known);

// Everything main does, for tests too: parses, runs, prints errors to stderr, returns the exit code.
int run_program(int argc, const char* const* argv);

}  // namespace cairn::app
