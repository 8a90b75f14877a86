#pragma once

#include <string>
#include <string_view>

namespace cairn::app {

// The completion script for "bash", "zsh" or "fish", from the registered commands and their flags.
std::string completion_script(std::string_view shell);

}  // namespace cairn::app
