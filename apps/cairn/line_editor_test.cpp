// The editor behind a pseudo-terminal: keys in, lines out.
#include "line_editor.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

namespace cairn::app {
namespace {

// A child process whose terminal we are; it sends each line it reads through a pipe, zero-terminated.
class Session {
 public:
  explicit Session(const std::filesystem::path& history) {
    int results[2];
    if (pipe(results) != 0) std::abort();
    struct winsize size {};
    size.ws_col = 80;
    size.ws_row = 24;
    child_ = forkpty(&keys_, nullptr, nullptr, &size);
    if (child_ == 0) {
      close(results[0]);
      setenv("TERM", "xterm", 1);
      setenv("LC_ALL", "C", 1);  // the editor must find UTF-8 by itself
      LineEditor editor(history);
      while (const auto line = editor.read("> "))
        if (write(results[1], line->c_str(), line->size() + 1) < 0) _exit(3);
      _exit(42);
    }
    close(results[1]);
    results_ = results[0];
  }
  ~Session() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(keys_);
    close(results_);
  }

  // Waits until the screen showed `text` since the last call of see or press.
  bool see(const std::string& text) {
    for (int waited = 0; waited < 100; ++waited) {
      if (screen_.find(text) != screen_.npos) return true;
      pollfd ready{keys_, POLLIN, 0};
      if (poll(&ready, 1, 100) > 0) {
        char buffer[4096];
        const ssize_t n = ::read(keys_, buffer, sizeof buffer);
        if (n <= 0) break;
        screen_.append(buffer, size_t(n));
      }
    }
    return screen_.find(text) != screen_.npos;
  }
  void press(const std::string& keys) {
    screen_.clear();
    // Until libedit has the terminal, the terminal itself would edit what is typed.
    struct termios state {};
    while (tcgetattr(keys_, &state) == 0 && (state.c_lflag & ICANON)) usleep(100);
    ASSERT_EQ(write(keys_, keys.data(), keys.size()), ssize_t(keys.size()));
  }
  std::string line() {
    std::string text;
    for (char c = 0;;) {
      pollfd ready{results_, POLLIN, 0};
      while (poll(&ready, 1, 10) == 0) drain();
      if (::read(results_, &c, 1) != 1) return text + "<no line>";
      if (c == 0) return text;
      text += c;
    }
  }
  int exit_code() {
    int status = 0;
    while (waitpid(child_, &status, WNOHANG) == 0) drain();
    child_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void resize(int columns) {
    struct winsize size {};
    size.ws_col = static_cast<unsigned short>(columns);
    size.ws_row = 24;
    ioctl(keys_, TIOCSWINSZ, &size);  // sends SIGWINCH
    usleep(20'000);
  }

 private:
  void drain() {  // a full terminal would block the child
    pollfd ready{keys_, POLLIN, 0};
    char buffer[4096];
    if (poll(&ready, 1, 10) > 0) {
      const ssize_t n = ::read(keys_, buffer, sizeof buffer);
      if (n > 0) screen_.append(buffer, size_t(n));
    }
  }
  int keys_ = -1, results_ = -1;
  pid_t child_ = -1;
  std::string screen_;
};

class LineEditorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("line_editor_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()));
    std::filesystem::remove_all(folder_);
    history_ = folder_ / "state/history";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_, history_;
};

TEST_F(LineEditorTest, EditsAndEnds) {
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("helo\x02l\r");  // Ctrl-B goes one back
  EXPECT_EQ(session.line(), "hello");
  ASSERT_TRUE(session.see("> "));
  session.press("\x04");
  EXPECT_EQ(session.exit_code(), 42);
}

TEST_F(LineEditorTest, DeletesWholeCharacters) {
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("zwölf 漢字\x7f\x7fß\r");
  EXPECT_EQ(session.line(), "zwölf ß");
}

TEST_F(LineEditorTest, InterruptDropsTheLineOnly) {
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("unwanted");
  ASSERT_TRUE(session.see("unwanted"));
  session.press("\x03");
  ASSERT_TRUE(session.see("> "));
  session.press("wanted\r");
  EXPECT_EQ(session.line(), "wanted");
  ASSERT_TRUE(session.see("> "));
  session.press("\x03");  // and on an empty line
  ASSERT_TRUE(session.see("> "));
  session.press("still here\r");
  EXPECT_EQ(session.line(), "still here");
  for (int i = 0; i < 20; ++i) session.press("\x03");  // however fast
  session.press("\x03y\r");
  EXPECT_EQ(session.line(), "y");
}

TEST_F(LineEditorTest, LineSurvivesAChangedWindow) {
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("half");
  ASSERT_TRUE(session.see("half"));
  session.resize(40);
  session.press(" whole\r");
  EXPECT_EQ(session.line(), "half whole");
}

TEST_F(LineEditorTest, PasteKeepsItsLineBreaks) {
  Session session(history_);
  ASSERT_TRUE(session.see("\x1b[?2004h"));
  session.press("a \x1b[200~one\rtwo\n\nthree\x1b[31m é\r\x1b[201~ z\r");
  EXPECT_EQ(session.line(), "a one\ntwo\n\nthree[31m é z");
}

TEST_F(LineEditorTest, LongPasteArrivesWhole) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i) + (i % 10 ? " " : "\n");
  text += "end";
  Session session(history_);
  ASSERT_TRUE(session.see("\x1b[?2004h"));
  // In pieces, as a terminal sends it: its queue holds 4 KiB.
  session.press("\x1b[200~");
  for (size_t at = 0; at < text.size(); at += 1000) {
    session.press(text.substr(at, 1000));
    usleep(5000);  // the child reads; nothing shows until the paste ends
  }
  session.press("\x1b[201~\r");
  EXPECT_EQ(session.line(), text);
}

TEST_F(LineEditorTest, BackslashContinues) {
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("one\\\r");
  ASSERT_TRUE(session.see("... "));
  session.press("two\r");
  EXPECT_EQ(session.line(), "one\ntwo");
}

TEST_F(LineEditorTest, HistoryLivesInAFileForItsOwner) {
  {
    Session session(history_);
    ASSERT_TRUE(session.see("> "));
    session.press("first é\r");
    EXPECT_EQ(session.line(), "first é");
    ASSERT_TRUE(session.see("> "));
    session.press("\x1b[200~second\nlines\x1b[201~\r");
    EXPECT_EQ(session.line(), "second\nlines");
    ASSERT_TRUE(session.see("> "));
    session.press("   \r");  // not worth remembering
    EXPECT_EQ(session.line(), "   ");
    ASSERT_TRUE(session.see("> "));
  }
  struct stat status {};
  ASSERT_EQ(stat(history_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  Session session(history_);
  ASSERT_TRUE(session.see("> "));
  session.press("\x10\r");  // Ctrl-P: the one before
  EXPECT_EQ(session.line(), "second\nlines");
  ASSERT_TRUE(session.see("> "));
  session.press("\x10\x10\r");
  EXPECT_EQ(session.line(), "first é");
}

TEST(LineEditor, StateFileFollowsXdg) {
  setenv("XDG_STATE_HOME", "/state", 1);
  EXPECT_EQ(state_file("history"), "/state/cairn/history");
  setenv("XDG_STATE_HOME", "relative", 1);  // the specification says to ignore it
  setenv("HOME", "/home", 1);
  EXPECT_EQ(state_file("history"), "/home/.local/state/cairn/history");
  unsetenv("XDG_STATE_HOME");
  unsetenv("HOME");
  EXPECT_EQ(state_file("history"), "");
}

}  // namespace
}  // namespace cairn::app
