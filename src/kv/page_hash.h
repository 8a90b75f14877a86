// Names pages by what their rows were computed from: SHA-256 over the name of the page before (the first
// page's: over the fingerprint) and the page's token ids. Equal names mean equal text from the first token
// on, also where the pages come from another process; nobody outside this server can choose a name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "kv/pool.h"

namespace cairn::kv {

struct PageHash {
  std::array<std::byte, 32> bytes{};
  bool operator==(const PageHash&) const = default;
  uint64_t prefix() const {  // of a hash, as good as a hash
    uint64_t word = 0;
    std::memcpy(&word, bytes.data(), sizeof(word));
    return word;
  }
  std::string hex() const;
  static std::optional<PageHash> from_hex(std::string_view);
};
struct PageHashHasher {
  size_t operator()(const PageHash& hash) const { return size_t(hash.prefix()); }
};

// What a first page follows. `fingerprint` names all that changes the rows' bits and is the same for the
// whole pool: model content, backend and its version (the cache's shape and form are added here). `variant`
// names what one request may choose: adapter, class of rope length, a client whose pages nobody else may see.
PageHash root_hash(std::string_view fingerprint, const KvConfig&, std::string_view variant);
// exact: false for a page with rows that a GPU's decode kernels computed, or that follows one
// (prefix_tree.h).
PageHash next_hash(const PageHash& before, std::span<const int32_t> tokens, bool exact = true);

}  // namespace cairn::kv
