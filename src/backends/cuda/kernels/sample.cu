// One token per row of scores (text/draw.h says which; Drawer is the reference). CLUSTER blocks of THREADS
// threads share a row, each a run of its tokens; masses are whole numbers, so that their sums are the same in
// any order. Bound: a handful of passes over the row in the caches, each ended by a meeting of the blocks.
//
// A filter or the draw asks for the first token, in the order of rank or of ids, at which the masses so far
// reach a goal (select): tokens are counted into bins in that order, and those of the bin where the goal
// falls are put in order one by one.
#include "device.cuh"
#if CLUSTER > 1
#include "hopper.cuh"
#endif

constexpr int kBins = 2048, kFew = 512;
constexpr u32 kAll = 0xffffffffu;
#define kInfinity __int_as_float(0x7f800000)
static_assert(kBins % THREADS == 0 && THREADS % 32 == 0, "a thread adds up whole bins");

// As in sample.h.
struct RowDraw {
  u64 random, top_p;  // of 2^53
  float scale, min_p, repetition, presence, frequency;
  i32 top_k;
  i32 edits, edit_count;  // in the step's list
  i32 mask;               // first word in the step's masks; -1: none
  i32 flags;              // kDrawn, kCountInput
  i32 padding[2];
};
enum Flags { kDrawn = 1, kCountInput = 2 };
struct RowEdit {
  i32 token;
  float bias;
  i32 seen, answered;
};

#if CLUSTER > 1
DEVICE u32 my_rank() { return cluster_rank(); }
DEVICE void all_meet() { cluster_meet(); }
// The same variable of another block of the cluster.
DEVICE u32 place_at(const void* own, u32 rank) {
  u32 at;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(own)), "r"(rank));
  return at;
}
DEVICE u64 read64(const u64* own, u32 rank) {
  u64 x;
  asm volatile("ld.shared::cluster.u64 %0, [%1];" : "=l"(x) : "r"(place_at(own, rank)) : "memory");
  return x;
}
DEVICE u32 read32(const u32* own, u32 rank) {
  u32 x;
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(place_at(own, rank)) : "memory");
  return x;
}
#else
DEVICE u32 my_rank() { return 0; }
DEVICE void all_meet() { __syncthreads(); }
DEVICE u64 read64(const u64* own, u32) { return *own; }
DEVICE u32 read32(const u32* own, u32) { return *own; }
#endif

