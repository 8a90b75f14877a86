// Low-rank models executed tile by tile against one product after the other: the same bits, at every level of
// instructions, and what it saves in memory.
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "backends/cpu/executor.h"
#include "engine/embed.h"
#include "formats/safetensors_writer.h"
#include "formats/testing.h"
#include "models/encoder_goldens.h"
#include "program/fuse.h"
#include "program/fuse_low_rank.h"
#include "quantize/low_rank.h"
#include "quantize/model_folder.h"

namespace cairn::quantize {
namespace {

using formats::testing::TemporaryFolder;

engine::EngineOptions on_cpu(bool fused, int threads) {
  engine::EngineOptions options;
  options.place = engine::Place::cpu;
  options.threads = threads;
  options.fuse_low_rank = fused;
  return options;
}

template <typename Op>
int count(const program::Program& program) {
  int n = 0;
  for (const auto& i : program.instructions) n += std::holds_alternative<Op>(i.operation);
  return n;
}

struct EveryIsa {
  Isa best = active_isa();
  ~EveryIsa() { set_active_isa(best); }
  template <typename F>
  void operator()(F&& f) const {
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::vnni, Isa::amx}) {
      if (isa > best) break;
      set_active_isa(isa);
      f(to_string(isa));
    }
  }
};

std::filesystem::path factorise(const std::filesystem::path& model, const TemporaryFolder& folder) {
  ThreadPool pool(2);
  const auto encoder = kLowRank.make(Settings({{"keep", "0.4"}, {"plain", "on"}}));
  const auto out = folder.path() / "low";
  quantize_folder(models::open_model(model), *encoder,
                  {.out = out, .overwrite = false, .settings = {}, .on_progress = {}}, pool);
  return out;
}

// The two must share every bit of these.
std::vector<std::vector<float>> embeddings(const std::filesystem::path& model, bool fused, int threads) {
  engine::Engine engine(models::open_model(model), on_cpu(fused, threads));
  const bool attention = count<program::LowRankAttention>(engine.program()) > 0,
             mlp = count<program::LowRankMlp>(engine.program()) > 0;
  EXPECT_EQ(mlp, fused);
  EXPECT_TRUE(fused || !attention);
  std::mt19937 random(5);
  std::vector<std::vector<int32_t>> texts;
  for (const size_t length : {1, 80, 63, 65, 2, 17, 33}) {
    texts.emplace_back();
    for (size_t i = 0; i < length; ++i) texts.back().push_back(int32_t(5 + random() % 58));
  }
  return engine::embed(engine, texts);
}

TEST(LowRankExecution, FusedGivesTheBitsOfTwoProducts) {
  const auto goldens = models::testing::goldens_folder();
  for (const char* name :
       {"encoders/bert", "encoders/modernbert", "encoders/roberta", "llama-mha", "llama-bf16", "opt-plain"}) {
    const TemporaryFolder folder;
    const auto model = factorise(goldens / name, folder);
    const EveryIsa every_isa;
    every_isa([&](auto isa) {
      for (const int threads : {1, 2})
        EXPECT_EQ(embeddings(model, true, threads), embeddings(model, false, threads))
            << name << ' ' << isa << ' ' << threads;
    });
  }
}

TEST(LowRankExecution, FusesWhatItShould) {
  const TemporaryFolder folder;
  const auto model =
      models::open_model(factorise(models::testing::goldens_folder() / "encoders/bert", folder));
  const auto fused = program::fuse_low_rank(model.program);
  EXPECT_EQ(count<program::LowRankAttention>(fused), 2);
  EXPECT_EQ(count<program::LowRankMlp>(fused), 2);
  EXPECT_EQ(count<program::Attention>(fused) + count<program::KvWrite>(fused), 0);
  EXPECT_EQ(fused.kv.front().kv_heads, 1);
  const auto back = program::expand(fused);
  EXPECT_EQ(back.kv, model.program.kv);
  EXPECT_EQ(back.instructions.size(), program::expand(model.program).instructions.size());
  EXPECT_EQ(count<program::MatMul>(back), count<program::MatMul>(model.program));
  // A model that is not stored so stays as it is.
  const auto plain = models::open_model(models::testing::goldens_folder() / "encoders/bert");
  EXPECT_EQ(program::fuse_low_rank(plain.program).instructions, plain.program.instructions);
}

