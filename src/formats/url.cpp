#include "formats/url.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

constexpr size_t kLongest = 8192;

char lower(char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; }
bool is_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::string lowered(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), lower);
  return result;
}

[[noreturn]] void invalid(std::string_view text, const char* why) {
  fail(ErrorKind::invalid_argument, "'{}' is no URL that can be fetched: {}", shown(text), why);
}

bool is_port(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 1 && value <= 65535;
}

}  // namespace

std::string Url::origin() const {
  return fmt::format("{}://{}:{}", scheme, host.find(':') == std::string::npos ? host : "[" + host + "]",
                     port);
}

std::string Url::text() const { return origin() + target; }

Url parse_url(std::string_view text) {
  const std::string_view whole = text;
  if (text.size() > kLongest) invalid(whole, "it is too long");
  for (const char c : text)
    if (uint8_t(c) <= 0x20 || uint8_t(c) >= 0x7f)
      invalid(whole, "it has a character that must be percent-encoded");
  text = text.substr(0, text.find('#'));
  const size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) invalid(whole, "it must begin with https:// or http://");
  Url url;
  url.scheme = lowered(text.substr(0, scheme_end));
  if (url.scheme != "http" && url.scheme != "https") invalid(whole, "its scheme must be https or http");
  text.remove_prefix(scheme_end + 3);
  const size_t path = std::min(text.find_first_of("/?\\"), text.size());
  std::string_view authority = text.substr(0, path);
  url.target = text.substr(path);
  if (url.target.empty() || url.target[0] == '?') url.target.insert(0, "/");
  if (url.target[0] == '\\' || authority.find('@') != std::string_view::npos)
    invalid(whole, "a user name or a backslash is not accepted");
  std::string_view host = authority;
  url.port = url.scheme == "https" ? "443" : "80";
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    host = authority.substr(0, colon);
    url.port = authority.substr(colon + 1);
    if (!is_port(url.port)) invalid(whole, "its port is no number between 1 and 65535");
  }
  const bool v6 = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (v6) host = host.substr(1, host.size() - 2);
  const auto allowed = [&](char c) {
    return is_alphanumeric(c) || c == '.' || (v6 ? c == ':' : c == '-' || c == '_');
  };
  if (host.empty() || !std::all_of(host.begin(), host.end(), allowed))
    invalid(whole, "its host name is not valid");
  url.host = lowered(host);
  return url;
}

Url resolve_location(const Url& base, std::string_view location) {
  try {
    if (location.starts_with("//")) return parse_url(base.scheme + ":" + std::string(location));
    if (location.starts_with('/')) return parse_url(base.origin() + std::string(location));
    if (location.find("://") != std::string_view::npos) return parse_url(location);
    const std::string_view path = std::string_view(base.target).substr(0, base.target.find('?'));
    return parse_url(base.origin() + std::string(path.substr(0, path.rfind('/') + 1)) +
                     std::string(location));
  } catch (const Error& error) {
    fail(ErrorKind::network, "{} redirects to an address that is not followed: {}", base.origin(),
         error.what());
  }
}

std::string percent_encode(std::string_view text, std::string_view safe) {
  constexpr std::string_view kUnreserved = "-._~";
  std::string result;
  for (const char c : text) {
    if (is_alphanumeric(c) || kUnreserved.find(c) != std::string_view::npos ||
        safe.find(c) != std::string_view::npos)
      result += c;
    else
      result += fmt::format("%{:02X}", uint8_t(c));
  }
  return result;
}

}  // namespace cairn::formats
