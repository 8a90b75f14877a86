#include "backends/cpu/executor.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstring>

#include "backends/cpu/low_rank.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cpu {
namespace {

using program::Program;
using program::Value;
using program::Weight;

// Below this many elements a row-wise instruction is done before another thread would have woken.
constexpr int64_t kAlone = 16384;
// Panels that a thread takes at a time from a product's queue: few enough to even out a slow core, enough
// that the queue costs nothing.
constexpr int64_t kPanelChunk = 8;
constexpr int64_t kFewRows = 32, kManyRowsChunk = 32;
// A gate and its up-projection are multiplied for so many rows and panels at a time and combined while they
// are in the second-level cache. Rows of the two are an odd number of cache lines apart.
constexpr int64_t kGatedRows = 512, kGatedPanels = 16;
constexpr int64_t kGatedLd = kGatedPanels * kPanelRows + 16;
constexpr int64_t gated_floats(int64_t m) { return 2 * std::min(m, kGatedRows) * kGatedLd; }  // per thread

// Visits every product of the program for the largest left side and scratch that it needs.
struct NeedsVisitor {
  const Program& program;
  std::span<const codecs::StoredWeight> stored;
  const program::Bounds& bounds;
  int threads;
  ExecutorNeeds& needs;

  int64_t rows(Value v) const { return bounds.of(program.info(v).shape.front()); }

  static void enlarge(size_t& need, size_t bytes) {
    need = std::max(need, size_t(round_up(int64_t(bytes), 64)));
  }

  const MatMulKernel* kernel(Weight w) const {
    const auto& weight = stored[size_t(w.id)];
    return matmul_kernel(weight.transposed ? codecs::CodecId::f32 : weight.codec, active_isa(), weight.cols);
  }
  void product(int64_t m, int64_t cols, Weight weight) {
    if (const auto* k = kernel(weight)) {
      enlarge(needs.prepared, k->act_bytes(m, cols));
      enlarge(needs.per_thread, k->scratch_bytes);
    }
  }
  void visit(const program::MatMul& op) {
    for (const auto& p : op.products) product(rows(op.x), program.width(op.x), p.weight);
  }
  void visit(const program::GatedMatMul& op) {
    product(rows(op.x), program.width(op.x), op.gate);
    product(rows(op.x), program.width(op.x), op.up);
    const auto *gate = kernel(op.gate), *up = kernel(op.up);
    if (gate && up && gate->prepare == up->prepare)
      enlarge(needs.temporary, size_t(threads * gated_floats(rows(op.y))) * sizeof(float));
    else
      enlarge(needs.temporary, size_t(rows(op.y) * program.width(op.y)) * sizeof(float));
  }
  void visit(const program::Logits& op) { product(rows(op.x), program.width(op.x), op.weight); }
  void visit(const program::ExpertMatMul& op) {
    const int64_t pairs = rows(op.chosen) * program.width(op.chosen);
    for (const auto& p : op.products) {
      product(pairs, program.width(op.x), p.weight);
      if (const auto* k = kernel(p.weight))
        enlarge(needs.pair_prepared, k->act_bytes(pairs, program.width(op.x)));
      enlarge(needs.temporary, size_t(pairs * program.width(p.y)) * sizeof(float));
    }
  }
  LowRankShape shape(Weight w) const {
    if (!w) return {};
    const auto& info = program.info(w);
    if (const auto* k = kernel(w)) enlarge(needs.per_thread, k->scratch_bytes);
    return {kernel(w), info.shape[0], info.shape[1]};
  }
  void visit(const program::LowRankMlp& op) {
    const auto up = shape(op.up), gate = shape(op.gate), down = shape(op.down);
    enlarge(needs.tile, low_rank_mlp_tile_bytes(up, gate, down));
    enlarge(needs.temporary, low_rank_mlp_shared_bytes(up, gate, down, rows(op.p), threads));
  }
  void visit(const program::LowRankAttention& op) {
    const auto& kv = program.kv[size_t(op.slot)];
    const int64_t group = op.heads / op.kv_heads;
    enlarge(needs.tile, std::max({low_rank_rows_tile_bytes(shape(op.q.up), group * kv.head_dim_k),
                                  low_rank_rows_tile_bytes(shape(op.k.up), kv.head_dim_k),
                                  low_rank_rows_tile_bytes(shape(op.v.up), kv.head_dim_v)}));
    enlarge(needs.temporary,
            size_t(rows(op.y) * (group + 1) * (kv.head_dim_k + kv.head_dim_v)) * sizeof(float));
  }
  template <typename Op>
  void visit(const Op&) {}
};

AttentionParams attention_params(const program::LowRankAttention& op, const program::KvSlot& kv) {
  AttentionParams params;
  params.heads = int(op.heads / op.kv_heads);
  params.kv_heads = 1;
  params.head_dim_k = int(kv.head_dim_k);
  params.head_dim_v = int(kv.head_dim_v);
  params.scale = op.scale;
  params.window = int(std::min<int64_t>(op.window, INT32_MAX));
  params.causal = false;
  params.softcap = op.softcap;
  return params;
}

AttentionParams attention_params(const program::Attention& op, const program::KvSlot& kv) {
  AttentionParams params;
  params.heads = int(op.heads);
  params.kv_heads = int(kv.kv_heads);
  params.head_dim_k = int(kv.head_dim_k);
  params.head_dim_v = int(kv.head_dim_v);
  params.scale = op.scale;
  params.window = int(std::min<int64_t>(op.window, INT32_MAX));
  params.causal = op.causal;
  params.softcap = op.softcap;
  return params;
}

// Where each rope table's cosines begin, in floats; its sines follow directly.
std::vector<size_t> rope_offsets(const Program& program, int64_t tokens) {
  std::vector<size_t> offsets = {0};
  for (const auto& table : program.ropes)
    offsets.push_back(offsets.back() + size_t(tokens * table.rotary_dim));
  return offsets;
}

}  // namespace

