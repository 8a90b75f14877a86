#include "base/error.h"

namespace cairn {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::not_found: return "not found";
    case ErrorKind::invalid_file: return "invalid file";
    case ErrorKind::unsupported: return "unsupported";
    case ErrorKind::invalid_argument: return "invalid argument";
    case ErrorKind::out_of_memory: return "out of memory";
    case ErrorKind::io: return "input/output";
    case ErrorKind::network: return "network";
    case ErrorKind::cancelled: return "cancelled";
    case ErrorKind::overloaded: return "overloaded";
  }
  return "unknown";
}

}  // namespace cairn
