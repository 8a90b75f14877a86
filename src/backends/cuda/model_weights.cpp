#include "backends/cuda/model_weights.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "program/weight_roles.h"

namespace cairn::cuda {
namespace {

using codecs::CodecId;
using codecs::StoredWeight;
using program::Program;

constexpr int64_t kAlignment = 256;
constexpr size_t kStagingBytes = size_t{64} << 20;

bool is_float(const StoredWeight& w) {
  return !w.transposed && !w.split &&
         (w.codec == CodecId::f32 || w.codec == CodecId::f16 || w.codec == CodecId::bf16);
}
TableKind table_kind(CodecId id) {
  return id == CodecId::f32 ? TableKind::f32 : id == CodecId::f16 ? TableKind::f16 : TableKind::bf16;
}

// Which matrices the fast kernels multiply: those in a form of weights.h. The others are plain f32.
std::vector<bool> packed_matrices(std::span<const StoredWeight> stored, bool exact) {
  std::vector<bool> packed(stored.size(), !exact);
  for (size_t i = 0; i < stored.size(); ++i)
    if (!form_of(stored[i].transposed ? CodecId::f32 : stored[i].codec) || stored[i].cols % 8 != 0)
      packed[i] = false;
  return packed;
}

// Whether the packed form of this weight is its file's rows.
bool has_rows(const StoredWeight& w) {
  return !w.transposed && !w.split && (w.codec == CodecId::bf16 || w.codec == CodecId::f16);
}

// Whether its packed form is blocks at the file's precision.
bool has_blocks(const StoredWeight& w) {
  return !w.transposed && w.pieces.size() == 1 && form_of(w.codec) &&
         form_of(w.codec)->layout == Layout::blocks;
}

int64_t elements(const StoredWeight& w) { return w.rows * w.cols; }

// Where everything of a model lies in one allocation.
struct Places {
  std::vector<int64_t> matrix, vector, table;  // offsets; -1: none
  std::vector<bool> packed;
  int64_t bytes = 0;

  Places(const Program& program, std::span<const StoredWeight> stored, WeightForms::Options options)
      : matrix(stored.size(), -1),
        vector(stored.size(), -1),
        table(stored.size(), -1),
        packed(packed_matrices(stored, options.exact)) {
    const auto roles = program::weight_roles(program);
    const auto place = [&](int64_t size) {
      const int64_t at = bytes;
      bytes = round_up(bytes + size, kAlignment);
      return at;
    };
    for (size_t i = 0; i < stored.size(); ++i) {
      const auto& w = stored[i];
      if (roles[i].matrix)
        matrix[i] = place(packed[i] ? int64_t(device_matrix_bytes(w.transposed ? CodecId::f32 : w.codec,
                                                                  w.rows, w.cols, int64_t(w.pieces.size())))
                                    : elements(w) * int64_t(w.pieces.size()) * 4);
      if (roles[i].vector) vector[i] = place(w.cols * 4);
      // A table that a product reads too (tied embeddings) is read where the product's copy lies, if that is
      // its rows.
      if (!roles[i].table) continue;
      const bool multiplied = matrix[i] >= 0 && packed[i];
      if (is_float(w) && !(multiplied && has_rows(w)))
        table[i] = place(elements(w) * codecs::codec(w.codec).block_bytes);
      else if (packed[i] && has_blocks(w) && !multiplied)
        table[i] = place(int64_t(device_matrix_bytes(w.codec, w.rows, w.cols, 1)));
    }
  }
};

// Copies through two page-locked halves, so that the CPU fills one while the other travels.
class Uploader {
 public:
  Uploader(const Device& device, Stream& stream)
      : stream_(stream), staging_(device, 2 * kStagingBytes), sent_{Event(device), Event(device)} {}

  // fill(destination, begin, end) writes elements [begin, end) of `count`, each element_bytes.
  template <typename F>
  void send(Address to, int64_t count, int64_t element_bytes, int64_t granularity, F&& fill) {
    const int64_t part =
        std::max<int64_t>(1, int64_t(kStagingBytes) / (element_bytes * granularity)) * granularity;
    for (int64_t begin = 0; begin < count; begin += part) {
      const int64_t end = std::min(count, begin + part);
      std::byte* half = staging_.data() + size_t(next_) * kStagingBytes;
      if (used_[next_]) sent_[next_].synchronize();
      fill(half, begin, end);
      stream_.upload(to + Address(begin * element_bytes), half, size_t((end - begin) * element_bytes));
      sent_[next_].record(stream_);
      used_[next_] = true;
      next_ = 1 - next_;
    }
  }

