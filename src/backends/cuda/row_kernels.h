// Launchers of kernels/rows.cu, kernels/matmul_plain.cu and kernels/attention_plain.cu: the row-wise
// arithmetic of every program, and the plain products and attention that define the fast ones.
#pragma once

#include <vector>

#include "backends/cuda/registry.h"
#include "program/activation.h"
#include "program/rope.h"

namespace cairn::cuda {

// Element type of an activation in device memory.
enum class Element : uint8_t { f32, bf16 };
inline int64_t bytes_of(Element e) { return e == Element::f32 ? 4 : 2; }

// An activation: where it lies and how its elements are stored. Rows are contiguous.
struct Operand {
  Address address = 0;
  Element element = Element::f32;
};

std::vector<Variant> row_kernel_variants(int capability);
std::vector<Variant> matmul_plain_variants(int capability);
std::vector<Variant> attention_plain_variants(int capability);

enum class TableKind : int { f32, f16, bf16 };

// A piece of weight for the plain product: [pieces][n][k].
struct PlainMatrix {
  Address data = 0;
  Element element = Element::f32;
  int64_t rows = 0, cols = 0, pieces = 1;
};

// The plain cache, one layer's part of it.
struct PlainCache {
  Address k = 0, v = 0;
  Element element = Element::f32;
  int kv_heads = 0, dim_k = 0, dim_v = 0, page_tokens = 0;
};

struct PlainAttention {
  int heads = 0;
  float scale = 0, softcap = 0;
  int window = 0;
  bool causal = true;
  Address sinks = 0, slopes = 0;  // f32 [heads] or 0
};

// Every call launches on the stream; overlap: see LaunchShape::overlap_previous (all these kernels wait
// first).
class RowLauncher {
 public:
  RowLauncher(KernelCache& cache, Stream& stream) : cache_(cache), stream_(stream) {}
  bool overlap = false;

  // ids 0: every row is the table's row `offset`.
  void embed(Address ids, Address table, TableKind, Operand y, int64_t rows, int64_t dim, float scale,
             int64_t offset);
  void gather_rows(Operand x, Address rows_from, Operand y, int64_t rows, int64_t dim);
  void convert(Operand x, Operand y, int64_t count);
  void rms_norm(Operand x, Address weight, Operand y, int64_t groups, int64_t n, float eps, float offset);
  void layer_norm(Operand x, Address weight, Address bias, Operand y, int64_t rows, int64_t n, float eps);
  void add_rms_norm(Operand a, Operand b, Operand sum, Address weight, Operand y, int64_t rows, int64_t n,
                    float eps, float offset);
  void add(Operand a, Operand b, float b_scale, Operand y, int64_t count);
  void clamp(Operand x, float limit, Operand y, int64_t count);
  void soft_cap(Operand x, float scale, float cap, Operand y, int64_t count);
  void activate(Operand x, program::Activation, Operand y, int64_t count);
  void gated(Operand gate, Operand up, program::Activation, Operand y, int64_t count);
  void gate_rows(Operand x, Operand gate, Operand y, int64_t rows, int64_t n);
  // frequencies: half of them and a factor, f32; one such list per sequence when sequence_of is set.
  void rope_table(Address positions, Address sequence_of, Address frequencies, Address table, int64_t rows,
                  int64_t half);
  void rope(Operand x, Address table, Operand y, int64_t rows, int64_t heads, int64_t head_dim,
            int64_t rotary, program::RopePairing);
  void route(Operand scores, int64_t experts, int64_t top_k, bool renormalise, Address chosen,
             Address weights, int64_t rows);
  void expert_combine(Operand x, Address weights, Operand y, int64_t rows, int64_t n, int64_t top_k);

  // y[m, n] = x[m, k] w^T + bias. chosen (i32 [m], or 0): row r multiplies piece chosen[r] and x row r /
  // x_share.
  void matmul_plain(Operand x, const PlainMatrix&, Address bias, Operand y, int64_t m, Address chosen = 0,
                    int64_t x_share = 1);
  // tables: i32, a sequence's pages begin at tables[sequence_starts[s]] and hold lengths[s] tokens;
  // sequence_of, positions: i32 per row.
  void append_plain(Operand k, Operand v, const PlainCache&, Address tables, Address sequence_starts,
                    Address sequence_of, Address positions, int64_t rows);
  void attention_plain(Operand q, Operand y, const PlainCache&, const PlainAttention&, Address tables,
                       Address sequence_starts, Address lengths, Address sequence_of, Address positions,
                       int64_t rows);

 private:
  Kernel rows_kernel(const char* entry, Element x, Element y);
  LaunchShape lines(int64_t blocks, unsigned block) const;
  LaunchShape flat(int64_t count) const;
  int wide_norm(int64_t n, LaunchShape&) const;
  KernelCache& cache_;
  Stream& stream_;
};

}  // namespace cairn::cuda
