#include "command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <numeric>
#include <regex>
#include <string>
#include <vector>

#include "exit_code.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

std::vector<Command>& registry() {
  static std::vector<Command> rows;  // filled by static initialisers of other files: must not be one itself
  return rows;
}

constexpr std::string_view kReportHint =
    "this is a bug in cairn; please report it with the command that shows it";

void print_error(std::string_view message, std::string_view hint) {
  std::fflush(stdout);
  std::fputs(fmt::format("error: {}\n", visible(message)).c_str(), stderr);
  if (!hint.empty()) std::fputs(fmt::format("hint: {}\n", visible(hint)).c_str(), stderr);
}

// A message may carry its hint: "there is no model x/y here\nhint: `cairn pull x/y` fetches it".
void print_error(const Error& error) {
  constexpr std::string_view kMark = "\nhint: ";
  const std::string_view message = error.what();
  const size_t end = message.find(kMark);
  print_error(message.substr(0, end), end == message.npos ? "" : message.substr(end + kMark.size()));
}

std::string overview() {
  std::string text =
      "cairn runs language models on this machine.\n\n"
      "Usage: cairn COMMAND [OPTIONS] ...\n\nCommands:\n";
  size_t width = 0;
  for (const auto& command : commands()) width = std::max(width, command.name.size());
  for (const auto& command : commands())
    text += fmt::format("  {:{}}  {}\n", command.name, width, command.help);
  text +=
      "\nOptions:\n"
      "  -h, --help     this text; `cairn COMMAND --help` explains one command\n"
      "  --version      the program's version\n";
  return text;
}

int unknown_command(std::string_view word) {
  std::vector<std::string> names{"help"};
  for (const auto& command : commands()) names.emplace_back(command.name);
  const std::string guess = nearest(word, names);
  print_error(
      fmt::format("there is no command '{}'", word),
      guess.empty() ? "`cairn --help` lists the commands" : fmt::format("did you mean `cairn {}`?", guess));
  return exit_code(ErrorKind::invalid_argument);
}

// "--tokens: Value -4 not in range 0.000000 to 1797...858368.000000" says the limit of double in full.
std::string readable_range(const std::string& message) {
  static const std::regex pattern(R"(^(\S+): Value (.*) not in range (-?[\d.]+) to (-?[\d.]+)$)");
  std::smatch part;
  if (!std::regex_match(message, part, pattern)) return message;
  const double low = std::strtod(part[3].str().c_str(), nullptr),
               high = std::strtod(part[4].str().c_str(), nullptr);
  const std::string bounds = high > 1e300
                                 ? fmt::format("be {:g} or more", low)
                                 : fmt::format("lie between {} and {}", part[3].str(), part[4].str());
  return fmt::format("{} is {}; it must {}", part[1].str(), part[2].str(), bounds);
}

// CLI11's own sentence, and the long option that an unknown one resembles.
int usage_error(const CLI::ParseError& error, const CLI::App& app) {
  std::string hint = fmt::format("`{} --help` lists what it accepts", app.get_name());
  std::string message = readable_range(error.what());
  std::replace(message.begin(), message.end(), '\n', ' ');
  if (dynamic_cast<const CLI::ExtrasError*>(&error)) {
    std::vector<std::string> known;
    for (const auto* option : app.get_options())
      for (const auto& name : option->get_lnames()) known.push_back("--" + name);
    const auto extras = app.remaining();
    const std::string word = extras.empty() ? std::string() : extras.front();
    if (word.rfind("-", 0) == 0) {
      const std::string flag = word.substr(0, word.find('='));
      const std::string guess = nearest(flag, known);
      message = fmt::format("{} has no option '{}'", app.get_name(), flag);
      if (!guess.empty()) hint = fmt::format("did you mean {}?", guess);
    } else if (!word.empty()) {
      message = fmt::format("{} does not expect the argument '{}'", app.get_name(), word);
    }
  }
  print_error(message, hint);
  return exit_code(ErrorKind::invalid_argument);
}