// e^x as text/plain_exp.h: the same products and sums, none of them fused.
DEVICE float plain_exp(float x) {
  if (!(x >= -87.0f)) return 0.f;
  const float n = __fadd_rn(__fadd_rn(__fmul_rn(x, 1.44269504f), 12582912.0f), -12582912.0f);
  const float r = __fadd_rn(__fadd_rn(x, -__fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
  float p = __fadd_rn(__fmul_rn(r, 1.9875691500e-4f), 1.3981999507e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
  p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
  p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
  p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
  p = __fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f);
  return __fmul_rn(p, __int_as_float((int(n) + 127) << 23));
}

// total * part / 2^53, rounded down; up.
DEVICE u64 share_of(u64 total, u64 part) { return __umul64hi(total, part) << 11 | (total * part) >> 53; }
DEVICE u64 share_up(u64 total, u64 part) {
  return share_of(total, part) + ((total * part & ((u64(1) << 53) - 1)) != 0);
}

DEVICE u64 shuffle_xor(u64 x, int d) {
  return u64(__shfl_xor_sync(kAll, u32(x >> 32), d)) << 32 | __shfl_xor_sync(kAll, u32(x), d);
}
struct Sum {
  static DEVICE u64 of(u64 a, u64 b) { return a + b; }
};
struct Max {
  static DEVICE u64 of(u64 a, u64 b) { return a > b ? a : b; }
};

enum Order { kByCount, kByRank, kById };

struct Shared {
  u64 parts[THREADS / 32];
  u64 exchange[2];  // this block's share of what is added up; two, so that one is read while the next is
                    // written
  u32 low[kBins], high[kBins];
  u64 own[kFew];
  u32 own_count;
  u64 few[kFew];
  u64 values[kFew];
  u64 found_key, found_sum, share;
  u32 bin;
};

class Row {
 public:
  DEVICE Row(float* scores, int vocabulary, Shared& shared) : scores_(scores), s_(shared) {
    const int each = (vocabulary + CLUSTER - 1) / CLUSTER;
    begin_ = min(int(my_rank()) * each, vocabulary);
    end_ = min(begin_ + each, vocabulary);
    id_shift_ = max(0, 32 - __clz(vocabulary - 1) - 11);
  }

  // The order of scores as that of whole numbers, equals by id: larger is more likely. -0 is 0.
  static DEVICE u64 key(float score, int token) {
    const u32 bits = __float_as_uint(__fadd_rn(score, 0.f));
    return u64(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | u32(~token);
  }
  static DEVICE float score_of(u64 key) {
    const u32 bits = u32(key >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
  }

  // False: this thread has met a score that is not a number.
  DEVICE bool edit(const RowDraw& how, const RowEdit* edits, const u32* masks, int input) {
    bool nan = false;
    if (how.mask >= 0) {
      each([&](int i, float score) {
        nan |= score != score;
        if (!(masks[how.mask + (i >> 5)] >> (i & 31) & 1)) scores_[i] = -kInfinity;
      });
      __syncthreads();
    }
    const bool count_input = how.flags & kCountInput;
    bool counted = !count_input;
    for (int e = int(threadIdx.x); e < how.edit_count; e += THREADS) {
      RowEdit x = edits[how.edits + e];
      if (count_input && x.token == input) ++x.seen, ++x.answered, counted = true;
      edit_one(how, x);
    }
    // Whether any thread has met the input; a barrier before the scores are read.
    counted = __syncthreads_or(counted && count_input) || !count_input;
    if (!counted && threadIdx.x == 0) edit_one(how, {input, 0.f, 1, 1});
    __syncthreads();
    return !nan;
  }

  // ok: this thread has met no score that is not a number.
  DEVICE int draw(const RowDraw& how, bool ok) {
    u64 best = 0;
    bool nan = !ok;
    each([&](int i, float score) {
      nan |= score != score;
      best = Max::of(best, key(score, i));
    });
    best = all<Max>(nan ? ~u64(0) : best);
    if (best == ~u64(0)) return -1;
    const float largest = score_of(best);
    if (largest == -kInfinity) return -2;
    const int greedy = int(~u32(best));
    if (how.scale == 0.f || largest == kInfinity) return greedy;
    largest_ = largest, scale_ = how.scale;

    // What is kept is the first tokens in the order of rank whose masses make `total`; each filter makes it
    // smaller. A loop, so that select() is compiled once.
    const u64 whole = u64(1) << 53;
    u64 total = 0, found = 0;
    for (int stage = how.top_k > 0 ? 0 : how.top_p < whole ? 1 : 2; stage < 3; ++stage) {
      Order order = kByCount;
      u64 goal = u64(how.top_k);
      if (stage > 0 && total == 0)
        total = sum_from(0);  // fewer than top_k that are not forbidden: all of them
      if (stage == 1) {
        if (how.top_p >= whole) continue;
        order = kByRank, goal = max(share_up(total, how.top_p), u64(1));
      } else if (stage == 2) {
        if (how.min_p > 0.f) {  // the likeliest again: the smaller of two such sets is what both have
          min_p_ = how.min_p;
          total = min(total, sum_from(0));
        }
        order = how.top_k > 0 || how.top_p < whole ? kByRank : kById;
        goal = share_of(total, how.random) + 1;
      }
      const u64 reached = select(order, goal, found);
      if (stage == 0 && reached > 0) total = sum_from(found);
      if (stage == 1) total = reached;
    }
    return int(~u32(found));
  }

 private:
  template <typename F>
  DEVICE void each(F&& f) {
#pragma unroll 4
    for (int i = begin_ + int(threadIdx.x); i < end_; i += THREADS) f(i, scores_[i]);
  }

  DEVICE void edit_one(const RowDraw& how, const RowEdit& x) {
    if (x.token < begin_ || x.token >= end_) return;
    float score = __fadd_rn(scores_[x.token], x.bias);
    if (x.seen > 0) score = score > 0.f ? __fdiv_rn(score, how.repetition) : __fmul_rn(score, how.repetition);
    if (x.answered > 0)
      score = __fadd_rn(score, -__fadd_rn(__fmul_rn(float(x.answered), how.frequency), how.presence));
    scores_[x.token] = score;
  }

  DEVICE float logit(float score) const { return __fmul_rn(__fadd_rn(score, -largest_), scale_); }
  DEVICE u64 mass(float score) const {
    const float weight = plain_exp(logit(score));
    return weight < min_p_ ? 0 : u64(weight * 1099511627776.f);
  }

  // Over all threads of all blocks.
  template <typename Op>
  DEVICE u64 all(u64 x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x = Op::of(x, shuffle_xor(x, d));
    if (threadIdx.x % 32 == 0) s_.parts[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll
      for (int w = 1; w < THREADS / 32; ++w) x = Op::of(x, s_.parts[w]);
      s_.exchange[turn_] = x;
    }
    all_meet();
    x = read64(&s_.exchange[turn_], 0);
#pragma unroll
    for (u32 r = 1; r < CLUSTER; ++r) x = Op::of(x, read64(&s_.exchange[turn_], r));
    turn_ ^= 1;
    return x;
  }
  // The mass of all keys from `least` on.
  DEVICE u64 sum_from(u64 least) {
    u64 x = 0;
    each([&](int i, float score) { x += key(score, i) >= least ? mass(score) : 0; });
    return all<Sum>(x);
  }

  DEVICE u64 value(Order order, float score) const {
    return order == kByCount ? u64(score > -kInfinity) : mass(score);
  }
  // Coarse place in the order: larger comes first.
  DEVICE int bin(Order order, int i, float score) const {
    if (order == kById) return kBins - 1 - (i >> id_shift_);
    return max(0, kBins - 1 + int(logit(score) * 70.f));  // masses end at -28
  }

  // Puts the key of the first token at which the values reach the goal in `key_at` and returns their sum up
  // to and with it; 0: they never do. goal >= 1.
  DEVICE u64 select(Order order, u64 goal, u64& key_at) {
    int chosen = -1;                            // of bin()
    u64 least = 0, most = ~u64(0), before = 0;  // keys, once that bin has too many tokens
    bool fine = false;
    const auto place = [&](u64 k, int shift) { return int((k - least) >> shift); };
    const auto inside = [&](int i, float score) {
      if (chosen >= 0 && bin(order, i, score) != chosen) return false;
      const u64 k = order_key(order, score, i);
      return k >= least && k <= most;
    };
    for (;;) {
      const int shift = fine ? max(0, 64 - __clzll(most - least) - 11) : 0;
      for (int b = int(threadIdx.x); b < kBins; b += THREADS) s_.low[b] = s_.high[b] = 0;
      if (threadIdx.x == 0) s_.own_count = 0;
      __syncthreads();
      each([&](int i, float score) {
        const u64 v = value(order, score);
        if (v == 0 || (fine && !inside(i, score))) return;
        const int b = fine ? place(order_key(order, score, i), shift) : bin(order, i, score);
        const u32 low = u32(v), old = atomicAdd(&s_.low[b], low);
        const u32 high = u32(v >> 32) + (old + low < old);
        if (high) atomicAdd(&s_.high[b], high);
      });
      all_meet();
      const int b = find_bin(goal, before);
      if (b < 0) return 0;  // all have read the bins
      if (fine) {
        least += u64(b) << shift;
        most = min(most, least + ((u64(1) << shift) - 1));
      } else {
        chosen = b;
      }
      fine = true;
      each([&](int i, float score) {
        if (value(order, score) == 0 || !inside(i, score)) return;
        const u32 at = atomicAdd(&s_.own_count, 1u);
        if (at < kFew) s_.own[at] = order == kById ? key(score, i) : order_key(order, score, i);
      });
      all_meet();
      u32 count = 0;
#pragma unroll
      for (u32 r = 0; r < CLUSTER; ++r) count += read32(&s_.own_count, r);
      if (count <= kFew) return order_few(order, goal, before, key_at);
      all_meet();  // before the counts are cleared
    }
  }
  // By id, the largest key is the smallest id.
  static DEVICE u64 order_key(Order order, float score, int i) {
    return order == kById ? u64(u32(~i)) : key(score, i);
  }

  // The bin, from the last one down, in which the sum of `before` and all blocks' bins reaches the goal, or
  // -1; `before` becomes the sum before it. Every block adds up a share of the bins.
  DEVICE int find_bin(u64 goal, u64& before) {
    constexpr int kShare = kBins / CLUSTER, kEach = (kShare + THREADS - 1) / THREADS;
    const int rank = int(my_rank()), last = kBins - 1 - rank * kShare;
    u64 bins[kEach], own = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      const int at = int(threadIdx.x) * kEach + j;
      bins[j] = 0;
      if (at < kShare) {
#pragma unroll
        for (u32 r = 0; r < CLUSTER; ++r)
          bins[j] += (u64(read32(&s_.high[last - at], r)) << 32) + read32(&s_.low[last - at], r);
      }
      own += bins[j];
    }
    u64 upto = own;  // over the threads of the warp before this one, and it
#pragma unroll
    for (int d = 1; d < 32; d <<= 1) {
      const u64 other =
          u64(__shfl_up_sync(kAll, u32(upto >> 32), d)) << 32 | __shfl_up_sync(kAll, u32(upto), d);
      if (int(threadIdx.x % 32) >= d) upto += other;
    }
    if (threadIdx.x % 32 == 31) s_.parts[threadIdx.x / 32] = upto;
    __syncthreads();
    u64 inside = upto - own, share = 0;
    for (u32 w = 0; w < THREADS / 32; ++w) {
      if (w == threadIdx.x / 32) inside += share;
      share += s_.parts[w];
    }
    if (threadIdx.x == 0) s_.share = share;
    all_meet();
    int owner = -1;
    u64 sum = before, start = 0;
#pragma unroll
    for (int r = 0; r < CLUSTER; ++r) {
      const u64 of_r = read64(&s_.share, u32(r));
      if (r == rank) start = sum;
      if (owner < 0 && sum + of_r >= goal) owner = r;
      sum += of_r;
    }
    if (owner < 0) return -1;
    if (rank == owner) {
      u64 here = start + inside;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        if (here < goal && here + bins[j] >= goal)
          s_.bin = u32(last - (int(threadIdx.x) * kEach + j)), s_.found_sum = here;
        here += bins[j];
      }
    }
    all_meet();
    before = read64(&s_.found_sum, u32(owner));
    return int(read32(&s_.bin, u32(owner)));
  }

  // The tokens that all blocks gathered, one by one.
  DEVICE u64 order_few(Order order, u64 goal, u64 before, u64& key_at) {
    u32 first = 0;
#pragma unroll
    for (u32 r = 0; r < CLUSTER; ++r) {
      const u32 count = read32(&s_.own_count, r);
      for (u32 j = threadIdx.x; j < count; j += THREADS) {
        const u64 k = read64(&s_.own[j], r);
        s_.values[first + j] = value(order, score_of(k));
        s_.few[first + j] = order == kById ? u64(u32(k)) : k;
      }
      first += count;
    }
    all_meet();  // own lists are free again
    for (u32 c = threadIdx.x; c < first; c += THREADS) {
      u64 sum = before;
      const u64 k = s_.few[c], v = s_.values[c];
      for (u32 o = 0; o < first; ++o) sum += s_.few[o] > k ? s_.values[o] : 0;
      if (sum < goal && sum + v >= goal) s_.found_key = k, s_.found_sum = sum + v;
    }
    __syncthreads();
    key_at = s_.found_key;
    const u64 reached = s_.found_sum;
    __syncthreads();
    return reached;
  }

  float* scores_;
  Shared& s_;
  int begin_, end_, id_shift_;
  int turn_ = 0;
  float largest_ = 0, scale_ = 0, min_p_ = 0;
};

// Block r * CLUSTER + i: part i of row r. ids[logit_rows[r]] is the token of the row of scores. tokens[r]:
// the token, -1 when a score is not a number, -2 when all are forbidden; rows that are not drawn keep theirs.
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    sample(float* scores, int vocabulary, const RowDraw* draws, const RowEdit* edits, const u32* masks,
           const i32* ids, const i32* logit_rows, i32* tokens) {
  __shared__ Shared shared;
  release_next();
  wait_for_previous();
  const u32 r = blockIdx.x / CLUSTER;
  const RowDraw how = draws[r];
  if (!(how.flags & kDrawn)) return;
  Row row(scores + i64(r) * vocabulary, vocabulary, shared);
  const bool numbers = row.edit(how, edits, masks, ids[logit_rows[r]]);
  const int token = row.draw(how, numbers);
  if (my_rank() == 0 && threadIdx.x == 0) tokens[r] = token;
  all_meet();  // a block's shared memory is read by the others until here
}

// The first kernel of a step: ids that the step before has drawn (from[row] >= 0: its row of scores) take
// their places.
extern "C" __global__ void take_drawn(i32* ids, const i32* from, const i32* drawn, int rows) {
  release_next();
  wait_for_previous();
  const int row = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (row < rows && from[row] >= 0) ids[row] = max(drawn[from[row]], 0);
}

// Writes the device's clock, in nanoseconds.
extern "C" __global__ void note_time(u64* to) {
  release_next();
  wait_for_previous();
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(*to));
}
