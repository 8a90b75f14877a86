// Base64 (RFC 4648) as tokenizer files carry it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cairn::text {

std::optional<std::string> decode_base64(
    std::string_view text);  // nullopt for a character outside the alphabet

}  // namespace cairn::text
