#include "models/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/content_hash.h"
#include "codecs/split_weight.h"

namespace cairn::models {
namespace {

constexpr uint64_t kSample = 4096;

// Two independent 64-bit hashes of the same things.
struct Hasher {
  uint64_t a = 1, b = 2;
  void add(std::span<const std::byte> bytes) {
    a = combine_hashes(a, content_hash(bytes, 1));
    b = combine_hashes(b, content_hash(bytes, 2));
  }
  void add_samples(const std::byte* data, uint64_t bytes) {
    const uint64_t size = std::min(bytes, kSample);
    for (const uint64_t at : {uint64_t{0}, (bytes - size) / 2, bytes - size}) add({data + at, size_t(size)});
  }
  void add(int64_t number) { add(std::as_bytes(std::span(&number, 1))); }
};

}  // namespace

std::string fingerprint(const Model& model) {
  Hasher hash;
  auto program = model.program;
  program.model.clear();  // where the file lies does not matter
  const std::string text = print(program);
  hash.add(std::as_bytes(std::span(text)));
  for (const auto& weight : model.weights) {
    for (const int64_t n : {int64_t(weight.codec), weight.rows, weight.cols, int64_t(weight.transposed),
                            weight.first_col, int64_t(weight.pieces.size())})
      hash.add(n);
    if (weight.split) hash.add(int64_t(codecs::hash_of(*weight.split)));
    for (const auto& piece : weight.pieces) {
      hash.add_samples(piece.data, piece.bytes);
      for (const auto& part : piece.beside)
        if (part.data) hash.add_samples(part.data, part.bytes);
    }
  }
  return fmt::format("{:016x}{:016x}", hash.a, hash.b);
}

}  // namespace cairn::models
