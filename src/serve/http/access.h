// Who may call: keys, the names the server answers to, the web pages that may use it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/http/server.h"

namespace cairn::serve {

class Access {
 public:
  // Throws Error(invalid_argument): an empty key, a key with bytes that a header cannot carry, a malformed
  // origin.
  explicit Access(const HttpOptions&);

  bool needs_key() const { return !keys_.empty(); }
  // The name of the key that was presented; nullopt when none fits. Always compares with every key, by
  // digest: the time tells neither how many bytes fit nor which key it was.
  std::optional<std::string_view> client(std::string_view authorization, std::string_view x_api_key) const;

  // A page of another site may have its own name resolve to this machine (DNS rebinding); its Host gives it
  // away. Addresses cannot be rebound and pass.
  bool host_allowed(std::string_view host) const;
  // `host` is what host_allowed() passed: a page that this server served may call it.
  bool origin_allowed(std::string_view origin, std::string_view host) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  struct Key {
    std::string name;
    Digest digest;
  };
  static Digest digest(std::string_view);

  std::vector<Key> keys_;
  std::vector<std::string> hosts_, origins_;
};

// "host:port", "[::1]:port" or without port: the host in lower case without brackets and final dot; nullopt
// when malformed.
std::optional<std::string> host_name(std::string_view authority);

}  // namespace cairn::serve
