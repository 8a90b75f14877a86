// DFloat11 on the GPU: the shipped model's answers are those of bf16, bit for bit, also when weights stay in
// host memory; and, where CAIRN_DF11_BENCH is set, the time of steps of the Llama-3.1-8B shape beside bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <random>

#include "backends/cuda/device.h"
#include "base/float16.h"
#include "base/steady_seconds.h"
#include "engine/engine.h"
#include "formats/testing.h"
#include "models/df11_testing.h"
#include "program/decode_groups.h"

namespace cairn::engine {
namespace {

const std::filesystem::path kModel = std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories";

EngineOptions on_gpu(int64_t step_tokens = 64) {
  EngineOptions o;
  o.place = Place::cuda;
  o.step_tokens = step_tokens;
  o.step_logits = 64;
  return o;
}

std::pair<std::vector<int32_t>, std::vector<float>> answer(models::Model model) {
  Engine engine(std::move(model), on_gpu());
  std::vector<int32_t> tokens = {1, 17, 300, 45, 2000, 9, 88, 1234};
  std::vector<float> scores;
  kv::Sequence sequence(engine.kv());
  const auto vocabulary = engine.model().vocabulary_size;
  for (size_t fed = 0; tokens.size() < 8 + 256;) {
    const auto result = engine.feed(sequence, std::span(tokens).subspan(fed), 1, 300, {}, nullptr,
                                    fed == 0 ? backends::RowClass::prompt : backends::RowClass::decode);
    fed = tokens.size();
    scores.insert(scores.end(), result.logits, result.logits + vocabulary);
    tokens.push_back(int32_t(std::max_element(result.logits, result.logits + vocabulary) - result.logits));
  }
  return {tokens, scores};
}

TEST(Df11ModelOnGpu, AnswersBitForBitAsBf16) {
  std::string why;
  if (cuda::list_devices(&why).empty()) GTEST_SKIP() << "not tested on a GPU: " << why;
  const formats::testing::TemporaryFolder folder;
  models::testing::write_df11_folder(kModel, folder.path() / "df11", true);
  const auto want = answer(models::open_model(kModel));
  for (const bool grouped : {true, false})
    for (const int64_t on_host : {0, 1, 3, 4}) {
      SCOPED_TRACE(::testing::Message()
                   << (grouped ? "df11, " : "bf16, ") << on_host << " layers on the host");
      auto model = models::open_model(grouped ? folder.path() / "df11" : kModel);
      model.program = program::keep_on_host(model.program, on_host);
      const auto got = answer(std::move(model));
      EXPECT_EQ(want.first, got.first);
      EXPECT_TRUE(want.second == got.second) << "scores differ";
    }
}

// A Llama of 32 layers whose tensors are all the same memory: only the device holds them one by one.
class Llama8B {
 public:
  static constexpr int64_t kDim = 4096, kInner = 14336, kKv = 1024, kVocabulary = 128256, kLayers = 32;

  Llama8B() : words_(size_t(kDim * kVocabulary)), ones_(size_t(kDim), float_to_bf16(1)) {
    std::mt19937 random(1);
    std::normal_distribution<float> d(0, 0.02f);
    std::vector<uint16_t> some(size_t{1} << 21);
    for (auto& w : some) w = float_to_bf16(d(random));
    const size_t half = some.size() / 2;
    for (size_t at = 0, k = 0; at < words_.size(); at += half, ++k)
      std::copy_n(some.begin() + long(k * 7919 % half), std::min(half, words_.size() - at),
                  words_.begin() + long(at));
    auto scores = std::async(std::launch::async, [&] {
      const std::span<const std::byte> one[] = {bytes_of(kVocabulary * kDim)};
      return *codecs::encode_df11(one).encoded;
    });
    std::vector<std::span<const std::byte>> block;
    for (const auto& [name, rows, cols] : matrices()) block.push_back(bytes_of(rows * cols));
    block_ = *codecs::encode_df11(block).encoded;
    scores_ = scores.get();
  }

  models::Model model(bool grouped) const {
    formats::Checkpoint files;
    files.path = "llama-8b";
    nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                             {"hidden_size", kDim},
                             {"intermediate_size", kInner},
                             {"num_hidden_layers", kLayers},
                             {"num_attention_heads", 32},
                             {"num_key_value_heads", 8},
                             {"vocab_size", kVocabulary},
                             {"rms_norm_eps", 1e-5},
                             {"hidden_act", "silu"},
                             {"max_position_embeddings", 131072},
                             {"rope_theta", 500000.0},
                             {"tie_word_embeddings", false},
                             {"torch_dtype", "bfloat16"}};
    const auto add = [&](const std::string& name, codecs::CodecId codec, std::vector<int64_t> shape,
                         std::span<const std::byte> bytes) {
      files.index[name] = files.tensors.size();
      files.tensors.push_back({name, codec, std::move(shape), bytes, -1});
    };
    const auto plain = [&](const std::string& name, std::vector<int64_t> shape) {
      const bool norm = shape.size() == 1;
      const auto bytes = norm ? std::as_bytes(std::span(ones_)) : bytes_of(shape[0] * shape[1]);
      add(name, codecs::CodecId::bf16, std::move(shape), bytes);
    };
    const auto group = [&](const std::string& block, const codecs::Df11Encoded& e) {
      const auto field = [&](const char* name, std::span<const std::byte> bytes) {
        add(block + name, codecs::CodecId::u8, {int64_t(bytes.size())}, bytes);
      };
      field(".sign_mantissa", e.sign_mantissa), field(".encoded_exponent", e.encoded_exponent);
      field(".gaps", e.gaps), field(".output_positions", e.output_positions), field(".luts", e.luts);
      add(block + ".split_positions", codecs::CodecId::i64, {int64_t(e.split_positions.size())},
          std::as_bytes(std::span(e.split_positions)));
    };
    plain("model.embed_tokens.weight", {kVocabulary, kDim});
    plain("model.norm.weight", {kDim});
    std::vector<std::string> names;
    for (const auto& [name, rows, cols] : matrices()) names.push_back(name);
    for (int64_t l = 0; l < kLayers; ++l) {
      const auto block = "model.layers." + std::to_string(l);
      plain(block + ".input_layernorm.weight", {kDim});
      plain(block + ".post_attention_layernorm.weight", {kDim});
      if (grouped)
        group(block, block_);
      else
        for (const auto& [name, rows, cols] : matrices()) plain(block + "." + name + ".weight", {rows, cols});
    }
    if (grouped) {
      group("lm_head", scores_);
      config["dfloat11_config"] = {
          {"threads_per_block", {512}},
          {"bytes_per_thread", 8},
          {"pattern_dict", {{"model\\.layers\\.\\d+", names}, {"lm_head", nlohmann::json::array()}}}};
    } else {
      plain("lm_head.weight", {kVocabulary, kDim});
    }
    files.config = std::make_shared<const nlohmann::json>(config);
    return models::open_model(std::move(files));
  }

