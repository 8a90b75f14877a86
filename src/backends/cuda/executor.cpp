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
                             const ExecutorOptions& options, const DeviceFacts* facts) {
  const WeightForms weights(program, stored, {options.exact});
  return {weights.bytes(), device_kv_bytes(kv),
          work_space(program, weights, kv, bounds, options, facts).bytes()};
}

Executor::Executor(const Program& program, std::span<const codecs::StoredWeight> stored, ThreadPool& pool,
                   kv::KvPool& kv, const program::Bounds& bounds, const Device& device,
                   const ExecutorOptions& options,
                   const std::function<void(const backends::LoadProgress&)>& on_load)
    : program_(program),
      kv_(kv),
      bounds_(bounds),
      device_(device),
      options_(options),
      kernels_(device),
      stream_(device),
      weights_(program, stored, device, {options.exact}),
      elements_(element_types(program, options.exact)),
      plan_(plan_arena(program, bounds)),
      layout_(program, bounds, kv.config().pages),
      space_(work_space(program, weights_, kv.config(), bounds, options, &device.facts())) {
  arena_ = Buffer(device, size_t(space_.values));
  gated_ = Buffer(device, size_t(space_.gated));
  kv_memory_ = Buffer(device, size_t(device_kv_bytes(kv.config())));
  inputs_ = Buffer(device, size_t(space_.inputs));
  const int64_t vocabulary = program.logits ? program.width(program.logits) : 0,
                dim = program.hidden ? program.width(program.hidden) : 0;
  for (Slot& slot : slots_) {
    slot.inputs = PinnedBuffer(device, size_t(layout_.words) * 4);
    slot.results = PinnedBuffer(device, size_t(bounds.logits * (vocabulary + dim)) * 4);
    slot.tokens = PinnedBuffer(device, size_t(bounds.logits + 6) * 4);
    slot.done.emplace(device);
  }
  drawn_ = Buffer(device, size_t(space_.drawn - kClockBytes));
  stream_.fill(drawn_.address(), 0, drawn_.size());
  clock_ = Buffer(device, kClockBytes);
  hidden_ = Buffer(device, size_t(space_.hidden));

  int64_t embedding_bytes = 0;
  std::vector<float> constants;
  std::vector<size_t> frequency_offsets, slope_offsets;
  for (const auto& rope : program.ropes) {
    frequency_offsets.push_back(constants.size());
    const auto f = rope_frequencies(rope.scaling, rope.theta, int(rope.rotary_dim), 0, rope.max_position);
    constants.insert(constants.end(), f.inverse_frequencies.begin(), f.inverse_frequencies.end());
    constants.push_back(f.attention_factor);
  }
  for (const auto& instruction : program.instructions) {
    slope_offsets.push_back(SIZE_MAX);
    decoded_at_.push_back(0);
    if (const auto* op = std::get_if<program::Attention>(&instruction.operation); op && op->alibi) {
      slope_offsets.back() = constants.size();
      const auto slopes = program::alibi_slopes(op->heads);
      constants.insert(constants.end(), slopes.begin(), slopes.end());
    }
    if (const auto* op = std::get_if<program::Embed>(&instruction.operation);
        op && !weights_.table(op->table).on_device()) {
      overlaps_ = false;
      decoded_at_.back() = embedding_bytes;
      embedding_bytes += bounds.tokens * program.width(op->y) * 4;
    }
  }
  ropes_ = Buffer(device, size_t(space_.ropes));
  embeddings_ = PinnedBuffer(device, size_t(embedding_bytes));
  constants_ = Buffer(device, size_t(space_.constants));
  assert(constants.size() * 4 == space_.constants);
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

int64_t Executor::table_pages() const { return layout_.table_words; }

uint64_t Executor::scratch_bytes() const { return space_.bytes(); }

bool Executor::gated_together(const program::GatedMatMul& op) const {
  return weights_.is_packed(op.gate) && weights_.is_packed(op.up) &&
         weights_.packed(op.gate).form == weights_.packed(op.up).form;
}

void Executor::prepare_fast_kernels() {
  unpacked_ = Buffer(device_, 2 * space_.unpacked_half);
  quantized_ = Buffer(device_, space_.quantized);
  scratch_ = {
      .data = unpacked_.address(), .half_bytes = space_.unpacked_half, .quantized = quantized_.address()};
  converted_ = Buffer(device_, size_t(space_.converted));
  expert_room_ = ExpertRoom(device_, space_.experts);
  expert_roles_ = expert_roles(program_, weights_);

  const std::vector<AttentionKind> kinds = attention_kinds(program_);
  std::vector<RopeKind> ropes;
  attention_kinds_.assign(program_.instructions.size(), -1);
  fused_ropes_ = find_fused_ropes(program_);
  for (size_t i = 0; i < program_.instructions.size(); ++i) {
    if (fused_ropes_[i].q)
      ropes.push_back({int(fused_ropes_[i].q->rotary_dim), fused_ropes_[i].q->pairing});
    else if (std::holds_alternative<program::KvWrite>(program_.instructions[i].operation))
      ropes.push_back({});
    if (const auto* op = std::get_if<program::Attention>(&program_.instructions[i].operation))
      attention_kinds_[i] = int(std::find(kinds.begin(), kinds.end(), kind_of(*op)) - kinds.begin());
  }
  auto variants = Step(*this, {}, slots_[0], true).variants();
  for (auto& v : page_variants(device_.facts().capability)) variants.push_back(std::move(v));
  for (auto& v : sample_stock(device_.facts().capability)) variants.push_back(std::move(v));
  const AttentionLimits limits = attention_limits(program_, kv_.config(), bounds_, layout_);
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
