#include "backends/cpu/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "codecs/df11.h"
#include "program/weight_roles.h"

namespace cairn::cpu {
namespace {

using codecs::StoredWeight;
using program::Program;
using program::Weight;

// Bytes of the file that a thread packs at a time.
constexpr uint64_t kPackChunk = uint64_t{1} << 20;

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

uint64_t stored_bytes(const StoredWeight& weight) {
  uint64_t bytes = 0;
  for (const auto& piece : weight.pieces) bytes += piece.all_bytes();
  return bytes;
}

// The pages of a piece may leave; its scales and zeros too.
void drop(const codecs::StoredPiece& piece, std::span<const MappedFile> files) {
  if (piece.file >= 0) files[size_t(piece.file)].drop({piece.data, piece.bytes});
  for (const auto& part : piece.beside)
    if (part.data && part.file >= 0) files[size_t(part.file)].drop({part.data, part.bytes});
}

size_t piece_bytes(const MatMulKernel& kernel, const StoredWeight& weight) {
  return size_t(round_up(int64_t(kernel.packed_bytes(weight.rows, weight.cols)), 64));
}

// Where the matrices of a program's DecodeGroups lie, all groups in one place: the program reads only the one
// that was decoded last.
struct GroupRoom {
  std::vector<int64_t> at;  // per weight; -1: in no group, or no product reads it
  size_t bytes = 0;

