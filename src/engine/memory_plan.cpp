#include "engine/memory_plan.h"

#include <algorithm>

#include "backends/cpu/executor.h"
#include "backends/cuda/executor.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/read_bandwidth.h"
#include "base/system_memory.h"
#include "base/thread_pool.h"
#include "program/fuse.h"
#include "program/fuse_low_rank.h"

namespace cairn::engine {
namespace {

// Left to the rest of the process and machine: threads' stacks, tokenizer, text.
constexpr uint64_t kReserve = uint64_t{64} << 20;

// Left on a GPU to its driver, to kernels and graphs, and to what other programs take meanwhile.
constexpr uint64_t kGpuReserve = uint64_t{512} << 20;

// Of host memory whose read speed is measured for a split: past the caches of most processors.
constexpr uint64_t kMeasuredBytes = uint64_t{1} << 30;

// Without being asked, a KV cache is not made longer than this: a 128K-token window would take gigabytes that
// a chat never uses.
constexpr int64_t kDefaultContext = 8192;

int64_t wanted_context(const models::Model& model, const EngineOptions& options) {
  return options.context != 0 ? options.context : std::min(model.context_length, kDefaultContext);
}

int64_t step_tokens(const models::Model& model, const EngineOptions& options, int64_t usual) {
  const int64_t tokens = options.step_tokens != 0 ? options.step_tokens : usual;
  // An encoder sees a text in one step or not at all.
  return model.encoder() ? std::max(tokens, wanted_context(model, options)) : tokens;
}

// What one place costs beside the cache.
struct PlaceNeeds {
  uint64_t weights = 0, available = 0;
  std::function<uint64_t(int64_t cached)> scratch;  // work space with a cache of so many tokens
  kv::KvForm kv_form = kv::KvForm::f16;
  int64_t step_tokens = 0;
};

PlaceNeeds needs_on_cpu(const models::Model& model, const EngineOptions& options) {
  const int threads = options.threads > 0 ? options.threads : ThreadPool::available_cores();
  PlaceNeeds needs;
  // An encoder's keys and values are one layer's at a time: small enough to stay exact.
  needs.kv_form = options.kv_form.value_or(model.encoder() ? kv::KvForm::f32 : kv::KvForm::f16);
  needs.step_tokens = step_tokens(model, options, 512);
  needs.available = options.memory_limit != 0 ? options.memory_limit : system_memory().available;
  needs.weights = cpu::Weights::bytes_needed(model.program, model.weights);
  const program::Bounds bounds{needs.step_tokens, step_logits(model, options, needs.step_tokens)};
  const uint64_t scratch =
      cpu::executor_needs(model.program, model.weights, bounds, model.context_length, threads)
          .bytes(threads) +
      kReserve;
  needs.scratch = [scratch](int64_t) { return scratch; };
  return needs;
}

PlaceNeeds needs_on_gpu(const models::Model& model, const EngineOptions& options, const GpuBudget& gpu) {
  PlaceNeeds needs;
  needs.kv_form = options.kv_form.value_or(options.exact ? kv::KvForm::f32 : kv::KvForm::bf16);
  needs.step_tokens = step_tokens(model, options, 2048);
  needs.available = gpu.free;
  needs.weights = cuda::ModelWeights::bytes_needed(model.program, model.weights, {options.exact});
  const auto program = std::make_shared<const program::Program>(as_run(model, options));
  needs.scratch = [&model, options, program, form = needs.kv_form, tokens = needs.step_tokens,
                   facts = gpu.facts](int64_t cached) {
    const auto kv = kv_config(model, model.program.kv.size(), form, options.page_tokens, cached);
    return cuda::executor_needs(*program, model.weights, kv, {tokens, step_logits(model, options, tokens)},
                                {options.exact, options.sequences}, facts)
               .scratch +
           kGpuReserve;
  };
  return needs;
}

MemoryPlan plan_place(const models::Model& model, const EngineOptions& options, Place place,
                      const PlaceNeeds& needs) {
  MemoryPlan plan;
  plan.place = place;
  plan.available = needs.available;
  plan.weights = needs.weights;
  plan.kv_form = needs.kv_form;
  plan.step_tokens = needs.step_tokens;
  const auto kv_bytes = [&](int64_t tokens) {
    return uint64_t(kv::KvPool::bytes(
        kv_config(model, model.program.kv.size(), needs.kv_form, options.page_tokens, tokens)));
  };
  // The most cached tokens within what is left; kv_bytes grows by whole pages.
  const uint64_t page = kv_bytes(options.page_tokens);
  const auto fitting_beside = [&](uint64_t fixed) {
    if (plan.available == 0) return INT64_MAX / options.page_tokens * options.page_tokens;
    return int64_t(plan.available > fixed ? (plan.available - fixed) / page : 0) * options.page_tokens;
  };
  const int64_t wanted = wanted_context(model, options);
  // On a GPU an encoder's steps are as full of texts as they may be.
  const int64_t usual = model.encoder() && place == Place::cuda ? plan.step_tokens : wanted;
  const int64_t cached = options.cache_tokens != 0 ? options.cache_tokens : usual;
  // Work space grows with the cache: first for the longest that could be asked for.
  const int64_t longest = options.cache_tokens != 0 ? cached : std::max(cached, wanted * options.sequences);
  plan.scratch = needs.scratch(std::min(longest, std::max<int64_t>(fitting_beside(plan.weights), 1)));
  const uint64_t fixed = plan.weights + plan.scratch;
  const int64_t fitting = fitting_beside(fixed);
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
    plan.scratch = needs.scratch(std::max<int64_t>(cached, 1));
    fail(ErrorKind::out_of_memory,
         "{} needs {} bytes{} (weights {}, KV cache of {} tokens {}, work space {}), {} are available; {}",
         model.file, plan.total() + kv, place == Place::cuda ? " of GPU memory" : "", plan.weights, cached,
         kv, plan.scratch, plan.available,
         fitting > 0 ? fmt::format("a context of {} tokens or less fits", fitting)
                     : "take a model with fewer bits per weight or fewer parameters, or free memory");
  }
  plan.kv = kv_bytes(plan.cache_tokens);
  plan.scratch = needs.scratch(plan.cache_tokens);
  return plan;
}

// ---- split between GPU and CPU ----

// A context that nobody asked for may shrink to this before layers move to the CPU.
constexpr int64_t kLeastContext = 2048;
// Tokens in the cache of the step whose speed is foreseen.
constexpr int64_t kForeseenContext = 512;
// How much of the promised (GPU) and of the measured (CPU) read bandwidth a step of one token is taken to
// reach, and what handing rows from one to the other costs. Raised after one H200 with 16 cores (Llama 8B),
// where plans foresaw 0.5 to 0.85 of what was measured; not measured again since.
constexpr double kGpuReached = 0.5, kCpuReached = 0.9, kCrossingSeconds = 40e-6;

// A group of a program's instructions, as a program: for counting.
class Groups {
 public:
  Groups(const models::Model& model, const EngineOptions& options)
      : model_(model), options_(options), group_(model.program) {}

