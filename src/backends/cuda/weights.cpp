#include "backends/cuda/weights.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "backends/cuda/weight_blocks.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"
#include "codecs/fp4.h"
#include "codecs/nonlinear.h"
#include "codecs/scaled_blocks.h"
#include "codecs/split_weight.h"

namespace cairn::cuda {
namespace {

using codecs::CodecId;

constexpr int kStep = 32, kSection = 128;

// clang-format off
constexpr Form kForms[] = {
  {.name = "bf16", .layout = Layout::bf16_rows},
  {.name = "f16", .layout = Layout::f16_rows},
  {"q4_0", Layout::blocks, 128, 4, 8, Levels::none, 32, Scales::half},
  {"q4_1", Layout::blocks, 128, 4, 0, Levels::none, 32, Scales::half_min},
  {"q5_0", Layout::blocks, 128, 5, 16, Levels::none, 32, Scales::half},
  {"q5_1", Layout::blocks, 128, 5, 0, Levels::none, 32, Scales::half_min},
  {"q8_0", Layout::blocks, 128, 8, 0, Levels::none, 32, Scales::half},
  {"q2_k", Layout::blocks, 256, 2, 0, Levels::none, 16, Scales::nibbles_min},
  {"q3_k", Layout::blocks, 256, 3, 4, Levels::none, 16, Scales::bytes},
  {"q4_k", Layout::blocks, 256, 4, 0, Levels::none, 32, Scales::bytes_min},
  {"q5_k", Layout::blocks, 256, 5, 0, Levels::none, 32, Scales::bytes_min},
  {"q6_k", Layout::blocks, 256, 6, 32, Levels::none, 16, Scales::bytes},
  {"iq4_nl", Layout::blocks, 128, 4, 0, Levels::nonlinear, 32, Scales::half},
  {"iq4_xs", Layout::blocks, 256, 4, 0, Levels::nonlinear, 32, Scales::bytes},
  {"mxfp4", Layout::blocks, 128, 4, 0, Levels::fp4, 32, Scales::e8m0},
  {"nvfp4", Layout::blocks, 128, 4, 0, Levels::fp4, 16, Scales::half_e4m3},
  {"ternary", Layout::blocks, 256, 2, 1, Levels::none, 256, Scales::half},
  {"int2_g32", Layout::blocks, 128, 2, 0, Levels::none, 32, Scales::half_zero},
  {"int2_g128", Layout::blocks, 128, 2, 0, Levels::none, 128, Scales::half_zero},
  {"int3_g32", Layout::blocks, 128, 3, 0, Levels::none, 32, Scales::half_zero},
  {"int3_g128", Layout::blocks, 128, 3, 0, Levels::none, 128, Scales::half_zero},
  {"int4_g32", Layout::blocks, 128, 4, 0, Levels::none, 32, Scales::half_zero},
  {"int4_g128", Layout::blocks, 128, 4, 0, Levels::none, 128, Scales::half_zero},
  {"int8_g32", Layout::blocks, 128, 8, 0, Levels::none, 32, Scales::half_zero},
  {"int8_g128", Layout::blocks, 128, 8, 0, Levels::none, 128, Scales::half_zero},
  {.name = "bcq1_g128", .layout = Layout::planes, .chunk = 128, .bits = 1, .group = 128},
  {.name = "bcq2_g128", .layout = Layout::planes, .chunk = 128, .bits = 2, .group = 128},
  {.name = "bcq3_g128", .layout = Layout::planes, .chunk = 128, .bits = 3, .group = 128},
  {.name = "bcq4_g128", .layout = Layout::planes, .chunk = 128, .bits = 4, .group = 128},
  {"e4m3_g128", Layout::blocks, 128, 8, 0, Levels::e4m3, 128, Scales::single},
};
// clang-format on

int groups_per_section(const Form& f) { return f.group >= kSection ? 1 : kSection / f.group; }
int scale_sections(const Form& f) { return f.group > kSection ? 1 : f.chunk / kSection; }

// Where the parts of a block begin.
struct BlockMap {
  explicit BlockMap(const Form& f) {
    const bool four = f.bits == 4 || f.bits == 5 || f.bits == 6,
               two = f.bits == 2 || f.bits == 3 || f.bits == 6, one = f.bits == 3 || f.bits == 5;
    plane4 = four ? 0 : -1;
    int at = f.bits == 8 ? 8 * f.chunk : four ? 4 * f.chunk : 0;
    if (two) plane2 = at, at += 2 * f.chunk;
    if (one) plane1 = at, at += f.chunk;
    scales = at;
    rows = scales + 8 * f.section_scale_bytes() * scale_sections(f);
    bytes = rows + 8 * f.row_scale_bytes();
  }
  int plane4 = -1, plane2 = -1, plane1 = -1, scales = 0, rows = 0, bytes = 0;
};

// The place of a column in a block: section, step in it, lane's quarter t and element e.
struct Place {
  Place(const Form& f, int col) : section(col / kSection), step(col % kSection / kStep) {
    const int c = col % kStep;
    if (f.group == 16) {
      t = c % 16 / 4, e = c / 16 * 4 + c % 4;
    } else {
      t = c / 8, e = c % 8;
    }
  }
  int section, step, t, e;
  // Byte order in a word of 8-bit codes: pairs are two bytes apart.
  int byte8(int row) const {
    static constexpr int kOrder[4] = {0, 2, 1, 3};
    return section * 1024 + (step / 2) * 512 + (4 * row + t) * 16 + (step % 2) * 8 + e / 4 * 4 +
           kOrder[e % 4];
  }
  int word4(int row) const { return section * 512 + (4 * row + t) * 16 + step * 4; }
  int shift4() const { return 4 * (e / 2) + 16 * (e % 2); }
  int word2(int row) const { return section * 256 + (4 * row + t) * 8 + step / 2 * 4; }
  int shift2() const { return 8 * (step % 2) + 2 * (e / 2) + 16 * (e % 2); }
  int word1(int row) const { return section * 128 + (4 * row + t) * 4; }
  int shift1() const { return 4 * step + e / 2 + 16 * (e % 2); }
};

uint32_t load32(const std::byte* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
uint16_t load16(const std::byte* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
void or32(std::byte* p, uint32_t bits) {
  const uint32_t v = load32(p) | bits;
  std::memcpy(p, &v, 4);
}

void pack_block_row(const Form& f, const BlockMap& map, std::span<const Place> places, const BlockRow& in,
                    int row, std::byte* block) {
  for (int c = 0; c < f.chunk; ++c) {
    const uint32_t code = in.codes[c];
    const Place& at = places[size_t(c)];
    if (f.bits == 8) {
      block[at.byte8(row)] = std::byte(code);
      continue;
    }
    uint32_t rest = code;
    if (map.plane4 >= 0) or32(block + map.plane4 + at.word4(row), (rest & 15) << at.shift4()), rest >>= 4;
    if (map.plane2 >= 0) or32(block + map.plane2 + at.word2(row), (rest & 3) << at.shift2()), rest >>= 2;
    if (map.plane1 >= 0) or32(block + map.plane1 + at.word1(row), (rest & 1) << at.shift1());
  }
  const int bytes = f.section_scale_bytes();
  for (int s = 0; s < scale_sections(f); ++s)
    std::memcpy(block + map.scales + (s * 8 + row) * bytes, in.scales + s * bytes, size_t(bytes));
  std::memcpy(block + map.rows + row * f.row_scale_bytes(), in.row, size_t(f.row_scale_bytes()));
}

void pack_rows_plain(const Form& f, CodecId codec, const std::byte* file_rows, int64_t rows, int64_t cols,
                     int64_t first, int64_t last, std::byte* packed) {
  const int64_t begin = first * 8, end = std::min(last * 8, rows);
  if (codec != CodecId::f32) {
    std::memcpy(packed, file_rows + begin * cols * 2, size_t((end - begin) * cols * 2));
    return;
  }
  const auto to16 = f.layout == Layout::bf16_rows ? float_to_bf16 : float_to_f16;
  for (int64_t i = 0; i < (end - begin) * cols; ++i) {
    float v;
    std::memcpy(&v, file_rows + (begin * cols + i) * 4, 4);
    const uint16_t h = to16(v);
    std::memcpy(packed + i * 2, &h, 2);
  }
}

// From BlockBcq: f16 alphas, an f32 bias, planes of 16 bytes.
void pack_planes(const Form& f, const std::byte* file_rows, int64_t rows, int64_t cols, int64_t first,
                 int64_t last, std::byte* packed) {
  const int64_t blocks = cols / f.chunk, file_bytes = 18 * f.bits + 4;
  std::memset(packed, 0, size_t((last - first) * blocks * f.block_bytes()));
  for (int64_t row = first * 8; row < std::min(last * 8, rows); ++row)
    for (int64_t block = 0; block < blocks; ++block) {
      const std::byte* from = file_rows + (row * blocks + block) * file_bytes;
      std::byte* to = packed + ((row / 8 - first) * blocks + block) * f.block_bytes();
      const int64_t r = row % 8;
      for (int64_t i = 0; i < f.bits; ++i) {
        std::memcpy(to + (i * 8 + r) * 16, from + 2 * f.bits + 4 + 16 * i, 16);
        std::memcpy(to + 128 * f.bits + (i * 8 + r) * 2, from + 2 * i, 2);
      }
      std::memcpy(to + 144 * f.bits + r * 4, from + 2 * f.bits, 4);
    }
}
float plane_value(const Form& f, const std::byte* packed, int64_t cols, int64_t row, int64_t col) {
  const std::byte* block = packed + (row / 8 * (cols / f.chunk) + col / f.chunk) * f.block_bytes();
  const int64_t r = row % 8, c = col % f.chunk;
  float sum = 0, bias;
  for (int64_t i = 0; i < f.bits; ++i) {
    const float alpha = f16_to_float(load16(block + 128 * f.bits + (i * 8 + r) * 2));
    sum += int(block[(i * 8 + r) * 16 + c / 8]) >> (c % 8) & 1 ? alpha : -alpha;
  }
  std::memcpy(&bias, block + 144 * f.bits + r * 4, sizeof bias);
  return sum + bias;
}

// Room behind a matrix for the scales that products apply to sums.
uint64_t scale_bytes(const Form& f, int64_t rows, int64_t cols) {
  if (f.levels != Levels::e4m3) return 0;
  return uint64_t(round_up(std::max(rows, ceil_div(rows, 128) * ceil_div(cols, 128)) * 4, 256));
}

const Form& require_form(CodecId codec) {
  if (const Form* f = form_of(codec)) return *f;
  fail(ErrorKind::unsupported, "no GPU kernel multiplies {}", codecs::codec(codec).name);
}

}  // namespace

int Form::section_scale_bytes() const {
  if (layout != Layout::blocks) return 0;
  const int groups = groups_per_section(*this);
  switch (scales) {
    case Scales::half: return 2 * groups;
    case Scales::half_min:
    case Scales::half_zero:
    case Scales::single: return 4 * groups;
    case Scales::bytes_min: return 2 * groups;
    case Scales::bytes:
    case Scales::nibbles_min:
    case Scales::e8m0:
    case Scales::half_e4m3: return groups;
  }
  return 0;
}

int Form::row_scale_bytes() const {
  if (scales == Scales::bytes) return 2;
  return scales == Scales::bytes_min || scales == Scales::nibbles_min ? 4 : 0;
}

int Form::block_bytes() const {
  if (layout == Layout::planes) return 144 * bits + 32;
  return layout == Layout::blocks ? BlockMap(*this).bytes : 8 * chunk * 2;
}

std::vector<std::string> Form::defines() const {
  return {fmt::format("FORM_LAYOUT={}", int(layout)), fmt::format("FORM_CHUNK={}", chunk),
          fmt::format("FORM_BITS={}", bits),          fmt::format("FORM_ZERO={}", zero),
          fmt::format("FORM_LEVELS={}", int(levels)), fmt::format("FORM_GROUP={}", group),
          fmt::format("FORM_SCALES={}", int(scales))};
}

std::span<const Form> forms() { return kForms; }

const Form& form(std::string_view name) {
  for (const auto& f : kForms)
    if (f.name == name) return f;
  fail(ErrorKind::not_found, "no form of matrices on the GPU is called {}", name);
}

const Form* form_of(CodecId codec) {
  switch (codec) {
    case CodecId::f32:
    case CodecId::bf16: return &form("bf16");
    case CodecId::tq1_0:
    case CodecId::tq2_0: return &form("ternary");
    default: break;
  }
  for (const auto& f : kForms)
    if (f.name == codecs::codec(codec).name) return &f;
  return nullptr;
}

size_t packed_bytes(const Form& f, int64_t rows, int64_t cols) {
  const auto bytes = f.in_blocks() ? ceil_div(rows, 8) * ceil_div(cols, f.chunk) * f.block_bytes()
                                   : round_up(rows, 8) * cols * 2;  // kernels read whole groups of rows
  return size_t(round_up(bytes, 256));
}

uint64_t device_matrix_bytes(CodecId codec, int64_t rows, int64_t cols, int64_t pieces) {
  const Form& f = require_form(codec);
  if (cols % 8 != 0)
    fail(ErrorKind::unsupported, "a matrix of {} columns: the GPU's kernels need a multiple of 8", cols);
  auto bytes = checked_mul(packed_bytes(f, rows, cols), uint64_t(pieces));
  if (bytes && pieces == 1) bytes = checked_add(*bytes, scale_bytes(f, rows, cols));
  if (!bytes) fail(ErrorKind::invalid_file, "{} matrices of [{}, {}] pass 2^64 bytes", pieces, rows, cols);
  return *bytes;
}

void pack_row_groups(const Form& f, CodecId codec, const std::byte* file_rows, int64_t rows, int64_t cols,
                     int64_t first, int64_t last, std::byte* packed) {
  if (f.layout == Layout::planes) return pack_planes(f, file_rows, rows, cols, first, last, packed);
  if (f.layout != Layout::blocks)
    return pack_rows_plain(f, codec, file_rows, rows, cols, first, last, packed);
  const BlockMap map(f);
  std::vector<Place> places;
  for (int c = 0; c < f.chunk; ++c) places.emplace_back(f, c);
  const int64_t chunks = ceil_div(cols, f.chunk);
  const auto row_bytes = int64_t(codecs::row_bytes(codecs::codec(codec), uint64_t(cols)).value());
  std::memset(packed, 0, size_t((last - first) * chunks * map.bytes));
  BlockRow in;
  for (int64_t group = first; group < last; ++group)
    for (int row = 0; row < 8 && group * 8 + row < rows; ++row) {
      const std::byte* source = file_rows + (group * 8 + row) * row_bytes;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        read_block_row(codec, source, int(std::min<int64_t>(f.chunk, cols - chunk * f.chunk)), in);
        source += in.file_bytes;
        pack_block_row(f, map, places, in, row, packed + ((group - first) * chunks + chunk) * map.bytes);
      }
    }
}

namespace {

struct Parts {  // w = scale q + min = scale (code - zero) + min, each exact
  float q, scale, min = 0, zero = 0;
};

Parts parts_of(const Form& f, const std::byte* packed, int64_t cols, int64_t row, int64_t col) {
  const BlockMap map(f);
  const int r = int(row % 8), c = int(col % f.chunk);
  const Place at(f, c);
  const std::byte* block = packed + (row / 8 * ceil_div(cols, f.chunk) + col / f.chunk) * map.bytes;
  uint32_t code = 0;
  int shift = 0;
  if (f.bits == 8) code = uint32_t(block[at.byte8(r)]);
  if (map.plane4 >= 0)
    code |= (load32(block + map.plane4 + at.word4(r)) >> at.shift4() & 15) << shift, shift += 4;
  if (map.plane2 >= 0)
    code |= (load32(block + map.plane2 + at.word2(r)) >> at.shift2() & 3) << shift, shift += 2;
  if (map.plane1 >= 0) code |= (load32(block + map.plane1 + at.word1(r)) >> at.shift1() & 1) << shift;
  float q = f.bits == 8 ? float(int8_t(code)) : float(int(code) - f.zero);
  if (f.levels == Levels::nonlinear) q = codecs::kNonlinearLevels[code];
  if (f.levels == Levels::fp4) q = codecs::kFp4Levels[code];
  if (f.levels == Levels::e4m3) q = codecs::e4m3_to_float(uint8_t(code));

  const int bytes = f.section_scale_bytes(), group = f.group >= kSection ? 0 : c % kSection / f.group;
  const std::byte* s = block + map.scales + ((scale_sections(f) == 1 ? 0 : at.section) * 8 + r) * bytes;
  const std::byte* shared = block + map.rows + r * f.row_scale_bytes();
  const auto half = [](const std::byte* p) { return f16_to_float(load16(p)); };
  const float zero = float(f.zero);
  switch (f.scales) {
    case Scales::half: return {q, half(s + 2 * group), 0, zero};
    case Scales::half_min: return {q, half(s + 4 * group), half(s + 4 * group + 2)};
    case Scales::half_zero: {
      const float offset = bf16_to_float(load16(s + 4 * group + 2));
      return {(f.bits == 8 ? q : float(code) + 128) + offset, half(s + 4 * group), 0, -128 - offset};
    }
    case Scales::bytes: return {q, half(shared) * float(int8_t(s[group])), 0, zero};
    case Scales::bytes_min:
      return {q, half(shared) * float(s[group]), -half(shared + 2) * float(s[4 + group])};
    case Scales::nibbles_min:
      return {q, half(shared) * float(uint8_t(s[group]) & 15),
              -half(shared + 2) * float(uint8_t(s[group]) >> 4)};
    case Scales::e8m0: return {q, codecs::mxfp4_scale(uint8_t(s[group]))};
    case Scales::half_e4m3: return {q, codecs::half_e4m3(uint8_t(s[group]))};
    case Scales::single: {
      float d;
      std::memcpy(&d, s + 4 * group, sizeof d);
      return {q, d};
    }
  }
  return {0, 0};
}

float bf16_of(float x) { return bf16_to_float(float_to_bf16(x)); }
// Rounded once, to nearest even.
float bf16_of(double x) {
  float y = float(x);
  if (double(y) != x) {  // the bits that follow are not zero: say so in the last of float's
    uint32_t bits;
    std::memcpy(&bits, &y, 4);
    if (std::abs(double(y)) > std::abs(x)) --bits;
    bits |= 1;
    std::memcpy(&y, &bits, 4);
  }
  return bf16_of(y);
}

}  // namespace

float packed_value(const Form& f, const std::byte* packed, int64_t rows, int64_t cols, int64_t row,
                   int64_t col) {
  assert(row < rows && col < cols);
  static_cast<void>(rows);
  if (f.layout == Layout::planes) return plane_value(f, packed, cols, row, col);
  if (f.layout == Layout::blocks) {
    const Parts p = parts_of(f, packed, cols, row, col);
    return p.scale * p.q + p.min;
  }
  const uint16_t bits = load16(packed + (row * cols + col) * 2);
  return f.layout == Layout::bf16_rows ? bf16_to_float(bits) : f16_to_float(bits);
}

float few_value(const Form& f, const std::byte* packed, int64_t rows, int64_t cols, int64_t row,
                int64_t col) {
  if (f.layout != Layout::blocks) return packed_value(f, packed, rows, cols, row, col);
  const Parts p = parts_of(f, packed, cols, row, col);
  const float scale = bf16_of(p.scale);
  if (f.levels != Levels::none || f.bits == 8) return bf16_of(double(scale) * double(p.q));
  const bool minima =
      f.scales == Scales::half_min || f.scales == Scales::bytes_min || f.scales == Scales::nibbles_min;
  const float middle = float((1 << f.bits) - 1) / 2, code = p.q + p.zero;
  const float min = minima ? std::fma(p.scale - scale, middle, p.min) : -p.zero * scale;
  return bf16_of(double(scale) * double(code) + double(bf16_of(min)));
}

MatrixPacker::MatrixPacker(const Device& device, Stream& stream, ThreadPool& pool, size_t staging_bytes)
    : device_(device),
      stream_(stream),
      pool_(pool),
      staging_(device, staging_bytes),
      half_bytes_(staging_bytes / 2) {
  sent_.emplace_back(device);
  sent_.emplace_back(device);
  for (auto& event : sent_) event.record(stream_);
}

std::byte* MatrixPacker::next_half() {
  half_ ^= 1;
  sent_[size_t(half_)].synchronize();
  return staging_.data() + size_t(half_) * half_bytes_;
}

void MatrixPacker::upload(Address to, size_t bytes) {
  stream_.upload(to, staging_.data() + size_t(half_) * half_bytes_, bytes);
  sent_[size_t(half_)].record(stream_);
}

DeviceMatrix describe_matrix(const codecs::StoredWeight& weight, Address data) {
  const Form& f = require_form(weight.codec);
  DeviceMatrix matrix;
  matrix.form = &f;
  matrix.codec = &codecs::codec(weight.codec);
  matrix.rows = weight.rows, matrix.cols = weight.cols;
  matrix.pieces = int64_t(weight.pieces.size());
  matrix.piece_bytes = packed_bytes(f, weight.rows, weight.cols);
  matrix.data = data;
  if (f.levels == Levels::e4m3 && weight.split && matrix.pieces == 1) {
    const auto& layout = *weight.split;
    const bool by_row = layout.group >= weight.cols;
    matrix.block_scales =
        !by_row && layout.group == 128 && layout.rows_per_scale == 128 && layout.first_row % 128 == 0;
    if (by_row || matrix.block_scales) matrix.scales = data + matrix.piece_bytes;
  }
  return matrix;
}

DeviceMatrix MatrixPacker::pack(const codecs::StoredWeight& weight, Address to) {
  Buffer own;
  if (to == 0)
    own = Buffer(device_,
                 device_matrix_bytes(weight.codec, weight.rows, weight.cols, int64_t(weight.pieces.size())));
  DeviceMatrix matrix = describe_matrix(weight, to ? to : own.address());
  matrix.own = std::move(own);
  const Form& f = *matrix.form;

  const int64_t groups = ceil_div(weight.rows, 8);
  const auto group_bytes =
      f.in_blocks() ? ceil_div(weight.cols, f.chunk) * f.block_bytes() : 8 * weight.cols * 2;
  const int64_t groups_per_slice = int64_t(half_bytes_) / group_bytes;
  if (groups_per_slice == 0)
    fail(ErrorKind::unsupported, "a matrix of {} columns: eight rows pass the {} bytes of the staging buffer",
         weight.cols, half_bytes_);
  for (int64_t piece = 0; piece < matrix.pieces; ++piece) {
    std::vector<float> turned;
    const std::byte* rows = weight.pieces[size_t(piece)].data;
    CodecId codec = weight.codec;
    if (weight.transposed) {
      turned = codecs::decode_transposed(weight, size_t(piece));
      rows = reinterpret_cast<const std::byte*>(turned.data());
      codec = CodecId::f32;
    }
    for (int64_t first = 0; first < groups; first += groups_per_slice) {
      const int64_t last = std::min(groups, first + groups_per_slice);
      std::byte* half = next_half();
      pool_.split(last - first, 1, [&](Range r) {
        if (weight.transposed || weight.has_rows()) {
          pack_row_groups(f, codec, rows, weight.rows, weight.cols, first + r.begin, first + r.end,
                          half + r.begin * group_bytes);
          return;
        }
        std::vector<std::byte> room;
        constexpr int64_t kTogether = 32;  // groups: what is made stays in the second-level cache
        for (int64_t group = r.begin; group < r.end; group += kTogether) {
          const int64_t row0 = (first + group) * 8, count = std::min(kTogether, r.end - group),
                        row1 = std::min(row0 + count * 8, weight.rows);
          pack_row_groups(f, codec, codecs::stored_rows(weight, size_t(piece), row0, row1, room), row1 - row0,
                          weight.cols, 0, count, half + group * group_bytes);
        }
      });
      const int64_t end =
          f.in_blocks() ? last * group_bytes : std::min(last * 8, weight.rows) * weight.cols * 2;
      upload(matrix.piece(piece) + uint64_t(first * group_bytes), size_t(end - first * group_bytes));
    }
  }
  if (matrix.scales) pack_scales(weight, matrix);
  return matrix;
}

// One scale a row (or less), or one for 128 x 128 elements.
void MatrixPacker::pack_scales(const codecs::StoredWeight& weight, const DeviceMatrix& matrix) {
  const int64_t chunks = matrix.block_scales ? matrix.chunks() : 1, step = matrix.block_scales ? 128 : 1;
  std::vector<float> scales;
  for (int64_t row = 0; row < weight.rows; row += step)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      scales.push_back(codecs::split_scale(weight, 0, row, chunk));
  for (size_t done = 0; done < scales.size();) {
    const size_t count = std::min(scales.size() - done, half_bytes_ / sizeof(float));
    std::memcpy(next_half(), scales.data() + done, count * sizeof(float));
    upload(matrix.scales + done * sizeof(float), count * sizeof(float));
    done += count;
  }
}

Variant unpack_variant(const Form& f) { return {"unpack.cu", f.defines()}; }

void unpack_rows(KernelCache& kernels, Stream& stream, const DeviceMatrix& w, int64_t piece, int64_t row0,
                 int64_t rows, Address to, bool overlap_previous) {
  unpack_rows(kernels, stream, {&w, nullptr, piece, row0, rows, to, 0}, overlap_previous, false);
}

void unpack_rows(KernelCache& kernels, Stream& stream, const UnpackedRows& u, bool overlap_previous,
                 bool beside_previous) {
  const DeviceMatrix& w = *u.w;
  const bool beside = beside_previous && overlap_previous;
  assert(!w.form->in_blocks() || u.row0 % 8 == 0);
  assert(!u.other || (u.other->form == w.form && u.other->cols == w.cols));
  // Registers of a block beside one of matmul_many: one per multiprocessor, less a few where a block of the
  // unpacking before this one may still wait; alone: all its threads.
  const int64_t multiprocessors = stream.device().facts().multiprocessors,
                resident = beside ? std::max<int64_t>(multiprocessors - 4, 1) : multiprocessors * 4;
  const int64_t warps = ceil_div(u.rows, 8) * ceil_div(w.cols, 128) * (u.other ? 2 : 1);
  LaunchShape shape;
  shape.grid[0] = unsigned(std::clamp<int64_t>(ceil_div(warps, 8), 1, resident));
  shape.block = 256;
  shape.overlap_previous = overlap_previous;
  const auto kernel = kernels.get(unpack_variant(*w.form), "unpack");
  // A multiprocessor splits its memory into L1 and shared memory anew only when it is empty: ask for the
  // split of the product beside which this is to run.
  constexpr int kAllShared = 100;
  if (beside)
    driver::check(
        driver::api().function_set_attribute(kernel.function, driver::kFunctionSharedCarveout, kAllShared),
        "setting the split of L1 and shared memory");
  stream.launch(kernel, shape, w.piece(u.piece), u.other ? u.other->piece(u.piece) : Address{0}, w.cols,
                u.row0, u.rows, u.to, u.other_to, int(beside));
}

Variant embed_packed_variant(const Form& f) { return {"embed_packed.cu", f.defines()}; }

void embed_packed(KernelCache& kernels, Stream& stream, const DeviceMatrix& w, Address ids, Address y,
                  int64_t rows, float scale, int64_t offset, bool overlap_previous) {
  assert(w.form->layout == Layout::blocks && w.cols % 8 == 0);
  LaunchShape shape;
  shape.grid[0] = unsigned(rows);
  shape.block = 128;
  shape.overlap_previous = overlap_previous;
  stream.launch(kernels.get(embed_packed_variant(*w.form), "embed_packed"), shape, ids, w.data, y, w.cols,
                scale, offset);
}

}  // namespace cairn::cuda
