// The weights of a program as the CPU wants them: matrices packed in panels, vectors in f32, tables where
// they lie.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backends/common/executor.h"
#include "backends/cpu/matmul.h"
#include "base/aligned_buffer.h"
#include "base/mapped_file.h"
#include "codecs/stored_weight.h"
#include "program/program.h"

namespace cairn::cpu {

struct PackedMatrix {
  const MatMulKernel* kernel = nullptr;
  int64_t rows = 0, cols = 0;
  size_t piece_bytes = 0;  // per expert; multiple of 64
  AlignedBuffer data;
  const std::byte* piece(int64_t index) const { return data.data() + size_t(index) * piece_bytes; }
};

struct LookupTable {
  const codecs::Codec* codec = nullptr;
  const std::byte* data = nullptr;
  int64_t rows = 0, cols = 0;
  size_t row_bytes = 0;
};

using backends::LoadProgress;

class Weights {
 public:
  // Packs every weight that a matrix product reads, dropping the file's pages as it goes, so that the peak is
  // one copy. `stored` is like program.weights; the mapped files stay open only for lookup tables.
  Weights(const program::Program&, std::span<const codecs::StoredWeight> stored,
          std::span<const MappedFile> files, ThreadPool&,
          const std::function<void(const LoadProgress&)>& progress = {});

  // Bytes that loading will allocate: what a plan checks before it loads.
  static uint64_t bytes_needed(const program::Program&, std::span<const codecs::StoredWeight>);

  const PackedMatrix& matrix(program::Weight w) const { return matrices_[size_t(w.id)]; }
  const LookupTable& table(program::Weight w) const { return tables_[size_t(w.id)]; }
  const float* vector(program::Weight w) const { return w ? vectors_[size_t(w.id)].data() : nullptr; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::vector<PackedMatrix> matrices_;
  std::vector<LookupTable> tables_;
  std::vector<std::vector<float>> vectors_;
  std::vector<AlignedBuffer> decoded_;  // tables that are stored transposed
  uint64_t bytes_ = 0;
};

}  // namespace cairn::cpu
