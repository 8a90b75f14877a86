// The weights of a program as the CPU wants them: matrices packed in panels, vectors in f32, tables where
// they lie.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backends/common/executor.h"
#include "backends/cpu/matmul.h"
#include "backends/cpu/packed_folder.h"
#include "base/aligned_buffer.h"
#include "base/mapped_file.h"
#include "codecs/stored_weight.h"
#include "program/program.h"

namespace cairn::cpu {

struct PackedMatrix {
  const MatMulKernel* kernel = nullptr;
  int64_t rows = 0, cols = 0;
  size_t piece_bytes = 0;  // per expert; multiple of 64
  const std::byte* data = nullptr;
  const std::byte* piece(int64_t index) const { return data + size_t(index) * piece_bytes; }
};

struct LookupTable {
  const codecs::Codec* codec = nullptr;
  const std::byte* data = nullptr;  // null: rows are made when they are asked for
  int64_t rows = 0, cols = 0;
  size_t row_bytes = 0;
  codecs::StoredWeight made;
};

using backends::LoadProgress;

// Every weight that the program's products read where it was packed at load, in the order of program.weights:
// those of a DecodeGroup are packed in each step. Throws Error(unsupported) naming a weight that no kernel
// multiplies.
std::vector<MatrixPlan> plan_matrices(const program::Program&, std::span<const codecs::StoredWeight>);

class Weights {
 public:
  // Packs every weight that a matrix product reads, dropping the file's pages as it goes, so that the peak is
  // one copy; or maps the packed file of an earlier start. `stored` is like program.weights; the mapped files
  // stay open for lookup tables.
  Weights(const program::Program&, std::span<const codecs::StoredWeight> stored,
          std::span<const MappedFile> files, ThreadPool&,
          const std::function<void(const LoadProgress&)>& progress = {}, const PackedFolder& = {});

  // Bytes that loading will allocate: what a plan checks before it loads.
  static uint64_t bytes_needed(const program::Program&, std::span<const codecs::StoredWeight>);

  const PackedMatrix& matrix(program::Weight w) const { return matrices_[size_t(w.id)]; }
  const LookupTable& table(program::Weight w) const { return tables_[size_t(w.id)]; }
  const float* vector(program::Weight w) const { return w ? vectors_[size_t(w.id)].data() : nullptr; }
  uint64_t bytes() const { return bytes_; }

  // Decodes and packs the matrices of a group, where matrix() says they are until the next group is decoded.
  void decode(const program::DecodeGroup&, ThreadPool&);

  // One line for people: where the packed weights came from.
  const std::string& origin() const { return origin_; }
  // Keeps what was packed for later starts; null when there is nothing to keep, or no folder for it. Weights
  // that are moved stay valid; `stored`, `files` and the weights must outlive the writer.
  std::unique_ptr<PackedWriter> writer(std::span<const codecs::StoredWeight> stored,
                                       std::span<const MappedFile> files, const PackedFolder&,
                                       std::function<void(const std::string&)> on_end) const;

 private:
  void prepare_groups(const program::Program&, std::span<const codecs::StoredWeight>, ThreadPool&);
  void pack(std::span<const codecs::StoredWeight>, std::span<const MappedFile>, ThreadPool&,
            const std::function<void(const LoadProgress&)>& progress);

  std::vector<MatrixPlan> plans_;
  std::vector<AlignedBuffer> packed_;  // like plans_; empty when the file below is used
  std::optional<PackedFile> file_;
  std::optional<PackedKey> key_;  // when a file may be written
  std::string origin_;
  std::vector<PackedMatrix> matrices_;
  std::vector<LookupTable> tables_;
  std::vector<std::vector<float>> vectors_;
  std::vector<AlignedBuffer> decoded_;         // tables that are stored transposed
  std::vector<codecs::StoredWeight> grouped_;  // like program.weights, those of a DecodeGroup
  AlignedBuffer group_;                        // the matrices of one
  uint64_t bytes_ = 0;
};

}  // namespace cairn::cpu