  void clear() { group_.instructions.clear(); }
  void add(const program::Instruction& instruction) { group_.instructions.push_back(instruction); }
  uint64_t on_gpu() const {
    return cuda::ModelWeights::bytes_needed(group_, model_.weights, {options_.exact});
  }
  uint64_t on_cpu() const { return cpu::Weights::bytes_needed(group_, model_.weights); }
  uint64_t read() const {
    program::StepSizes sizes;
    sizes.context = kForeseenContext;
    const auto work = program::work(group_, sizes);
    return work.weight_bytes + work.kv_bytes;
  }

 private:
  const models::Model& model_;
  const EngineOptions& options_;
  program::Program group_;
};

// The forms, steps and cache of a split.
struct SplitShape {
  kv::KvForm gpu_form, cpu_form;
  program::Bounds bounds;
  int64_t cache_tokens = 0, context = 0;
  int threads = 0;
  const cuda::DeviceFacts* gpu = nullptr;
};

ModelSizes sizes_of(const models::Model& model, const EngineOptions& options, const SplitShape& shape) {
  ModelSizes sizes;
  const auto& program = model.program;
  const auto expert = expert_instructions(program);
  const auto one_layer = [&](kv::KvForm form) {
    return kv_config(model, 1, form, options.page_tokens, shape.cache_tokens);
  };
  LayerSizes layer;
  layer.gpu_kv = uint64_t(cuda::device_kv_bytes(one_layer(shape.gpu_form)));
  layer.cpu_kv = uint64_t(kv::KvPool::bytes(one_layer(shape.cpu_form)));
  sizes.layers.assign(size_t(model.layers), layer);

  Groups groups(model, options);
  const auto gather = [&](auto&& belongs) {
    groups.clear();
    for (size_t i = 0; i < program.instructions.size(); ++i)
      if (belongs(i)) groups.add(program.instructions[i]);
  };
  const auto layer_of = [&](size_t i) { return int64_t(program.instructions[i].layer); };
  const size_t first = size_t(std::find_if(program.instructions.begin(), program.instructions.end(),
                                           [](const auto& instruction) { return instruction.layer >= 0; }) -
                              program.instructions.begin());
  gather([&](size_t i) { return i < first; });
  sizes.cpu_embedding = groups.on_cpu();
  gather([&](size_t i) { return i > first && layer_of(i) < 0; });
  sizes.gpu_scores = groups.on_gpu(), sizes.read_scores = groups.read();
  for (int64_t l = 0; l < model.layers; ++l) {
    auto& at = sizes.layers[size_t(l)];
    gather([&](size_t i) { return layer_of(i) == l && !expert[i]; });
    at.gpu_weights = groups.on_gpu(), at.cpu_weights = groups.on_cpu(), at.read = groups.read();
    gather([&](size_t i) { return layer_of(i) == l && expert[i]; });
    at.gpu_experts = groups.on_gpu(), at.cpu_experts = groups.on_cpu(), at.read_experts = groups.read();
  }
  const auto kv =
      kv_config(model, program.kv.size(), shape.gpu_form, options.page_tokens, shape.cache_tokens);
  sizes.gpu_work_space = cuda::executor_needs(as_run(model, options), model.weights, kv, shape.bounds,
                                              {options.exact, options.sequences}, shape.gpu)
                             .scratch +
                         kGpuReserve;
  sizes.cpu_work_space =
      cpu::executor_needs(program, model.weights, shape.bounds, shape.context, shape.threads)
          .bytes(shape.threads) +
      kReserve;
  return sizes;
}

// What the caller fixed, or nullopt.
std::optional<CpuShare> asked_share(const models::Model& model, const EngineOptions& options) {
  if (!options.gpu_layers && !options.cpu_expert_layers) return std::nullopt;
  const int64_t on_gpu = options.gpu_layers.value_or(model.layers),
                experts = options.cpu_expert_layers.value_or(0);
  if (on_gpu < 1 || on_gpu > model.layers)
    fail(
        ErrorKind::invalid_argument,
        "{} layers were asked for on the GPU; {} has {}, of which 1 to {} may lie there (--device cpu: none)",
        on_gpu, model.file, model.layers, model.layers);
  if (experts < 0 || experts > on_gpu)
    fail(ErrorKind::invalid_argument,
         "the experts of {} layers were asked for on the CPU; the GPU has {} layers whose experts can be "
         "there",
         experts, on_gpu);
  return CpuShare{model.layers - on_gpu, experts};
}

MemoryPlan split_plan(const ModelSizes& sizes, const SplitPlan& chosen, const MemoryBudget& budget,
                      const SplitShape& shape) {
  MemorySplit split;
  split.on_cpu = chosen.cpu;
  split.cpu_kv_form = shape.cpu_form;
  split.tokens_per_second = chosen.tokens_per_second;
  split.gpu = {0, 0, sizes.gpu_work_space, budget.gpu};
  split.cpu = {sizes.cpu_embedding, 0, sizes.cpu_work_space, budget.cpu};
  for (int64_t l = 0; l < int64_t(sizes.layers.size()); ++l)
    (l < chosen.cpu.layers ? split.cpu.kv : split.gpu.kv) +=
        l < chosen.cpu.layers ? sizes.layers[size_t(l)].cpu_kv : sizes.layers[size_t(l)].gpu_kv;
  split.gpu.weights = chosen.bytes.gpu - split.gpu.kv - split.gpu.scratch;
  split.cpu.weights = chosen.bytes.cpu - split.cpu.kv - split.cpu.scratch;
  split.sizes = sizes;
  MemoryPlan plan;
  plan.place = Place::cuda;
  plan.kv_form = shape.gpu_form;
  plan.step_tokens = shape.bounds.tokens;
  plan.context = shape.context;
  plan.cache_tokens = shape.cache_tokens;
  plan.weights = split.gpu.weights + split.cpu.weights;
  plan.kv = split.gpu.kv + split.cpu.kv;
  plan.scratch = split.gpu.scratch + split.cpu.scratch;
  plan.available = budget.gpu + budget.cpu;
  plan.split = std::move(split);
  return plan;
}

// The plan of a split, or what it would take.
MemoryPlan plan_split_memory(const models::Model& model, const EngineOptions& options, const GpuBudget& gpu,
                             double cpu_bytes_per_s) {
  const MemoryBudget budget{gpu.free,
                            options.memory_limit != 0 ? options.memory_limit : system_memory().available};
  const StepSpeeds speeds{kGpuReached * gpu.read_bytes_per_s, kCpuReached * cpu_bytes_per_s,
                          kCrossingSeconds};
  const auto asked = asked_share(model, options);
  SplitShape shape;
  shape.gpu_form = options.kv_form.value_or(options.exact ? kv::KvForm::f32 : kv::KvForm::bf16);
  shape.cpu_form = options.kv_form.value_or(options.exact ? kv::KvForm::f32 : kv::KvForm::f16);
  shape.bounds = {options.step_tokens != 0 ? options.step_tokens : 512, options.step_logits};
  shape.gpu = gpu.facts;
  shape.threads = options.threads > 0 ? options.threads : ThreadPool::available_cores();
  const auto plan_for = [&](int64_t context, int64_t cached, const MemoryBudget& within) {
    shape.context = std::min(context, cached), shape.cache_tokens = cached;
    const ModelSizes sizes = sizes_of(model, options, shape);
    std::optional<SplitPlan> chosen;
    if (asked) {
      chosen = weigh(sizes, *asked, speeds);
      if (chosen->bytes.gpu > within.gpu || chosen->bytes.cpu > within.cpu) chosen.reset();
    } else {
      chosen = plan_split(sizes, within, speeds);
    }
    if (!chosen) return std::optional<MemoryPlan>();
    auto plan = split_plan(sizes, *chosen, budget, shape);
    plan.split->speeds = speeds;
    return std::optional(std::move(plan));
  };
  const int64_t wanted = wanted_context(model, options);
  const int64_t cached = options.cache_tokens != 0 ? options.cache_tokens : wanted;
  if (auto plan = plan_for(wanted, cached, budget)) return *plan;
  int64_t shorter = cached / 2;
  std::optional<MemoryPlan> short_plan;
  for (; shorter >= options.page_tokens && !short_plan; shorter /= 2)
    short_plan = plan_for(std::min(wanted, shorter), shorter, budget);
  if (short_plan && options.context == 0 && options.cache_tokens == 0) return *short_plan;

  // What would be needed: of the GPU with as much on the CPU as can be, of the CPU with a full GPU.
  constexpr uint64_t kAny = uint64_t{1} << 62;
  const std::string advice =
      short_plan ? fmt::format("a context of {} tokens or less fits", short_plan->context)
                 : "take a model with fewer bits per weight or fewer parameters, or free memory";
  if (const auto plan = plan_for(wanted, cached, {budget.gpu, kAny}))
    fail(ErrorKind::out_of_memory,
         "{} is larger than the GPU memory; beside the {} bytes of it that are used, {} bytes of host memory "
         "are "
         "needed (weights {}, KV cache {}, work space {}), {} are available; {}",
         model.file, plan->split->gpu.total(), plan->split->cpu.total(), plan->split->cpu.weights,
         plan->split->cpu.kv, plan->split->cpu.scratch, budget.cpu, advice);
  const CpuShare most = asked.value_or(CpuShare{model.layers - 1, 0});
  shape.context = std::min(wanted, cached), shape.cache_tokens = cached;
  const auto least = weigh(sizes_of(model, options, shape), most, speeds);
  fail(ErrorKind::out_of_memory, "{} needs {} bytes of GPU memory{}, {} are available; {}", model.file,
       least.bytes.gpu,
       asked
           ? fmt::format(" for {} of its {} layers and the scores", model.layers - most.layers, model.layers)
           : " even for one of its layers and the scores",
       budget.gpu,
       asked ? "put fewer layers there, or leave the split to cairn" : advice + "; or --device cpu");
}

// On the GPU alone where that goes, else beside the CPU. cpu_bytes_per_s is asked for at most once.
MemoryPlan plan_with_gpu(const models::Model& model, const EngineOptions& options, const GpuBudget& gpu,
                         const std::function<double()>& cpu_bytes_per_s) {
  const auto asked = asked_share(model, options);
  if (model.encoder() && asked && *asked != CpuShare{})
    fail(ErrorKind::invalid_argument,
         "{} is an encoder, which runs on the GPU or on the CPU as a whole; layers cannot be placed",
         model.file);
  if (asked && *asked != CpuShare{}) return plan_split_memory(model, options, gpu, cpu_bytes_per_s());
  const auto needs = needs_on_gpu(model, options, gpu);
  if (asked || model.encoder()) return plan_place(model, options, Place::cuda, needs);
  std::optional<MemoryPlan> whole;
  std::string refusal;
  try {
    whole = plan_place(model, options, Place::cuda, needs);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::out_of_memory) throw;
    refusal = e.what();
  }
  if (whole && whole->context >= std::min({kLeastContext, model.context_length,
                                           options.context != 0 ? options.context : kDefaultContext}))
    return *whole;
  try {
    return plan_split_memory(model, options, gpu, cpu_bytes_per_s());
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::out_of_memory) throw;
    if (whole) return *whole;  // a short context, but all of the model
    throw;
  }
}

