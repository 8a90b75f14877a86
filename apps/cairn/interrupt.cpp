#include "interrupt.h"

#include <csignal>

#include "base/error.h"

namespace cairn::app {
namespace {

std::atomic<bool> requested_flag{false};
int scopes = 0;  // that live; they belong to the main thread
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

void on_interrupt(int signal) {
  if (!requested_flag.exchange(true)) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);  // delivered when this handler returns
}

void set_handler(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: a blocking read returns, so that the flag is seen
  sigaction(SIGINT, &action, nullptr);
}

}  // namespace

void ignore_broken_pipes() { std::signal(SIGPIPE, SIG_IGN); }

std::atomic<bool>& Interruptible::flag() { return requested_flag; }

Interruptible::Interruptible() {
  requested_flag = false;
  if (scopes++ == 0) set_handler(on_interrupt);
}

Interruptible::~Interruptible() {
  if (--scopes == 0) set_handler(SIG_DFL);
}

void Interruptible::check() const {
  if (requested()) fail(ErrorKind::cancelled, "stopped by Ctrl-C");
}

}  // namespace cairn::app
