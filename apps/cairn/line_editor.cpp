#include "line_editor.h"

#include <fmt/format.h>
#include <histedit.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <iostream>

#include "interrupt.h"
#include "terminal.h"

namespace cairn::app {
namespace {

constexpr int kHistoryLines = 1000;

std::atomic<bool> window_changed{false}, continued{false};  // written by signal handlers

void on_window_change(int) { window_changed = true; }
void on_continue(int) { continued = true; }

// While a line is read, signals arrive only where read_character waits: one that came between a look at its
// flag and a blocking read would be seen a key too late.
class TerminalSignals {
 public:
  TerminalSignals() {
    sigset_t blocked;
    sigemptyset(&blocked);
    for (const int signal : {SIGINT, SIGWINCH, SIGCONT}) sigaddset(&blocked, signal);
    pthread_sigmask(SIG_BLOCK, &blocked, &waiting_mask);
    install(SIGWINCH, on_window_change, old_[0]);
    install(SIGCONT, on_continue, old_[1]);
  }
  ~TerminalSignals() {
    sigaction(SIGWINCH, &old_[0], nullptr);
    sigaction(SIGCONT, &old_[1], nullptr);
    pthread_sigmask(SIG_SETMASK, &waiting_mask, nullptr);
  }
  static sigset_t waiting_mask;  // what ppoll waits with

 private:
  static void install(int signal, void (*handler)(int), struct sigaction& old) {
    struct sigaction action {};
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaction(signal, &action, &old);
  }
  std::array<struct sigaction, 2> old_;
};
sigset_t TerminalSignals::waiting_mask;

// libedit decodes and measures characters by the locale; a bare "C" locale, as in containers, knows only
// ASCII.
void use_utf8_locale() {
  const char* name = std::setlocale(LC_CTYPE, "");
  if (name && MB_CUR_MAX > 1) return;
  std::setlocale(LC_CTYPE, "C.UTF-8");
}

// One character from the terminal: 1, 0 at the end, -1 with EINTR when Ctrl-C was pressed.
int read_character(EditLine* editor, wchar_t* character) {
  std::mbstate_t state{};
  for (;;) {
    if (Interruptible::flag()) {
      errno = EINTR;
      return -1;
    }
    if (continued.exchange(false)) {
      el_set(editor, EL_PREP_TERM, 1);  // the shell had its own settings meanwhile
      el_set(editor, EL_REFRESH);
    }
    if (window_changed.exchange(false)) el_resize(editor);
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (ppoll(&input, 1, nullptr, &TerminalSignals::waiting_mask) < 0) {
      if (errno == EINTR) continue;
      return -1;
    }
    char byte = 0;
    const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
    if (n == 0) return 0;
    if (n < 0) return -1;
    switch (std::mbrtowc(character, &byte, 1, &state)) {
      case size_t(-2): continue;  // the character has more bytes
      case size_t(-1): *character = L'\uFFFD'; return 1;
      default: return 1;
    }
  }
}

// Called after ESC [ 200 ~: everything up to ESC [ 201 ~ is text, line breaks included.
unsigned char insert_paste(EditLine* editor, int) {
  constexpr std::wstring_view kEnd = L"\x1b[201~";
  std::wstring text;
  wchar_t character = 0;
  while (read_character(editor, &character) == 1) {
    text += character == L'\r' ? L'\n' : character;
    if (text.size() >= kEnd.size() && text.compare(text.size() - kEnd.size(), kEnd.size(), kEnd) == 0) {
      text.resize(text.size() - kEnd.size());
      break;
    }
  }
  std::erase_if(text, [](wchar_t c) { return (c < L' ' && c != L'\n' && c != L'\t') || c == 0x7f; });
  while (!text.empty() && text.back() == L'\n')
    text.pop_back();  // the copied line's end is not a wish to send
  if (el_winsertstr(editor, text.c_str()) != 0) return CC_ERROR;
  return CC_REFRESH;
}

}  // namespace

struct LineEditor::Terminal {
  Interruptible scope;  // so that Ctrl-C between two lines does not end the program either
  FILE* out;
  EditLine* editor;
  History* history;
  std::filesystem::path history_file;
  std::string prompt;

