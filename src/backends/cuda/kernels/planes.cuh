// What the kernels of weights in planes of signs share (Layout::planes in weights.h): matmul_lookup.cu and
// matmul_signs.cu. Warps of a block sum PARTS parts of K for SETS * 32 rows of w and TOKENS rows of x.
#pragma once

#include "activation.cuh"
#include "device.cuh"

static_assert(!GATED || SETS == 2, "gate and up");

constexpr int kColumns = 128;  // of a block
// Of 8 rows: planes [PLANES][8][16], alphas f16 [PLANES][8], biases f32 [8].
constexpr int kBlockBytes = 144 * PLANES + 32, kAlphas = 128 * PLANES, kBiases = 144 * PLANES;
constexpr int kThreads = 32 * PARTS;
constexpr int kTileRows = GATED ? 32 : 32 * SETS;

struct Segment {  // one of the matrices that share x
  const u8 *w, *up;
  const float* bias;
  void* y;
  i64 y_stride;
  int rows, first_tile;
};
constexpr int kMostSegments = 4;
struct Arguments {
  Segment segments[kMostSegments];
  const bf16* x;
  const float* add;  // like y of segment 0, or null
  i64 cols;
  int m, segment_count;
  int y_f32, activation;
  float scale, softcap;
};

DEVICE float activated(int kind, float x) {
  switch (kind) {
    case kRelu: return activate<kRelu>(x);
    case kSilu: return activate<kSilu>(x);
    case kGelu: return activate<kGelu>(x);
    case kGeluTanh: return activate<kGeluTanh>(x);
    case kQuickGelu: return activate<kQuickGelu>(x);
    case kSigmoid: return activate<kSigmoid>(x);
    default: return x;
  }
}

DEVICE const Segment& segment_of_block(const Arguments& p) {
  int number = 0;
#pragma unroll
  for (int i = 1; i < kMostSegments; ++i)
    number += i < p.segment_count && int(blockIdx.x) >= p.segments[i].first_tile;
  return p.segments[number];
}

// partials: [PARTS][TOKENS][SETS][32]; parts are added in order. row0, token0: the block's first.
DEVICE void finish(const Arguments& p, const Segment& s, const float* partials, int row0, int token0) {
  const auto sum_of_parts = [&](int token, int row) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) sum += partials[(i * TOKENS + token) * SETS * 32 + row];
    return sum;
  };
  for (int i = int(threadIdx.x); i < kTileRows * TOKENS; i += kThreads) {
    const int row = i % kTileRows, token = i / kTileRows, out_row = row0 + row;
    if (out_row >= s.rows || token0 + token >= p.m) continue;
    float v = sum_of_parts(token, row);
    if constexpr (GATED) {
      v = activated(p.activation, v) * sum_of_parts(token, row + 32);
    } else {
      v *= p.scale;
      if (s.bias) v += s.bias[out_row];
      if (p.softcap != 0.f) v = p.softcap * tanhf(v / p.softcap);
      if (p.activation != 0) v = activated(p.activation, v);
    }
    const i64 at = i64(token0 + token) * s.y_stride + out_row;
    if (p.add) v += p.add[at];
    if (p.y_f32)
      static_cast<float*>(s.y)[at] = v;
    else
      static_cast<bf16*>(s.y)[at] = to_bf16(v);
  }
}
