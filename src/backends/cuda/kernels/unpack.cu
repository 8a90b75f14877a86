// Weights of any form as bf16, row-major: what products of many rows multiply. Blocks of 8 rows: a warp reads
// 128 columns of them as they lie, every lane 32 columns of a row. Bound: memory, 2 bytes written per weight
// and its form's bytes read.
#include "unpack_step.cuh"

#if FORM_LAYOUT == 2
template <int j>
DEVICE void unpack_step(const form::Codes& codes, const form::SectionScales& scales, bf16* to, int left) {
  u32 out[4];
  form::unpacked_step<j>(codes, scales, out);
  const int t = int(threadIdx.x) & 3;
  if constexpr (form::kHalfSteps) {
    if (32 * j + 4 * t < left) *reinterpret_cast<uint2*>(to + 32 * j + 4 * t) = make_uint2(out[0], out[1]);
    if (32 * j + 16 + 4 * t < left)
      *reinterpret_cast<uint2*>(to + 32 * j + 16 + 4 * t) = make_uint2(out[2], out[3]);
  } else {
    if (32 * j + 8 * t < left)
      *reinterpret_cast<uint4*>(to + 32 * j + 8 * t) = make_uint4(out[0], out[1], out[2], out[3]);
  }
}

#endif

// What one launch unpacks: rows [row0, row0 + rows) of a piece w to y, and, if not null, those of `other` to
// other_y. row0: a multiple of 8. beside: the kernel before this one may still run; it reads none of what is
// written here. One block waits for it at its end, so that whoever waits for this kernel has waited for both,
// and the others leave their room to the next unpacking.
extern "C" __global__ void __launch_bounds__(256, 4)
    unpack(const u8* w, const u8* other, i64 cols, i64 row0, i64 rows, bf16* y, bf16* other_y, int beside) {
  if (!beside) wait_for_previous();
  release_next();
#if FORM_LAYOUT == 2
  // A warp at a time: 8 rows by 128 columns; the next ones are on their way while these are decoded.
  const int lane = int(threadIdx.x) & 31, row = lane >> 2;
  constexpr u32 kSections = form::kChunk / 128;
  const u32 across = u32((cols + 127) / 128), items = across * u32((rows + 7) / 8),
            all = other ? 2 * items : items;
  const i64 chunks = (cols + form::kChunk - 1) / form::kChunk;
  struct Section {
    form::Codes codes;
    form::SectionScales scales;
    bf16* to;
    int left;  // columns, none where the row is past the end
  };
  const auto load = [&](u32 item) {
    const bool second = item >= items;
    const u32 index = second ? item - items : item, group = index / across, at = index % across;
    const u8* block =
        (second ? other : w) + ((row0 / 8 + group) * chunks + at / kSections) * form::kBlockBytes;
    Section s;
    s.codes = form::load_codes(block, int(at % kSections), lane);
    s.scales = form::load_scales(block, int(at % kSections), row);
    s.to = (second ? other_y : y) + (i64(group) * 8 + row) * cols + i64(at) * 128;
    s.left = i64(group) * 8 + row < rows ? int(min(cols - i64(at) * 128, i64(128))) : 0;
    return s;
  };
  const u32 step = gridDim.x * 8;
  u32 item = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (item < all) {
    Section now = load(item);
    for (;;) {
      const bool more = item + step < all;
      const Section next = load(more ? item + step : item);
      unpack_step<0>(now.codes, now.scales, now.to, now.left);
      unpack_step<1>(now.codes, now.scales, now.to, now.left);
      unpack_step<2>(now.codes, now.scales, now.to, now.left);
      unpack_step<3>(now.codes, now.scales, now.to, now.left);
      if (!more) break;
      now = next, item += step;
    }
  }
#elif FORM_LAYOUT == 3
  // Planes of signs: a warp at a time 8 rows by 128 columns, a lane 32 columns of a row.
  const int lane = int(threadIdx.x) & 31, row = lane >> 2, quarter = lane & 3;
  const u32 across = u32(cols / 128), items = across * u32((rows + 7) / 8), all = other ? 2 * items : items;
  for (u32 item = blockIdx.x * 8 + (threadIdx.x >> 5); item < all; item += gridDim.x * 8) {
    const bool second = item >= items;
    const u32 index = second ? item - items : item, group = index / across, at = index % across;
    const u8* block = (second ? other : w) + ((row0 / 8 + group) * i64(across) + at) * (144 * FORM_BITS + 32);
    u32 signs[FORM_BITS], alpha[FORM_BITS];
#pragma unroll
    for (int i = 0; i < FORM_BITS; ++i) {
      signs[i] = ~*reinterpret_cast<const u32*>(block + (i * 8 + row) * 16 + quarter * 4);
      alpha[i] = __float_as_uint(
          from_f16(*reinterpret_cast<const f16*>(block + 128 * FORM_BITS + (i * 8 + row) * 2)));
    }
    const float bias = *reinterpret_cast<const float*>(block + 144 * FORM_BITS + row * 4);
    if (i64(group) * 8 + row >= rows) continue;
    bf16* to = (second ? other_y : y) + (i64(group) * 8 + row) * cols + i64(at) * 128 + quarter * 32;
    const auto value = [&](int e) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < FORM_BITS; ++i)
        sum += __uint_as_float(alpha[i] ^ ((signs[i] << (31 - e)) & 0x80000000u));
      return sum + bias;
    };
#pragma unroll
    for (int e = 0; e < 32; e += 8)
      *reinterpret_cast<uint4*>(to + e) =
          make_uint4(to_bf16x2(value(e), value(e + 1)), to_bf16x2(value(e + 2), value(e + 3)),
                     to_bf16x2(value(e + 4), value(e + 5)), to_bf16x2(value(e + 6), value(e + 7)));
  }
#else
  // A thread at a time: 8 columns of a row.
  const i64 items = rows * cols / 8, all = other ? 2 * items : items;
  for (i64 item = i64(blockIdx.x) * 256 + threadIdx.x; item < all; item += i64(gridDim.x) * 256) {
    const bool second = item >= items;
    const i64 index = second ? item - items : item;
    const uint4 v = reinterpret_cast<const uint4*>((second ? other : w) + row0 * cols * 2)[index];
    u32 out[4] = {v.x, v.y, v.z, v.w};
#if FORM_LAYOUT == 1
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = to_bf16x2(from_f16(f16(out[i])), from_f16(f16(out[i] >> 16)));
#endif
    reinterpret_cast<uint4*>(second ? other_y : y)[index] = make_uint4(out[0], out[1], out[2], out[3]);
  }
#endif
  if (beside && blockIdx.x == 0) wait_for_previous();
}