void check_options(const models::Model& model, const EngineOptions& options) {
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
}

}  // namespace

program::Program as_run(const models::Model& model, const EngineOptions& options) {
  return options.fuse ? program::fuse(model.program) : program::expand(model.program);
}

program::Program program_on_cpu(const models::Model& model, const EngineOptions& options) {
  return model.encoder() && options.fuse && options.fuse_low_rank ? program::fuse_low_rank(model.program)
                                                                  : model.program;
}

int64_t step_logits(const models::Model& model, const EngineOptions& options, int64_t step_tokens) {
  return model.encoder() ? step_tokens : options.step_logits;
}

std::string_view to_string(Place place) {
  constexpr std::string_view kNames[] = {"auto", "cpu", "cuda"};
  return kNames[size_t(place)];
}

kv::KvConfig kv_config(const models::Model& model, size_t count, kv::KvForm form, int page_tokens,
                       int64_t tokens) {
  const auto& slots = model.program.kv;
  for (const auto& slot : slots)
    if (slot.kv_heads != slots.front().kv_heads || slot.head_dim_k != slots.front().head_dim_k ||
        slot.head_dim_v != slots.front().head_dim_v)
      fail(ErrorKind::unsupported, "{}: layers with different KV head counts or sizes are not supported",
           model.file);
  kv::KvConfig config;
  config.layers = int(count);
  config.kv_heads = int(slots.front().kv_heads);
  config.head_dim_k = int(slots.front().head_dim_k);
  config.head_dim_v = int(slots.front().head_dim_v);
  config.page_tokens = page_tokens;
  config.form = form;
  config.pages = ceil_div(tokens, page_tokens);
  return config;
}

