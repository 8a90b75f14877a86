// The part of RFC 3986 that a download client needs: http(s) URLs, redirects, percent-encoding.
#pragma once

#include <string>
#include <string_view>

namespace cairn::formats {

struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // lower case; an IPv6 address without its brackets
  std::string port;    // always set
  std::string target;  // path and query, begins with '/'

  std::string origin() const;  // "https://host:443": what a credential belongs to
  std::string text() const;
  bool operator==(const Url&) const = default;
};

// Throws Error(invalid_argument) for another scheme, a user name, a bad port, spaces or control characters.
// The fragment is dropped.
Url parse_url(std::string_view);

// Where a Location header leads, seen from `base`. Throws Error(network) when it is no http(s) URL.
Url resolve_location(const Url& base, std::string_view location);

// All but letters, digits, "-._~" and the characters of `safe` become %XX.
std::string percent_encode(std::string_view, std::string_view safe = "");

}  // namespace cairn::formats