int run_command(const Command& command, int argc, const char* const* argv) {
  CLI::App app{std::string(command.help)};
  app.name(fmt::format("cairn {}", command.name));
  app.get_formatter()->column_width(34);
  const auto body = command.setup(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    write_out(app.help());
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    return usage_error(error, app);
  }
  return body();
}

int dispatch(int argc, const char* const* argv) {
  if (argc < 2) {
    std::fputs(overview().c_str(), stderr);
    return exit_code(ErrorKind::invalid_argument);
  }
  const std::string_view word = argv[1];
  if (word == "--version" || word == "-V") {
    write_out("cairn " CAIRN_VERSION "\n");
    return kExitOk;
  }
  if (word == "--help" || word == "-h" || (word == "help" && argc == 2)) {
    write_out(overview());
    return kExitOk;
  }
  if (word == "help") {
    const Command* command = argc > 3 ? find_command(fmt::format("{} {}", argv[2], argv[3])) : nullptr;
    if (!command) command = find_command(argv[2]);
    if (!command) return unknown_command(argv[2]);
    const char* const help[] = {argv[2], "--help"};
    return run_command(*command, 2, help);
  }
  if (argc > 2)  // "bench serve" before "bench"
    if (const Command* command = find_command(fmt::format("{} {}", word, argv[2])))
      return run_command(*command, argc - 2, argv + 2);
  if (const Command* command = find_command(word)) return run_command(*command, argc - 1, argv + 1);
  if (word.substr(0, 1) == "-") {
    print_error(fmt::format("cairn has no option '{}' before the command", word),
                "`cairn --help` shows the usage");
    return exit_code(ErrorKind::invalid_argument);
  }
  return unknown_command(word);
}

}  // namespace

RegisterCommand::RegisterCommand(const Command& command) {
  auto& rows = registry();
  rows.insert(std::upper_bound(rows.begin(), rows.end(), command,
                               [](const Command& a, const Command& b) { return a.name < b.name; }),
              command);
}

std::span<const Command> commands() { return registry(); }

const Command* find_command(std::string_view name) {
  for (const auto& command : commands())
    if (command.name == name) return &command;
  return nullptr;
}

std::string nearest(std::string_view word, std::span<const std::string> known) {
  std::string best;
  size_t best_distance = word.size() / 3 + 1;  // one slip per three letters still counts as a slip
  for (const auto& candidate : known) {
    // Optimal string alignment: insertions, deletions, replacements, and swaps of neighbours.
    std::vector<size_t> before(candidate.size() + 1), row(before), next(before);
    std::iota(row.begin(), row.end(), size_t{0});
    for (size_t i = 1; i <= word.size(); ++i) {
      next[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        next[j] =
            std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (word[i - 1] == candidate[j - 1] ? 0 : 1)});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1])
          next[j] = std::min(next[j], before[j - 2] + 1);
      }
      before.swap(row);
      row.swap(next);
    }
    if (row.back() < best_distance || (row.back() == best_distance && best.empty())) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

int run_program(int argc, const char* const* argv) {
  try {
    const int code = dispatch(argc, argv);
    flush_out();
    return code;
  } catch (const OutputClosed&) {
    return kExitOk;  // `cairn ... | head`: the reader has what it wanted
  } catch (const Error& error) {
    print_error(error);
    return exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    print_error("there is not enough memory for this", "`cairn devices` shows how much is free");
    return exit_code(ErrorKind::out_of_memory);
  } catch (const std::filesystem::filesystem_error& error) {
    print_error(error.what(), "");
    return exit_code(ErrorKind::io);
  } catch (const std::exception& error) {
    print_error(fmt::format("internal: {}", error.what()), kReportHint);
    return kExitInternal;
  }
}

}  // namespace cairn::app