MemoryPlan plan_memory(const models::Model& model, const EngineOptions& options,
                       std::unique_ptr<cuda::Device>& gpu) {
  check_options(model, options);
  std::string why;
  if (options.place != Place::cpu) {
    try {
      gpu = std::make_unique<cuda::Device>(0);
      cuda::require_kernel_source(gpu->facts());
      const uint64_t free = gpu->free_bytes();
      return plan_with_gpu(
          model, options,
          {options.gpu_memory != 0 ? std::min(options.gpu_memory, free) : free, gpu->facts().read_bytes_per_s,
           &gpu->facts()},
          [&] {
            ThreadPool pool(options.threads);
            return 1e9 * measure_read_bandwidth(
                             pool, size_t(std::min(kMeasuredBytes, system_memory().available / 8)), 3)
                             .median_gb_per_s;
          });
    } catch (const Error& e) {
      gpu.reset();
      if (options.place == Place::cuda || e.kind() == ErrorKind::invalid_argument) throw;
      why = e.what();
    }
  }
  models::Model fused = model;
  fused.program = program_on_cpu(model, options);
  auto plan = plan_place(fused, options, Place::cpu, needs_on_cpu(fused, options));
  plan.why = why;
  return plan;
}

MemoryPlan plan_memory(const models::Model& model, const EngineOptions& options) {
  std::unique_ptr<cuda::Device> gpu;
  return plan_memory(model, options, gpu);
}

