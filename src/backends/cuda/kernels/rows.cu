// Row-wise arithmetic between matrix products. X is the element type that is read, Y the one that is written
// (float or bf16); all arithmetic is f32. A row's sums run in an order that depends on its width only. Bound:
// device memory (decode: launch).
#include "device.cuh"

#ifndef X
#define X float
#endif
#ifndef Y
#define Y float
#endif

enum Activation {
  kIdentity,
  kRelu,
  kSilu,
  kGelu,
  kGeluTanh,
  kQuickGelu,
  kSigmoid
};  // as program/activation.h

DEVICE float sigmoid(float x) { return 1.f / (1.f + __expf(-x)); }

DEVICE float activated(int kind, float x) {
  switch (kind) {
    case kRelu: return fmaxf(x, 0.f);
    case kSilu: return x * sigmoid(x);
    case kGelu: return 0.5f * x * (1.f + erff(x * 0.70710678118654752f));
    case kGeluTanh: return 0.5f * x * (1.f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case kQuickGelu: return x * sigmoid(1.702f * x);
    case kSigmoid: return sigmoid(x);
    default: return x;
  }
}

// Sum over the block, the same for every thread; blockDim.x is a multiple of 32 and at most 1024.
DEVICE float block_sum(float x) {
  __shared__ float parts[32];
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float y = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.f;
  return warp_sum(y);
}

// table_kind: 0 f32, 1 f16, 2 bf16; ids: null, or row t takes row ids[t]
extern "C" __global__ void embed(const i32* ids, const void* table, int table_kind, Y* y, int dim,
                                 float scale, i64 offset) {
  release_next();
  wait_for_previous();
  const i64 row = (ids ? ids[blockIdx.x] : 0) + offset;
  for (int i = threadIdx.x; i < dim; i += blockDim.x) {
    const i64 at = row * dim + i;
    const float x = table_kind == 0   ? ((const float*)table)[at]
                    : table_kind == 1 ? from_f16(((const f16*)table)[at])
                                      : from_bf16(((const bf16*)table)[at]);
    store_from_float(y + i64(blockIdx.x) * dim + i, x * scale);
  }
}

extern "C" __global__ void gather_rows(const X* x, const i32* rows, Y* y, int dim) {
  release_next();
  wait_for_previous();
  const i64 from = rows[blockIdx.x];
  for (int i = threadIdx.x; i < dim; i += blockDim.x)
    store_from_float(y + i64(blockIdx.x) * dim + i, load_as_float(x + from * dim + i));
}

extern "C" __global__ void convert(const X* x, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += i64(gridDim.x) * blockDim.x)
    store_from_float(y + i, load_as_float(x + i));
}

// Four elements as floats.
DEVICE float4 load4(const float* p) { return *(const float4*)p; }
DEVICE float4 load4(const bf16* p) {
  const uint2 v = *(const uint2*)p;
  return make_float4(low_bf16(v.x), high_bf16(v.x), low_bf16(v.y), high_bf16(v.y));
}
DEVICE void store4(float* p, float4 v) { *(float4*)p = v; }
DEVICE void store4(bf16* p, float4 v) { *(uint2*)p = make_uint2(to_bf16x2(v.x, v.y), to_bf16x2(v.z, v.w)); }

// One block per row of n <= 4 * PER * blockDim.x elements, a multiple of 4. All of a thread's loads are in
// flight at once, weights even before the kernel may look at the row.
template <int PER, bool ADD>
DEVICE void norm_row(const float* a, const X* x, float* sum, const float* weight, Y* y, int n, float eps,
                     float offset) {
  release_next();
  const i64 base = i64(blockIdx.x) * n;
  float4 w[PER], v[PER];
#pragma unroll
  for (int j = 0; j < PER; ++j) {
    const int i = 4 * (threadIdx.x + j * blockDim.x);
    w[j] = weight && i < n ? load4(weight + i)
                           : make_float4(1.f - offset, 1.f - offset, 1.f - offset, 1.f - offset);
  }
  wait_for_previous();
  float squares = 0;
#pragma unroll
  for (int j = 0; j < PER; ++j) {
    const int i = 4 * (threadIdx.x + j * blockDim.x);
    v[j] = i < n ? load4(x + base + i) : make_float4(0.f, 0.f, 0.f, 0.f);
    if (ADD && i < n) {
      const float4 add = load4(a + base + i);
      v[j] = make_float4(v[j].x + add.x, v[j].y + add.y, v[j].z + add.z, v[j].w + add.w);
    }
  }
#pragma unroll
  for (int j = 0; j < PER; ++j) {
    const int i = 4 * (threadIdx.x + j * blockDim.x);
    if (ADD && i < n) store4(sum + base + i, v[j]);
    squares += v[j].x * v[j].x + v[j].y * v[j].y + v[j].z * v[j].z + v[j].w * v[j].w;
  }
  const float factor = 1.f / sqrtf(block_sum(squares) / n + eps);
#pragma unroll
  for (int j = 0; j < PER; ++j) {
    const int i = 4 * (threadIdx.x + j * blockDim.x);
    if (i < n)
      store4(y + base + i,
             make_float4(v[j].x * factor * (offset + w[j].x), v[j].y * factor * (offset + w[j].y),
                         v[j].z * factor * (offset + w[j].z), v[j].w * factor * (offset + w[j].w)));
  }
}
#define NORM_KERNELS(PER)                                                                                  \
  extern "C" __global__ void __launch_bounds__(1024)                                                       \
      rms_norm_##PER(const X* x, const float* weight, Y* y, int n, float eps, float offset) {              \
    norm_row<PER, false>(0, x, 0, weight, y, n, eps, offset);                                              \
  }                                                                                                        \
  extern "C" __global__ void __launch_bounds__(1024) add_rms_norm_##PER(                                   \
      const float* a, const X* b, float* sum, const float* weight, Y* y, int n, float eps, float offset) { \
    norm_row<PER, true>(a, b, sum, weight, y, n, eps, offset);                                             \
  }
