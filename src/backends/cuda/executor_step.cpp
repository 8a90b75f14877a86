#include "backends/cuda/executor_step.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "backends/cuda/step_trace.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::cuda {

using backends::RowClass;
using backends::SequenceStep;
using backends::StepResult;
using program::Value;

Executor::Step::Step(Executor& e, std::span<const SequenceStep> sequences, Slot& slot, bool scores_only)
    : e_(e),
      program_(e.program_),
      sequences_(sequences),
      slot_(slot),
      scores_only_(scores_only),
      launch_(e.kernels_, e.stream_),
      sampler_(e.kernels_) {
  for (const auto& s : sequences) {
    if (!scores_only) {
      draws_ |= s.draw != nullptr;
      feeds_ |= s.drawn_row >= 0 && e.overlaps_;
    }
    sizes_.tokens += int64_t(s.tokens.size());
    sizes_.logits += s.logit_rows;
    if (s.row_class == RowClass::decode) decode_rows_ += int64_t(s.tokens.size());
  }
  assert(sizes_.tokens <= e.bounds_.tokens && sizes_.logits <= e.bounds_.logits);
  Address table = e_.ropes_.address();
  for (const auto& rope : program_.ropes) {
    rope_tables_.push_back(table);
    table += Address(rope_table_bytes(rope, e_.bounds_));
  }
}

std::vector<Variant> Executor::Step::variants() {
  std::vector<Variant> all;
  sizes_ = {2, 1};
  decode_rows_ = sees_ahead(program_) ? 0 : 1;
  collected_ = &all;
  for (const auto& instruction : program_.instructions) {
    if (const auto* embed = std::get_if<program::Embed>(&instruction.operation))
      if (const auto& table = e_.weights_.table(embed->table); table.blocks)
        all.push_back(embed_packed_variant(*table.blocks->form));
    if (std::holds_alternative<program::DecodeGroup>(instruction.operation)) all.push_back(df11_variant({}));
    if (const auto* matmul = std::get_if<program::MatMul>(&instruction.operation)) execute(*matmul);
    if (const auto* gated = std::get_if<program::GatedMatMul>(&instruction.operation)) execute(*gated);
    if (const auto* logits = std::get_if<program::Logits>(&instruction.operation)) execute(*logits);
    if (const auto* experts = std::get_if<program::ExpertMatMul>(&instruction.operation)) execute(*experts);
  }
  return all;
}

void Executor::Step::begin(program::Trace* trace) {
  trace_ = trace;
  const double start = steady_seconds();
  upload_inputs();
  if (!trace) e_.times_.prepare += steady_seconds() - start;
}

void Executor::Step::enqueue(size_t index) {
  const program::Stage stage = e_.stage(index);
  const double start = steady_seconds();
  after_copy_ = true;
  Graph* graph = nullptr;
  if (only_answers() && !trace_) {
    const Shape shape{int64_t(index), sizes_.tokens, sizes_.logits,
                      draws_ + 2 * feeds_ + 4 * e_.measure_idle_ +
                          8 * int64_t(e_.attention_ ? e_.attention_->launches() : 0)};
    graph = &e_.graphs_[shape];
    // The first step of a shape runs as it is (kernels are found, memory is warm), the second is recorded.
    if (!*graph && !e_.graphs_seen_.insert(shape).second)
      *graph = Graph::capture(e_.stream_, [&] { launch_stage(stage); });
  }
  if (trace_)
    run_traced(stage);
  else if (graph && *graph)
    graph->launch(e_.stream_);
  else
    launch_stage(stage);
  if (is_last(stage)) download();
  slot_.done->record(e_.stream_);
  slot_.result = result(is_last(stage));
  slot_.timed = e_.measure_idle_ && !trace_;
  if (!trace_) e_.times_.add({is_last(stage) ? 1 : 0, 0, steady_seconds() - start, 0, 0});
}

