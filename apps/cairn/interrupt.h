// What Ctrl-C means. Outside of an Interruptible it ends the program, as everywhere. While one lives it only
// sets a flag that the work in progress looks at; a second Ctrl-C that finds the flag still set ends the
// program.
#pragma once

#include <atomic>

namespace cairn::app {

void ignore_broken_pipes();  // SIGPIPE off: a closed pipe or socket is an error of one write (output.h)

class Interruptible {
 public:
  Interruptible();   // clears the flag
  ~Interruptible();  // Ctrl-C ends the program again, unless another scope encloses this one
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  bool requested() const { return flag().load(std::memory_order_relaxed); }
  void check() const;  // throws Error(cancelled) when requested
  void clear() { flag() = false; }

  // For code that takes a cancellation flag. Lives as long as the program.
  static std::atomic<bool>& flag();
};

}  // namespace cairn::app