NORM_KERNELS(1)
NORM_KERNELS(2)
NORM_KERNELS(4)

// Any n: one block per group of n elements.
extern "C" __global__ void rms_norm(const X* x, const float* weight, Y* y, int n, float eps, float offset) {
  release_next();
  wait_for_previous();
  const i64 base = i64(blockIdx.x) * n;
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = load_as_float(x + base + i);
    sum += v * v;
  }
  const float factor = 1.f / sqrtf(block_sum(sum) / n + eps);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float w = weight ? offset + weight[i] : 1.f;
    store_from_float(y + base + i, load_as_float(x + base + i) * factor * w);
  }
}

// One warp per group of n elements: heads.
extern "C" __global__ void rms_norm_heads(const X* x, const float* weight, Y* y, int n, float eps,
                                          float offset, i64 groups) {
  release_next();
  wait_for_previous();
  const i64 group = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (group >= groups) return;
  const int lane = threadIdx.x % 32;
  const i64 base = group * n;
  float sum = 0;
  for (int i = lane; i < n; i += 32) {
    const float v = load_as_float(x + base + i);
    sum += v * v;
  }
  const float factor = 1.f / sqrtf(warp_sum(sum) / n + eps);
  for (int i = lane; i < n; i += 32) {
    const float w = weight ? offset + weight[i] : 1.f;
    store_from_float(y + base + i, load_as_float(x + base + i) * factor * w);
  }
}

extern "C" __global__ void layer_norm(const X* x, const float* weight, const float* bias, Y* y, int n,
                                      float eps) {
  release_next();
  wait_for_previous();
  const i64 base = i64(blockIdx.x) * n;
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += load_as_float(x + base + i);
  const float mean = block_sum(sum) / n;
  float squares = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float d = load_as_float(x + base + i) - mean;
    squares += d * d;
  }
  const float factor = 1.f / sqrtf(block_sum(squares) / n + eps);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float v = (load_as_float(x + base + i) - mean) * factor;
    if (weight) v *= weight[i];
    if (bias) v += bias[i];
    store_from_float(y + base + i, v);
  }
}

// Any n: sum = a + b (the residual stream, f32); y = rms_norm(sum).
extern "C" __global__ void add_rms_norm(const float* a, const X* b, float* sum, const float* weight, Y* y,
                                        int n, float eps, float offset) {
  release_next();
  wait_for_previous();
  const i64 base = i64(blockIdx.x) * n;
  extern __shared__ float row[];
  float squares = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float v = a[base + i] + load_as_float(b + base + i);
    row[i] = v;
    sum[base + i] = v;
    squares += v * v;
  }
  const float factor = 1.f / sqrtf(block_sum(squares) / n + eps);
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float w = weight ? offset + weight[i] : 1.f;
    store_from_float(y + base + i, row[i] * factor * w);
  }
}

#define EACH(count) \
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < (count); i += i64(gridDim.x) * blockDim.x)

extern "C" __global__ void add(const float* a, const X* b, float b_scale, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) store_from_float(y + i, a[i] + load_as_float(b + i) * b_scale);
}
extern "C" __global__ void clamp(const X* x, float limit, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) {
    const float v = load_as_float(x + i);
    store_from_float(y + i, v > limit ? limit : v < -limit ? -limit : v);
  }
}
extern "C" __global__ void soft_cap(const X* x, float scale, float cap, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) {
    const float v = load_as_float(x + i) * scale;
    store_from_float(y + i, cap != 0.f ? cap * tanhf(v / cap) : v);
  }
}
extern "C" __global__ void activate(const X* x, int kind, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) store_from_float(y + i, activated(kind, load_as_float(x + i)));
}
extern "C" __global__ void gated(const X* gate, const X* up, int kind, Y* y, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) store_from_float(y + i, activated(kind, load_as_float(gate + i)) * load_as_float(up + i));
}
// y[t,:] = x[t,:] * sigmoid(gate[t])
extern "C" __global__ void gate_rows(const X* x, const float* gate, Y* y, int n, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) store_from_float(y + i, load_as_float(x + i) * sigmoid(gate[i / n]));
}

