#include "engine/engine.h"

#include <algorithm>

#include "backends/cpu/executor.h"
#include "backends/cuda/executor.h"
#include "base/error.h"
#include "engine/split_executor.h"
#include "models/fingerprint.h"
#include "program/decode_groups.h"
#include "program/fuse.h"
#include "program/fuse_low_rank.h"

namespace cairn::engine {

namespace {

constexpr double kLongestFinish = 10;  // seconds

models::Model offloaded(models::Model model, int64_t layers) {
  if (layers <= 0) return model;
  model.program = program::keep_on_host(model.program, layers);
  for (const auto& instruction : model.program.instructions)
    if (const auto* group = std::get_if<program::DecodeGroup>(&instruction.operation);
        group && group->on_host)
      for (const auto w : group->weights)
        if (const auto& weight = model.weights[size_t(w.id)];
            weight.codec != codecs::CodecId::bf16 || weight.transposed || weight.pieces.size() != 1)
          fail(ErrorKind::unsupported,
               "{}: weight {} cannot stay in host memory ({}); only single matrices in bf16 or DFloat11 can",
               model.file, model.program.info(w).name, codecs::codec(weight.codec).name);
  return model;
}

}  // namespace

Engine::Engine(models::Model model, const EngineOptions& options)
    : model_(offloaded(std::move(model), options.offload_weights)),
      program_(as_run(model_, options)),
      memory_(plan_memory(model_, options, gpu_)),
      pool_(options.threads) {
  try {
    load(options);
  } catch (const Error& e) {
    // What no plan foresees: a kernel that does not compile, memory that another program took meanwhile.
    const bool user = e.kind() == ErrorKind::cancelled || e.kind() == ErrorKind::invalid_argument;
    if (options.place != Place::automatic || memory_.place != Place::cuda || user) throw;
    const std::string said = e.what();
    executor_.reset();
    kv_.reset();
    EngineOptions on_cpu = options;
    on_cpu.place = Place::cpu;
    memory_ = plan_memory(model_, on_cpu, gpu_);
    memory_.why = said.substr(0, said.find('\n'));
    gpu_.reset();
    load(on_cpu);
  }
}

void Engine::load(const EngineOptions& options) {
  const bool on_gpu = memory_.place == Place::cuda;
  if (!on_gpu) {
    model_.program = program_on_cpu(model_, options);
    program_ = as_run(model_, options);
    if (options.fuse && options.fuse_low_rank && !model_.encoder())
      program_ = program::fuse_low_rank(program_);
  }
  const program::Bounds bounds{memory_.step_tokens, step_logits(model_, options, memory_.step_tokens)};
  kv_ = std::make_unique<kv::KvPool>(
      kv_config(model_, model_.program.kv.size(), memory_.kv_form, options.page_tokens, memory_.cache_tokens),
      on_gpu ? kv::KvPool::Memory::elsewhere : kv::KvPool::Memory::host);
  if (memory_.split) {
    load_split(options, bounds);
    return;
  }
  if (on_gpu) {
    weights_origin_ = "on the GPU";
    executor_ = std::make_unique<cuda::Executor>(program_, model_.weights, pool_, *kv_, bounds, *gpu_,
                                                 cuda::ExecutorOptions{options.exact, options.sequences},
                                                 options.on_load);
    return;
  }
  cpu::Weights weights(program_, model_.weights, model_.checkpoint.files, pool_, options.on_load,
                       options.packed);
  weights_origin_ = weights.origin();
  writer_ = weights.writer(model_.weights, model_.checkpoint.files, options.packed, options.on_packed);
  executor_ = std::make_unique<cpu::Executor>(program_, model_.weights, std::move(weights), pool_, *kv_,
                                              bounds, memory_.context);
}

// The GPU has the main lane's part, the CPU the other. What the CPU packs of a split is not kept on disk: the
// next start may find other room on the GPU, and so another split.
void Engine::load_split(const EngineOptions& options, const program::Bounds& bounds) {
  program::Program placed = model_.program;
  const auto lanes = lanes_of(placed, memory_.split->on_cpu);
  for (size_t i = 0; i < lanes.size(); ++i) placed.instructions[i].lane = lanes[i];
  program_ = options.fuse ? program::fuse(placed) : program::expand(placed);
  uint64_t loaded_before = 0, total = 0;
  const auto progress = [&](const backends::LoadProgress& p) {
    if (total == 0)  // tables are read by the CPU where they lie
      for (const auto& weight : model_.weights)
        for (const auto& piece : weight.pieces) total += piece.all_bytes();
    if (options.on_load) options.on_load({loaded_before + p.done_bytes, total});
    if (p.done_bytes == p.total_bytes) loaded_before += p.done_bytes;
  };
  const auto make = [&](const program::Part& part) {
    const bool on_gpu = part.lane == kGpuLane;
    SplitExecutor::Member member;
    member.kv = std::make_unique<kv::KvPool>(
        kv_config(model_, std::max<size_t>(part.program.kv.size(), 1),
                  on_gpu ? memory_.kv_form : memory_.split->cpu_kv_form, options.page_tokens,
                  part.program.kv.empty() ? 0 : memory_.cache_tokens),
        on_gpu ? kv::KvPool::Memory::elsewhere : kv::KvPool::Memory::host);
    if (on_gpu) {
      member.executor =
          std::make_unique<cuda::Executor>(part.program, model_.weights, pool_, *member.kv, bounds, *gpu_,
                                           cuda::ExecutorOptions{options.exact, options.sequences}, progress);
      return member;
    }
    cpu::Weights weights(part.program, model_.weights, model_.checkpoint.files, pool_, progress);
    weights_origin_ = "on the GPU and " + weights.origin();
    member.executor = std::make_unique<cpu::Executor>(part.program, model_.weights, std::move(weights), pool_,
                                                      *member.kv, bounds, memory_.context);
    return member;
  };
  executor_ = std::make_unique<SplitExecutor>(program::cut_by_lane(program_), *kv_, make);
}

Engine::~Engine() {
  // What was never used may not be worth its room on the disk.
  if (writer_ && scored_) writer_->finish(kLongestFinish);
}

std::string Engine::device_name() const {
  const auto cpu = fmt::format("{} threads, {}", pool_.size(), to_string(active_isa()));
  if (!gpu_) return cpu;
  return memory_.split ? gpu_->facts().name + " and " + cpu : gpu_->facts().name;
}

std::unique_ptr<kv::PageBytes> Engine::page_bytes() {
  auto bytes = executor_->page_bytes();
  return bytes ? std::move(bytes) : kv::host_page_bytes(*kv_);
}

std::string Engine::page_fingerprint() const {
  auto text = models::fingerprint(model_);
  if (memory_.split)
    text += fmt::format(" {} {} {}", memory_.split->on_cpu.layers, memory_.split->on_cpu.experts,
                        to_string(memory_.split->cpu_kv_form));
  return text;
}

// Returns the rows of scores.
int64_t Engine::check(std::span<backends::SequenceStep> sequences) const {
  int64_t tokens = 0, logits = 0;
  for (auto& s : sequences) {
    s.position = s.sequence->length();
    tokens += int64_t(s.tokens.size());
    logits += s.logit_rows;
    if (s.tokens.empty() || s.logit_rows < 0 || s.logit_rows > int64_t(s.tokens.size()))
      fail(ErrorKind::invalid_argument, "a step of {} tokens asks for {} rows of scores", s.tokens.size(),
           s.logit_rows);
    if (model_.encoder() && (s.position != 0 || s.logit_rows != int64_t(s.tokens.size())))
      fail(ErrorKind::invalid_argument,
           "a step has {} tokens of a text from token {} on and asks for {} rows; an encoder reads a text at "
           "once and gives all its rows",
           s.tokens.size(), s.position, s.logit_rows);
    for (const int32_t id : s.tokens)
      if (s.drawn_row < 0 && (id < 0 || id >= model_.vocabulary_size))
        fail(ErrorKind::invalid_argument, "token id {} lies outside the vocabulary of {}", id,
             model_.vocabulary_size);
    if (s.position + int64_t(s.tokens.size()) > model_.context_length)
      fail(ErrorKind::invalid_argument, "{} tokens are more than the model's context of {}",
           s.position + int64_t(s.tokens.size()), model_.context_length);
  }
  if (tokens > bounds().tokens || logits > bounds().logits)
    fail(ErrorKind::invalid_argument,
         "a step of {} tokens and {} rows of scores is larger than planned ({} and {})", tokens, logits,
         bounds().tokens, bounds().logits);
  return logits;
}

// Counts the tokens into the caches, which stay as they were when anything throws.
template <typename F>
void Engine::append_and(std::span<backends::SequenceStep> sequences, F&& run) {
  const int64_t logits = check(sequences);
  size_t appended = 0;
  try {
    for (; appended < sequences.size(); ++appended)
      sequences[appended].sequence->append(int64_t(sequences[appended].tokens.size()));
    if (writer_ && scored_) writer_->start();  // the first token is out
    run();
    scored_ = scored_ || logits > 0;
  } catch (...) {
    for (size_t i = 0; i < appended; ++i) sequences[i].sequence->truncate(sequences[i].position);
    throw;
  }
}

backends::StepResult Engine::step(std::span<backends::SequenceStep> sequences, program::Trace* trace) {
  backends::StepResult result;
  append_and(sequences, [&] { result = executor_->run(sequences, trace); });
  return result;
}

void Engine::enqueue(std::span<backends::SequenceStep> sequences) {
  append_and(sequences, [&] { executor_->enqueue(sequences); });
}

backends::StepResult Engine::feed(kv::Sequence& sequence, std::span<const int32_t> tokens, int64_t logit_rows,
                                  int64_t rope_length, const std::function<void(int64_t)>& on_progress,
                                  program::Trace* trace, backends::RowClass row_class) {
  backends::StepResult result;
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(tokens.size() - done, size_t(bounds().tokens));
    const bool last = done + count == tokens.size();
    backends::SequenceStep one;
    one.sequence = &sequence;
    one.tokens = tokens.subspan(done, count);
    one.logit_rows = last ? logit_rows : 0;
    one.rope_length = rope_length;
    one.row_class = row_class;
    result = step({&one, 1}, trace);
    done += count;
    if (on_progress) on_progress(int64_t(done));
  }
  return result;
}

}  // namespace cairn::engine
