#include "backends/cuda/executor.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <future>
#include <optional>

#include "backends/cuda/products.h"
#include "backends/cuda/step_trace.h"
#include "base/checked.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

using backends::RowClass;
using backends::SequenceStep;
using backends::StepResult;
using program::Program;
using program::Value;
using program::Weight;

constexpr int64_t kAlignment = 256;

// Gate and up of the widest gated product, before they are combined.
int64_t gated_bytes(const Program& program, const program::Bounds& bounds) {
  int64_t bytes = 0;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::GatedMatMul>(&instruction.operation))
      bytes = std::max(
          bytes,
          2 * round_up(bounds.of(program.info(op->y).shape.front()) * program.width(op->y) * 4, kAlignment));
  return bytes;
}

// Of the plain kernels' cache; the attention engine has its own forms.
Element cache_element(const kv::KvConfig& config) {
  switch (config.form) {
    case kv::KvForm::f32: return Element::f32;
    case kv::KvForm::bf16: return Element::bf16;
    default:
      fail(ErrorKind::unsupported, "a KV cache of {} is not supported on the GPU; use bf16",
           to_string(config.form));
  }
}

std::vector<Variant> unique(const std::vector<Variant>& variants) {
  std::vector<Variant> once;
  for (const auto& v : variants)
    if (std::find(once.begin(), once.end(), v) == once.end()) once.push_back(v);
  return once;
}

}  // namespace

// What a step tells the device, in one block of 32-bit words that is uploaded at once: offsets of its parts.
struct Executor::Inputs {
  int64_t ids, positions, sequence_of, starts, logit_rows, tables, words;
  std::vector<int64_t> rope_frequencies;  // per rope table: offset of per-sequence lists, or -1
  int64_t table_words;

  Inputs(const Program& program, const program::Bounds& bounds, int64_t pages) {
    int64_t at = 0;
    const auto place = [&](int64_t count) {
      const int64_t begin = at;
      at += round_up(count, 64);
      return begin;
    };
    ids = place(bounds.tokens);
    positions = place(bounds.tokens);
    sequence_of = place(bounds.tokens);
    starts = place(bounds.tokens);
    logit_rows = place(bounds.logits);
    for (const auto& rope : program.ropes)
      rope_frequencies.push_back(
          depends_on_length(rope.scaling) ? place(bounds.tokens * (rope.rotary_dim / 2 + 1)) : -1);
    // Sequences may share pages, so that all tables together can be longer than the pool.
    table_words = 4 * pages + bounds.tokens;
    tables = place(table_words);
    words = at;
  }
};

ExecutorNeeds executor_needs(const Program& program, std::span<const codecs::StoredWeight> stored,
                             const kv::KvConfig& kv, const program::Bounds& bounds,
                             const ExecutorOptions& options) {
  ExecutorNeeds needs;
  needs.weights = ModelWeights::bytes_needed(program, stored, {options.exact});
  needs.kv = device_kv_bytes(kv);
  needs.scratch = uint64_t(plan_arena(program, bounds).bytes + gated_bytes(program, bounds));
  for (const auto& rope : program.ropes)
    needs.scratch += uint64_t(bounds.tokens * rope.rotary_dim * 4 + kAlignment);
  needs.scratch += uint64_t(4 * kv.pages + 8 * bounds.tokens) * 4;
  if (!options.exact) needs.scratch += ExpertRoom::sizes(program, bounds).bytes();
  return needs;
}