ExecutorNeeds executor_needs(const Program& program, std::span<const codecs::StoredWeight> stored,
                             const program::Bounds& bounds, int64_t context, int threads) {
  ExecutorNeeds needs;
  needs.arena = size_t(plan_arena(program, bounds).bytes);
  needs.rope = rope_offsets(program, bounds.tokens).back() * sizeof(float);
  NeedsVisitor visitor{program, stored, bounds, threads, needs};
  for (const auto& instruction : program.instructions) {
    std::visit([&](const auto& op) { visitor.visit(op); }, instruction.operation);
    const auto scratch = [&](const auto* op) {
      if (op)
        needs.attention = std::max(
            needs.attention, size_t(attention_scratch_bytes(
                                 attention_params(*op, program.kv[size_t(op->slot)]), context, threads)));
    };
    scratch(std::get_if<program::Attention>(&instruction.operation));
    scratch(std::get_if<program::LowRankAttention>(&instruction.operation));
  }
  return needs;
}

Executor::Executor(const Program& program, std::span<const codecs::StoredWeight> stored, Weights weights,
                   ThreadPool& pool, kv::KvPool& kv, const program::Bounds& bounds, int64_t context)
    : program_(program),
      weights_(std::move(weights)),
      pool_(pool),
      kv_(kv),
      bounds_(bounds),
      rows_(row_kernels(active_isa())),
      plan_(plan_arena(program, bounds)),
      needs_(executor_needs(program, stored, bounds, context, pool.size())),
      arena_(needs_.arena),
      prepared_(needs_.prepared),
      pair_prepared_(needs_.pair_prepared),
      temporary_(needs_.temporary),
      thread_scratch_((needs_.per_thread + needs_.tile) * size_t(pool.size())),
      rope_(needs_.rope),
      attention_(int64_t(needs_.attention)) {}

// One run: the step's sizes and the instructions' bodies.
class Executor::Step {
 public:
  Step(Executor& e, std::span<const SequenceStep> sequences, program::Trace* trace)
      : e_(e), program_(e.program_), rows_(e.rows_), sequences_(sequences), trace_(trace) {
    for (const auto& s : sequences) {
      sizes_.tokens += int64_t(s.tokens.size());
      sizes_.logits += s.logit_rows;
    }
    assert(sizes_.tokens <= e.bounds_.tokens && sizes_.logits <= e.bounds_.logits);
    fill_inputs();
    fill_ropes();
    fill_attention_plan();
  }