  explicit Terminal(std::filesystem::path file)
      : out(is_terminal(STDOUT_FILENO) ? stdout : stderr), history_file(std::move(file)) {
    use_utf8_locale();
    editor = el_init("cairn", stdin, out, stderr);
    history = history_init();
    if (!editor || !history) throw std::bad_alloc();
    el_set(editor, EL_CLIENTDATA, this);
    el_set(
        editor, EL_PROMPT, +[](EditLine* self) {
          Terminal* terminal = nullptr;
          el_get(self, EL_CLIENTDATA, &terminal);
          return terminal->prompt.data();
        });
    el_set(editor, EL_EDITOR, "emacs");
    el_set(editor, EL_GETCFN, read_character);
    el_set(editor, EL_ADDFN, "cairn-paste", "insert pasted text", insert_paste);
    el_set(editor, EL_BIND, "\x1b[200~", "cairn-paste", nullptr);
    el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(editor, EL_BIND, "\x1b[1;5D", "ed-prev-word", nullptr);
    el_set(editor, EL_BIND, "\x1b[1;5C", "em-next-word", nullptr);
    el_source(editor, nullptr);  // the person's ~/.editrc
    HistEvent event;
    ::history(history, &event, H_SETSIZE, kHistoryLines);
    ::history(history, &event, H_SETUNIQUE, 1);
    el_set(editor, EL_HIST, ::history, history);
    if (!history_file.empty()) ::history(history, &event, H_LOAD, history_file.c_str());
  }
  ~Terminal() {
    el_end(editor);
    history_end(history);
  }

  void remember(const std::string& line) {
    if (line.find_first_not_of(" \t\n") == line.npos) return;
    HistEvent event;
    ::history(history, &event, H_ENTER, line.c_str());
    if (history_file.empty()) return;
    // A history that cannot be kept is no reason to end a conversation.
    std::error_code ignored;
    std::filesystem::create_directories(history_file.parent_path(), ignored);
    const auto temporary = history_file.string() + fmt::format(".{}.partial", getpid());
    if (::history(history, &event, H_SAVE, temporary.c_str()) >= 0)
      std::filesystem::rename(temporary, history_file, ignored);
    if (ignored) std::filesystem::remove(temporary, ignored);
  }

  void bracketed_paste(bool on) {
    std::fputs(on ? "\x1b[?2004h" : "\x1b[?2004l", out);
    std::fflush(out);
  }

  // One line; nullopt at the end, with `interrupted` set after Ctrl-C.
  std::optional<std::string> read_line(const std::string& wanted_prompt, bool& interrupted) {
    scope.clear();
    const TerminalSignals signals;
    prompt = wanted_prompt;
    el_set(editor, EL_PREP_TERM, 1);  // before the prompt shows: keys typed from then on are for the editor
    bracketed_paste(true);
    int length = 0;
    const char* line = el_gets(editor, &length);
    bracketed_paste(false);
    interrupted = scope.requested();
    scope.clear();  // before signals that wait are let in
    if (!line || length <= 0) return std::nullopt;
    std::string text(line, size_t(length));
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }
};

std::filesystem::path state_file(const std::string& name) {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state == '/')
    return std::filesystem::path(state) / "cairn" / name;
  if (const char* home = std::getenv("HOME"); home && *home)
    return std::filesystem::path(home) / ".local/state/cairn" / name;
  return {};
}

LineEditor::LineEditor(std::filesystem::path history_file) {
  if (is_terminal(STDIN_FILENO)) terminal_ = std::make_unique<Terminal>(std::move(history_file));
}

LineEditor::~LineEditor() = default;

std::optional<std::string> LineEditor::read_pipe() {
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

std::optional<std::string> LineEditor::read(const std::string& prompt, const std::string& continuation) {
  if (!terminal_) return read_pipe();
  std::string text;
  bool going_on = false;
  for (;;) {
    bool interrupted = false;
    const auto line = terminal_->read_line(going_on ? continuation : prompt, interrupted);
    if (interrupted) {
      std::fputs("\n", terminal_->out);
      el_reset(terminal_->editor);
      text.clear();
      going_on = false;
      continue;
    }
    if (!line) {
      std::fputs("\n", terminal_->out);
      if (!going_on) return std::nullopt;
      break;  // Ctrl-D after a backslash: what is there is the input
    }
    text += *line;
    going_on = !text.empty() && text.back() == '\\';
    if (!going_on) break;
    text.back() = '\n';
  }
  terminal_->remember(text);
  return text;
}

}  // namespace cairn::app