Executor::Executor(const Program& program, std::span<const codecs::StoredWeight> stored, ThreadPool& pool,
                   kv::KvPool& kv, const program::Bounds& bounds, const Device& device,
                   const ExecutorOptions& options,
                   const std::function<void(const backends::LoadProgress&)>& on_load)
    : program_(program),
      kv_(kv),
      bounds_(bounds),
      device_(device),
      sequences_(options.sequences),
      kernels_(device),
      stream_(device),
      weights_(program, stored, device, {options.exact}),
      elements_(element_types(program, options.exact)),
      plan_(plan_arena(program, bounds)),
      arena_(device, size_t(plan_.bytes)),
      gated_(device, size_t(gated_bytes(program, bounds))),
      layout_(std::make_unique<Inputs>(program, bounds, kv.config().pages)) {
  kv_memory_ = Buffer(device, size_t(device_kv_bytes(kv.config())));
  inputs_ = Buffer(device, size_t(layout_->words) * 4);
  staging_ = PinnedBuffer(device, size_t(layout_->words) * 4);
  const int64_t vocabulary = program.logits ? program.width(program.logits) : 0,
                dim = program.hidden ? program.width(program.hidden) : 0;
  results_ = PinnedBuffer(device, size_t(bounds.logits * (vocabulary + dim)) * 4);
  hidden_ = Buffer(device, size_t(bounds.logits * dim) * 4);

  int64_t rope_bytes = 0, embedding_bytes = 0;
  std::vector<float> constants;
  std::vector<size_t> frequency_offsets, slope_offsets;
  for (const auto& rope : program.ropes) {
    frequency_offsets.push_back(constants.size());
    rope_bytes += round_up(bounds.tokens * rope.rotary_dim * 4, kAlignment);
    const auto f = rope_frequencies(rope.scaling, rope.theta, int(rope.rotary_dim), 0, rope.max_position);
    constants.insert(constants.end(), f.inverse_frequencies.begin(), f.inverse_frequencies.end());
    constants.push_back(f.attention_factor);
  }
  for (const auto& instruction : program.instructions) {
    slope_offsets.push_back(SIZE_MAX);
    if (const auto* op = std::get_if<program::Attention>(&instruction.operation); op && op->alibi) {
      slope_offsets.back() = constants.size();
      const auto slopes = program::alibi_slopes(op->heads);
      constants.insert(constants.end(), slopes.begin(), slopes.end());
    }
    if (const auto* op = std::get_if<program::Embed>(&instruction.operation);
        op && !weights_.table(op->table).on_device())
      embedding_bytes = std::max(embedding_bytes, bounds.tokens * program.width(op->y) * 4);
  }
  ropes_ = Buffer(device, size_t(rope_bytes));
  embeddings_ = PinnedBuffer(device, size_t(embedding_bytes));
  constants_ = Buffer(device, constants.size() * 4);
  stream_.upload(constants_.address(), constants.data(), constants.size() * 4);
  for (const size_t offset : frequency_offsets) frequencies_.push_back(constants_.address() + offset * 4);
  for (const size_t offset : slope_offsets)
    slopes_.push_back(offset == SIZE_MAX ? 0 : constants_.address() + offset * 4);
  stream_.synchronize();
  fused_ropes_.resize(program.instructions.size());
  expert_roles_.resize(program.instructions.size());
  // The compiler and the weights take their seconds side by side.
  auto compiled = std::async(std::launch::async, [&] {
    if (!options.exact) prepare_fast_kernels();
  });
  weights_.load(program, stored, device, stream_, pool, on_load);
  compiled.get();
  handover_ = Handover(device, program, bounds);
  if (!attention_ && !program.kv.empty())
    cache_element(kv.config());  // refuses forms that only the attention engine has
  pages_ = std::make_unique<PageMover>(kernels_, DeviceKv::at(kv_memory_.address(), kv.config()));
  // On the stream of the steps: after the one that wrote the page, before the one that goes on in the copy.
  kv.set_page_copy([this](int32_t from, int32_t to, int64_t) { pages_->copy(stream_, from, to); });
}

Executor::~Executor() { kv_.set_page_copy(nullptr); }

int64_t Executor::table_pages() const { return layout_->table_words; }

// Llama 8B on one H200, a step of 64 answers: in bf16 6.9 ms with the kernels of few rows, 5.9 with those of
// prompts, of 256: 27 and 12.1; below 48 it is the other way round. Weights that must be unpacked first pay
// for that with every step (64 answers in Q4_K_M: 11.2 and 12).
bool Executor::is_wide(const Form& form) const {
  return sequences_ >= (form.layout == Layout::bf16_rows ? 48 : 96);
}

uint64_t Executor::scratch_bytes() const {
  return arena_.size() + gated_.size() + expert_room_.bytes() + inputs_.size() + ropes_.size() +
         constants_.size();
}

// One run: the step's rows in the order of their class, and what each instruction launches.
class Executor::Step {
 public:
  Step(Executor& e, std::span<const SequenceStep> sequences)
      : e_(e), program_(e.program_), sequences_(sequences), launch_(e.kernels_, e.stream_) {
    for (const auto& s : sequences) {
      sizes_.tokens += int64_t(s.tokens.size());
      sizes_.logits += s.logit_rows;
      if (s.row_class == RowClass::decode) decode_rows_ += int64_t(s.tokens.size());
    }
    assert(sizes_.tokens <= e.bounds_.tokens && sizes_.logits <= e.bounds_.logits);
    Address table = e_.ropes_.address();
    for (const auto& rope : program_.ropes) {
      rope_tables_.push_back(table);
      table += Address(round_up(e_.bounds_.tokens * rope.rotary_dim * 4, kAlignment));
    }
  }

  // The modules of all products and lookups, as a step of both classes would ask for them.
  std::vector<Variant> variants() {
    std::vector<Variant> all;
    sizes_ = {2, 1};
    decode_rows_ = 1;
    collected_ = &all;
    for (const auto& instruction : program_.instructions) {
      if (const auto* embed = std::get_if<program::Embed>(&instruction.operation))
        if (const auto& table = e_.weights_.table(embed->table); table.blocks)
          all.push_back(embed_packed_variant(*table.blocks->form));
      if (const auto* matmul = std::get_if<program::MatMul>(&instruction.operation)) execute(*matmul);
      if (const auto* gated = std::get_if<program::GatedMatMul>(&instruction.operation)) execute(*gated);
      if (const auto* logits = std::get_if<program::Logits>(&instruction.operation)) execute(*logits);
      if (const auto* experts = std::get_if<program::ExpertMatMul>(&instruction.operation)) execute(*experts);
    }
    return all;
  }

  void begin(program::Trace* trace) {
    trace_ = trace;
    const double start = now();
    upload_inputs();
    e_.times_.prepare += trace ? 0 : now() - start;
  }

