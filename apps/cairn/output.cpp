#include "output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace cairn::app {
namespace {

[[noreturn]] void refuse(int error) {
  if (error == EPIPE) throw OutputClosed{};
  fail(ErrorKind::io, "cannot write to standard output: {}", std::strerror(error));
}

}  // namespace

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) refuse(errno);
}

void flush_out() {
  if (std::fflush(stdout) != 0) refuse(errno);
}

}  // namespace cairn::app
