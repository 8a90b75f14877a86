#include "backends/cpu/weights.h"

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::cpu {
namespace {

using codecs::StoredWeight;
using program::Program;
using program::Weight;

enum Role : unsigned { kMatrix = 1, kTable = 2, kVector = 4 };

// What the program's instructions do with each weight.
struct Roles {
  explicit Roles(const Program& program) : of(program.weights.size(), 0) {
    for (const auto& instruction : program.instructions)
      std::visit([&](const auto& op) { note(op); }, instruction.operation);
  }
  void add(Weight w, unsigned role) {
    if (w) of[size_t(w.id)] |= role;
  }
  void products(const std::vector<program::Product>& products) {
    for (const auto& product : products) add(product.weight, kMatrix), add(product.bias, kVector);
  }
  void note(const program::Embed& op) { add(op.table, kTable); }
  void note(const program::MatMul& op) { products(op.products); }
  void note(const program::GatedMatMul& op) { add(op.gate, kMatrix), add(op.up, kMatrix); }
  void note(const program::Logits& op) { add(op.weight, kMatrix), add(op.bias, kVector); }
  void note(const program::ExpertMatMul& op) { products(op.products); }
  void note(const program::RmsNorm& op) { add(op.weight, kVector); }
  void note(const program::LayerNorm& op) { add(op.weight, kVector), add(op.bias, kVector); }
  void note(const program::AddRmsNorm& op) { add(op.weight, kVector); }
  void note(const program::Attention& op) { add(op.sinks, kVector); }
  void note(const program::GatherRows&) {}
  void note(const program::Activate&) {}
  void note(const program::GatedActivation&) {}
  void note(const program::Add&) {}
  void note(const program::Clamp&) {}
  void note(const program::SoftCap&) {}
  void note(const program::GateRows&) {}
  void note(const program::Rope&) {}
  void note(const program::KvWrite&) {}
  void note(const program::Route&) {}
  void note(const program::ExpertCombine&) {}
  std::vector<unsigned> of;
};

// A transposed weight is turned once and held as f32.
codecs::CodecId packed_codec(const StoredWeight& weight) {
  return weight.transposed ? codecs::CodecId::f32 : weight.codec;
}

const MatMulKernel& require_kernel(const StoredWeight& weight, const std::string& name) {
  const auto id = packed_codec(weight);
  if (const auto* kernel = matmul_kernel(id, active_isa(), weight.cols)) return *kernel;
  fail(ErrorKind::unsupported, "weight {}: no CPU kernel multiplies {} with {} columns", name,
       codecs::codec(id).name, weight.cols);
}

size_t piece_bytes(const MatMulKernel& kernel, const StoredWeight& weight) {
  return size_t(round_up(int64_t(kernel.packed_bytes(weight.rows, weight.cols)), 64));
}

}  // namespace

uint64_t Weights::bytes_needed(const Program& program, std::span<const StoredWeight> stored) {
  const Roles roles(program);
  uint64_t total = 0;
  for (size_t i = 0; i < stored.size(); ++i) {
    const auto& weight = stored[i];
    if (roles.of[i] & kMatrix)
      total += piece_bytes(require_kernel(weight, program.weights[i].name), weight) * weight.pieces.size();
    if (roles.of[i] & kVector) total += uint64_t(weight.cols) * sizeof(float);
    if ((roles.of[i] & kTable) && weight.transposed)
      total += uint64_t(weight.rows * weight.cols) * sizeof(float);
  }
  return total;
}

Weights::Weights(const Program& program, std::span<const StoredWeight> stored,
                 std::span<const MappedFile> files, ThreadPool& pool,
                 const std::function<void(const LoadProgress&)>& progress)
    : matrices_(stored.size()), tables_(stored.size()), vectors_(stored.size()) {
  const Roles roles(program);
  LoadProgress loaded;
  for (size_t i = 0; i < stored.size(); ++i)
    if (roles.of[i] & kMatrix)
      for (const auto& piece : stored[i].pieces) loaded.total_bytes += piece.bytes;

  for (size_t i = 0; i < stored.size(); ++i) {
    const auto& weight = stored[i];
    const auto& name = program.weights[i].name;
    if (roles.of[i] & kVector) {
      vectors_[i] = codecs::decode_vector(weight);
      bytes_ += vectors_[i].size() * sizeof(float);
    }
    if (roles.of[i] & kTable) {
      auto& table = tables_[i];
      table = {&codecs::codec(packed_codec(weight)), weight.pieces.front().data, weight.rows, weight.cols, 0};
      table.row_bytes = *codecs::row_bytes(*table.codec, uint64_t(weight.cols));
      if (weight.transposed) {
        const auto values = codecs::decode_transposed(weight, 0);
        decoded_.emplace_back(values.size() * sizeof(float));
        std::copy_n(reinterpret_cast<const std::byte*>(values.data()), decoded_.back().size(),
                    decoded_.back().data());
        table.data = decoded_.back().data();
        bytes_ += decoded_.back().size();
      }
    }
    if (!(roles.of[i] & kMatrix)) continue;

    auto& matrix = matrices_[i];
    matrix.kernel = &require_kernel(weight, name);
    matrix.rows = weight.rows;
    matrix.cols = weight.cols;
    matrix.piece_bytes = piece_bytes(*matrix.kernel, weight);
    matrix.data = AlignedBuffer(matrix.piece_bytes * weight.pieces.size());
    bytes_ += matrix.data.size();
    for (size_t p = 0; p < weight.pieces.size(); ++p) {
      const auto& piece = weight.pieces[p];
      std::vector<float> turned;
      const std::byte* rows = piece.data;
      if (weight.transposed) {
        turned = codecs::decode_transposed(weight, p);
        rows = reinterpret_cast<const std::byte*>(turned.data());
      }
      std::byte* packed = matrix.data.data() + p * matrix.piece_bytes;
      pool.split(panels_of(weight.rows), 1,
                 [&](Range panels) { matrix.kernel->pack(rows, weight.rows, weight.cols, panels, packed); });
      // Packed: the file's pages may leave. A lookup table that is also a matrix is read again only row by
      // row.
      if (piece.file >= 0) files[size_t(piece.file)].drop({piece.data, piece.bytes});
      loaded.done_bytes += piece.bytes;
      if (progress) progress(loaded);
    }
  }
}

}  // namespace cairn::cpu