  uint64_t saved() const {  // bytes that the groups take less than bf16
    return kLayers * (2 * block_.sign_mantissa.size() - block_.bytes()) + 2 * scores_.sign_mantissa.size() -
           scores_.bytes();
  }
  uint64_t block_bytes() const { return 2 * block_.sign_mantissa.size(); }

 private:
  struct Shape {
    std::string name;
    int64_t rows, cols;
  };
  static std::vector<Shape> matrices() {
    return {{"self_attn.q_proj", kDim, kDim}, {"self_attn.k_proj", kKv, kDim},
            {"self_attn.v_proj", kKv, kDim},  {"self_attn.o_proj", kDim, kDim},
            {"mlp.gate_proj", kInner, kDim},  {"mlp.up_proj", kInner, kDim},
            {"mlp.down_proj", kDim, kInner}};
  }
  std::span<const std::byte> bytes_of(int64_t elements) const {
    return std::as_bytes(std::span(words_)).first(size_t(elements) * 2);
  }
  std::vector<uint16_t> words_, ones_;
  codecs::Df11Encoded block_, scores_;
};

TEST(Df11ModelOnGpu, StepsOfTheEightBillionShape) {
  std::string why;
  if (cuda::list_devices(&why).empty()) GTEST_SKIP() << "not tested on a GPU: " << why;
  if (!std::getenv("CAIRN_DF11_BENCH")) GTEST_SKIP() << "a measurement: set CAIRN_DF11_BENCH";
  double begun = steady_seconds();
  const Llama8B llama;
  const auto layers = int64_t((llama.saved() + llama.block_bytes() - 1) / llama.block_bytes());
  std::printf("weights made in %.1f s; df11 takes %.2f GB less: %ld blocks of bf16\n",
              steady_seconds() - begun, 1e-9 * double(llama.saved()), long(layers));
  struct Way {
    const char* name;
    bool grouped;
    int64_t on_host;
  };
  std::vector<float> scores;
  for (const Way& way : {Way{"bf16 resident", false, 0}, Way{"df11 resident", true, 0},
                         Way{"bf16 offloaded", false, layers}, Way{"df11 all blocks offloaded", true, 32}}) {
    begun = steady_seconds();
    auto model = llama.model(way.grouped);
    model.program = program::keep_on_host(model.program, way.on_host);
    auto o = on_gpu(8192);
    o.cache_tokens = 64 * 256 + 8192 * 2;
    o.context = 8192;
    Engine engine(std::move(model), o);
    std::printf("%-26s weights %.2f GB, loaded in %.1f s;", way.name, 1e-9 * double(engine.memory().weights),
                steady_seconds() - begun);
    std::fflush(stdout);
    std::vector<int32_t> prompt(8192);
    for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = int32_t(i * 7919 % 128000);
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
      kv::Sequence sequence(engine.kv());
      const double start = steady_seconds();
      const auto result = engine.feed(sequence, prompt, 1, 8192);
      best = std::min(best, steady_seconds() - start);
      const std::vector<float> got(result.logits, result.logits + Llama8B::kVocabulary);
      if (scores.empty()) scores = got;
      EXPECT_TRUE(got == scores) << way.name << ": scores of the prompt differ";
    }
    std::printf(" prompt of 8192: %.1f ms (%.0f tokens/s);", 1e3 * best, 8192 / best);
    for (const int batch : {1, 8, 64}) {
      std::vector<kv::Sequence> sequences;
      for (int s = 0; s < batch; ++s) {
        sequences.emplace_back(engine.kv());
        engine.feed(sequences.back(), std::span(prompt).first(16), 0, 8192);
      }
      std::vector<double> times;
      for (int i = 0; i < 14; ++i) {
        std::vector<backends::SequenceStep> steps;
        for (int s = 0; s < batch; ++s)
          steps.push_back({&sequences[size_t(s)], 0, std::span(prompt).subspan(size_t(s), 1), 1, 8192,
                           backends::RowClass::decode});
        const double start = steady_seconds();
        engine.step(steps);
        if (i >= 4) times.push_back(steady_seconds() - start);
      }
      std::sort(times.begin(), times.end());
      std::printf(" %d answers: %.2f ms a step;", batch, 1e3 * times[times.size() / 2]);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace cairn::engine