// The cosines and sines of the step: table[t][i] = (cos, sin) of f32(position) * f32(frequency[i]), times the
// factor that follows the frequencies. sequence_of: null, or row t uses the frequencies of that sequence. The
// angle is the f32 product that transformers computes; its reduction by multiples of pi is done in double.
extern "C" __global__ void rope_table(const i32* positions, const i32* sequence_of, const float* frequencies,
                                      float2* table, int half, i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) {
    const float* own = frequencies + (sequence_of ? i64(sequence_of[i / half]) * (half + 1) : 0);
    const float angle = float(positions[i / half]) * own[i % half];
    double turns = double(angle) * 0.31830988618379067154;  // in half turns
    turns -= 2 * rint(turns * 0.5);
    float s, c;
    sincospif(float(turns), &s, &c);
    table[i] = make_float2(c * own[half], s * own[half]);
  }
}

// adjacent: pairs (2i, 2i + 1), else (i, i + rotary / 2); elements from rotary on pass through. One thread
// per pair or passed element; x and y may be the same rows.
extern "C" __global__ void rope(const X* x, const float2* table, Y* y, int heads, int head_dim, int rotary,
                                int adjacent, i64 count) {
  release_next();
  wait_for_previous();
  const int half = rotary / 2, lanes = half + (head_dim - rotary);
  EACH(count) {
    const int lane = int(i % lanes);
    const i64 head = i / lanes, base = head * head_dim;
    if (lane < half) {
      const float2 turn = table[head / heads * half + lane];
      const i64 a = base + (adjacent ? 2 * lane : lane), b = adjacent ? a + 1 : a + half;
      const float xa = load_as_float(x + a), xb = load_as_float(x + b);
      store_from_float(y + a, xa * turn.x - xb * turn.y);
      store_from_float(y + b, xb * turn.x + xa * turn.y);
    } else {
      const i64 at = base + rotary + (lane - half);
      store_from_float(y + at, load_as_float(x + at));
    }
  }
}

// One warp per row: top_k experts by score, ties to the lower number; weights by softmax over all or over the
// chosen.
extern "C" __global__ void route(const float* scores, int experts, int top_k, int renormalise, i32* chosen,
                                 float* weights, i64 rows) {
  release_next();
  wait_for_previous();
  const i64 row = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32;
  const float* s = scores + row * experts;
  float largest = -__int_as_float(0x7f800000), all = 0;
  for (int e = lane; e < experts; e += 32) largest = fmaxf(largest, s[e]);
  largest = warp_max(largest);
  for (int e = lane; e < experts; e += 32) all += expf(s[e] - largest);
  all = warp_sum(all);
  // The next one below (last_score, last_expert) in the order "higher score, then lower number".
  float last_score = __int_as_float(0x7f800000), kept = 0;
  int last_expert = -1;
  for (int k = 0; k < top_k; ++k) {
    float best = -__int_as_float(0x7f800000);
    int best_expert = experts;
    for (int e = lane; e < experts; e += 32) {
      const float v = s[e];
      const bool after = v < last_score || (v == last_score && e > last_expert);
      if (after && (v > best || (v == best && e < best_expert) || best_expert == experts))
        best = v, best_expert = e;
    }
    for (int d = 16; d > 0; d >>= 1) {
      const float v = __shfl_xor_sync(0xffffffffu, best, d);
      const int e = __shfl_xor_sync(0xffffffffu, best_expert, d);
      if (e < experts && (best_expert == experts || v > best || (v == best && e < best_expert)))
        best = v, best_expert = e;
    }
    if (best_expert == experts) best_expert = 0;  // scores that are not numbers: any valid expert
    if (lane == 0) {
      chosen[row * top_k + k] = best_expert;
      weights[row * top_k + k] = expf(best - largest);
    }
    kept += expf(best - largest);
    last_score = best, last_expert = best_expert;
  }
  const float total = renormalise ? kept : all;
  __syncwarp();
  for (int k = lane; k < top_k; k += 32) weights[row * top_k + k] /= total;
}

// y[t,:] = sum_s weights[t,s] x[t * top_k + s,:], in the order of s
extern "C" __global__ void expert_combine(const X* x, const float* weights, Y* y, int n, int top_k,
                                          i64 count) {
  release_next();
  wait_for_previous();
  EACH(count) {
    const i64 row = i / n, column = i % n;
    float sum = 0;
    for (int s = 0; s < top_k; ++s)
      sum += weights[row * top_k + s] * load_as_float(x + (row * top_k + s) * n + column);
    store_from_float(y + i, sum);
  }
}
