#include "backends/cuda/executor.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <future>
#include <optional>

#include "backends/cuda/executor_step.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::cuda {
namespace {

using backends::RowClass;
using backends::SequenceStep;
using backends::StepResult;
using program::Program;
using program::Value;
using program::Weight;

// Gate and up of the widest gated product, before they are combined.
int64_t gated_bytes(const Program& program, const program::Bounds& bounds) {
  int64_t bytes = 0;
  for (const auto& instruction : program.instructions)
    if (const auto* op = std::get_if<program::GatedMatMul>(&instruction.operation))
      bytes = std::max(bytes,
                       2 * round_up(bounds.of(program.info(op->y).shape.front()) * program.width(op->y) * 4,
                                    kArenaAlignment));
  return bytes;
}

std::vector<Variant> unique(const std::vector<Variant>& variants) {
  std::vector<Variant> once;
  for (const auto& v : variants)
    if (std::find(once.begin(), once.end(), v) == once.end()) once.push_back(v);
  return once;
}

}  // namespace

Element plain_cache_element(const kv::KvConfig& config) {
  switch (config.form) {
    case kv::KvForm::f32: return Element::f32;
    case kv::KvForm::bf16: return Element::bf16;
    default:
      fail(ErrorKind::unsupported, "a KV cache of {} is not supported on the GPU; use bf16",
           to_string(config.form));
  }
}

ExecutorNeeds executor_needs(const Program& program, std::span<const codecs::StoredWeight> stored,
                             const kv::KvConfig& kv, const program::Bounds& bounds,
                             const ExecutorOptions& options) {
  ExecutorNeeds needs;
  needs.weights = ModelWeights::bytes_needed(program, stored, {options.exact});
  needs.kv = device_kv_bytes(kv);
  needs.scratch = uint64_t(plan_arena(program, bounds).bytes + gated_bytes(program, bounds));
  for (const auto& rope : program.ropes)
    needs.scratch += uint64_t(bounds.tokens * rope.rotary_dim * 4 + kArenaAlignment);
  needs.scratch += uint64_t(4 * kv.pages + 8 * bounds.tokens) * 4;
  if (!options.exact) needs.scratch += ExpertRoom::sizes(program, bounds).bytes();
  needs.scratch += uint64_t(bounds.logits) *
                   (sizeof(RowDraw) + sizeof(text::Edit) * uint64_t(Executor::most_edits(bounds)));
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
  const int64_t vocabulary = program.logits ? program.width(program.logits) : 0,
                dim = program.hidden ? program.width(program.hidden) : 0;
  for (Slot& slot : slots_) {
    slot.inputs = PinnedBuffer(device, size_t(layout_->words) * 4);
    slot.results = PinnedBuffer(device, size_t(bounds.logits * (vocabulary + dim)) * 4);
    slot.tokens = PinnedBuffer(device, size_t(bounds.logits + 6) * 4);
    slot.done.emplace(device);
  }
  drawn_ = Buffer(device, size_t(bounds.logits) * 4);
  stream_.fill(drawn_.address(), 0, drawn_.size());
  clock_ = Buffer(device, 16);
  hidden_ = Buffer(device, size_t(bounds.logits * dim) * 4);

  int64_t rope_bytes = 0, embedding_bytes = 0;
  std::vector<float> constants;
  std::vector<size_t> frequency_offsets, slope_offsets;
  for (const auto& rope : program.ropes) {
    frequency_offsets.push_back(constants.size());
    rope_bytes += round_up(bounds.tokens * rope.rotary_dim * 4, kArenaAlignment);
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
        op && !weights_.table(op->table).on_device()) {
      overlaps_ = false;
      embedding_bytes = std::max(embedding_bytes, bounds.tokens * program.width(op->y) * 4);
    }
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
    plain_cache_element(kv.config());  // refuses forms that only the attention engine has
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
  auto variants = Step(*this, {}, slots_[0], true).variants();
  for (auto& v : page_variants(device_.facts().capability)) variants.push_back(std::move(v));
  for (auto& v : sample_stock(device_.facts().capability)) variants.push_back(std::move(v));
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

program::Stage Executor::stage(size_t index) const {
  if (!program_.stages.empty()) return program_.stages[index];
  return {0, int32_t(program_.instructions.size()), {}, {}};
}

StepResult Executor::run(std::span<const SequenceStep> sequences, program::Trace* trace) {
  assert(under_way_.empty());
  Step step(*this, sequences, slots_[next_slot_], true);
  step.begin(trace);
  return step.run(0);
}

void Executor::enqueue(std::span<const SequenceStep> sequences) {
  assert(under_way_.size() < std::size(slots_));
  if (!overlaps_ && !under_way_.empty()) under_way_.back()->done->synchronize();
  Slot& slot = slots_[next_slot_];
  Step step(*this, sequences, slot, false);
  step.begin(nullptr);
  step.enqueue(0);
  under_way_.push_back(&slot);
  next_slot_ = 1 - next_slot_;
}

StepResult Executor::finish() {
  assert(!under_way_.empty());
  Slot& slot = *under_way_.front();
  under_way_.erase(under_way_.begin());
  const double start = steady_seconds();
  try {
    slot.done->synchronize();
  } catch (const Error&) {
    stream_.synchronize();  // fails too, and says more
    throw;
  }
  times_.wait += steady_seconds() - start;
  if (slot.timed) {
    uint64_t clock[2];
    std::memcpy(clock, slot.tokens.as<int32_t>() + clock_word(), sizeof clock);
    if (last_end_ != 0 && clock[0] > last_end_) times_.idle += 1e-9 * double(clock[0] - last_end_);
    last_end_ = clock[1];
  }
  return slot.result;
}

bool Executor::draws(const text::Draw& how) const {
  return cuda::draws(how) && how.mask.empty() && int64_t(how.edits.size()) <= most_edits(bounds_);
}

void Executor::begin_stages(std::span<const SequenceStep> sequences, program::Trace* trace) {
  step_ = std::make_unique<Step>(*this, sequences, slots_[next_slot_], true);
  step_->begin(trace);
}
StepResult Executor::run_stage(size_t stage) { return step_->run(stage); }
void Executor::hand_in(Value v, const std::byte* rows) { step_->hand_in(v, rows); }
const std::byte* Executor::hand_out(Value v) { return step_->hand_out(v); }

}  // namespace cairn::cuda
