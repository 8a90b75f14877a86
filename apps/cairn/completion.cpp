// cairn completion bash|zsh|fish: a script for the shell, generated from the commands and their flags.
#include "completion.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "command.h"
#include "output.h"

namespace cairn::app {
namespace {

struct Flag {
  std::vector<std::string> names;  // "-n", "--tokens"
  std::string help;
  bool takes_value = false;
};

std::vector<Flag> flags_of(const Command& command) {
  CLI::App app;
  command.setup(app);
  std::vector<Flag> flags;
  for (const auto* option : app.get_options()) {
    if (!option->nonpositional()) continue;
    Flag flag;
    for (const auto& name : option->get_snames()) flag.names.push_back("-" + name);
    for (const auto& name : option->get_lnames()) flag.names.push_back("--" + name);
    flag.help = option->get_description();
    flag.takes_value = option->get_items_expected_max() > 0;
    flags.push_back(std::move(flag));
  }
  return flags;
}

// Help text inside single quotes of the generated script.
std::string in_quotes(std::string_view text, std::string_view special = "") {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else if (c == '\n') {
      out += ' ';
    } else {
      if (special.find(c) != special.npos) out += '\\';
      out += c;
    }
  }
  return out;
}

bool two_words(const Command& command) { return command.name.find(' ') != std::string_view::npos; }

std::string command_names() {
  std::string names = "help";
  for (const auto& command : commands())
    if (!two_words(command)) names += fmt::format(" {}", command.name);
  return names;
}

// A shell's case that makes `chosen` the two words where both were typed: "    'bench serve') chosen=... ;;".
std::string two_word_cases(std::string_view then) {
  std::string cases;
  for (const auto& command : commands())
    if (two_words(command)) cases += fmt::format("    '{0}') chosen='{0}'{1} ;;\n", command.name, then);
  return cases;
}

std::string bash_script() {
  std::string cases;
  for (const auto& command : commands()) {
    std::string words, valued;
    for (const auto& flag : flags_of(command))
      for (const auto& name : flag.names) {
        words += (words.empty() ? "" : " ") + name;
        if (flag.takes_value) valued += (valued.empty() ? "" : "|") + name;
      }
    cases += fmt::format("    '{}') flags='{}'; valued='{}' ;;\n", command.name, words, valued);
  }
  return fmt::format(R"(# bash completion for cairn. To use it now: source <(cairn completion bash)
_cairn() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flags='' valued=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{names} --help --version' -- "$word"))
    return
  fi
  local chosen=${{COMP_WORDS[1]}}
  case "$chosen ${{COMP_WORDS[2]}}" in
{pairs}  esac
  case $chosen in
    help) [ "$COMP_CWORD" -eq 2 ] && COMPREPLY=($(compgen -W '{names}' -- "$word")); return ;;
    completion) COMPREPLY=($(compgen -W 'bash zsh fish --help' -- "$word")); return ;;
{cases}  esac
  if [[ $word == -* && "|$valued|" != *"|$before|"* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  else
    compopt -o filenames 2>/dev/null
    local IFS=$'\n'
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -F _cairn cairn ./cairn
)",
                     fmt::arg("names", command_names()), fmt::arg("pairs", two_word_cases("")),
                     fmt::arg("cases", cases));
}

std::string zsh_script() {
  std::string names, cases;
  for (const auto& command : commands()) {
    if (!two_words(command))
      names += fmt::format("    '{}:{}'\n", command.name, in_quotes(command.help, ":\\"));
    std::string specs;
    for (const auto& flag : flags_of(command)) {
      std::string excluded;
      for (const auto& name : flag.names) excluded += (excluded.empty() ? "" : " ") + name;
      for (const auto& name : flag.names)
        specs += fmt::format(" \\\n        '({}){}[{}]{}'", excluded, name, in_quotes(flag.help, "[]\\:"),
                             flag.takes_value ? ":value:_files" : "");
    }
    const std::string_view rest =
        command.name == "completion" ? "'*:shell:(bash zsh fish)'" : "'*:file:_files'";
    cases += fmt::format("    '{}') _arguments{} \\\n        {} ;;\n", command.name, specs, rest);
  }
  return fmt::format(R"(#compdef cairn
# zsh completion for cairn. To use it: cairn completion zsh > "${{fpath[1]}}/_cairn"
_cairn() {{
  local -a names=(
    'help:explain a command'
{names}  )
  if (( CURRENT == 2 )); then
    _describe command names
    return
  fi
  local chosen=${{words[2]}}
  case "$chosen ${{words[3]}}" in
{pairs}  esac
  shift words
  (( CURRENT-- ))
  case $chosen in
    help) _describe command names ;;
{cases}    *) _files ;;
  esac
}}
if [ "$funcstack[1]" = _cairn ]; then
  _cairn "$@"
else
  compdef _cairn cairn
fi
)",
                     fmt::arg("names", names),
                     fmt::arg("pairs", two_word_cases("; shift words; (( CURRENT-- ))")),
                     fmt::arg("cases", cases));
}

std::string fish_script() {
  std::string text =
      "# fish completion for cairn. To use it now: cairn completion fish | source\n"
      "complete -c cairn -n __fish_use_subcommand -f -l help -d 'explain the commands'\n"
      "complete -c cairn -n __fish_use_subcommand -f -l version -d 'print the version'\n"
      "complete -c cairn -n __fish_use_subcommand -f -a help -d 'explain a command'\n";
  for (const auto& command : commands())
    if (!two_words(command))
      text += fmt::format("complete -c cairn -n __fish_use_subcommand -f -a {} -d '{}'\n", command.name,
                          in_quotes(command.help));
  for (const auto& command : commands())
    for (const auto& flag : flags_of(command)) {
      text += two_words(command)
                  ? fmt::format("complete -c cairn -n 'string match -q \"* {} *\" -- (commandline -cp)'",
                                command.name)
                  : fmt::format("complete -c cairn -n '__fish_seen_subcommand_from {}'", command.name);
      for (const auto& name : flag.names)
        text += name.rfind("--", 0) == 0 ? " -l " + name.substr(2) : " -s " + name.substr(1);
      text += fmt::format("{} -d '{}'\n", flag.takes_value ? " -r" : "", in_quotes(flag.help));
    }
  text +=
      fmt::format("complete -c cairn -n '__fish_seen_subcommand_from help' -f -a '{}'\n", command_names());
  text += "complete -c cairn -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n";
  return text;
}

std::function<int()> setup(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  app.footer("Example: source <(cairn completion bash)");
  return [shell] {
    write_out(completion_script(*shell));
    return 0;
  };
}

const RegisterCommand registered({"completion", "print a completion script for bash, zsh or fish", setup});

}  // namespace

std::string completion_script(std::string_view shell) {
  if (shell == "zsh") return zsh_script();
  if (shell == "fish") return fish_script();
  return bash_script();
}

}  // namespace cairn::app