  StepResult run(size_t first, size_t end) {
    const auto work_sizes = trace_ ? sizes_for_work() : program::StepSizes{};
    for (size_t i = first; i < end; ++i) {
      const auto& instruction = program_.instructions[i];
      const uint64_t start = trace_ ? program::Trace::now_ns() : 0;
      std::visit([&](const auto& op) { execute(op); }, instruction.operation);
      if (trace_)
        trace_->emit({int32_t(i), instruction.lane, start, start, program::Trace::now_ns(),
                      work(program_, instruction, work_sizes)});
    }
    const bool scored = sizes_.logits > 0 && end == program_.instructions.size();
    StepResult result;
    result.rows = sizes_.logits;
    if (scored && program_.logits)
      result.logits = f32(program_.logits), result.vocabulary = width(program_.logits);
    if (scored && program_.hidden) result.hidden = f32(program_.hidden), result.dim = width(program_.hidden);
    return result;
  }

  std::span<std::byte> bytes_of(Value v) const {
    return {reinterpret_cast<std::byte*>(f32(v)),
            size_t(rows(v) * width(v)) * tensor::bytes_of(program_.info(v).dtype)};
  }

 private:
  int64_t rows(Value v) const { return sizes_.of(program_.info(v).shape.front()); }
  int64_t width(Value v) const { return program_.width(v); }
  float* f32(Value v) const {
    return reinterpret_cast<float*>(e_.arena_.data() + e_.plan_.offsets[size_t(v.id)]);
  }
  int32_t* i32(Value v) const { return reinterpret_cast<int32_t*>(f32(v)); }
  ThreadMemory thread_memory() const {
    return {e_.thread_scratch_.data(), e_.needs_.per_thread, e_.needs_.per_thread + e_.needs_.tile};
  }
  std::byte* scratch(int thread) const { return thread_memory().kernel(thread); }

  program::StepSizes sizes_for_work() const {
    program::StepSizes s;
    s.tokens = sizes_.tokens;
    s.logits = sizes_.logits;
    s.sequences = int64_t(sequences_.size());
    s.context = sequences_.empty() ? 0 : sequences_.front().position;
    s.kv_bytes_per_element_x16 = kv::bytes_per_element_x16(e_.kv_.config());
    return s;
  }

  void fill_inputs() {
    int32_t* ids = i32(program_.ids);
    int32_t* positions = i32(program_.positions);
    int32_t* logit_rows = i32(program_.logit_rows);
    int64_t row = 0;
    for (const auto& s : sequences_) {
      for (size_t t = 0; t < s.tokens.size(); ++t) {
        ids[row + int64_t(t)] = s.tokens[t];
        positions[row + int64_t(t)] = int32_t(s.position + int64_t(t));
      }
      row += int64_t(s.tokens.size());
      for (int64_t r = row - s.logit_rows; r < row; ++r) *logit_rows++ = int32_t(r);
    }
  }

  // Angles in f32, as the reference computes them: float(position) * inverse frequency, then cosine and sine.
  void fill_ropes() {
    rope_begin_ = rope_offsets(program_, e_.bounds_.tokens);
    auto* base = reinterpret_cast<float*>(e_.rope_.data());
    for (size_t table = 0; table < program_.ropes.size(); ++table) {
      const auto& rope = program_.ropes[table];
      const int64_t half = rope.rotary_dim / 2;
      float* cosine = base + rope_begin_[table];
      float* sine = cosine + e_.bounds_.tokens * half;
      int64_t row = 0;
      for (const auto& s : sequences_) {
        const auto frequencies = rope_frequencies(
            rope.scaling, rope.theta, int(rope.rotary_dim),
            std::max(s.rope_length, s.position + int64_t(s.tokens.size())), rope.max_position);
        e_.pool_.split(int64_t(s.tokens.size()), 16, [&](Range part) {
          for (int64_t t = part.begin; t < part.end; ++t)
            for (int64_t i = 0; i < half; ++i) {
              const float angle = float(s.position + t) * frequencies.inverse_frequencies[size_t(i)];
              cosine[(row + t) * half + i] = std::cos(angle) * frequencies.attention_factor;
              sine[(row + t) * half + i] = std::sin(angle) * frequencies.attention_factor;
            }
        });
        row += int64_t(s.tokens.size());
      }
    }
  }