  StepResult run_stage(size_t index) {
    const program::Stage& stage = program_.stages[index];
    const bool repeats = decode_rows_ == sizes_.tokens && int64_t(sequences_.size()) == sizes_.tokens;
    const double start = now();
    after_copy_ = true;
    if (trace_) {
      run_traced(*trace_, stage);
    } else if (const std::array key{int64_t(index), sizes_.tokens,
                                    sizes_.logits * 4 + (e_.attention_ ? e_.attention_->launches() : 0)};
               repeats) {
      auto& graph = e_.stage_graphs_[key];
      if (!graph && !e_.stage_graphs_seen_.insert(key).second)
        graph = Graph::capture(e_.stream_, [&] { launch_stage(stage); });
      if (graph)
        graph.launch(e_.stream_);
      else
        launch_stage(stage);
    } else {
      launch_stage(stage);
    }
    const double launched = now();
    e_.stream_.synchronize();
    const bool last = stage.end == int32_t(program_.instructions.size());
    if (!trace_) e_.times_.add({last ? 1 : 0, 0, launched - start, now() - launched});
    return last ? result() : StepResult{sizes_.logits, nullptr, nullptr};
  }

  void hand_in(Value v, const std::byte* rows) {
    if (count(v) == 0) return;
    e_.handover_.fill_in(v, rows, order_of(v), row_bytes(v));
    e_.stream_.mark("rows from another part");
    e_.stream_.upload(at(v).address, e_.handover_.in(v), size_t(count(v)) * 4);
  }
  const std::byte* hand_out(Value v) { return e_.handover_.take_out(v, order_of(v), row_bytes(v)); }

  StepResult run(program::Trace* trace) {
    const double start = now();
    upload_inputs();
    const double uploaded = now();
    const bool repeats = decode_rows_ == sizes_.tokens && int64_t(sequences_.size()) == sizes_.tokens;
    if (trace) {
      run_traced(*trace, {0, int32_t(program_.instructions.size()), {}, {}});
    } else if (repeats) {
      const std::pair shape{sizes_.tokens,
                            sizes_.logits * 4 + (e_.attention_ ? e_.attention_->launches() : 0)};
      auto& graph = e_.graphs_[shape];
      // The first step of a shape runs as it is (kernels are found, memory is warm), the second is recorded.
      if (!graph && !e_.graphs_seen_.insert(shape).second)
        graph = Graph::capture(e_.stream_, [&] { launch_all(); });
      if (graph)
        graph.launch(e_.stream_);
      else
        launch_all();
    } else {
      launch_all();
    }
    const double launched = now();
    e_.stream_.synchronize();
    if (!trace) e_.times_.add({1, uploaded - start, launched - uploaded, now() - launched});
    return result();
  }

 private:
  StepResult result() const {
    auto* logits = e_.results_.as<float>();
    return {sizes_.logits, sizes_.logits > 0 && program_.logits ? logits : nullptr,
            sizes_.logits > 0 && program_.hidden && decode_rows_ < sizes_.tokens ? logits + logits_words()
                                                                                 : nullptr};
  }
  // Per row of the step: its tokens, or its logit rows, whose order is always the caller's.
  size_t row_bytes(Value v) const { return size_t(program_.info(v).shape.front().size * width(v)) * 4; }
  RowOrder order_of(Value v) const {
    if (program_.info(v).shape.front().symbol == program::Symbol::tokens) return rows_;
    return {{0}, {sizes_.logits}, true};
  }
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  int64_t rows(Value v) const { return sizes_.of(program_.info(v).shape.front()); }
  int64_t width(Value v) const { return program_.width(v); }
  int64_t count(Value v) const { return rows(v) * width(v); }
  int64_t logits_words() const { return program_.logits ? sizes_.logits * width(program_.logits) : 0; }
  Address input(int64_t word) const { return e_.inputs_.address() + Address(word) * 4; }
  Operand at(Value v) const {
    if (v == program_.ids) return {input(e_.layout_->ids)};
    if (v == program_.positions) return {input(e_.layout_->positions)};
    if (v == program_.logit_rows) return {input(e_.layout_->logit_rows)};
    return {e_.arena_.address() + Address(e_.plan_.offsets[size_t(v.id)]), e_.elements_[size_t(v.id)]};
  }