MemoryPlan plan_memory(const models::Model& model, const EngineOptions& options, const GpuBudget& gpu,
                       double cpu_bytes_per_s) {
  check_options(model, options);
  return plan_with_gpu(model, options, gpu, [&] { return cpu_bytes_per_s; });
}

std::string describe(const MemorySplit& split) {
  const auto layers = int64_t(split.sizes.layers.size());
  const auto range = [](int64_t first, int64_t count) {
    return count == 1 ? fmt::format("layer {}", first)
                      : fmt::format("layers {}-{}", first, first + count - 1);
  };
  const auto gb = [](const MemoryShare& share) {
    return fmt::format("{:.1f} of {:.1f} GB", double(share.total()) / 1e9, double(share.available) / 1e9);
  };
  std::string on_cpu = split.on_cpu.layers > 0 ? range(0, split.on_cpu.layers) : "";
  if (split.on_cpu.experts > 0)
    on_cpu += fmt::format("{}the experts of {}", on_cpu.empty() ? "" : " and ",
                          range(split.on_cpu.layers, split.on_cpu.experts));
  const int64_t rest = layers - split.on_cpu.layers;
  return fmt::format("{} on the CPU ({}), {} and the scores on the GPU ({}); about {:.3g} tokens/s foreseen",
                     on_cpu, gb(split.cpu),
                     split.on_cpu.layers > 0 ? range(split.on_cpu.layers, rest) : "all else", gb(split.gpu),
                     split.tokens_per_second);
}

}  // namespace cairn::engine
