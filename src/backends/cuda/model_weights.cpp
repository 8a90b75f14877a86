#include "backends/cuda/model_weights.h"

#include <algorithm>
#include <cstring>
#include <map>

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
    else if (form_of(stored[i].codec)->layout == Layout::planes && stored[i].pieces.size() > 1)
      packed[i] = false;  // experts' products have no look-ups
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

// The groups that are decoded, or copied, in each step. Others are decoded once, when they are loaded: those
// of the f32 mode, and those in which a matrix is no bf16 at a multiple of kAlignment bytes.
struct GroupPlaces {
  struct Group {
    const program::DecodeGroup* first = nullptr;  // the same weights may be decoded again later
    int64_t image = -1, side = -1;                // offsets of the whole, or of what stays on the device
  };
  std::map<int32_t, Group> groups;  // by their first weight
  std::vector<int64_t> at;          // per weight: its offset among its group's; -1: not decoded in steps
  int64_t room = 0, copied = 0;     // for one group's matrices; for what is copied of one
  uint64_t host = 0;

  GroupPlaces(const Program& program, std::span<const StoredWeight> stored, WeightForms::Options options)
      : at(stored.size(), -1) {
    if (options.exact) return;
    for (const auto& instruction : program.instructions) {
      const auto* op = std::get_if<program::DecodeGroup>(&instruction.operation);
      if (!op || groups.contains(op->weights.front().id)) continue;
      const auto places = place(*op, stored);
      if (places.empty()) continue;
      for (size_t i = 0; i < places.size(); ++i) at[size_t(op->weights[i].id)] = places[i];
      groups[op->weights.front().id].first = op;
      const auto& last = stored[size_t(op->weights.back().id)];
      room = std::max(room, last.group ? last.group->elements() * 2
                                       : places.back() + round_up(last.rows * last.cols * 2, kAlignment));
    }
  }

 private:
  static std::vector<int64_t> place(const program::DecodeGroup& op, std::span<const StoredWeight> stored) {
    std::vector<int64_t> places;
    int64_t next = 0;
    for (const auto w : op.weights) {
      const auto& weight = stored[size_t(w.id)];
      if (weight.codec != CodecId::bf16 || weight.transposed || weight.pieces.size() != 1 ||
          weight.cols % 8 != 0)
        return {};
      if (!weight.group && !op.on_host) return {};
      const int64_t begin = weight.group ? weight.pieces.front().first_element * 2 : next;
      if (begin % kAlignment != 0) return {};
      places.push_back(begin);
      next = begin + round_up(weight.rows * weight.cols * 2, kAlignment);
    }
    return places;
  }
};

// Where everything of a model lies in one allocation.
struct Places {
  std::vector<int64_t> matrix, vector, table;  // offsets; -1: none
  std::vector<bool> packed;
  GroupPlaces groups;
  int64_t room = 0, copied = 0;  // where the group of the moment lies, and what is copied of it
  int64_t bytes = 0;

