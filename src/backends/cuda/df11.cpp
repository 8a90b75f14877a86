#include "backends/cuda/df11.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

using codecs::Df11Group;

constexpr int64_t kAlignment = 256;
constexpr unsigned kThreads = unsigned(codecs::kDf11ChunksPerBlock);

// Both first look-ups, then the group's own tables.
std::vector<std::byte> look_ups(const Df11Group& group, int bits) {
  const auto symbols = group.short_codes(bits, 3);
  const auto luts = group.fields().luts;
  const std::byte* lengths = luts.data() + luts.size() - 256;
  std::vector<uint16_t> counts(symbols.size());
  for (size_t i = 0; i < symbols.size(); ++i) {
    const uint32_t n = symbols[i] >> 24 & 3;
    uint32_t entry = n, bits_of = 0;
    for (uint32_t s = 0; s < 3; ++s) {
      if (s < n) bits_of += uint32_t(lengths[symbols[i] >> (8 * s) & 0xff]);
      entry |= bits_of << (2 + 4 * s);
    }
    counts[i] = uint16_t(n == 0 ? 0 : entry);
  }
  std::vector<std::byte> all(symbols.size() * 6 + luts.size());
  std::memcpy(all.data(), symbols.data(), symbols.size() * 4);
  std::memcpy(all.data() + symbols.size() * 4, counts.data(), counts.size() * 2);
  std::memcpy(all.data() + symbols.size() * 6, luts.data(), luts.size());
  return all;
}

}  // namespace

Variant df11_variant(const Df11Tiling& t) {
  return {"decode_df11.cu",
          {fmt::format("TABLE_BITS={}", t.table_bits), fmt::format("RESIDENT={}", t.resident),
           fmt::format("AHEAD={}", t.ahead)}};
}

std::vector<Variant> df11_variants(int) { return {df11_variant({})}; }

Df11Image::Df11Image(const Df11Group& group, const Df11Tiling& tiling)
    : group_(group), look_ups_(look_ups(group, tiling.table_bits)) {
  const auto place = [&](int64_t size) {
    const size_t at = bytes_;
    bytes_ = size_t(round_up(int64_t(bytes_) + size, kAlignment));
    return at;
  };
  // Threads read 4 bytes behind their 8, and one byte behind the gaps; eight signs at a time.
  place(round_up(group.elements(), 16));
  codes_at_ = place(group.blocks() * codecs::kDf11BlockBytes + 16);
  gaps_at_ = place(int64_t(group.fields().gaps.size()) + 1);
  positions_at_ = place(int64_t(group.fields().output_positions.size()));
  look_ups_at_ = place(int64_t(look_ups_.size()));
}

void Df11Image::write(size_t begin, size_t end, std::byte* to) const {
  std::memset(to, 0, end - begin);
  const auto put = [&](size_t at, std::span<const std::byte> field) {
    const size_t first = std::max(begin, at), last = std::min(end, at + field.size());
    if (first < last) std::memcpy(to + (first - begin), field.data() + (first - at), last - first);
  };
  put(0, group_.fields().sign_mantissa);
  put(codes_at_, group_.fields().encoded_exponent);
  put(gaps_at_, group_.fields().gaps);
  put(positions_at_, group_.fields().output_positions);
  put(look_ups_at_, look_ups_);
}

DeviceDf11 Df11Image::at(Address bulk, Address side) const {
  const auto beside = [&](size_t at) { return side + Address(at - gaps_at_); };
  return {group_.blocks(),
          group_.elements(),
          group_.most_in_block(),
          int(group_.fields().luts.size() / 256) - 1,
          bulk,
          bulk + Address(codes_at_),
          beside(gaps_at_),
          beside(positions_at_),
          beside(look_ups_at_)};
}

void decode_df11(KernelCache& kernels, Stream& stream, const DeviceDf11& group, Address out,
                 const Df11Tiling& tiling) {
  LaunchShape shape;
  shape.block = kThreads;
  const auto most = int64_t(stream.device().facts().multiprocessors) * tiling.resident;
  shape.grid[0] = unsigned(std::min(group.blocks, most));
  // Blocks begin at any element: up to 15 before the first, and eight are joined at a time.
  shape.shared_bytes = unsigned(6 * (1 << tiling.table_bits) + 256 * (group.tables + 1) +
                                round_up(group.most_in_block + 15, 16));
  stream.launch(kernels.get(df11_variant(tiling), "decode_df11"), shape, group.codes, group.gaps,
                group.positions, group.look_ups, int32_t(group.tables), group.sign_mantissa, out,
                int32_t(group.blocks));
}

}  // namespace cairn::cuda