  void fill_attention_plan() {
    int64_t row = 0;
    for (const auto& s : sequences_) {
      const auto count = int64_t(s.tokens.size());
      attention_plan_.sequences.push_back(
          {row, int32_t(count), s.position, s.position + count, s.sequence->block_table()});
      row += count;
    }
  }

  // f(Range of rows), on one thread when the work is small.
  template <typename F>
  void by_rows(int64_t count, int64_t row_width, F&& f) {
    if (count * row_width <= kAlone) {
      if (count > 0) f(Range{0, count});
    } else {
      e_.pool_.split(count, 1, f);
    }
  }
  // Element-wise instructions see all rows as one line.
  template <typename F>
  void by_elements(Value v, F&& f) {
    const int64_t count = rows(v) * width(v);
    if (count <= kAlone) {
      if (count > 0) f(Range{0, count});
    } else {
      e_.pool_.split(count, 64, f);
    }
  }

  void execute(const program::Embed& op) {
    const auto& table = e_.weights_.table(op.table);
    const int32_t* ids = op.ids ? i32(op.ids) : nullptr;
    by_rows(rows(op.y), table.cols, [&](Range part) {
      std::vector<std::byte> room;
      for (int64_t t = part.begin; t < part.end; ++t) {
        const int64_t row = (ids ? ids[t] : 0) + op.offset;
        assert(row >= 0 && row < table.rows);
        float* y = f32(op.y) + t * table.cols;
        table.codec->decode(table.data ? table.data + size_t(row) * table.row_bytes
                                       : codecs::stored_rows(table.made, 0, row, row + 1, room),
                            y, table.cols);
        if (op.scale != 1) rows_.scale(y, op.scale, table.cols, y);
      }
    });
  }

