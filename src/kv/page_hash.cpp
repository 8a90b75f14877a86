#include "kv/page_hash.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <memory>
#include <new>

namespace cairn::kv {
namespace {

// Finding the algorithm and making a context cost more than hashing a page: once per thread.
EVP_MD_CTX* context() {
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  thread_local const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> own{EVP_MD_CTX_new(),
                                                                                 EVP_MD_CTX_free};
  if (!sha256 || !own || !EVP_DigestInit_ex(own.get(), sha256, nullptr)) throw std::bad_alloc();
  return own.get();
}

class Sha256 {  // one at a time
 public:
  void add(const void* bytes, size_t size) {
    if (!EVP_DigestUpdate(context_, bytes, size)) throw std::bad_alloc();
  }
  void add(std::string_view text) {  // its length first: "ab" + "c" is not "a" + "bc"
    const uint64_t size = text.size();
    add(&size, sizeof(size));
    add(text.data(), text.size());
  }
  PageHash finish() {
    PageHash hash;
    if (!EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(hash.bytes.data()), nullptr))
      throw std::bad_alloc();
    return hash;
  }

 private:
  EVP_MD_CTX* context_ = context();
};

}  // namespace

std::string PageHash::hex() const {
  std::string text;
  for (const std::byte b : bytes) text += fmt::format("{:02x}", unsigned(b));
  return text;
}

std::optional<PageHash> PageHash::from_hex(std::string_view text) {
  PageHash hash;
  if (text.size() != 2 * hash.bytes.size()) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit = std::string_view("0123456789abcdef").find(text[i]);
    if (digit == std::string_view::npos) return std::nullopt;
    hash.bytes[i / 2] = hash.bytes[i / 2] << 4 | std::byte(digit);
  }
  return hash;
}

PageHash root_hash(std::string_view fingerprint, const KvConfig& c, std::string_view variant) {
  Sha256 sha;
  sha.add("cairn kv pages");
  sha.add(fingerprint);
  // Not the number of pages: a larger pool holds the same rows.
  sha.add(fmt::format("{} {} {} {} {} {}", c.layers, c.kv_heads, c.head_dim_k, c.head_dim_v, c.page_tokens,
                      to_string(c.form)));
  sha.add(variant);
  return sha.finish();
}

PageHash next_hash(const PageHash& before, std::span<const int32_t> tokens, bool exact) {
  Sha256 sha;
  sha.add(before.bytes.data(), before.bytes.size());
  sha.add(tokens.data(), tokens.size_bytes());
  if (!exact) sha.add("decoded");
  return sha.finish();
}

}  // namespace cairn::kv