StepResult Executor::Step::run(size_t stage) {
  enqueue(stage);
  const double start = steady_seconds();
  e_.stream_.synchronize();
  if (!trace_) e_.times_.wait += steady_seconds() - start;
  return slot_.result;
}

void Executor::Step::hand_in(Value v, const std::byte* rows) {
  if (count(v) == 0) return;
  e_.handover_.fill_in(v, rows, order_of(v), row_bytes(v));
  e_.stream_.mark("rows from another part");
  e_.stream_.upload(at(v).address, e_.handover_.in(v), size_t(count(v)) * 4);
}

const std::byte* Executor::Step::hand_out(Value v) {
  return e_.handover_.take_out(v, order_of(v), row_bytes(v));
}

StepResult Executor::Step::result(bool scored) const {
  StepResult r;
  r.rows = sizes_.logits;
  if (!scored || sizes_.logits == 0) return r;
  if (program_.logits) r.vocabulary = width(program_.logits);
  if (program_.hidden) r.dim = width(program_.hidden);
  auto* logits = slot_.results.as<float>();
  if (program_.logits) r.logits = logits;
  if (program_.hidden && decode_rows_ < sizes_.tokens) r.hidden = logits + logits_words();
  r.tokens = slot_.tokens.as<int32_t>();
  return r;
}

size_t Executor::Step::row_bytes(Value v) const {
  return size_t(program_.info(v).shape.front().size * width(v)) * 4;
}

RowOrder Executor::Step::order_of(Value v) const {
  if (program_.info(v).shape.front().symbol == program::Symbol::tokens) return rows_;
  return {{0}, {sizes_.logits}, true};
}

Operand Executor::Step::at(Value v) const {
  if (v == program_.ids) return {input(e_.layout_.ids)};
  if (v == program_.positions) return {input(e_.layout_.positions)};
  if (v == program_.logit_rows) return {input(e_.layout_.logit_rows)};
  return {e_.arena_.address() + Address(e_.plan_.offsets[size_t(v.id)]), e_.elements_[size_t(v.id)]};
}

// Rows of class decode come first; scores keep the caller's order.
void Executor::Step::upload_inputs() {
  auto* words = slot_.inputs.as<int32_t>();
  const InputLayout& in = e_.layout_;
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
        words[in.from + row] = feeds_ ? int32_t(s.drawn_row) : -1;
        if (s.drawn_row >= 0 && !feeds_ && !scores_only_)  // known: the step before has been waited for
          words[in.ids + row] = std::max(e_.under_way_.back()->tokens.as<int32_t>()[s.drawn_row], int32_t{0});
        words[in.positions + row] = int32_t(s.position + int64_t(t));
        words[in.sequence_of + row] = int32_t(sequence);
      }
      const auto table = s.sequence->block_table();
      if (page + int64_t(table.size()) > in.table_words)
        fail(ErrorKind::invalid_argument, "the sequences of a step have {} pages and more; {} were planned",
             page + int64_t(table.size()), in.table_words);
      words[in.starts + sequence] = int32_t(page);
      words[in.lengths + sequence] = int32_t(s.position + int64_t(s.tokens.size()));
      attention_plan_.sequences.push_back(
          {first_row[i], int32_t(s.tokens.size()), s.position, s.position + int64_t(s.tokens.size()), table});
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
  if (draws_) describe_draws();
  e_.stream_.upload(input(in.ids), words + in.ids, size_t(in.tables + page - in.ids) * 4);
  if (e_.attention_) {
    e_.attention_->plan(attention_plan_, classes_);
    e_.attention_->upload(e_.stream_);
  }
  for (size_t i = 0; i < program_.instructions.size(); ++i)
    if (const auto* op = std::get_if<program::Embed>(&program_.instructions[i].operation))
      decode_embeddings(*op, e_.embeddings_.data() + e_.decoded_at_[i]);
}

