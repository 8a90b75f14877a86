// The program's exit codes, as docs/command_line.md promises them to scripts.
#pragma once

#include "base/error.h"

namespace cairn::app {

inline constexpr int kExitOk = 0;
inline constexpr int kExitInternal = 1;
inline constexpr int kExitCancelled = 130;  // what a shell reports for a program ended by Ctrl-C

inline int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument: return 2;
    case ErrorKind::not_found: return 3;
    case ErrorKind::invalid_file: return 4;
    case ErrorKind::unsupported: return 5;
    case ErrorKind::out_of_memory: return 6;
    case ErrorKind::io: return 7;
    case ErrorKind::network: return 8;
    case ErrorKind::cancelled: return kExitCancelled;
    case ErrorKind::overloaded: return 9;
  }
  return kExitInternal;
}

}  // namespace cairn::app