  Places(const Program& program, std::span<const StoredWeight> stored, WeightForms::Options options)
      : matrix(stored.size(), -1),
        vector(stored.size(), -1),
        table(stored.size(), -1),
        packed(packed_matrices(stored, options.exact)),
        groups(program, stored, options) {
    const auto roles = program::weight_roles(program);
    const auto place = [&](int64_t size) {
      const int64_t at = bytes;
      bytes = round_up(bytes + size, kAlignment);
      return at;
    };
    for (auto& [first, group] : groups.groups) {
      const auto& weights = stored[size_t(first)];
      if (!weights.group) continue;
      const Df11Image image(*weights.group);
      group.image = group.first->on_host ? -1 : place(int64_t(image.bytes()));
      group.side = group.first->on_host ? place(int64_t(image.side_bytes())) : -1;
      if (group.first->on_host) groups.copied = std::max(groups.copied, int64_t(image.bulk_bytes()));
    }
    room = place(groups.room + kAlignment), copied = place(groups.copied);
    for (size_t i = 0; i < stored.size(); ++i) {
      const auto& w = stored[i];
      if (groups.at[i] >= 0) continue;
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
    if (places.groups.at[i] >= 0) {
      packed_[i] = describe_matrix(w, at(places.room + places.groups.at[i]));
      tables_[i] = {packed_[i].data, TableKind::bf16, nullptr, &w, w.rows, w.cols};
      continue;
    }
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

ModelWeights::ModelWeights(const Program& program, std::span<const StoredWeight> stored, const Device& device,
                           Options options, Buffer memory)
    : WeightForms(program, stored, options, memory.address()), memory_(std::move(memory)) {
  const Places places(program, stored, options);
  const auto at = [&](int64_t offset) { return memory_.address() + Address(offset); };
  for (const auto& [first, at_places] : places.groups.groups) {
    const auto& w = stored[size_t(first)];
    auto& group = groups_[first];
    group.to = at(places.room);
    if (w.group) group.image = std::make_unique<Df11Image>(*w.group);
    size_t on_host = w.group ? group.image->bulk_bytes() : 0;
    for (const auto weight : at_places.first->weights) {
      const auto& m = stored[size_t(weight.id)];
      if (!w.group) on_host = size_t(places.groups.at[size_t(weight.id)] + m.rows * m.cols * 2);
    }
    if (w.group && !at_places.first->on_host) {
      group.on_device = group.image->at(at(at_places.image));
    } else {
      group.host = PinnedBuffer(device, on_host);
      group.copied_to = w.group ? at(places.copied) : group.to;
      if (w.group) group.on_device = group.image->at(group.copied_to, at(at_places.side));
    }
  }
}

ModelWeights::ModelWeights(const Program& program, std::span<const StoredWeight> stored, const Device& device,
                           Options options)
    : ModelWeights(program, stored, device, options,
                   Buffer(device, size_t(bytes_needed(program, stored, options)))) {}

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

  load_groups(program, stored, device, stream, pool);
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

void ModelWeights::load_groups(const Program& program, std::span<const StoredWeight> stored,
                               const Device& device, Stream& stream, ThreadPool& pool) {
  const Places places(program, stored, options_);
  if (places.groups.groups.empty()) return;
  Uploader uploader(device, stream);
  const auto share = [&](int64_t size, auto&& f) { pool.split(size, kAlignment, f); };
  for (const auto& [first, at] : places.groups.groups) {
    Group& group = groups_.at(first);
    if (!group.image) {  // matrices as they are
      for (const auto w : at.first->weights) {
        const auto& weight = stored[size_t(w.id)];
        std::byte* const to = group.host.data() + places.groups.at[size_t(w.id)];
        share(weight.rows * weight.cols * 2, [&](Range part) {
          std::memcpy(to + part.begin, weight.pieces.front().data + part.begin, size_t(part.size()));
        });
      }
      continue;
    }
    // The kernel trusts gaps that are where codes begin.
    const auto& fields = *stored[size_t(first)].group;
    pool.split(fields.blocks(), 1, [&](Range blocks) { fields.verify(blocks); });
    const auto upload = [&](Address to, size_t begin, size_t end) {
      uploader.send(to, int64_t(end - begin), 1, kAlignment,
                    [&](std::byte* half, int64_t from, int64_t until) {
                      share(until - from, [&](Range part) {
                        group.image->write(begin + size_t(from + part.begin), begin + size_t(from + part.end),
                                           half + part.begin);
                      });
                    });
    };
    const size_t bulk = group.image->bulk_bytes();
    if (at.first->on_host) {
      share(int64_t(bulk), [&](Range part) {
        group.image->write(size_t(part.begin), size_t(part.end), group.host.data() + part.begin);
      });
      upload(memory_.address() + Address(at.side), bulk, group.image->bytes());
    } else {
      upload(memory_.address() + Address(at.image), 0, group.image->bytes());
    }
    stream.synchronize();
  }
}

void ModelWeights::decode(KernelCache& kernels, Stream& stream, const program::DecodeGroup& op) const {
  const auto found = groups_.find(op.weights.front().id);
  if (found == groups_.end()) return;
  const Group& group = found->second;
  if (group.copied_to) stream.upload(group.copied_to, group.host.data(), group.host.size());
  if (group.image) decode_df11(kernels, stream, group.on_device, group.to);
}

}  // namespace cairn::cuda