void Executor::Step::describe_draws() {
  const InputLayout& in = e_.layout_;
  auto* words = slot_.inputs.as<int32_t>();
  auto* rows = reinterpret_cast<RowDraw*>(words + in.draws);
  auto* edits = reinterpret_cast<text::Edit*>(words + in.edits);
  int32_t count = 0;
  for (const auto& s : sequences_) {
    for (int64_t r = 0; r < s.logit_rows; ++r) *rows++ = s.draw ? row_draw(*s.draw, count, -1) : RowDraw{};
    if (!s.draw) continue;
    assert(s.logit_rows == 1 && e_.draws(*s.draw));
    std::copy(s.draw->edits.begin(), s.draw->edits.end(), edits + count);
    count += int32_t(s.draw->edits.size());
  }
  e_.stream_.upload(input(in.edits), edits, size_t(count) * sizeof(text::Edit));
}

// Rows of a table that the device does not hold are decoded here and travel with the step.
void Executor::Step::decode_embeddings(const program::Embed& op, std::byte* room) {
  const auto& table = e_.weights_.table(op.table);
  if (table.on_device()) return;
  assert(e_.elements_[size_t(op.y.id)] == Element::f32);
  const int32_t* ids =
      slot_.inputs.as<int32_t>() + (op.ids == program_.positions ? e_.layout_.positions : e_.layout_.ids);
  const auto& codec = codecs::codec(table.stored->codec);
  const auto row_bytes = *codecs::row_bytes(codec, uint64_t(table.cols));
  auto* to = reinterpret_cast<float*>(room);
  for (int64_t t = 0; t < sizes_.tokens; ++t) {
    float* y = to + t * table.cols;
    const int64_t row = (op.ids ? ids[t] : 0) + op.offset;
    codec.decode(table.stored->pieces[0].data + uint64_t(row) * row_bytes, y, table.cols);
    if (op.scale != 1)
      for (int64_t i = 0; i < table.cols; ++i) y[i] *= op.scale;
  }
}

void Executor::Step::launch_stage(const program::Stage& stage) {
  if (stage.begin == 0) prepare();
  for (int32_t i = stage.begin; i < stage.end; ++i) launch(size_t(i));
  finish_stage(stage);
}

void Executor::Step::prepare() {
  e_.stream_.mark("the step's inputs");
  launch_.overlap = false;
  if (e_.measure_idle_ && !trace_) sampler_.note_time(e_.stream_, e_.clock_.address());
  if (feeds_)
    sampler_.take_drawn(e_.stream_, input(e_.layout_.ids), input(e_.layout_.from), e_.drawn_.address(),
                        sizes_.tokens, false);
  for (size_t r = 0; r < program_.ropes.size(); ++r) {
    const int64_t half = program_.ropes[r].rotary_dim / 2, own = e_.layout_.rope_frequencies[r];
    launch_.rope_table(input(e_.layout_.positions), own < 0 ? 0 : input(e_.layout_.sequence_of),
                       own < 0 ? e_.frequencies_[r] : input(own), rope_tables_[r], sizes_.tokens, half);
  }
}

void Executor::Step::launch(size_t index) {
  const auto& instruction = program_.instructions[index];
  e_.stream_.mark(instruction.name.c_str());
  instruction_ = index;
  converted_of_ = {};
  // Only a kernel can be overlapped by the next one, not a copy; in a trace an instruction's time is its
  // own.
  // Kernels of a step of new tokens are short: each starts while the one ahead of it ends (253 instead of
  // 225 tokens a second, Llama 8B on one H200). A prompt's are long, and lose a few percent by it.
  launch_.overlap = decode_rows_ == sizes_.tokens && !after_copy_ && !trace_;
  after_copy_ = false;
  std::visit([&](const auto& op) { execute(op); }, instruction.operation);
  static const bool careful = std::getenv("CAIRN_CUDA_SYNC") != nullptr;
  if (careful) e_.stream_.synchronize();
}

