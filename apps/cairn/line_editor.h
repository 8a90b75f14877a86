// One line after another from a person at a terminal, with editing and history (libedit), or from a pipe.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace cairn::app {

// $XDG_STATE_HOME/cairn/NAME, or ~/.local/state/cairn/NAME; empty when neither variable is set.
std::filesystem::path state_file(const std::string& name);

class LineEditor {
 public:
  // The history is read from the file now and written, for its owner only, after each line; empty: no
  // history.
  explicit LineEditor(std::filesystem::path history_file = state_file("history"));
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  // The next input, as UTF-8 and without its line end; nullopt when there is no more (Ctrl-D on an empty
  // line, end of the pipe). A pasted text keeps its line breaks; a line that ends in a backslash goes on in
  // the next one. Ctrl-C drops what was typed and starts again. Nothing else may read stdin between calls.
  std::optional<std::string> read(const std::string& prompt, const std::string& continuation = "... ");

 private:
  struct Terminal;
  std::optional<std::string> read_pipe();
  std::unique_ptr<Terminal> terminal_;  // null: stdin is a pipe or file
};

}  // namespace cairn::app