  // Rows of class decode come first; scores keep the caller's order.
  void upload_inputs() {
    auto* words = e_.staging_.as<int32_t>();
    const Inputs& in = *e_.layout_;
    int64_t row = 0, sequence = 0, page = 0;
    std::vector<int64_t>& first_row = rows_.first_row;
    first_row.assign(sequences_.size(), 0);
    for (const auto& s : sequences_) rows_.count.push_back(int64_t(s.tokens.size()));
    for (const RowClass wanted : {RowClass::decode, RowClass::prompt})
      for (size_t i = 0; i < sequences_.size(); ++i) {
        const auto& s = sequences_[i];
        if (s.row_class != wanted) continue;
        first_row[i] = row;
        for (size_t t = 0; t < s.tokens.size(); ++t, ++row) {
          words[in.ids + row] = s.tokens[t];
          words[in.positions + row] = int32_t(s.position + int64_t(t));
          words[in.sequence_of + row] = int32_t(sequence);
        }
        const auto table = s.sequence->block_table();
        if (page + int64_t(table.size()) > in.table_words)
          fail(ErrorKind::invalid_argument, "the sequences of a step have {} pages and more; {} were planned",
               page + int64_t(table.size()), in.table_words);
        words[in.starts + sequence] = int32_t(page);
        attention_plan_.sequences.push_back({first_row[i], int32_t(s.tokens.size()), s.position,
                                             s.position + int64_t(s.tokens.size()), table});
        classes_.push_back(wanted);
        std::copy(table.begin(), table.end(), words + in.tables + page);
        page += int64_t(table.size());
        for (size_t r = 0; r < program_.ropes.size(); ++r) {
          if (in.rope_frequencies[r] < 0) continue;
          const auto& rope = program_.ropes[r];
          const auto f = rope_frequencies(rope.scaling, rope.theta, int(rope.rotary_dim),
                                          std::max(s.rope_length, s.position + int64_t(s.tokens.size())),
                                          rope.max_position);
          auto* to =
              reinterpret_cast<float*>(words + in.rope_frequencies[r]) + sequence * (rope.rotary_dim / 2 + 1);
          std::copy(f.inverse_frequencies.begin(), f.inverse_frequencies.end(), to);
          to[rope.rotary_dim / 2] = f.attention_factor;
        }
        ++sequence;
      }
    rows_.same = std::is_sorted(first_row.begin(), first_row.end());
    int64_t scored = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const int64_t end = first_row[i] + int64_t(sequences_[i].tokens.size());
      for (int64_t r = end - sequences_[i].logit_rows; r < end; ++r)
        words[in.logit_rows + scored++] = int32_t(r);
    }
    e_.stream_.upload(e_.inputs_.address(), words, size_t(in.tables + page) * 4);
    if (e_.attention_) {
      e_.attention_->plan(attention_plan_, classes_);
      e_.attention_->upload(e_.stream_);
    }
    for (const auto& instruction : program_.instructions)
      if (const auto* op = std::get_if<program::Embed>(&instruction.operation)) decode_embeddings(*op);
  }

  // Rows of a table that the device does not hold are decoded here and travel with the step.
  void decode_embeddings(const program::Embed& op) {
    const auto& table = e_.weights_.table(op.table);
    if (table.on_device()) return;
    assert(e_.elements_[size_t(op.y.id)] == Element::f32);
    const int32_t* ids =
        e_.staging_.as<int32_t>() + (op.ids == program_.positions ? e_.layout_->positions : e_.layout_->ids);
    const auto& codec = codecs::codec(table.stored->codec);
    const auto row_bytes = *codecs::row_bytes(codec, uint64_t(table.cols));
    auto* to = e_.embeddings_.as<float>();
    for (int64_t t = 0; t < sizes_.tokens; ++t) {
      float* y = to + t * table.cols;
      codec.decode(table.stored->pieces[0].data + uint64_t(ids[t] + op.offset) * row_bytes, y, table.cols);
      if (op.scale != 1)
        for (int64_t i = 0; i < table.cols; ++i) y[i] *= op.scale;
    }
  }

  void launch_all() {
    prepare();
    for (size_t i = 0; i < program_.instructions.size(); ++i) launch(i);
    download();
  }

  // A part's step; what it hands on is copied with it.
  void launch_stage(const program::Stage& stage) {
    if (stage.begin == 0) prepare();
    for (int32_t i = stage.begin; i < stage.end; ++i) launch(size_t(i));
    finish_stage(stage);
  }
  void finish_stage(const program::Stage& stage) {
    if (!stage.out.empty()) e_.stream_.mark("rows for another part");
    for (const Value v : stage.out) {
      assert(e_.elements_[size_t(v.id)] == Element::f32);
      if (count(v) > 0) e_.stream_.download(e_.handover_.out(v), at(v).address, size_t(count(v)) * 4);
    }
    if (stage.end == int32_t(program_.instructions.size())) download();
  }

  void prepare() {
    e_.stream_.mark("the step's inputs");
    launch_.overlap = false;
    for (size_t r = 0; r < program_.ropes.size(); ++r) {
      const int64_t half = program_.ropes[r].rotary_dim / 2, own = e_.layout_->rope_frequencies[r];
      launch_.rope_table(input(e_.layout_->positions), own < 0 ? 0 : input(e_.layout_->sequence_of),
                         own < 0 ? e_.frequencies_[r] : input(own), rope_tables_[r], sizes_.tokens, half);
    }
  }

  void launch(size_t index) {
    const auto& instruction = program_.instructions[index];
    e_.stream_.mark(instruction.name.c_str());
    instruction_ = index;
    converted_of_ = {};
    // Only a kernel can be overlapped by the next one, not a copy; in a trace an instruction's time is its
    // own.
    // Kernels of a step of new tokens are short: each starts while the one ahead of it ends (253 instead of
    // 225 tokens a second, Llama 8B on one H200). A prompt's are long, and lose a few percent by it.
    launch_.overlap = decode_rows_ == sizes_.tokens && !after_copy_ && !traced_;
    after_copy_ = false;
    std::visit([&](const auto& op) { execute(op); }, instruction.operation);
    static const bool careful = std::getenv("CAIRN_CUDA_SYNC") != nullptr;
    if (careful) e_.stream_.synchronize();
  }

  void download() {
    if (sizes_.logits == 0 || !program_.logits) return;
    e_.stream_.mark("the step's results");
    e_.stream_.download(e_.results_.data(), at(program_.logits).address, size_t(logits_words()) * 4);
    if (decode_rows_ == sizes_.tokens || !program_.hidden) return;
    const Operand hidden = at(program_.hidden);
    Address from = hidden.address;
    const int64_t words = count(program_.hidden);
    if (hidden.element != Element::f32) {
      from = e_.hidden_.address();
      launch_.overlap = false;
      launch_.convert(hidden, {from, Element::f32}, words);
    }
    e_.stream_.download(e_.results_.as<float>() + logits_words(), from, size_t(words) * 4);
  }

  void run_traced(program::Trace& trace, const program::Stage& stage) {
    program::StepSizes sizes;
    sizes.tokens = sizes_.tokens, sizes.logits = sizes_.logits, sizes.sequences = int64_t(sequences_.size());
    sizes.context = sequences_.empty() ? 0 : sequences_.front().position;
    sizes.kv_bytes_per_element_x16 = kv::bytes_per_element_x16(e_.kv_.config());
    const auto first = size_t(stage.begin), count = size_t(stage.end - stage.begin);
    traced_ = true;
    if (first == 0) prepare();
    e_.stream_.synchronize();
    StepTrace times(e_.stream_, trace, first, count);
    for (size_t i = first; i < first + count; ++i) times.instruction([&] { launch(i); });
    finish_stage(stage);
    e_.stream_.synchronize();
    times.finish([&](size_t i) {
      const auto& instruction = program_.instructions[i];
      return program::TraceRecord{int32_t(i), instruction.lane, 0, 0, 0, work(program_, instruction, sizes)};
    });
  }

  void execute(const program::Embed& op) {
    const auto& table = e_.weights_.table(op.table);
    if (table.data) {
      launch_.embed(at(op.ids).address, table.data, table.kind, at(op.y), rows(op.y), table.cols, op.scale,
                    op.offset);
    } else if (table.blocks) {
      assert(e_.elements_[size_t(op.y.id)] == Element::f32);
      embed_packed(e_.kernels_, e_.stream_, *table.blocks, at(op.ids).address, at(op.y).address, rows(op.y),
                   op.scale, op.offset, launch_.overlap);
    } else {
      e_.stream_.upload(at(op.y).address, e_.embeddings_.data(), size_t(count(op.y)) * 4);
      after_copy_ = true;
    }
  }
  void execute(const program::GatherRows& op) {
    if (rows(op.y) > 0) launch_.gather_rows(at(op.x), at(op.rows).address, at(op.y), rows(op.y), width(op.x));
  }

  // x for a product with this weight: the fast kernels read bf16, also of values that are kept in f32.
  Operand left_side(Value x, Weight weight) {
    Operand from = at(x);
    if (from.element == Element::bf16 || !e_.weights_.is_packed(weight)) return from;
    const Operand to{e_.converted_.address(), Element::bf16};
    if (converted_of_ == x || collected_) return to;
    launch_.convert(from, to, count(x));
    converted_of_ = x;
    return to;
  }
  // What a product is for the fast kernels.
  MatMulCall call(Operand x, Weight weight, Weight bias, Operand y, int64_t m) const {
    MatMulCall c;
    c.w = &e_.weights_.packed(weight);
    c.x = x.address;
    c.m = m;
    c.y = y.address;
    c.y_f32 = y.element == Element::f32;
    c.bias = e_.weights_.vector(bias);
    c.overlap_previous = launch_.overlap;
    return c;
  }
  // Collecting, a call only says which modules it will need.
  void multiply(std::span<const MatMulCall> calls, int64_t decode_rows) {
    // Runs of neighbours that are multiplied alike.
    for (size_t begin = 0, end = 0; begin < calls.size(); begin = end) {
      const bool wide = e_.is_wide(*calls[begin].w->form);
      for (end = begin + 1; end < calls.size() && e_.is_wide(*calls[end].w->form) == wide;) ++end;
      const auto part = calls.subspan(begin, end - begin);
      if (!collected_) {
        cuda::multiply(e_.kernels_, e_.stream_, part, wide ? 0 : decode_rows, e_.scratch_);
        continue;
      }
      for (auto& v : product_variants(e_.device_.facts(), part, wide || decode_rows < calls.front().m))
        collected_->push_back(std::move(v));
    }
  }
  void plain(Operand x, Weight weight, Weight bias, Operand y, int64_t m) {
    if (!collected_) launch_.matmul_plain(x, e_.weights_.plain(weight), e_.weights_.vector(bias), y, m);
  }

  std::vector<MatMulCall> calls_of(Operand x, const program::MatMul& op) const {
    std::vector<MatMulCall> calls;
    for (const auto& p : op.products)
      if (e_.weights_.is_packed(p.weight)) calls.push_back(call(x, p.weight, p.bias, at(p.y), rows(op.x)));
    return calls;
  }
  MatMulCall gated_call(Operand x, const program::GatedMatMul& op) const {
    MatMulCall c = call(x, op.gate, {}, at(op.y), rows(op.x));
    c.up = &e_.weights_.packed(op.up);
    c.activation = op.activation;
    return c;
  }
  void execute(const program::MatMul& op) {
    Operand x = at(op.x);
    for (const auto& p : op.products) {
      if (e_.weights_.is_packed(p.weight))
        x = left_side(op.x, p.weight);
      else
        plain(at(op.x), p.weight, p.bias, at(p.y), rows(op.x));
    }
    const auto calls = calls_of(x, op);
    if (!calls.empty()) multiply(calls, decode_rows_);
  }
  void execute(const program::GatedMatMul& op) {
    if (e_.gated_together(op)) {
      const MatMulCall c = gated_call(left_side(op.x, op.gate), op);
      return multiply({&c, 1}, decode_rows_);
    }
    const Element element = e_.elements_[size_t(op.y.id)];
    const Operand gate{e_.gated_.address(), element};
    const Operand up{gate.address + Address(round_up(count(op.y) * bytes_of(element), kAlignment)), element};
    const program::MatMul both{op.x, {{op.gate, {}, {}}, {op.up, {}, {}}}};
    for (size_t i = 0; i < 2; ++i) {
      const Weight w = both.products[i].weight;
      const Operand y = i == 0 ? gate : up;
      if (e_.weights_.is_packed(w)) {
        const MatMulCall c = call(left_side(op.x, w), w, {}, y, rows(op.x));
        multiply({&c, 1}, decode_rows_);
      } else {
        plain(at(op.x), w, {}, y, rows(op.x));
      }
    }
    if (!collected_) launch_.gated(gate, up, op.activation, at(op.y), count(op.y));
  }
  // Scores are few rows, whoever asked for them: always class decode.
  void execute(const program::Logits& op) {
    if (rows(op.x) == 0) return;
    if (e_.weights_.is_packed(op.weight)) {
      MatMulCall c = call(left_side(op.x, op.weight), op.weight, op.bias, at(op.y), rows(op.x));
      c.scale = op.scale;
      c.softcap = op.softcap;
      return multiply({&c, 1}, c.m);
    }
    plain(at(op.x), op.weight, op.bias, at(op.y), rows(op.x));
    if (!collected_ && (op.scale != 1 || op.softcap != 0))
      launch_.soft_cap(at(op.y), op.scale, op.softcap, at(op.y), count(op.y));
  }
  void execute(const program::Activate& op) {
    launch_.activate(at(op.x), op.activation, at(op.y), count(op.y));
  }
  void execute(const program::GatedActivation& op) {
    // Experts' products have joined them for the rows of prompts.
    const bool joined = e_.expert_roles_[instruction_].kind == ExpertRole::gated;
    const int64_t elements = joined ? count(op.y) / sizes_.tokens * decode_rows_ : count(op.y);
    if (elements > 0) launch_.gated(at(op.gate), at(op.up), op.activation, at(op.y), elements);
  }
  void execute(const program::Add& op) { launch_.add(at(op.a), at(op.b), op.b_scale, at(op.y), count(op.y)); }
  void execute(const program::Clamp& op) { launch_.clamp(at(op.x), op.limit, at(op.y), count(op.y)); }
  void execute(const program::SoftCap& op) {
    if (rows(op.x) > 0) launch_.soft_cap(at(op.x), op.scale, op.cap, at(op.y), count(op.y));
  }
  void execute(const program::GateRows& op) {
    launch_.gate_rows(at(op.x), at(op.gate), at(op.y), rows(op.x), width(op.x));
  }
  void execute(const program::RmsNorm& op) {
    const int64_t group = op.group != 0 ? op.group : width(op.x);
    launch_.rms_norm(at(op.x), e_.weights_.vector(op.weight), at(op.y), count(op.x) / group, group, op.eps,
                     op.offset);
  }
  void execute(const program::LayerNorm& op) {
    launch_.layer_norm(at(op.x), e_.weights_.vector(op.weight), e_.weights_.vector(op.bias), at(op.y),
                       rows(op.x), width(op.x), op.eps);
  }
  void execute(const program::AddRmsNorm& op) {
    launch_.add_rms_norm(at(op.a), at(op.b), at(op.sum), e_.weights_.vector(op.weight), at(op.y), rows(op.a),
                         width(op.a), op.eps, op.offset);
  }
  void execute(const program::Rope& op) {
    if (e_.fused_ropes_[instruction_].skip) return;
    launch_.rope(at(op.x), rope_tables_[size_t(op.table)], at(op.y), rows(op.x), op.heads, op.head_dim,
                 op.rotary_dim, op.pairing);
  }

  PlainCache cache(int32_t slot) const {
    const auto& c = e_.kv_.config();
    const DeviceKv kv = device_kv();
    return {kv.layer(kv::Part::K, slot),
            kv.layer(kv::Part::V, slot),
            cache_element(c),
            c.kv_heads,
            c.head_dim_k,
            c.head_dim_v,
            c.page_tokens};
  }
  void execute(const program::KvWrite& op) {
    const Inputs& in = *e_.layout_;
    if (!e_.attention_) {
      launch_.append_plain(at(op.k), at(op.v), cache(op.slot), input(in.tables), input(in.starts),
                           input(in.sequence_of), input(in.positions), rows(op.k));
      return;
    }
    AppendCall c;
    c.layer = op.slot;
    c.rows = rows(op.k);
    c.k = at(op.k).address, c.k_stride = width(op.k);
    c.v = at(op.v).address, c.v_stride = width(op.v);
    if (const FusedRope& fused = e_.fused_ropes_[instruction_]; fused.q) {
      c.rope = {int(fused.q->rotary_dim), fused.q->pairing};
      c.k = at(fused.k->x).address;
      c.q = at(fused.q->x).address, c.q_stride = width(fused.q->x);
      c.q_out = at(fused.q->y).address, c.q_out_stride = width(fused.q->y);
      c.angles = rope_tables_[size_t(fused.q->table)];
      c.heads = int(fused.q->heads);
    }
    c.overlap_previous = launch_.overlap;
    e_.attention_->append(e_.stream_, device_kv(), c);
  }
  DeviceKv device_kv() const { return DeviceKv::at(e_.kv_memory_.address(), e_.kv_.config()); }

  void execute(const program::Attention& op) {
    const Inputs& in = *e_.layout_;
    if (!e_.attention_) {
      PlainAttention a;
      a.heads = int(op.heads);
      a.scale = op.scale;
      a.softcap = op.softcap;
      a.window = int(std::min<int64_t>(op.window, INT32_MAX));
      a.sinks = e_.weights_.vector(op.sinks);
      a.slopes = e_.slopes_[instruction_];
      launch_.attention_plain(at(op.q), at(op.y), cache(op.slot), a, input(in.tables), input(in.starts),
                              input(in.sequence_of), input(in.positions), rows(op.q));
      return;
    }
    AttentionCall c;
    c.kind = e_.attention_kinds_[instruction_];
    c.layer = op.slot;
    c.q = at(op.q).address, c.q_stride = width(op.q);
    c.y = at(op.y).address, c.y_stride = width(op.y);
    c.sinks = e_.weights_.vector(op.sinks);
    c.slopes = e_.slopes_[instruction_];
    c.decode = decode_rows_ > 0, c.prompt = decode_rows_ < sizes_.tokens;
    c.decode_rows = decode_rows_;
    c.merge = e_.attention_->has_chunks(), c.shared = e_.attention_->has_shared();
    c.overlap_previous = launch_.overlap;
    e_.attention_->run(e_.stream_, device_kv(), c);
  }

  void execute(const program::Route& op) {
    launch_.route(at(op.scores), width(op.scores), width(op.chosen),
                  op.routing == program::Routing::softmax_topk_renorm, at(op.chosen).address,
                  at(op.weights).address, rows(op.scores));
  }
  void execute(const program::ExpertMatMul& op) {
    const int64_t top_k = width(op.chosen), tokens = rows(op.chosen), pairs = tokens * top_k;
    if (std::all_of(op.products.begin(), op.products.end(),
                    [&](const auto& p) { return e_.weights_.is_packed(p.weight); })) {
      const Operand x = left_side(op.x, op.products.front().weight);
      const ExpertRole& role = e_.expert_roles_[instruction_];
      std::vector<MatMulCall> calls;
      for (const auto& p : op.products) calls.push_back(call(x, p.weight, p.bias, at(p.y), pairs));
      if (collected_) {
        for (auto& v : expert_variants(e_.device_.facts(), calls, role)) collected_->push_back(std::move(v));
        return;
      }
      const ExpertChoice choice{at(op.chosen).address, top_k, op.per_choice};
      multiply_experts(e_.kernels_, e_.stream_, calls, choice, tokens, decode_rows_, role, e_.expert_room_,
                       e_.scratch_);
      return;
    }
    if (collected_) return;
    for (const auto& p : op.products)
      launch_.matmul_plain(at(op.x), e_.weights_.plain(p.weight), e_.weights_.vector(p.bias), at(p.y), pairs,
                           at(op.chosen).address, op.per_choice ? 1 : top_k);
  }
  void execute(const program::DecodeGroup&) {}
  void execute(const program::ExpertCombine& op) {
    launch_.expert_combine(at(op.x), at(op.weights).address, at(op.y), rows(op.y), width(op.x),
                           width(op.weights));
  }

  Executor& e_;
  const Program& program_;
  std::span<const SequenceStep> sequences_;
  program::Bounds sizes_;
  int64_t decode_rows_ = 0;
  attention::AttentionPlan attention_plan_;
  std::vector<RowClass> classes_;
  std::vector<Variant>* collected_ = nullptr;
  RowLauncher launch_;
  std::vector<Address> rope_tables_;
  size_t instruction_ = 0;
  Value converted_of_;  // whose bf16 copy the running instruction has made
  bool after_copy_ = true, traced_ = false;
  program::Trace* trace_ = nullptr;  // of a part's step
  RowOrder rows_;
};