// What the stage hands on is copied with it.
void Executor::Step::finish_stage(const program::Stage& stage) {
  if (!stage.out.empty()) e_.stream_.mark("rows for another part");
  for (const Value v : stage.out) {
    assert(e_.elements_[size_t(v.id)] == Element::f32);
    if (count(v) > 0) e_.stream_.download(e_.handover_.out(v), at(v).address, size_t(count(v)) * 4);
  }
  if (!is_last(stage)) return;
  if (draws_) draw();
  if (e_.measure_idle_ && !trace_) sampler_.note_time(e_.stream_, e_.clock_.address() + 8);
}

// Tokens of the rows that are drawn, for the host and for the next step's inputs.
void Executor::Step::draw() {
  e_.stream_.mark("drawing tokens");
  const InputLayout& in = e_.layout_;
  SampleCall c;
  c.scores = at(program_.logits).address;
  c.rows = sizes_.logits, c.vocabulary = width(program_.logits);
  c.draws = input(in.draws), c.edits = input(in.edits);
  c.ids = input(in.ids), c.logit_rows = input(in.logit_rows);
  c.tokens = e_.drawn_.address();
  c.overlap_previous = launch_.overlap;
  sampler_.sample(e_.stream_, c);
}

// Not part of a graph: which rows' scores are wanted changes from step to step.
void Executor::Step::download() {
  if (e_.measure_idle_ && !trace_)
    e_.stream_.download(slot_.tokens.as<int32_t>() + e_.clock_word(), e_.clock_.address(), 16);
  if (sizes_.logits == 0 || (!program_.logits && !program_.hidden)) return;
  e_.stream_.mark("the step's results");
  if (program_.logits) download_scores();
  if (decode_rows_ == sizes_.tokens || !program_.hidden) return;
  const Operand hidden = at(program_.hidden);
  Address from = hidden.address;
  const int64_t words = count(program_.hidden);
  if (hidden.element != Element::f32) {
    from = e_.hidden_.address();
    launch_.overlap = false;
    launch_.convert(hidden, {from, Element::f32}, words);
  }
  e_.stream_.download(slot_.results.as<float>() + logits_words(), from, size_t(words) * 4);
}

// Scores of rows that are not drawn, those that lie together at once; of the others the tokens.
void Executor::Step::download_scores() {
  const int64_t row_words = width(program_.logits);
  int64_t row = 0, first = 0;
  const auto send = [&](int64_t end) {
    if (end > first)
      e_.stream_.download(slot_.results.as<float>() + first * row_words,
                          at(program_.logits).address + Address(first * row_words) * 4,
                          size_t((end - first) * row_words) * 4);
  };
  for (const auto& s : sequences_) {
    if (s.draw && !scores_only_) send(row), first = row + s.logit_rows;
    row += s.logit_rows;
  }
  send(row);
  if (draws_) e_.stream_.download(slot_.tokens.data(), e_.drawn_.address(), size_t(sizes_.logits) * 4);
}

void Executor::Step::run_traced(const program::Stage& stage) {
  program::StepSizes sizes;
  sizes.tokens = sizes_.tokens, sizes.logits = sizes_.logits, sizes.sequences = int64_t(sequences_.size());
  sizes.context = sequences_.empty() ? 0 : sequences_.front().position;
  sizes.kv_bytes_per_element_x16 = kv::bytes_per_element_x16(e_.kv_.config());
  const auto first = size_t(stage.begin), count = size_t(stage.end - stage.begin);
  if (first == 0) prepare();
  e_.stream_.synchronize();
  StepTrace times(e_.stream_, *trace_, first, count);
  for (size_t i = first; i < first + count; ++i) times.instruction([&] { launch(i); });
  finish_stage(stage);
  e_.stream_.synchronize();
  times.finish([&](size_t i) {
    const auto& instruction = program_.instructions[i];
    return program::TraceRecord{int32_t(i), instruction.lane, 0, 0, 0, work(program_, instruction, sizes)};
  });
}

}  // namespace cairn::cuda
