// How cairn reports what is not its own fault: a file, an argument, the machine, the network.
// An Error's sentence says what was wrong, where (file, tensor, field, offset), both values, and what to do.
// A broken promise of our own code is an assert, never an Error.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace cairn {

enum class ErrorKind {
  not_found,         // a file, model, tensor or option that is not there
  invalid_file,      // a file whose contents break its format
  unsupported,       // well-formed, but nothing here executes it
  invalid_argument,  // a flag, a request field, a prompt
  out_of_memory,     // foreseen by the plan: needed and available are in the sentence
  io,                // the operating system said no
  network,           // the other side said no, or nothing
  cancelled,         // the user asked to stop
  overloaded,        // too many are waiting already, or the server is closing: try again later
};

const char* to_string(ErrorKind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> message, Args&&... args) {
  throw Error(kind, fmt::format(message, std::forward<Args>(args)...));
}

}  // namespace cairn