bool Executor::gated_together(const program::GatedMatMul& op) const {
  return weights_.is_packed(op.gate) && weights_.is_packed(op.up) &&
         weights_.packed(op.gate).form == weights_.packed(op.up).form;
}

void Executor::prepare_fast_kernels() {
  uint64_t scratch = 0;
  int64_t converted = 0;
  expert_roles_ = expert_roles(program_, weights_);
  for (size_t i = 0; i < program_.instructions.size(); ++i) {
    const auto& operation = program_.instructions[i].operation;
    const auto note = [&](Value x, Weight w, bool gated) {
      if (weights_.is_packed(w) && elements_[size_t(x.id)] == Element::f32)
        converted = std::max(converted, bounds_.of(program_.info(x).shape.front()) * program_.width(x) * 2);
      if (!weights_.is_packed(w)) return;
      const DeviceMatrix& matrix = weights_.packed(w);
      const bool on_the_way = matrix.pieces > 1 && can_multiply_packed(device_.facts().capability, matrix);
      if (!on_the_way) scratch = std::max(scratch, matmul_many_half(matrix, gated));
    };
    if (const auto* op = std::get_if<program::MatMul>(&operation))
      for (const auto& p : op->products) note(op->x, p.weight, false);
    if (const auto* op = std::get_if<program::ExpertMatMul>(&operation))
      for (const auto& p : op->products) note(op->x, p.weight, expert_roles_[i].kind == ExpertRole::inputs);
    if (const auto* op = std::get_if<program::GatedMatMul>(&operation))
      note(op->x, op->gate, true), note(op->x, op->up, false);
    if (const auto* op = std::get_if<program::Logits>(&operation);
        op && weights_.is_packed(op->weight) && is_wide(*weights_.packed(op->weight).form))
      note(op->x, op->weight, false);
  }
  expert_room_ = ExpertRoom(device_, ExpertRoom::sizes(program_, bounds_));
  unpacked_ = Buffer(device_, 2 * scratch);
  scratch_ = {unpacked_.address(), scratch};
  converted_ = Buffer(device_, size_t(converted));

  std::vector<AttentionKind> kinds;
  std::vector<RopeKind> ropes;
  attention_kinds_.assign(program_.instructions.size(), -1);
  fused_ropes_ = find_fused_ropes(program_);
  for (size_t i = 0; i < program_.instructions.size(); ++i) {
    if (fused_ropes_[i].q) ropes.push_back({int(fused_ropes_[i].q->rotary_dim), fused_ropes_[i].q->pairing});
    const auto* op = std::get_if<program::Attention>(&program_.instructions[i].operation);
    if (!op) continue;
    const AttentionKind kind{int(op->heads), op->scale,       int(std::min<int64_t>(op->window, INT32_MAX)),
                             op->softcap,    bool(op->sinks), op->alibi};
    const auto same = std::find(kinds.begin(), kinds.end(), kind);
    attention_kinds_[i] = int(same - kinds.begin());
    if (same == kinds.end()) kinds.push_back(kind);
  }
  auto variants = Step(*this, {}).variants();
  for (auto& v : page_variants(device_.facts().capability)) variants.push_back(std::move(v));
  AttentionLimits limits;
  limits.rows = bounds_.tokens;
  limits.decode_rows = std::min(bounds_.tokens, bounds_.logits);
  limits.sequences = bounds_.tokens;
  limits.table_pages = layout_->table_words;
  limits.longest = kv_.config().pages * kv_.config().page_tokens;
  // Head sizes without fast kernels: the plain ones do any up to 256.
  const auto or_plain = [&](auto&& f) {
    try {
      f();
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::unsupported) throw;
      for (auto& fused : fused_ropes_) fused = {};
      return false;
    }
    return true;
  };
  const bool fast = !kinds.empty() && or_plain([&] {
    for (auto& v : AttentionEngine::variants(device_.facts(), kv_.config(), kinds, ropes, kAttentionInModels))
      variants.push_back(std::move(v));
  });
  for (auto& v : row_kernel_variants(device_.facts().capability)) variants.push_back(std::move(v));
  kernels_.prepare(unique(variants));  // a missing compiler is no reason for plain kernels
  if (fast)
    or_plain([&] {
      attention_ = std::make_unique<AttentionEngine>(device_, kernels_, kv_.config(), kinds, limits,
                                                     kAttentionInModels);
    });
}

StepResult Executor::run(std::span<const SequenceStep> sequences, program::Trace* trace) {
  return Step(*this, sequences).run(trace);
}

void Executor::begin_stages(std::span<const SequenceStep> sequences, program::Trace* trace) {
  step_ = std::make_unique<Step>(*this, sequences);
  step_->begin(trace);
}
StepResult Executor::run_stage(size_t stage) { return step_->run_stage(stage); }
void Executor::hand_in(Value v, const std::byte* rows) { step_->hand_in(v, rows); }
const std::byte* Executor::hand_out(Value v) { return step_->hand_out(v); }

}  // namespace cairn::cuda
