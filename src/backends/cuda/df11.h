// Groups of weights in DFloat11 (codecs/df11.h) in device memory, and the launcher of kernels/decode_df11.cu.
#pragma once

#include <vector>

#include "backends/cuda/registry.h"
#include "codecs/df11.h"

namespace cairn::cuda {

// How the kernel is built; any choice gives the same bits.
struct Df11Tiling {
  int table_bits = 11, resident = 3, ahead = 1;
};
Variant df11_variant(const Df11Tiling&);
std::vector<Variant> df11_variants(int capability);

struct DeviceDf11 {
  int64_t blocks = 0, elements = 0, most_in_block = 0;
  int tables = 0;
  Address sign_mantissa = 0, codes = 0;           // nine tenths of the bytes
  Address gaps = 0, positions = 0, look_ups = 0;  // the rest
};

// A group in the order and with the padding that the kernel reads: first what decides the size (signs,
// mantissas, codes), each at a multiple of 256 bytes, then the rest.
class Df11Image {
 public:
  explicit Df11Image(const codecs::Df11Group&, const Df11Tiling& = {});

  size_t bulk_bytes() const { return gaps_at_; }  // of signs, mantissas and codes
  size_t side_bytes() const { return bytes_ - gaps_at_; }
  size_t bytes() const { return bytes_; }
  // The part [begin, end) of the image.
  void write(size_t begin, size_t end, std::byte* to) const;
  DeviceDf11 at(Address bulk, Address side) const;
  DeviceDf11 at(Address image) const { return at(image, image + gaps_at_); }

 private:
  const codecs::Df11Group& group_;
  std::vector<std::byte> look_ups_;
  size_t codes_at_ = 0, gaps_at_ = 0, positions_at_ = 0, look_ups_at_ = 0, bytes_ = 0;
};

// out: room for the group's elements as bf16, at a multiple of 16 bytes.
void decode_df11(KernelCache&, Stream&, const DeviceDf11&, Address out, const Df11Tiling& = {});

}  // namespace cairn::cuda
