#include "serve/http/access.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/error.h"
#include "serve/http/text.h"

namespace cairn::serve {
namespace {

bool is_address(const std::string& host) {
  in6_addr ignored;
  return inet_pton(AF_INET, host.c_str(), &ignored) == 1 || inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

bool is_port(std::string_view port) {
  return port.size() <= 5 && std::all_of(port.begin(), port.end(), is_digit);
}

// "http://host:port" as "host:port", with the port that the scheme implies left out; nullopt for anything
// else.
std::optional<std::string> origin_authority(std::string_view origin) {
  for (const auto& [scheme, port] : {std::pair("http://", ":80"), std::pair("https://", ":443")})
    if (origin.starts_with(scheme)) {
      std::string authority = lower_case(origin.substr(std::string_view(scheme).size()));
      if (authority.ends_with(port)) authority.resize(authority.size() - std::string_view(port).size());
      return authority;
    }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> host_name(std::string_view authority) {
  std::string_view host = authority, port;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == authority.npos) return std::nullopt;
    host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    in6_addr ignored;
    if (inet_pton(AF_INET6, std::string(host).c_str(), &ignored) != 1) return std::nullopt;
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    host = authority.substr(0, colon);
    port = authority.substr(colon);
    for (const char c : host)
      if (!is_letter(c) && !is_digit(c) && c != '-' && c != '.' && c != '_') return std::nullopt;
  }
  if (!port.empty() && (port[0] != ':' || !is_port(port.substr(1)))) return std::nullopt;
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.empty()) return std::nullopt;
  return lower_case(host);
}

Access::Digest Access::digest(std::string_view text) {
  Digest digest{};
  if (EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1)
    fail(ErrorKind::unsupported, "SHA-256 is not available from this OpenSSL");
  return digest;
}

Access::Access(const HttpOptions& options) : origins_(options.allowed_origins) {
  for (const auto& [name, key] : options.api_keys) {
    if (key.empty()) fail(ErrorKind::invalid_argument, "the API key of '{}' is empty", name);
    for (const char c : key)
      if (c < 0x21 || c > 0x7e)
        fail(ErrorKind::invalid_argument, "the API key of '{}' holds a space or a character outside ASCII",
             name);
    keys_.push_back({name, digest(key)});
  }
  for (const auto& host : options.allowed_hosts) hosts_.push_back(lower_case(host));
  hosts_.push_back(lower_case(options.host));
  for (auto& origin : origins_) {
    if (origin != "*" && (!origin_authority(origin) || origin.find('/', 8) != std::string::npos))
      fail(ErrorKind::invalid_argument, "allowed origin '{}' is not like https://name or https://name:port",
           origin);
    origin = lower_case(origin);
  }
}

std::optional<std::string_view> Access::client(std::string_view authorization,
                                               std::string_view x_api_key) const {
  std::string_view bearer;
  if (same_ignoring_case(authorization.substr(0, 7), "bearer ")) bearer = trimmed(authorization.substr(7));
  const Digest presented[] = {digest(bearer), digest(x_api_key)};
  const Key* found = nullptr;
  for (const auto& key : keys_)
    for (const auto& one : presented) {
      const bool same = CRYPTO_memcmp(one.data(), key.digest.data(), one.size()) == 0;
      found = same ? &key : found;
    }
  if (!found) return std::nullopt;
  return found->name;
}

bool Access::host_allowed(std::string_view authority) const {
  const auto host = host_name(authority);
  if (!host) return false;
  if (*host == "localhost" || host->ends_with(".localhost") || is_address(*host)) return true;
  return std::any_of(hosts_.begin(), hosts_.end(),
                     [&](const auto& name) { return name == "*" || name == *host; });
}

bool Access::origin_allowed(std::string_view origin, std::string_view host) const {
  const auto authority = origin_authority(origin);
  if (authority) {
    std::string own = lower_case(host);
    for (const std::string_view port : {":80", ":443"})
      if (own.ends_with(port)) own.resize(own.size() - port.size());
    if (*authority == own) return true;
  }
  const std::string lower = lower_case(origin);
  for (const auto& allowed : origins_) {
    if (allowed == "*" || allowed == lower) return true;
    if (allowed.ends_with(":*")) {
      const std::string_view prefix = std::string_view(allowed).substr(0, allowed.size() - 2);
      const std::string_view rest = std::string_view(lower).substr(std::min(prefix.size(), lower.size()));
      if (lower.starts_with(prefix) && (rest.empty() || (rest[0] == ':' && is_port(rest.substr(1)))))
        return true;
    }
  }
  return false;
}

}  // namespace cairn::serve