 private:
  Stream& stream_;
  PinnedBuffer staging_;
  Event sent_[2];
  bool used_[2] = {false, false};
  int next_ = 0;
};

}  // namespace

uint64_t ModelWeights::bytes_needed(const Program& program, std::span<const StoredWeight> stored,
                                    Options options) {
  return uint64_t(Places(program, stored, options).bytes);
}

WeightForms::WeightForms(const Program& program, std::span<const StoredWeight> stored, Options options,
                         Address base)
    : options_(options),
      packed_(stored.size()),
      plain_(stored.size()),
      table_blocks_(stored.size()),
      tables_(stored.size()),
      vectors_(stored.size(), 0) {
  const Places places(program, stored, options);
  bytes_ = uint64_t(places.bytes);
  const auto at = [&](int64_t offset) { return base + Address(offset); };
  for (size_t i = 0; i < stored.size(); ++i) {
    const auto& w = stored[i];
    if (places.matrix[i] >= 0 && places.packed[i])
      packed_[i] = describe_matrix(w, at(places.matrix[i]));
    else if (places.matrix[i] >= 0)
      plain_[i] = {at(places.matrix[i]), Element::f32, w.rows, w.cols, int64_t(w.pieces.size())};
    if (places.vector[i] >= 0) vectors_[i] = at(places.vector[i]);
    tables_[i].kind = table_kind(w.codec);
    tables_[i].stored = &w, tables_[i].rows = w.rows, tables_[i].cols = w.cols;
    const bool multiplied = places.matrix[i] >= 0 && places.packed[i];
    if (places.table[i] >= 0 && has_blocks(w)) {
      table_blocks_[i] = describe_matrix(w, at(places.table[i]));
      tables_[i].blocks = &table_blocks_[i];
    } else if (places.table[i] >= 0) {
      tables_[i].data = at(places.table[i]);
    } else if (multiplied && has_rows(w)) {
      tables_[i].data = packed_[i].data;
    } else if (multiplied && has_blocks(w)) {
      tables_[i].blocks = &packed_[i];
    }
  }
}

ModelWeights::ModelWeights(const Program& program, std::span<const StoredWeight> stored, Options options,
                           Buffer memory)
    : WeightForms(program, stored, options, memory.address()), memory_(std::move(memory)) {}

ModelWeights::ModelWeights(const Program& program, std::span<const StoredWeight> stored, const Device& device,
                           Options options)
    : ModelWeights(program, stored, options, Buffer(device, size_t(bytes_needed(program, stored, options)))) {
}

void ModelWeights::load(const Program& program, std::span<const StoredWeight> stored, const Device& device,
                        Stream& stream, ThreadPool& pool,
                        const std::function<void(const backends::LoadProgress&)>& progress) {
  const Places places(program, stored, options_);
  Uploader uploader(device, stream);
  MatrixPacker packer(device, stream, pool);
  backends::LoadProgress loaded;
  // A part of a program has no use for the others' weights.
  const auto roles = program::weight_roles(program);
  const auto used = [&](size_t i) { return roles[i].matrix || roles[i].vector || roles[i].table; };
  for (size_t i = 0; i < stored.size(); ++i)
    for (const auto& piece : stored[i].pieces) loaded.total_bytes += used(i) ? piece.all_bytes() : 0;

  for (size_t i = 0; i < stored.size(); ++i) {
    if (!used(i)) continue;
    const auto& w = stored[i];
    const auto& codec = codecs::codec(w.codec);
    const auto raw = [&](Address to) {
      if (!w.has_rows()) {
        uploader.send(
            to, w.rows, w.cols * codec.block_bytes, 1, [&](std::byte* half, int64_t begin, int64_t end) {
              pool.split(end - begin, 1, [&](Range part) {
                std::vector<std::byte> room;
                const auto* rows = codecs::stored_rows(w, 0, begin + part.begin, begin + part.end, room);
                std::memcpy(half + part.begin * w.cols * codec.block_bytes, rows,
                            size_t(part.size() * w.cols * codec.block_bytes));
              });
            });
        return;
      }
      uploader.send(to, elements(w), codec.block_bytes, 1, [&](std::byte* half, int64_t begin, int64_t end) {
        pool.split(end - begin, 4096, [&](Range part) {
          std::memcpy(half + part.begin * codec.block_bytes,
                      w.pieces[0].data + (begin + part.begin) * codec.block_bytes,
                      size_t(part.size() * codec.block_bytes));
        });
      });
    };
    if (places.matrix[i] >= 0 && places.packed[i]) {
      packer.pack(w, packed_[i].data);
    } else if (places.matrix[i] >= 0) {
      const auto& m = plain_[i];
      for (size_t p = 0; p < w.pieces.size(); ++p) {
        const Address to = m.data + Address(int64_t(p) * elements(w) * 4);
        if (w.transposed) {
          const auto values = codecs::decode_transposed(w, p);
          uploader.send(to, elements(w), 4, 1, [&](std::byte* half, int64_t begin, int64_t end) {
            std::memcpy(half, values.data() + begin, size_t(end - begin) * 4);
          });
          continue;
        }
        if (!w.has_rows()) {
          uploader.send(to, w.rows, w.cols * 4, 1, [&](std::byte* half, int64_t begin, int64_t end) {
            pool.split(end - begin, 8, [&](Range part) {
              std::vector<std::byte> room;
              codec.decode(codecs::stored_rows(w, p, begin + part.begin, begin + part.end, room),
                           reinterpret_cast<float*>(half) + part.begin * w.cols, part.size() * w.cols);
            });
          });
          continue;
        }
        uploader.send(
            to, elements(w), 4, codec.block_elements, [&](std::byte* half, int64_t begin, int64_t end) {
              const int64_t blocks = (end - begin) / codec.block_elements;
              pool.split(blocks, 64, [&](Range part) {
                codec.decode(
                    w.pieces[p].data + (begin / codec.block_elements + part.begin) * codec.block_bytes,
                    reinterpret_cast<float*>(half) + part.begin * codec.block_elements,
                    part.size() * codec.block_elements);
              });
            });
      }
    }
    if (places.vector[i] >= 0) {
      const auto values = codecs::decode_vector(w);
      uploader.send(vectors_[i], w.cols, 4, 1, [&](std::byte* half, int64_t begin, int64_t end) {
        std::memcpy(half, values.data() + begin, size_t(end - begin) * 4);
      });
    }
    if (places.table[i] >= 0 && has_blocks(w))
      packer.pack(w, table_blocks_[i].data);
    else if (places.table[i] >= 0)
      raw(tables_[i].data);
    for (const auto& piece : w.pieces) loaded.done_bytes += piece.all_bytes();
    if (progress) progress(loaded);
  }
  stream.synchronize();
}

}  // namespace cairn::cuda
