#include "interrupt.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/error.h"

namespace cairn::app {
namespace {

// How a child that runs `f` ends: its exit code, or minus the signal.
template <typename F>
int outcome(F f) {
  const pid_t child = fork();
  if (child == 0) {
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Interrupt, FirstCtrlCSetsTheFlag) {
  EXPECT_EQ(outcome([] {
              const Interruptible scope;
              if (scope.requested()) _exit(1);
              raise(SIGINT);
              if (!scope.requested() || !Interruptible::flag()) _exit(2);
              try {
                scope.check();
                _exit(3);
              } catch (const Error& error) {
                _exit(error.kind() == ErrorKind::cancelled ? 10 : 4);
              }
            }),
            10);
}

TEST(Interrupt, SecondCtrlCEndsTheProgram) {
  EXPECT_EQ(outcome([] {
              const Interruptible scope;
              raise(SIGINT);
              raise(SIGINT);
            }),
            -SIGINT);
}

TEST(Interrupt, ClearedFlagStartsAnew) {
  EXPECT_EQ(outcome([] {
              Interruptible scope;
              raise(SIGINT);
              scope.clear();
              raise(SIGINT);
              _exit(scope.requested() ? 10 : 1);
            }),
            10);
}

TEST(Interrupt, OutsideOfAScopeCtrlCEndsTheProgram) {
  EXPECT_EQ(outcome([] {
              { const Interruptible scope; }
              raise(SIGINT);
            }),
            -SIGINT);
}

TEST(Interrupt, InnerScopeLeavesTheOuterOneInForce) {
  EXPECT_EQ(outcome([] {
              const Interruptible outer;
              { const Interruptible inner; }
              raise(SIGINT);
              _exit(outer.requested() ? 10 : 1);
            }),
            10);
}

TEST(Interrupt, BrokenPipeIsAnErrorOfTheWrite) {
  EXPECT_EQ(outcome([] {
              ignore_broken_pipes();
              int ends[2];
              if (pipe(ends) != 0) _exit(1);
              close(ends[0]);
              _exit(write(ends[1], "x", 1) < 0 && errno == EPIPE ? 10 : 2);
            }),
            10);
}

}  // namespace
}  // namespace cairn::app
