#include "input.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cairn::app {

std::string read_in(size_t limit) {
  std::string text;
  for (;;) {
    char buffer[65536];
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n == 0) return text;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::io, "cannot read standard input: {}", std::strerror(errno));
    if (text.size() + size_t(n) > limit)
      fail(ErrorKind::invalid_argument, "standard input has more than {} bytes", limit);
    text.append(buffer, size_t(n));
  }
}

}  // namespace cairn::app
