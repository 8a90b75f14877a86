#include <cmath>
#include <nlohmann/json.hpp>

#include "api/model_impl.h"
#include "base/error.h"
#include "engine/embed.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"

namespace cairn {
namespace {

engine::EngineOptions engine_options(const LoadOptions& options, const EngineShape& shape) {
  engine::EngineOptions result;
  result.threads = options.threads;
  result.context = options.context;
  result.kv_form = parse_kv_form(options.kv);
  result.place = parse_place(options.device);
  place_layers(options, result);
  result.step_logits = shape.step_logits;
  result.step_tokens = shape.step_tokens;
  result.sequences = shape.sequences;
  result.cache_tokens = shape.cache_tokens;
  result.page_tokens = shape.page_tokens;
  result.fuse_low_rank = shape.fuse_low_rank;
  if (options.weight_cache) result.packed = cpu::PackedFolder::from_environment();
  result.on_packed = options.on_weight_cache;
  if (options.on_load)
    result.on_load = [report = options.on_load](const backends::LoadProgress& p) {
      report(p.done_bytes, p.total_bytes);
    };
  return result;
}

Answer answer(engine::Generated&& generated) {
  Answer result;
  result.text = std::move(generated.text);
  result.tokens = std::move(generated.tokens);
  for (const auto& alternatives : generated.logprobs) {
    auto& row = result.logprobs.emplace_back();
    for (const auto& alternative : alternatives) row.push_back({alternative.token, alternative.logprob});
  }
  result.finish = to_string(generated.finish);
  result.prompt_tokens = generated.prompt_tokens;
  result.reused_tokens = generated.reused_tokens;
  result.prefill_seconds = generated.prefill_seconds;
  result.decode_seconds = generated.decode_seconds;
  return result;
}

}  // namespace

std::filesystem::path tokenizer_path(const std::filesystem::path& model) {
  if (std::filesystem::is_directory(model) || model.extension() == ".gguf") return model;
  if (model.extension() == ".bin") return model.parent_path() / "tokenizer.bin";
  return model.has_parent_path() ? model.parent_path() : ".";
}

std::optional<kv::KvForm> parse_kv_form(std::string_view name) {
  if (name.empty()) return std::nullopt;
  for (const auto form :
       {kv::KvForm::f32, kv::KvForm::f16, kv::KvForm::bf16, kv::KvForm::q8_0, kv::KvForm::e4m3})
    if (to_string(form) == name) return form;
  fail(ErrorKind::invalid_argument, "the KV form is '{}'; it must be f32, f16, bf16, q8_0 or e4m3", name);
}

engine::Place parse_place(std::string_view name) {
  for (const auto place : {engine::Place::automatic, engine::Place::cpu, engine::Place::cuda})
    if (to_string(place) == name) return place;
  fail(ErrorKind::invalid_argument, "the device is '{}'; it must be auto, cpu or cuda", name);
}

void place_layers(const LoadOptions& options, engine::EngineOptions& result) {
  result.memory_limit = options.memory_limit;
  result.gpu_memory = options.gpu_memory;
  if (options.gpu_layers >= 0) result.gpu_layers = options.gpu_layers;
  result.offload_weights = options.offload_weights;
  if (options.cpu_expert_layers >= 0) result.cpu_expert_layers = options.cpu_expert_layers;
}

engine::GenerateOptions generate_options(const Parameters& p) {
  engine::GenerateOptions options;
  options.max_tokens = p.max_tokens;
  auto& s = options.sampling;
  s.temperature = p.temperature;
  s.top_k = p.top_k;
  s.top_p = p.top_p;
  s.min_p = p.min_p;
  s.typical_p = p.typical_p;
  s.repetition_penalty = p.repetition_penalty;
  s.presence_penalty = p.presence_penalty;
  s.frequency_penalty = p.frequency_penalty;
  s.logit_bias = p.logit_bias;
  s.stop = p.stop;
  s.seed = p.seed;
  s.logprobs = p.logprobs;
  return options;
}

Parameters recommended_parameters(const Model::Impl& model) {
  Parameters parameters;
  std::string file = model.engine.model().file;
  const auto* config = formats::optional_object(model.engine.model().config, "generation_config", file);
  nlohmann::json beside;  // a GGUF file has no such keys; its folder may have the original's
  const auto path = model.path.parent_path() / "generation_config.json";
  if (!config && !std::filesystem::is_directory(model.path) && std::filesystem::exists(path)) {
    beside = formats::read_json_file(path);
    file = path.string();
    config = &beside;
  }
  if (!config || !formats::optional_bool(*config, "do_sample", file).value_or(false)) return parameters;
  parameters.temperature = float(formats::optional_number(*config, "temperature", 0, 100, file).value_or(1));
  parameters.top_p = float(formats::optional_number(*config, "top_p", 1e-6, 1, file).value_or(1));
  return parameters;
}

// The tokenizer loads beside the weights: for large vocabularies that is a tenth of a second.
Model::Impl::Impl(const std::filesystem::path& model_path, const LoadOptions& options,
                  const EngineShape& shape)
    : Impl(model_path, options, shape, std::async(std::launch::async, [&] {
             return text::load_tokenizer(shape.tokenizer.empty() ? tokenizer_path(model_path)
                                                                 : shape.tokenizer);
           })) {}

Model::Impl::Impl(const std::filesystem::path& model_path, const LoadOptions& options,
                  const EngineShape& shape, LaterTokenizer later)
    : path(model_path),
      engine(models::open_model(model_path), engine_options(options, shape)),
      tokenizer(later.get()),
      session(engine, *tokenizer) {
  if (engine.model().encoder() && !shape.encoders)
    fail(ErrorKind::unsupported,
         "{} is an encoder, which reads texts and writes none\nhint: `cairn embed` gives a text's embedding",
         path.string());
  // A file whose vocabulary is larger than its embedding would index past it.
  if (tokenizer->vocabulary_size() > engine.model().vocabulary_size)
    fail(ErrorKind::invalid_file, "{}: the tokenizer has {} tokens, the model's embedding only {}",
         path.string(), tokenizer->vocabulary_size(), engine.model().vocabulary_size);
  if (const auto source = tokenizer->chat_template())
    chat_template.emplace(*source, path.string() + ": chat template");
}

std::string Model::Impl::render(std::span<const Message> messages) const {
  if (!chat_template)
    fail(ErrorKind::unsupported, "{} came without a chat template; use plain generation (--raw)",
         path.string());
  nlohmann::ordered_json variables;
  auto& list = variables["messages"] = nlohmann::ordered_json::array();
  for (const auto& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  // As transformers passes what the caller did not give; templates ask whether `tools is not none`.
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = true;
  const auto token_text = [&](const std::optional<text::TokenId>& id) {
    return id ? tokenizer->piece(*id) : "";
  };
  variables["bos_token"] = token_text(tokenizer->special().bos);
  variables["eos_token"] = token_text(tokenizer->special().eos);
  return chat_template->render(variables);
}

Model::Model(const std::filesystem::path& path, const LoadOptions& options)
    : impl_(std::make_unique<Impl>(path, options, EngineShape{.encoders = true})) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;

Answer Model::generate(std::string_view prompt, const Parameters& parameters, const OnText& on_text) {
  const auto tokens = impl_->tokenizer->encode(prompt);
  return answer(impl_->session.generate(tokens, generate_options(parameters), 0, on_text));
}

Answer Model::chat(std::span<const Message> messages, const Parameters& parameters, const OnText& on_text) {
  // The template writes its own special tokens, <s> included.
  const auto tokens = impl_->tokenizer->encode(impl_->render(messages), {.add_special = false});
  return answer(impl_->session.generate(tokens, generate_options(parameters), 0, on_text));
}

bool Model::has_chat_template() const { return impl_->chat_template.has_value(); }

std::vector<float> Model::embed(std::string_view text) {
  const std::string one(text);
  return std::move(embed(std::span(&one, 1)).front());
}

std::vector<std::vector<float>> Model::embed(std::span<const std::string> texts) {
  std::vector<std::vector<int32_t>> tokens;
  for (const auto& text : texts) tokens.push_back(impl_->tokenizer->encode(text));
  return engine::embed(impl_->engine, tokens);
}

bool Model::encoder() const { return impl_->engine.model().encoder(); }

std::vector<int32_t> Model::tokenize(std::string_view text, bool add_special) const {
  return impl_->tokenizer->encode(text, {.add_special = add_special});
}
std::string Model::detokenize(std::span<const int32_t> ids) const { return impl_->tokenizer->decode(ids); }
int64_t Model::context() const { return impl_->engine.context(); }
int64_t Model::vocabulary_size() const { return impl_->engine.model().vocabulary_size; }

std::string Model::description() const {
  const auto& model = impl_->engine.model();
  return fmt::format("{}, {:.1f} M parameters, {}", model.family, double(model.parameters) / 1e6, model.file);
}

}  // namespace cairn