  GroupRoom(const Program& program, std::span<const StoredWeight> stored,
            std::span<const program::WeightRoles> roles)
      : at(stored.size(), -1) {
    for (const auto& instruction : program.instructions) {
      const auto* group = std::get_if<program::DecodeGroup>(&instruction.operation);
      if (!group) continue;
      size_t size = 0;
      for (const Weight w : group->weights) {
        const auto i = size_t(w.id);
        if (!roles[i].matrix || !stored[i].group) continue;
        at[i] = int64_t(size);
        size += piece_bytes(require_kernel(stored[i], program.weights[i].name), stored[i]) *
                stored[i].pieces.size();
      }
      bytes = std::max(bytes, size);
    }
  }
};

}  // namespace

std::vector<MatrixPlan> plan_matrices(const Program& program, std::span<const StoredWeight> stored) {
  const auto roles = program::weight_roles(program);
  const GroupRoom groups(program, stored, roles);
  std::vector<MatrixPlan> plans;
  for (size_t i = 0; i < stored.size(); ++i) {
    if (!roles[i].matrix || groups.at[i] >= 0) continue;
    const auto& kernel = require_kernel(stored[i], program.weights[i].name);
    plans.push_back({i, &kernel, piece_bytes(kernel, stored[i]), stored[i].pieces.size()});
  }
  return plans;
}

uint64_t Weights::bytes_needed(const Program& program, std::span<const StoredWeight> stored) {
  const auto roles = program::weight_roles(program);
  const GroupRoom groups(program, stored, roles);
  uint64_t total = groups.bytes;
  for (size_t i = 0; i < stored.size(); ++i) {
    const auto& weight = stored[i];
    if (groups.at[i] >= 0) total += stored_bytes(weight);
    if (roles[i].matrix && groups.at[i] < 0)
      total += piece_bytes(require_kernel(weight, program.weights[i].name), weight) * weight.pieces.size();
    if (roles[i].vector) total += uint64_t(weight.cols) * sizeof(float);
    if (roles[i].table && weight.transposed) total += uint64_t(weight.rows * weight.cols) * sizeof(float);
  }
  return total;
}

Weights::Weights(const Program& program, std::span<const StoredWeight> stored,
                 std::span<const MappedFile> files, ThreadPool& pool,
                 const std::function<void(const LoadProgress&)>& progress, const PackedFolder& folder)
    : plans_(plan_matrices(program, stored)),
      matrices_(stored.size()),
      tables_(stored.size()),
      vectors_(stored.size()) {
  const auto roles = program::weight_roles(program);
  for (size_t i = 0; i < stored.size(); ++i) {
    const auto& weight = stored[i];
    if (roles[i].vector) {
      vectors_[i] = codecs::decode_vector(weight);
      bytes_ += vectors_[i].size() * sizeof(float);
    }
    if (roles[i].table) {
      auto& table = tables_[i];
      table = {
          &codecs::codec(packed_codec(weight)), weight.pieces.front().data, weight.rows, weight.cols, 0, {}};
      table.row_bytes = *codecs::row_bytes(*table.codec, uint64_t(weight.cols));
      if (weight.group) table.made = weight, table.data = nullptr;
      if (weight.transposed) {
        const auto values = codecs::decode_transposed(weight, 0);
        decoded_.emplace_back(values.size() * sizeof(float));
        std::copy_n(reinterpret_cast<const std::byte*>(values.data()), decoded_.back().size(),
                    decoded_.back().data());
        table.data = decoded_.back().data();
        bytes_ += decoded_.back().size();
      }
    }
  }
  uint64_t packed_bytes = 0;
  for (const auto& plan : plans_) packed_bytes += plan.bytes();
  bytes_ += packed_bytes;

  std::string why;
  if (!folder.path.empty() && packed_bytes >= folder.least_bytes) {
    key_ = packed_key(plans_, stored);
    for (const auto& plan : plans_)  // a sample may have mapped a huge page
      for (const auto& piece : stored[plan.weight].pieces) drop(piece, files);
    const auto path = folder.path / key_->file_name();
    file_ = PackedFile::open(path, {*key_, plans_, stored, files}, pool, why);
    if (file_) {
      key_.reset();
      origin_ = fmt::format("mapped from {}", path.string());
    }
  }
  if (!file_) {
    pack(stored, files, pool, progress);
    origin_ = why.empty() ? "packed now" : fmt::format("packed now ({})", why);
  }
  for (size_t p = 0; p < plans_.size(); ++p) {
    const auto& plan = plans_[p];
    const auto& weight = stored[plan.weight];
    matrices_[plan.weight] = {plan.kernel, weight.rows, weight.cols, plan.piece_bytes,
                              file_ ? file_->matrix(p) : packed_[p].data()};
  }
  prepare_groups(program, stored, pool);
}

void Weights::prepare_groups(const Program& program, std::span<const StoredWeight> stored, ThreadPool& pool) {
  const GroupRoom groups(program, stored, program::weight_roles(program));
  if (groups.bytes == 0) return;
  group_ = AlignedBuffer(groups.bytes);
  bytes_ += groups.bytes;
  grouped_.resize(stored.size());
  std::set<const codecs::Df11Group*> verified;
  for (size_t i = 0; i < stored.size(); ++i) {
    if (groups.at[i] < 0) continue;
    const auto& weight = grouped_[i] = stored[i];
    const auto& kernel = require_kernel(weight, program.weights[i].name);
    matrices_[i] = {&kernel, weight.rows, weight.cols, piece_bytes(kernel, weight),
                    group_.data() + groups.at[i]};
    bytes_ += stored_bytes(weight);
    // In a step it would be late to find out.
    if (verified.insert(weight.group.get()).second)
      pool.split(weight.group->blocks(), 1, [&](Range blocks) { weight.group->verify(blocks, false); });
  }
}

void Weights::decode(const program::DecodeGroup& group, ThreadPool& pool) {
  struct Part {
    size_t weight, piece;
    Range panels;
  };
  std::vector<Part> parts;
  for (const Weight w : group.weights) {
    const auto i = size_t(w.id);
    if (i >= grouped_.size() || !grouped_[i].group) continue;  // plain: packed at load
    const auto& weight = grouped_[i];
    const int64_t panels = panels_of(weight.rows),
                  step = std::max<int64_t>(1, int64_t(kPackChunk) / (weight.cols * 2 * kPanelRows));
    for (size_t piece = 0; piece < weight.pieces.size(); ++piece)
      for (int64_t begin = 0; begin < panels; begin += step)
        parts.push_back({i, piece, {begin, std::min(begin + step, panels)}});
  }
  std::atomic<size_t> next{0};
  pool.run([&](int) {
    std::vector<std::byte> room;
    for (size_t p; (p = next.fetch_add(1, std::memory_order_relaxed)) < parts.size();) {
      const auto& [i, piece, panels] = parts[p];
      const auto& weight = grouped_[i];
      const auto& matrix = matrices_[i];
      const int64_t first = panels.begin * kPanelRows, last = std::min(panels.end * kPanelRows, weight.rows);
      std::byte* const to = group_.data() + (matrix.data - group_.data()) + piece * matrix.piece_bytes;
      matrix.kernel->pack(codecs::stored_rows(weight, piece, first, last, room), last - first, weight.cols,
                          {0, panels.size()},
                          to + size_t(panels.begin) * matrix.kernel->panel_bytes(weight.cols));
    }
  });
}

void Weights::pack(std::span<const StoredWeight> stored, std::span<const MappedFile> files, ThreadPool& pool,
                   const std::function<void(const LoadProgress&)>& progress) {
  LoadProgress loaded;
  for (const auto& plan : plans_) {
    packed_.emplace_back(plan.bytes());
    for (const auto& piece : stored[plan.weight].pieces) loaded.total_bytes += piece.all_bytes();
  }
  for (size_t p = 0; p < plans_.size(); ++p) {
    const auto& plan = plans_[p];
    const auto& weight = stored[plan.weight];
    for (size_t e = 0; e < weight.pieces.size(); ++e) {
      const auto& piece = weight.pieces[e];
      std::byte* const packed = packed_[p].data() + e * plan.piece_bytes;
      const int64_t panels = panels_of(weight.rows);
      if (weight.transposed) {
        const auto turned = codecs::decode_transposed(weight, e);
        pool.split(panels, 1, [&](Range part) {
          plan.kernel->pack(reinterpret_cast<const std::byte*>(turned.data()), weight.rows, weight.cols, part,
                            packed);
        });
        if (piece.file >= 0) files[size_t(piece.file)].drop({piece.data, piece.bytes});
      } else {
        // Chunks from a common counter: the tokenizer may be loading on one of the cores.
        const uint64_t row_bytes =
            codecs::row_bytes(codecs::codec(weight.codec), uint64_t(weight.cols)).value();
        const int64_t chunk = std::max<int64_t>(1, int64_t(kPackChunk / (row_bytes * kPanelRows)));
        std::atomic<int64_t> next{0};
        pool.run([&](int) {
          std::vector<std::byte> room;
          for (int64_t begin; (begin = next.fetch_add(chunk, std::memory_order_relaxed)) < panels;) {
            const Range part{begin, std::min(begin + chunk, panels)};
            const int64_t first = part.begin * kPanelRows,
                          last = std::min(part.end * kPanelRows, weight.rows);
            if (!weight.has_rows()) {
              plan.kernel->pack(codecs::stored_rows(weight, e, first, last, room), last - first, weight.cols,
                                {0, part.size()},
                                packed + size_t(part.begin) * plan.kernel->panel_bytes(weight.cols));
              continue;
            }
            const uint64_t from = uint64_t(first) * row_bytes, to = uint64_t(last) * row_bytes;
            const std::span<const std::byte> source(piece.data + from, to - from);
            if (piece.file >= 0) files[size_t(piece.file)].populate(source);
            plan.kernel->pack(piece.data, weight.rows, weight.cols, part, packed);
            // Packed: the file's pages may leave. A lookup table that is also a matrix is read again only
            // row by row.
            if (piece.file >= 0) files[size_t(piece.file)].drop(source);
          }
        });
      }
      if (weight.split || weight.group) drop(piece, files);
      loaded.done_bytes += piece.all_bytes();
      if (progress) progress(loaded);
    }
  }
}

std::unique_ptr<PackedWriter> Weights::writer(std::span<const StoredWeight> stored,
                                              std::span<const MappedFile> files, const PackedFolder& folder,
                                              std::function<void(const std::string&)> on_end) const {
  if (!key_) return nullptr;
  std::vector<const std::byte*> matrices;
  for (const auto& buffer : packed_) matrices.push_back(buffer.data());
  return std::make_unique<PackedWriter>(folder, PackedSource{*key_, plans_, stored, files},
                                        std::move(matrices), std::move(on_end));
}

}  // namespace cairn::cpu
