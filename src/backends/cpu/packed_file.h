// Packed weights on disk, mapped read-only at a later start and used where they lie. One file per content of
// the weights, packed form and instruction set.
//
//   0     Header     what was packed from what; a checksum of all that never changes
//   128   Entry[]    per matrix: place, size, checksum
//   2 MiB the matrices, each at a multiple of 4 KiB, as weights.h packs them
//
// The key of a file is a hash of what decides its content: the weights' shapes and codecs, what packing makes
// of a small matrix with each kernel (so that a changed layout is another key without anybody having to
// remember a number), and samples of every weight. A file is believed without reading it when the model's
// files have the stamps (inode, size, times) that they had, and the machine has not been started since, which
// is when a file that was never flushed can lose content. Otherwise hashes of all weights, in the model's
// files and in the packed one, decide. Nothing in a file is believed because the file says so: sizes and
// places must be those that the model's own weights ask for.
#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/cpu/matmul.h"
#include "base/mapped_file.h"
#include "codecs/stored_weight.h"

namespace cairn::cpu {

// A weight that matrix products read.
struct MatrixPlan {
  size_t weight = 0;  // index in program.weights
  const MatMulKernel* kernel = nullptr;
  size_t piece_bytes = 0;  // packed, per expert; a multiple of 64
  size_t pieces = 1;
  size_t bytes() const { return piece_bytes * pieces; }
};

struct PackedKey {
  std::array<uint64_t, 2> value = {};
  std::string file_name() const;  // 32 hexadecimal digits and ".packed"
  bool operator==(const PackedKey&) const = default;
};

// Reads at most three times 4 KiB of every weight.
PackedKey packed_key(std::span<const MatrixPlan>, std::span<const codecs::StoredWeight>);

// Bytes of a packed file of these matrices.
uint64_t packed_file_bytes(std::span<const MatrixPlan>);

// What one file must match.
struct PackedSource {
  PackedKey key;
  std::span<const MatrixPlan> plans;
  std::span<const codecs::StoredWeight> stored;
  std::span<const MappedFile> files;
};

class PackedFile {
 public:
  // Opens and verifies. nullopt when there is no such file or it must not be used; `why` then says so, empty
  // when there is none. A file that is damaged or of another model is removed.
  static std::optional<PackedFile> open(const std::filesystem::path&, const PackedSource&, ThreadPool&,
                                        std::string& why);

  const std::byte* matrix(size_t plan) const { return file_.bytes().data() + at_[plan]; }

 private:
  MappedFile file_;
  std::vector<uint64_t> at_;
};

// Writes under a temporary name beside `path` and renames. matrices[i] is the packed form of plans[i].
// Returns nothing when done, else why not: disk full, `stop` set, the model's files changed meanwhile. Never
// throws.
std::optional<std::string> write_packed_file(const std::filesystem::path& path, const PackedSource&,
                                             std::span<const std::byte* const> matrices,
                                             const std::atomic<bool>& stop);

}  // namespace cairn::cpu