// A BERT of base shape with long positions, every matrix as factors of one rank. Two layers: peaks do not
// depend on their number.
std::filesystem::path write_bert(const TemporaryFolder& folder, int64_t rank, int64_t positions) {
  constexpr int64_t kDim = 768, kHidden = 3072, kVocabulary = 64;
  folder.write("config.json", nlohmann::json{{"architectures", {"BertModel"}},
                                             {"hidden_size", kDim},
                                             {"intermediate_size", kHidden},
                                             {"num_hidden_layers", 2},
                                             {"num_attention_heads", 12},
                                             {"vocab_size", kVocabulary},
                                             {"max_position_embeddings", positions},
                                             {"quantization_config", {{"quant_method", "lowrank"}}}}
                                  .dump());
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
  const auto norm = [&](const std::string& name) {
    tensors.push_back({name + ".LayerNorm.weight", {kDim}}),
        tensors.push_back({name + ".LayerNorm.bias", {kDim}});
  };
  tensors.push_back({"embeddings.word_embeddings.weight", {kVocabulary, kDim}});
  tensors.push_back({"embeddings.position_embeddings.weight", {positions, kDim}});
  tensors.push_back({"embeddings.token_type_embeddings.weight", {2, kDim}});
  norm("embeddings");
  for (int layer = 0; layer < 2; ++layer) {
    const auto prefix = "encoder.layer." + std::to_string(layer) + ".";
    const auto linear = [&](const std::string& name, int64_t out, int64_t in) {
      tensors.push_back({prefix + name + ".lowrank_u", {out, rank}});
      tensors.push_back({prefix + name + ".lowrank_v", {rank, in}});
      tensors.push_back({prefix + name + ".bias", {out}});
    };
    for (const char* name : {"query", "key", "value"})
      linear("attention.self." + std::string(name), kDim, kDim);
    linear("attention.output.dense", kDim, kDim);
    linear("intermediate.dense", kHidden, kDim);
    linear("output.dense", kDim, kHidden);
    norm(prefix + "attention.output"), norm(prefix + "output");
  }
  formats::SafetensorsWriter writer(folder.path() / "model.safetensors");
  for (const auto& [name, shape] : tensors) writer.add_tensor(name, "F32", shape);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> values(size_t(writer.data_bytes() / 4));
  for (auto& v : values) v = normal(random);
  writer.write(std::as_bytes(std::span(values)));
  writer.finish();
  return folder.path();
}

// What FlashSVD promises (at most 0.35 of the two products' memory at this shape), as the arena planner and
// the executor count it.
TEST(LowRankExecution, NeedsAThirdOfTheMemory) {
  const TemporaryFolder folder;
  const auto model = models::open_model(write_bert(folder, 96, 4096));
  constexpr int64_t kTokens = 8 * 4096;
  const program::Bounds bounds{kTokens, kTokens};
  struct Needs {
    double arena, all;
  };
  const auto needs_of = [&](const program::Program& program) {
    const auto needs = cpu::executor_needs(program, model.weights, bounds, 4096, 2);
    EXPECT_EQ(int64_t(needs.arena), program::plan_arena(program, bounds).bytes);
    const auto& slot = program.kv.front();
    const double cache =
        double(kTokens) * double(slot.kv_heads * (slot.head_dim_k + slot.head_dim_v)) * sizeof(float);
    return Needs{double(needs.arena), double(needs.bytes(2)) + cache};
  };
  const Needs two = needs_of(program::fuse(model.program)),
              fused = needs_of(program::fuse(program::fuse_low_rank(model.program)));
  std::printf("arena %.0f of %.0f MB (%.3f), with work space and cache %.0f of %.0f MB (%.3f)\n",
              fused.arena / 1e6, two.arena / 1e6, fused.arena / two.arena, fused.all / 1e6, two.all / 1e6,
              fused.all / two.all);
  EXPECT_LE(fused.arena, 0.35 * two.arena);
  EXPECT_LE(fused.all, 0.35 * two.all);
}

TEST(LowRankExecution, BaseShapeGivesTheSameBits) {
  const TemporaryFolder folder;
  const auto path = write_bert(folder, 96, 512);
  std::mt19937 random(5);
  std::vector<std::vector<int32_t>> texts;
  for (const size_t length : {300, 1, 100}) {
    texts.emplace_back();
    for (size_t i = 0; i < length; ++i) texts.back().push_back(int32_t(random() % 64));
  }
  engine::Engine fused(models::open_model(path), on_cpu(true, 2)),
      two(models::open_model(path), on_cpu(false, 2));
  EXPECT_LT(fused.memory().scratch + fused.memory().kv, two.memory().scratch + two.memory().kv);
  EXPECT_EQ(engine::embed(fused, texts), engine::embed(two, texts));
}

}  // namespace
}  // namespace cairn::quantize
