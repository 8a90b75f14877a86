// cairn as a library: load a model, generate text, embed, tokenize.
//
//   cairn::Model model("models/cairn-stories/cairn-stories-q8_0.gguf");
//   cairn::Parameters parameters;
//   parameters.max_tokens = 100;
//   model.generate("Once upon a time", parameters, [](std::string_view text) {
//     std::cout << text << std::flush;
//     return true;  // false stops
//   });
//
// Errors are exceptions derived from std::runtime_error whose sentence says what was wrong, where and what to
// do. A Model is used by one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cairn {

struct LoadOptions {
  int threads = 0;      // 0: one per core
  int64_t context = 0;  // tokens that the cache holds; 0: chosen from the model and the memory there is
  std::string kv;       // of keys and values: f32, f16, bf16, q8_0, e4m3 (GPU); empty: f16 (CPU), bf16 (GPU)
  std::string device = "auto";  // cpu, cuda, or auto: a GPU when there is one and the model fits into it
  uint64_t memory_limit = 0;    // bytes of host memory; 0: what the system has available
  // Bytes of GPU memory; 0: what is free. Layers (or experts) that do not fit are computed by the CPU.
  uint64_t gpu_memory = 0;
  int64_t gpu_layers = -1;  // so many layers on the GPU, the last ones; -1: as many as fit
  int64_t offload_weights =
      0;  // the weights of the first so many layers stay in host memory (bf16, DFloat11)
  int64_t cpu_expert_layers = -1;  // the routed experts of so many of them on the CPU; -1: as is fastest
  // Large models' weights are kept on disk as the processor wants them, for an instant next start.
  bool weight_cache = true;
  std::function<void(uint64_t done_bytes, uint64_t total_bytes)> on_load;
  // One line when the weights were kept, or why not; from another thread.
  std::function<void(const std::string&)> on_weight_cache;
};

struct Parameters {
  int64_t max_tokens = 0;  // 0: as many as fit
  float temperature = 0;   // 0: always the most likely token
  int top_k = 0;           // 0: off
  float top_p = 1, min_p = 0, typical_p = 1;
  float repetition_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<std::string> stop;
  uint64_t seed = 0;
  int logprobs = 0;  // how many alternatives to report per token
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

struct Answer {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<std::vector<TokenLogprob>> logprobs;  // per token, most likely first, when asked for
  std::string finish;                               // "end of turn", "stop string", "length", "cancelled"
  int64_t prompt_tokens = 0, reused_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
};

struct Message {
  std::string role, content;
};

class Model {
 public:
  // A folder with config.json and safetensors, a GGUF file, or a llama2.c checkpoint.
  explicit Model(const std::filesystem::path&, const LoadOptions& = {});
  ~Model();
  Model(Model&&) noexcept;

  using OnText = std::function<bool(std::string_view)>;
  // The text as it is (special tokens in it are recognised), without a chat template.
  Answer generate(std::string_view prompt, const Parameters& = {}, const OnText& = {});
  // Rendered with the model's own chat template. Turn n + 1 computes only what is new.
  Answer chat(std::span<const Message>, const Parameters& = {}, const OnText& = {});
  bool has_chat_template() const;

  // The final hidden states of a text's tokens, pooled as the model's files say (else their mean) and scaled
  // to length 1. Encoders read several texts at once; what a text gives does not depend on the others.
  std::vector<float> embed(std::string_view text);
  std::vector<std::vector<float>> embed(std::span<const std::string> texts);
  bool encoder() const;  // a model that reads texts and writes none: generate() and chat() throw

  std::vector<int32_t> tokenize(std::string_view text, bool add_special = true) const;
  std::string detokenize(std::span<const int32_t>) const;

  int64_t context() const;
  int64_t vocabulary_size() const;
  std::string description() const;  // one line: family, parameters, file

  struct Impl;  // what the command line reaches through; not part of the stable interface
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn
