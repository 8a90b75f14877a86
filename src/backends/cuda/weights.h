// How weights lie in device memory. bf16 and f16 stay row-major as in the file. Everything quantized becomes
// blocks of 8 rows by 128 or 256 columns, in the order in which the lanes of a warp consume them, at the
// file's precision: codes stay codes, scales stay scales, and no form is more than 5 % larger than its file
// format (tq1_0, held with 2 bits, is the exception).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cuda/device.h"
#include "backends/cuda/registry.h"
#include "base/thread_pool.h"
#include "codecs/stored_weight.h"

namespace cairn::cuda {

// planes: blocks of 8 rows by 128 columns for matmul_lookup.cu: signs [planes][8 rows][128 columns / 8]
// bytes, alphas f16 [planes][8], biases f32 [8].
enum class Layout : uint8_t { bf16_rows, f16_rows, blocks, planes };

// How a group of weights is scaled; q is the code less Form::zero, or the code's level.
enum class Scales : uint8_t {
  half = 1,         // f16 d per group: w = d q
  half_min = 2,     // f16 d, m per group: w = d q + m
  bytes = 3,        // i8 s per group, f16 d per row and chunk: w = (d s) q
  bytes_min = 4,    // u8 s, m per group, f16 d, n per row and chunk: w = (d s) q - (n m)
  nibbles_min = 5,  // as bytes_min; s is the low, m the high nibble of a byte
  e8m0 = 6,         // u8 e per group: w = 2^(e - 128) q (codecs/fp4.h)
  half_e4m3 = 7,    // u8 e per group: w = half_e4m3(e) q (codecs/fp4.h)
  // f16 d, bf16 z per group: w = d (code - zero); z is -(128 + zero), or 128 - zero where 8-bit codes are
  // held less 128
  half_zero = 8,
  single = 9,  // f32 d per group of 128: w = d q
};
// What codes stand for: tables of 16 (codecs/nonlinear.h, codecs/fp4.h), or e4m3 (codecs/scaled_blocks.h).
enum class Levels : uint8_t { none, nonlinear, fp4, e4m3 };

// A block of 8 rows by `chunk` columns is: the planes of codes (4 bits, then 2, then 1; or 8 bits), the
// scales of its groups, and per row what the chunk's groups share. Element e (0..7) of lane 4 g + t in step j
// (32 columns) is row g, column 32 j + 8 t + e; or, where groups have 16 columns, column 32 j + 16 (e / 4) +
// 4 t + e % 4. weight_forms.cuh reads it; packed_value() below is the definition.
struct Form {
  std::string_view name;
  Layout layout;
  int chunk = 64;  // columns of a block; row-major: of a stage
  int bits = 16;
  int zero = 0;
  Levels levels = Levels::none;
  int group = 0;  // columns that share a scale: 16, 32, or >= the chunk's 128 or 256
  Scales scales{};

  int section_scale_bytes() const;  // of one row and 128 columns
  int row_scale_bytes() const;      // of one row and chunk
  int block_bytes() const;          // multiple of 16
  bool in_blocks() const { return layout == Layout::blocks || layout == Layout::planes; }
  std::vector<std::string> defines() const;  // for the kernels
};
std::span<const Form> forms();
const Form& form(std::string_view name);
// The form in which a codec's matrices are held; null when the GPU does not multiply them. f32 is rounded to
// bf16.
const Form* form_of(codecs::CodecId);

struct DeviceMatrix {
  const Form* form = nullptr;
  const codecs::Codec* codec = nullptr;  // of the file
  int64_t rows = 0, cols = 0, pieces = 1;
  Address data = 0;
  size_t piece_bytes = 0;  // multiple of 256
  // Of the form e4m3_g128, where a product can apply its scales to sums instead of codes: f32 [rows], or f32
  // [ceil(rows / 128), chunks()] with block_scales. Else 0.
  Address scales = 0;
  bool block_scales = false;
  Buffer own;  // empty when data lies in a common buffer

  Address piece(int64_t i) const { return data + uint64_t(i) * piece_bytes; }
  int64_t chunks() const { return (cols + form->chunk - 1) / form->chunk; }
};

size_t packed_bytes(const Form&, int64_t rows, int64_t cols);
// What pack_matrix will fill. Throws Error(unsupported) naming the codec or the column count.
uint64_t device_matrix_bytes(codecs::CodecId, int64_t rows, int64_t cols, int64_t pieces);

// The matrix that packing this weight to `data` will make.
DeviceMatrix describe_matrix(const codecs::StoredWeight&, Address data);

// Rows [8 * first, 8 * last) of a piece in its form, from the file's rows (row 0 of the piece). Rows past
// `rows` and columns past `cols` are zeros.
void pack_row_groups(const Form&, codecs::CodecId, const std::byte* file_rows, int64_t rows, int64_t cols,
                     int64_t first, int64_t last, std::byte* packed);
// One element, read as the kernels read it.
float packed_value(const Form&, const std::byte* packed, int64_t rows, int64_t cols, int64_t row,
                   int64_t col);

// The same as products of few rows multiply it (form::scaled_step): in bf16. The scale is rounded to bf16,
// and so is the minimum, to which goes what that changes at the middle code; then scale code + min once more.
float few_value(const Form&, const std::byte* packed, int64_t rows, int64_t cols, int64_t row, int64_t col);

// Packs on the CPU and uploads, slice by slice, the two overlapping.
class MatrixPacker {
 public:
  MatrixPacker(const Device&, Stream&, ThreadPool&, size_t staging_bytes = size_t{64} << 20);
  // to: device_matrix_bytes() of room, or 0 for a buffer of its own. The bytes have left the file's mapping
  // when this returns; they are on the device after finish() or anything later on the stream.
  DeviceMatrix pack(const codecs::StoredWeight&, Address to = 0);
  void finish() { stream_.synchronize(); }

 private:
  std::byte* next_half();
  void upload(Address to, size_t bytes);
  void pack_scales(const codecs::StoredWeight&, const DeviceMatrix&);
  const Device& device_;
  Stream& stream_;
  ThreadPool& pool_;
  PinnedBuffer staging_;
  size_t half_bytes_;
  std::vector<Event> sent_;
  int half_ = 0;
};

// Rows [row0, row0 + rows) of a piece as bf16, row-major with cols contiguous columns, for products of many
// rows. Values are rounded once, from the exact product of scale and code. row0: a multiple of 8.
Variant unpack_variant(const Form&);
void unpack_rows(KernelCache&, Stream&, const DeviceMatrix&, int64_t piece, int64_t row0, int64_t rows,
                 Address to, bool overlap_previous = false);

// y[t] = scale * row ids[t] + offset of a matrix in blocks (one piece), f32; the ids lie on the device and
// are rows of the matrix.
Variant embed_packed_variant(const Form&);
void embed_packed(KernelCache&, Stream&, const DeviceMatrix&, Address ids, Address y, int64_t rows,
                  float scale, int64_t offset, bool overlap_previous = false);

// unpack_rows of one matrix or of two of the same form, side by side in one launch. beside_previous (with
// overlap_previous): it may begin while the kernel before it runs, which must neither read nor write `to`; it
// ends after that one.
struct UnpackedRows {
  const DeviceMatrix* w = nullptr;
  const DeviceMatrix* other = nullptr;  // or null
  int64_t piece = 0, row0 = 0, rows = 0;
  Address to = 0, other_to = 0;
};
void unpack_rows(KernelCache&, Stream&, const UnpackedRows&, bool overlap_previous, bool beside_previous);

}  // namespace cairn::cuda
