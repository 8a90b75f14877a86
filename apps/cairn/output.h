// Results go to stdout through these, so that a full disk is an error and a closed pipe ends the program
// quietly.
#pragma once

#include <string_view>

namespace cairn::app {

struct OutputClosed {};  // the reader of stdout went away (EPIPE); run_program turns it into exit code 0

// Both throw Error(io) when stdout refuses the bytes, OutputClosed when nobody reads them any more.
void write_out(std::string_view text);  // buffered
void flush_out();                       // what streaming calls after each piece of an answer

}  // namespace cairn::app
