// The weights of a program in GPU memory: matrices in the form their kernels read, vectors in f32, lookup
// tables where a lookup is cheapest.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backends/common/executor.h"
#include "backends/cuda/df11.h"
#include "backends/cuda/row_kernels.h"
#include "backends/cuda/weights.h"
#include "base/thread_pool.h"
#include "codecs/stored_weight.h"
#include "program/program.h"

namespace cairn::cuda {

// In which forms the weights lie, from an address on: all that plans and kernels ask, before anything is
// allocated.
class WeightForms {
 public:
  struct Options {
    bool exact = false;  // every matrix decoded to f32, for tests
  };
  WeightForms(const program::Program&, std::span<const codecs::StoredWeight>, Options, Address base = 0);

  struct Table {
    Address data = 0;  // row-major
    TableKind kind = TableKind::f32;
    const DeviceMatrix* blocks = nullptr;  // or in blocks, as a product reads it
    // Neither: its rows are decoded on the CPU, from `stored`.
    bool on_device() const { return data || blocks; }
    const codecs::StoredWeight* stored = nullptr;
    int64_t rows = 0, cols = 0;
  };

  // A matrix is held in one of two ways: packed for the fast kernels, or plain.
  bool is_packed(program::Weight w) const { return packed_[size_t(w.id)].form != nullptr; }
  const DeviceMatrix& packed(program::Weight w) const { return packed_[size_t(w.id)]; }
  const PlainMatrix& plain(program::Weight w) const { return plain_[size_t(w.id)]; }
  const Table& table(program::Weight w) const { return tables_[size_t(w.id)]; }
  Address vector(program::Weight w) const { return w ? vectors_[size_t(w.id)] : 0; }
  uint64_t bytes() const { return bytes_; }

 protected:
  Options options_;
  uint64_t bytes_ = 0;  // of all, one after another
  std::vector<DeviceMatrix> packed_;
  std::vector<PlainMatrix> plain_;
  std::vector<DeviceMatrix> table_blocks_;  // of tables that no product reads
  std::vector<Table> tables_;
  std::vector<Address> vectors_;
};

class ModelWeights : public WeightForms {
 public:
  // Bytes of GPU memory that loading will allocate.
  static uint64_t bytes_needed(const program::Program&, std::span<const codecs::StoredWeight>, Options);

  // Allocates, so that kernels are compiled while load() runs. Throws Error(out_of_memory) when they do not
  // fit.
  ModelWeights(const program::Program&, std::span<const codecs::StoredWeight>, const Device&, Options);
  // Fills them. The program and weights are those of the constructor.
  void load(const program::Program&, std::span<const codecs::StoredWeight>, const Device&, Stream&,
            ThreadPool&, const std::function<void(const backends::LoadProgress&)>& progress = {});

  // Queues what makes the weights of a DecodeGroup readable where packed() and table() say. The kernel after
  // it must not begin before it ends. Nothing where they are readable at all times.
  void decode(KernelCache&, Stream&, const program::DecodeGroup&) const;

 private:
  // What a DecodeGroup reads: an image of a DFloat11 group, or matrices as they are.
  struct Group {
    std::unique_ptr<Df11Image> image;
    DeviceDf11 on_device;
    Address to = 0;
    PinnedBuffer host;  // of the image its bulk, of matrices all
    Address copied_to = 0;
  };
  void load_groups(const program::Program&, std::span<const codecs::StoredWeight>, const Device&, Stream&,
                   ThreadPool&);

  ModelWeights(const program::Program&, std::span<const codecs::StoredWeight>, const Device&, Options,
               Buffer);
  Buffer memory_;
  std::map<int32_t, Group> groups_;  // by their first weight
};

}  // namespace cairn::cuda