  void execute(const program::GatherRows& op) {
    const int64_t n = width(op.x);
    const int32_t* from = i32(op.rows);
    by_rows(rows(op.y), n, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r)
        std::memcpy(f32(op.y) + r * n, f32(op.x) + from[r] * n, size_t(n) * sizeof(float));
    });
  }

  // Prepares x's rows for a kernel's left side.
  void prepare(const MatMulKernel& kernel, Value x) {
    const int64_t m = rows(x), cols = width(x);
    by_rows(m, cols, [&](Range part) { kernel.prepare(f32(x), cols, part, cols, e_.prepared_.data()); });
  }

  MatMulArgs arguments(const PackedMatrix& w, int64_t m, Range panels, float* y, int thread) const {
    return {w.piece(0), w.cols, e_.prepared_.data(), m, panels, y, w.rows, w.rows, scratch(thread)};
  }

  // Hands out chunks of [0, total) panels to all threads until none is left: f(thread, Range). One row's
  // chunks are small, which evens out a slow core; many rows' are larger, because every chunk reads the whole
  // left side again, and equal, because the last one is waited for.
  template <typename F>
  void by_panels(int64_t m, int64_t total, F&& f) {
    std::atomic<int64_t> next{0};
    const int64_t share = ceil_div(total, e_.pool_.size());
    const int64_t chunk = m > kFewRows ? round_up(ceil_div(share, ceil_div(share, kManyRowsChunk)), 2)
                                       : std::max<int64_t>(1, std::min(kPanelChunk, ceil_div(share, 2)));
    e_.pool_.run([&](int thread) {
      for (;;) {
        const int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
        if (begin >= total) return;
        f(thread, Range{begin, std::min(begin + chunk, total)});
      }
    });
  }

  static Range columns(Range panels, int64_t n) {
    return {panels.begin * kPanelRows, std::min(panels.end * kPanelRows, n)};
  }

  void add_bias(Weight bias, float* y, int64_t m, int64_t n, Range part) const {
    if (const float* values = e_.weights_.vector(bias))
      for (int64_t r = 0; r < m; ++r)
        rows_.add(y + r * n + part.begin, values + part.begin, 1, part.size(), y + r * n + part.begin);
  }

  void execute(const program::MatMul& op) {
    const int64_t m = rows(op.x);
    if (m == 0) return;
    // Products that want the same form of x share it; a file may mix codecs inside one instruction.
    std::vector<bool> done(op.products.size(), false);
    for (size_t first = 0; first < op.products.size(); ++first) {
      if (done[first]) continue;
      const auto& kernel = *e_.weights_.matrix(op.products[first].weight).kernel;
      prepare(kernel, op.x);
      std::vector<std::pair<size_t, int64_t>> parts;  // product, its first panel in the common queue
      int64_t total = 0;
      for (size_t i = first; i < op.products.size(); ++i) {
        const auto& matrix = e_.weights_.matrix(op.products[i].weight);
        if (done[i] || matrix.kernel->act != kernel.act || matrix.kernel->prepare != kernel.prepare) continue;
        done[i] = true;
        parts.emplace_back(i, total);
        total += panels_of(matrix.rows);
      }
      by_panels(m, total, [&](int thread, Range queue) {
        for (const auto& [i, begin] : parts) {
          const auto& product = op.products[i];
          const auto& matrix = e_.weights_.matrix(product.weight);
          const Range panels{std::max<int64_t>(queue.begin - begin, 0),
                             std::min(queue.end - begin, panels_of(matrix.rows))};
          if (panels.empty()) continue;
          float* y = f32(product.y);
          matrix.kernel->multiply(arguments(matrix, m, panels, y, thread));
          add_bias(product.bias, y, m, matrix.rows, columns(panels, matrix.rows));
        }
      });
    }
  }

  void execute(const program::GatedMatMul& op) {
    const int64_t m = rows(op.x), n = width(op.y);
    if (m == 0) return;
    const auto& gate = e_.weights_.matrix(op.gate);
    const auto& up = e_.weights_.matrix(op.up);
    if (gate.kernel->prepare == up.kernel->prepare) {
      prepare(*gate.kernel, op.x);
      by_panels(m, panels_of(n),
                [&](int thread, Range panels) { gated_panels(op, gate, up, m, thread, panels); });
      return;
    }
    auto* up_result = reinterpret_cast<float*>(e_.temporary_.data());
    prepare(*gate.kernel, op.x);
    by_panels(m, panels_of(n), [&](int thread, Range panels) {
      gate.kernel->multiply(arguments(gate, m, panels, f32(op.y), thread));
    });
    prepare(*up.kernel, op.x);
    by_panels(m, panels_of(n), [&](int thread, Range panels) {
      up.kernel->multiply(arguments(up, m, panels, up_result, thread));
      const Range part = columns(panels, n);
      for (int64_t r = 0; r < m; ++r) {
        float* y = f32(op.y) + r * n + part.begin;
        rows_.gated(op.activation, y, up_result + r * n + part.begin, part.size(), y);
      }
    });
  }

  void gated_panels(const program::GatedMatMul& op, const PackedMatrix& gate, const PackedMatrix& up,
                    int64_t m, int thread, Range panels) const {
    const int64_t n = width(op.y);
    const size_t row_bytes = act_row_bytes(gate.kernel->act, gate.cols);
    auto* const gate_result = reinterpret_cast<float*>(e_.temporary_.data()) + thread * gated_floats(m);
    auto* const up_result = gate_result + gated_floats(m) / 2;
    for (int64_t row = 0; row < m; row += kGatedRows)
      for (int64_t panel = panels.begin; panel < panels.end; panel += kGatedPanels) {
        const Range some{panel, std::min(panel + kGatedPanels, panels.end)};
        const Range part = columns(some, n);
        const int64_t count = std::min(kGatedRows, m - row);
        const auto multiply = [&](const PackedMatrix& w, float* result) {
          auto args = arguments(w, count, some, result - part.begin, thread);
          args.act += size_t(row) * row_bytes;
          args.ldy = kGatedLd;
          w.kernel->multiply(args);
        };
        multiply(gate, gate_result);
        multiply(up, up_result);
        for (int64_t r = 0; r < count; ++r)
          rows_.gated(op.activation, gate_result + r * kGatedLd, up_result + r * kGatedLd, part.size(),
                      f32(op.y) + (row + r) * n + part.begin);
      }
  }

  void execute(const program::Logits& op) {
    const int64_t m = rows(op.x), n = width(op.y);
    if (m == 0) return;
    const auto& matrix = e_.weights_.matrix(op.weight);
    prepare(*matrix.kernel, op.x);
    by_panels(m, panels_of(n), [&](int thread, Range panels) {
      matrix.kernel->multiply(arguments(matrix, m, panels, f32(op.y), thread));
      const Range part = columns(panels, n);
      add_bias(op.bias, f32(op.y), m, n, part);
      if (op.scale == 1 && op.softcap == 0) return;
      for (int64_t r = 0; r < m; ++r) {
        float* y = f32(op.y) + r * n + part.begin;
        rows_.soft_cap(y, op.scale, op.softcap, part.size(), y);
      }
    });
  }

  void execute(const program::Activate& op) {
    by_elements(op.x, [&](Range p) {
      rows_.activate(op.activation, f32(op.x) + p.begin, p.size(), f32(op.y) + p.begin);
    });
  }
  void execute(const program::GatedActivation& op) {
    by_elements(op.y, [&](Range p) {
      rows_.gated(op.activation, f32(op.gate) + p.begin, f32(op.up) + p.begin, p.size(), f32(op.y) + p.begin);
    });
  }
  void execute(const program::Add& op) {
    by_elements(op.y, [&](Range p) {
      rows_.add(f32(op.a) + p.begin, f32(op.b) + p.begin, op.b_scale, p.size(), f32(op.y) + p.begin);
    });
  }
  void execute(const program::Clamp& op) {
    by_elements(op.y,
                [&](Range p) { rows_.clamp(f32(op.x) + p.begin, op.limit, p.size(), f32(op.y) + p.begin); });
  }
  void execute(const program::SoftCap& op) {
    by_elements(op.y, [&](Range p) {
      rows_.soft_cap(f32(op.x) + p.begin, op.scale, op.cap, p.size(), f32(op.y) + p.begin);
    });
  }
  void execute(const program::GateRows& op) {
    const int64_t n = width(op.x);
    by_rows(rows(op.x), n, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r) {
        float gate = 0;
        rows_.activate(program::Activation::sigmoid, f32(op.gate) + r, 1, &gate);
        rows_.scale(f32(op.x) + r * n, gate, n, f32(op.y) + r * n);
      }
    });
  }

  void execute(const program::RmsNorm& op) {
    const int64_t group = op.group != 0 ? op.group : width(op.x);
    const float* weight = e_.weights_.vector(op.weight);
    by_rows(rows(op.x) * width(op.x) / group, group, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r)
        rows_.rms_norm(f32(op.x) + r * group, weight, op.eps, op.offset, group, f32(op.y) + r * group);
    });
  }
  void execute(const program::LayerNorm& op) {
    const int64_t n = width(op.x);
    const float *weight = e_.weights_.vector(op.weight), *bias = e_.weights_.vector(op.bias);
    by_rows(rows(op.x), n, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r)
        rows_.layer_norm(f32(op.x) + r * n, weight, bias, op.eps, n, f32(op.y) + r * n);
    });
  }
  void execute(const program::AddRmsNorm& op) {
    const int64_t n = width(op.a);
    const float* weight = e_.weights_.vector(op.weight);
    by_rows(rows(op.a), n, [&](Range part) {
      for (int64_t r = part.begin; r < part.end; ++r) {
        float* sum = f32(op.sum) + r * n;
        rows_.add(f32(op.a) + r * n, f32(op.b) + r * n, 1, n, sum);
        rows_.rms_norm(sum, weight, op.eps, op.offset, n, f32(op.y) + r * n);
      }
    });
  }

  void execute(const program::Rope& op) {
    const int64_t n = width(op.x), half = op.rotary_dim / 2;
    const float* cosine = reinterpret_cast<const float*>(e_.rope_.data()) + rope_begin_[size_t(op.table)];
    const float* sine = cosine + e_.bounds_.tokens * half;
    by_rows(rows(op.x), n, [&](Range part) {
      for (int64_t t = part.begin; t < part.end; ++t)
        rows_.rope(f32(op.x) + t * n, cosine + t * half, sine + t * half, op.heads, op.head_dim,
                   op.rotary_dim, op.pairing, f32(op.y) + t * n);
    });
  }

  void execute(const program::KvWrite& op) {
    append_kv(e_.pool_, attention_plan_, e_.kv_, op.slot, f32(op.k), f32(op.v));
  }

  void execute(const program::Attention& op) {
    auto params = attention_params(op, program_.kv[size_t(op.slot)]);
    params.sinks = e_.weights_.vector(op.sinks);
    std::vector<float> slopes;
    if (op.alibi) {
      slopes = program::alibi_slopes(op.heads);
      params.alibi_slopes = slopes.data();
    }
    attention(e_.pool_, params, attention_plan_, e_.kv_, op.slot, f32(op.q), f32(op.y), e_.attention_);
  }

  LowRankFactor factor(Value p, Weight up, Weight bias) const {
    if (!up) return {};
    return {&e_.weights_.matrix(up), e_.weights_.vector(bias), f32(p)};
  }
  void execute(const program::LowRankMlp& op) {
    if (rows(op.p) == 0) return;
    low_rank_mlp(e_.pool_, rows_, factor(op.p, op.up, op.up_bias), factor(op.gate_p, op.gate, op.gate_bias),
                 e_.weights_.matrix(op.down), op.activation, rows(op.p), f32(op.y), thread_memory(),
                 e_.temporary_.span());
  }

  // One KV head after another: its keys and values are all that the cache holds.
  void execute(const program::LowRankAttention& op) {
    const auto& kv = program_.kv[size_t(op.slot)];
    const int64_t m = rows(op.y), group = op.heads / op.kv_heads, dk = kv.head_dim_k, dv = kv.head_dim_v;
    if (m == 0) return;
    const auto params = attention_params(op, kv);
    auto* const k = reinterpret_cast<float*>(e_.temporary_.data());
    auto *const v = k + m * dk, *const q = v + m * dv, *const out = q + m * group * dk;
    for (int64_t head = 0; head < op.kv_heads; ++head) {
      const auto columns = [&](const program::LowRankAttention::Factor& f, int64_t n, float* to) {
        return LowRankColumns{factor(f.p, f.up, f.bias), {head * n, (head + 1) * n}, to};
      };
      const LowRankColumns parts[] = {columns(op.k, dk, k), columns(op.v, dv, v),
                                      columns(op.q, group * dk, q)};
      expand_columns(e_.pool_, rows_, parts, m, thread_memory());
      append_kv(e_.pool_, attention_plan_, e_.kv_, op.slot, k, v);
      attention(e_.pool_, params, attention_plan_, e_.kv_, op.slot, q, out, e_.attention_);
      by_rows(m, group * dv, [&](Range part) {
        for (int64_t r = part.begin; r < part.end; ++r)
          std::memcpy(f32(op.y) + (r * op.heads + head * group) * dv, out + r * group * dv,
                      size_t(group * dv) * sizeof(float));
      });
    }
  }

  void execute(const program::Route& op) {
    const auto experts = size_t(width(op.scores)), top_k = size_t(width(op.chosen));
    by_rows(rows(op.scores), width(op.scores), [&](Range part) {
      for (auto r = size_t(part.begin); r < size_t(part.end); ++r)
        route_row(op.routing, {f32(op.scores) + r * experts, experts}, {i32(op.chosen) + r * top_k, top_k},
                  {f32(op.weights) + r * top_k, top_k});
    });
  }

  // Each expert multiplies the rows that chose it, gathered; results go back to the order of the pairs.
  void execute(const program::ExpertMatMul& op) {
    const int64_t top_k = width(op.chosen), pairs = rows(op.chosen) * top_k, cols = width(op.x);
    if (pairs == 0) return;
    const int64_t experts = program_.info(op.products.front().weight).shape[0];
    e_.groups_.assign({i32(op.chosen), size_t(pairs)}, experts);
    const auto& groups = e_.groups_;
    auto* sorted = reinterpret_cast<float*>(e_.temporary_.data());
    const MatMulKernel* prepared_for = nullptr;
    for (const auto& product : op.products) {
      const auto& matrix = e_.weights_.matrix(product.weight);
      const auto& kernel = *matrix.kernel;
      const size_t row_bytes = act_row_bytes(kernel.act, cols);
      if (!prepared_for || prepared_for->prepare != kernel.prepare) {
        prepare(kernel, op.x);
        by_rows(pairs, cols, [&](Range part) {
          for (auto at = size_t(part.begin); at < size_t(part.end); ++at) {
            const int64_t row = op.per_choice ? groups.pairs[at] : groups.pairs[at] / top_k;
            std::memcpy(e_.pair_prepared_.data() + at * row_bytes,
                        e_.prepared_.data() + size_t(row) * row_bytes, row_bytes);
          }
        });
        prepared_for = &kernel;
      }
      const int64_t n = matrix.rows, panels = panels_of(n);
      std::vector<int32_t> busy;  // experts with rows
      for (int64_t expert = 0; expert < experts; ++expert)
        if (groups.begin[size_t(expert)] < groups.begin[size_t(expert) + 1]) busy.push_back(int32_t(expert));
      by_panels(1, int64_t(busy.size()) * panels, [&](int thread, Range queue) {
        for (int64_t at = queue.begin; at < queue.end;) {
          const auto expert = size_t(busy[size_t(at / panels)]);
          const Range part{at % panels, std::min(at % panels + queue.end - at, panels)};
          at += part.size();
          const int64_t begin = groups.begin[expert], m = groups.begin[expert + 1] - begin;
          kernel.multiply({matrix.piece(int64_t(expert)), cols,
                           e_.pair_prepared_.data() + size_t(begin) * row_bytes, m, part, sorted + begin * n,
                           n, n, scratch(thread)});
        }
      });
      float* y = f32(product.y);
      by_rows(pairs, n, [&](Range part) {
        for (int64_t at = part.begin; at < part.end; ++at)
          std::memcpy(y + groups.pairs[size_t(at)] * n, sorted + at * n, size_t(n) * sizeof(float));
      });
    }
  }

  void execute(const program::DecodeGroup& op) {
    if (!op.for_lookup) e_.weights_.decode(op, e_.pool_);
  }
  void execute(const program::ExpertCombine& op) {
    const int64_t n = width(op.x), top_k = width(op.weights);
    by_rows(rows(op.y), n * top_k, [&](Range part) {
      for (int64_t t = part.begin; t < part.end; ++t) {
        float* y = f32(op.y) + t * n;
        const float* weights = f32(op.weights) + t * top_k;
        rows_.scale(f32(op.x) + t * top_k * n, weights[0], n, y);
        for (int64_t s = 1; s < top_k; ++s)
          rows_.multiply_add(f32(op.x) + (t * top_k + s) * n, weights[s], n, y);
      }
    });
  }

  Executor& e_;
  const Program& program_;
  const RowKernels& rows_;
  std::span<const SequenceStep> sequences_;
  program::Bounds sizes_;
  std::vector<size_t> rope_begin_;
  attention::AttentionPlan attention_plan_;
  program::Trace* trace_;
};

Executor::~Executor() = default;

StepResult Executor::run(std::span<const SequenceStep> sequences, program::Trace* trace) {
  return Step(*this, sequences, trace).run(0, program_.instructions.size());
}

void Executor::begin_stages(std::span<const SequenceStep> sequences, program::Trace* trace) {
  step_ = std::make_unique<Step>(*this, sequences, trace);
}

StepResult Executor::run_stage(size_t stage) {
  const auto& range = program_.stages[stage];
  return step_->run(size_t(range.begin), size_t(range.end));
}

void Executor::hand_in(Value v, const std::byte* rows) {
  const auto to = step_->bytes_of(v);
  std::memcpy(to.data(), rows, to.size());
}

const std::byte* Executor::hand_out(Value v) { return step_->bytes_of(v).data(); }

}  // namespace cairn::cpu
