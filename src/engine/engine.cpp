#include "engine/engine.h"

#include <algorithm>

#include "backends/cpu/executor.h"
#include "backends/cuda/executor.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/system_memory.h"
#include "program/fuse.h"

namespace cairn::engine {
namespace {

// Left to the rest of the process and machine: threads' stacks, tokenizer, text.
constexpr uint64_t kReserve = uint64_t{64} << 20;

constexpr double kLongestFinish = 10;  // seconds
// Left on a GPU to its driver, to compiled kernels and to what other programs take meanwhile.
constexpr uint64_t kGpuReserve = uint64_t{512} << 20;

// Without being asked, a KV cache is not made longer than this: a 128K-token window would take gigabytes that
// a chat never uses.
constexpr int64_t kDefaultContext = 8192;

kv::KvConfig kv_config(const models::Model& model, kv::KvForm form, int page_tokens, int64_t tokens) {
  const auto& slots = model.program.kv;
  for (const auto& slot : slots)
    if (slot.kv_heads != slots.front().kv_heads || slot.head_dim_k != slots.front().head_dim_k ||
        slot.head_dim_v != slots.front().head_dim_v)
      fail(ErrorKind::unsupported, "{}: layers with different KV head counts or sizes are not supported",
           model.file);
  kv::KvConfig config;
  config.layers = int(slots.size());
  config.kv_heads = int(slots.front().kv_heads);
  config.head_dim_k = int(slots.front().head_dim_k);
  config.head_dim_v = int(slots.front().head_dim_v);
  config.page_tokens = page_tokens;
  config.form = form;
  config.pages = ceil_div(tokens, page_tokens);
  return config;
}

// What one place costs: everything that does not depend on the cache's length, and the cache's bytes.
struct PlaceNeeds {
  uint64_t weights = 0, scratch = 0, available = 0;
  kv::KvForm kv_form = kv::KvForm::f16;
  int64_t step_tokens = 0;
};

PlaceNeeds needs_on_cpu(const models::Model& model, const EngineOptions& options) {
  const int threads = options.threads > 0 ? options.threads : ThreadPool::available_cores();
  PlaceNeeds needs;
  needs.kv_form = options.kv_form.value_or(kv::KvForm::f16);
  needs.step_tokens = options.step_tokens != 0 ? options.step_tokens : 512;
  needs.available = options.memory_limit != 0 ? options.memory_limit : system_memory().available;
  needs.weights = cpu::Weights::bytes_needed(model.program, model.weights);
  needs.scratch = cpu::executor_needs(model.program, model.weights, {needs.step_tokens, options.step_logits},
                                      model.context_length, threads)
                      .bytes(threads) +
                  kReserve;
  return needs;
}

PlaceNeeds needs_on_gpu(const models::Model& model, const EngineOptions& options, const cuda::Device& gpu) {
  PlaceNeeds needs;
  needs.kv_form = options.kv_form.value_or(options.exact ? kv::KvForm::f32 : kv::KvForm::bf16);
  needs.step_tokens = options.step_tokens != 0 ? options.step_tokens : 2048;
  needs.available = options.memory_limit != 0 ? options.memory_limit : gpu.free_bytes();
  const auto bytes = cuda::executor_needs(
      model.program, model.weights, kv_config(model, needs.kv_form, options.page_tokens, options.page_tokens),
      {needs.step_tokens, options.step_logits}, {options.exact});
  needs.weights = bytes.weights;
  needs.scratch = bytes.scratch + kGpuReserve;
  return needs;
}

MemoryPlan plan_place(const models::Model& model, const EngineOptions& options, Place place,
                      const PlaceNeeds& needs) {
  MemoryPlan plan;
  plan.place = place;
  plan.available = needs.available;
  plan.weights = needs.weights;
  plan.scratch = needs.scratch;
  plan.kv_form = needs.kv_form;
  plan.step_tokens = needs.step_tokens;
  const auto kv_bytes = [&](int64_t tokens) {
    return uint64_t(kv::KvPool::bytes(kv_config(model, needs.kv_form, options.page_tokens, tokens)));
  };
  // The most cached tokens within what is left; kv_bytes grows by whole pages.
  const uint64_t page = kv_bytes(options.page_tokens);
  const uint64_t fixed = plan.weights + plan.scratch;
  const int64_t fitting =
      plan.available == 0
          ? INT64_MAX / options.page_tokens * options.page_tokens
          : int64_t(plan.available > fixed ? (plan.available - fixed) / page : 0) * options.page_tokens;
  const int64_t wanted =
      options.context != 0 ? options.context : std::min(model.context_length, kDefaultContext);
  const int64_t cached = options.cache_tokens != 0 ? options.cache_tokens : wanted;
  // Only a context that nobody asked for shrinks by itself.
  const bool flexible = options.context == 0 && options.cache_tokens == 0;
  plan.cache_tokens = flexible ? std::min(cached, fitting) : cached;
  plan.context = std::min(wanted, plan.cache_tokens);
  if (options.cache_tokens == 0 && options.sequences > 1 && fitting > plan.cache_tokens) {
    // Host memory is shared with everything else that runs.
    const int64_t more = (fitting - plan.cache_tokens) / (place == Place::cuda ? 1 : 2);
    plan.cache_tokens += std::min(more, (options.sequences - 1) * plan.context);
  }
  if (plan.cache_tokens < 1 || fitting < plan.cache_tokens) {
    const uint64_t kv = kv_bytes(std::max<int64_t>(cached, 1));
    fail(ErrorKind::out_of_memory,
         "{} needs {} bytes{} (weights {}, KV cache of {} tokens {}, work space {}), {} are available; {}",
         model.file, fixed + kv, place == Place::cuda ? " of GPU memory" : "", plan.weights, cached, kv,
         plan.scratch, plan.available,
         fitting > 0 ? fmt::format("a context of {} tokens or less fits", fitting)
                     : "take a model with fewer bits per weight or fewer parameters, or free memory");
  }
  plan.kv = kv_bytes(plan.cache_tokens);
  return plan;
}

}  // namespace

std::string_view to_string(Place place) {
  constexpr std::string_view kNames[] = {"auto", "cpu", "cuda"};
  return kNames[size_t(place)];
}

// The plan, and the GPU it was made for, which stays open: opening one takes a few hundred milliseconds.
static MemoryPlan plan_memory_on(const models::Model& model, const EngineOptions& options,
                                 std::unique_ptr<cuda::Device>& gpu) {
  if (options.step_tokens < 0 || options.step_logits < 1)
    fail(ErrorKind::invalid_argument, "step_tokens is {} and step_logits {}; both must be at least 1",
         options.step_tokens, options.step_logits);
  if (options.page_tokens < 1 || options.page_tokens > 1024 ||
      (options.page_tokens & (options.page_tokens - 1)) != 0)
    fail(ErrorKind::invalid_argument,
         "a page of {} tokens was asked for; it must be a power of two up to 1024", options.page_tokens);
  if (options.sequences < 1 || options.sequences > 65536)
    fail(ErrorKind::invalid_argument,
         "a cache for {} sequences was asked for; it must lie between 1 and 65536", options.sequences);
  if (options.context < 0 || options.context > model.context_length)
    fail(ErrorKind::invalid_argument, "a context of {} tokens was asked for; {} was made for 1 to {}",
         options.context, model.file, model.context_length);
  std::string why;
  if (options.place != Place::cpu) {
    try {
      gpu = std::make_unique<cuda::Device>(0);
      cuda::require_kernel_source(gpu->facts());
      return plan_place(model, options, Place::cuda, needs_on_gpu(model, options, *gpu));
    } catch (const Error& e) {
      gpu.reset();
      if (options.place == Place::cuda) throw;
      why = e.what();
    }
  }
  auto plan = plan_place(model, options, Place::cpu, needs_on_cpu(model, options));
  plan.why = why;
  return plan;
}

MemoryPlan plan_memory(const models::Model& model, const EngineOptions& options) {
  std::unique_ptr<cuda::Device> gpu;
  return plan_memory_on(model, options, gpu);
}

Engine::Engine(models::Model model, const EngineOptions& options)
    : model_(std::move(model)),
      program_(options.fuse ? program::fuse(model_.program) : program::expand(model_.program)),
      memory_(plan_memory_on(model_, options, gpu_)),
      pool_(options.threads) {
  const bool on_gpu = memory_.place == Place::cuda;
  const program::Bounds bounds{memory_.step_tokens, options.step_logits};
  kv_ = std::make_unique<kv::KvPool>(
      kv_config(model_, memory_.kv_form, options.page_tokens, memory_.cache_tokens),
      on_gpu ? kv::KvPool::Memory::elsewhere : kv::KvPool::Memory::host);
  if (on_gpu) {
    weights_origin_ = "on the GPU";
    executor_ = std::make_unique<cuda::Executor>(program_, model_.weights, pool_, *kv_, bounds, *gpu_,
                                                 cuda::ExecutorOptions{options.exact}, options.on_load);
    return;
  }
  cpu::Weights weights(program_, model_.weights, model_.checkpoint.files, pool_, options.on_load,
                       options.packed);
  weights_origin_ = weights.origin();
  writer_ = weights.writer(model_.weights, model_.checkpoint.files, options.packed, options.on_packed);
  executor_ = std::make_unique<cpu::Executor>(program_, model_.weights, std::move(weights), pool_, *kv_,
                                              bounds, memory_.context);
}

Engine::~Engine() {
  // What was never used may not be worth its room on the disk.
  if (writer_ && scored_) writer_->finish(kLongestFinish);
}

std::string Engine::device_name() const {
  return gpu_ ? gpu_->facts().name : fmt::format("{} threads, {}", pool_.size(), to_string(active_isa()));
}

std::unique_ptr<kv::PageBytes> Engine::page_bytes() {
  auto bytes = executor_->page_bytes();
  return bytes ? std::move(bytes) : kv::host_page_bytes(*kv_);
}

backends::StepResult Engine::step(std::span<backends::SequenceStep> sequences, program::Trace* trace) {
  int64_t tokens = 0, logits = 0;
  for (auto& s : sequences) {
    s.position = s.sequence->length();
    tokens += int64_t(s.tokens.size());
    logits += s.logit_rows;
    if (s.tokens.empty() || s.logit_rows < 0 || s.logit_rows > int64_t(s.tokens.size()))
      fail(ErrorKind::invalid_argument, "a step of {} tokens asks for {} rows of scores", s.tokens.size(),
           s.logit_rows);
    for (const int32_t id : s.tokens)
      if (id < 0 || id >= model_.vocabulary_size)
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
  size_t appended = 0;
  try {
    for (; appended < sequences.size(); ++appended)
      sequences[appended].sequence->append(int64_t(sequences[appended].tokens.size()));
    if (writer_ && scored_) writer_->start();  // the first token is out
    const auto result = executor_->run(sequences, trace);
    scored_ = scored_ || logits > 0;
    return result;
  } catch (...) {
    for (size_t i = 0; i < appended; ++i) sequences[i].sequence->truncate(sequences[i].position);
    throw;
  }
}

backends::StepResult Engine::feed(kv::Sequence& sequence, std::span<const int32_t> tokens, int64_t logit_rows,
                                  int64_t rope_length, const std::function<void(int64_t)>& on_progress,
                                  program::Trace* trace, backends::RowClass row_class) {
  backends::StepResult result;
  for (size_t done = 0; done < tokens.size();) {
    const size_t count = std::min(tokens.size() - done, size_t(bounds().tokens));
    const bool last = done + count == tokens.size();
    backends::SequenceStep one{&sequence,   0,        tokens.subspan(done, count), last ? logit_rows : 0,
                               rope_length, row_class};
    result = step({&one, 1}, trace);
    done += count;
    if (on_progress) on_progress(int64_t(done));
  }
  return result;
}

}  // namespace cairn::engine
