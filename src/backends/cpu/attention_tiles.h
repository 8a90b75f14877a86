// What an instruction set provides for attention.cpp: packing one tile of keys and values, and running a
// strip of query vectors over it. Plain pointers only: the files behind this are compiled for processors that
// the caller may not have, and must not share inline code with it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cairn::cpu {

inline constexpr int kStripVectors = 16;

// How one row of the cache is stored; kv::KvForm without its header.
enum class RowForm : int { f32, f16, bf16, q8_0 };

struct StripArgs {
  RowForm form;                    // for asking; with
  const std::byte* const* next_k;  // [64] the rows of the next tile, of which FewVectorKernels ask for the
  const std::byte* const* next_v;  // second half
  const void* q;                   // a strip as pack_q left it
  const void* k;                   // the tile as pack_k and pack_v left it
  const void* v;
  int vectors;       // 1..16 that are not padding
  int dim_k, dim_v;  // padded as in the kernels' dim_multiple
  int tokens;        // of the tile; those from here on are masked for every vector, and zero in v
  const int* first;  // [16] vector i sees tokens first[i] <= t < last[i] of the tile; none if first >= last
  const int* last;
  float scale_log2;  // scale * log2(e): logits and maxima are in units of ln 2
  float softcap;     // 0: none
  float scale;
  const float* slopes;  // [16] alibi slope * log2(e), or null
  const float* offset;  // [16] (tile's first token - position), used with slopes
  float* o;             // [16][dim_v] sum of p V; updated, as are
  float* m;             // [16] largest logit
  float* l;             // [16] sum of p
  float* scores;        // [16][64] scratch
  float* turned;        // [64][16] scratch, from FewVectorKernels::scores to its strip
};

// One tile's keys or values to be packed.
struct PackArgs {
  RowForm form;
  const std::byte* const* rows;  // [64] stored rows; those from `tokens` on are readable zeros
  // [64] the rows that will be packed after these, asked for meanwhile, one for one: so memory is busy while
  // this tile is computed. (All at once they fill the processor's queue, and the computation waits behind
  // it.)
  const std::byte* const* next;
  bool half;  // ask for the first 32 only: the strip asks for the others
  int tokens;
  int dim, dim_padded;
  void* tile;
};

struct TileKernels {
  int dim_multiple;   // dim_k and dim_v are padded to a multiple with zeros
  int element_bytes;  // of packed q, k, v
  // rows[i] points to dim floats (null: zeros); 16 of them into one strip of 16 * dim_padded elements.
  void (*pack_q)(const float* const* rows, int dim, int dim_padded, void* strip);
  // Pack what a strip of `tokens` reads.
  void (*pack_k)(const PackArgs&);
  void (*pack_v)(const PackArgs&);
  void (*strip)(const StripArgs&);
  void (*store_row)(RowForm, const float* values, int dim, std::byte* row);  // null: take avx512's
  // For items of one strip (a decode step), with the same results to the bit; null: there is nothing better.
  const struct FewVectorKernels* few;
  void (*begin)(
      const StripArgs&);  // before the strips of an item: dim_k, dim_v and vectors (the most of any strip)
  void (*end)();          // after them
};

// Element d of a row, and what follows it in the same line of the cache.
inline void ask_for(RowForm form, const std::byte* row, int d) {
  const int at = form == RowForm::q8_0 ? d / 32 * 34 : form == RowForm::f32 ? d * 4 : d * 2;
  __builtin_prefetch(row + at, 0, 2);
}

inline void ask_for_row(RowForm form, const std::byte* row, int dim) {
  for (int d = 0; d < dim; d += form == RowForm::f32 ? 16 : 32) ask_for(form, row, d);
}

struct FewVectorKernels {
  decltype(TileKernels::pack_q) pack_q;
  decltype(TileKernels::pack_k) pack_k;
  decltype(TileKernels::strip) scores;  // needs k only; then
  decltype(TileKernels::strip) strip;   // does the rest
  decltype(TileKernels::begin) begin;
};

extern const TileKernels kAttentionScalar;
#if defined(__x86_64__)
extern const TileKernels kAttentionAvx2;    // f32 products
extern const TileKernels kAttentionAvx512;  // f32 products
extern const TileKernels kAttentionVnni;    // bf16 products
extern const TileKernels kAttentionAmx;     // bf16 products
#endif

}  // namespace cairn::cpu
