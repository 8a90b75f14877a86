#include "engine/placement.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/memory_plan.h"
#include "models/family_goldens.h"

namespace cairn::engine {
namespace {

constexpr uint64_t kMB = 1 << 20, kGB = 1 << 30;
// About a good desktop: 1 TB/s beside 50 GB/s.
const StepSpeeds kSpeeds{1e12, 5e10, 4e-5};

ModelSizes dense(int64_t layers) {
  ModelSizes sizes;
  sizes.layers.assign(size_t(layers), {100 * kMB, 110 * kMB, 0, 0, 10 * kMB, 12 * kMB, 100 * kMB, 0});
  sizes.cpu_embedding = 5 * kMB;
  sizes.gpu_scores = 300 * kMB, sizes.read_scores = 300 * kMB;
  sizes.gpu_work_space = 600 * kMB, sizes.cpu_work_space = 70 * kMB;
  return sizes;
}

ModelSizes mixture(int64_t layers) {
  ModelSizes sizes = dense(layers);
  for (auto& layer : sizes.layers) {
    layer.gpu_weights = layer.cpu_weights = layer.read = 30 * kMB;
    layer.gpu_experts = layer.cpu_experts = 600 * kMB;
    layer.read_experts = 40 * kMB;
  }
  return sizes;
}

TEST(Split, PutsAsManyLayersOnTheGpuAsFit) {
  const auto sizes = dense(32);
  for (const uint64_t layers : {1, 7, 31}) {
    const uint64_t needed = 900 * kMB + layers * 110 * kMB;
    const auto exact = plan_split(sizes, {needed, 100 * kGB}, kSpeeds);
    ASSERT_TRUE(exact);
    EXPECT_EQ(exact->cpu, (CpuShare{32 - int64_t(layers), 0}));
    EXPECT_EQ(exact->bytes.gpu, needed);
    EXPECT_EQ(exact->bytes.cpu, 75 * kMB + (32 - layers) * 122 * kMB);
    const auto less = plan_split(sizes, {needed - 1, 100 * kGB}, kSpeeds);
    EXPECT_EQ(less ? less->cpu.layers : 32, 33 - int64_t(layers));
  }
}

TEST(Split, ForeseesASpeedFromWhatIsRead) {
  const auto plan = weigh(dense(32), {16, 0}, kSpeeds);
  const double seconds = double(16 * 100 * kMB + 300 * kMB) / 1e12 + double(16 * 100 * kMB) / 5e10 + 4e-5;
  EXPECT_NEAR(plan.tokens_per_second, 1 / seconds, 1e-6);
}

TEST(Split, FindsNothingWhereMemoryEnds) {
  const auto sizes = dense(32);
  EXPECT_FALSE(plan_split(sizes, {900 * kMB, 100 * kGB}, kSpeeds));  // not even one layer
  EXPECT_FALSE(plan_split(sizes, {2 * kGB, 1 * kGB}, kSpeeds));      // the rest does not fit beside it
  EXPECT_TRUE(plan_split(sizes, {2 * kGB, 4 * kGB}, kSpeeds));
  EXPECT_FALSE(plan_split(dense(1), {100 * kGB, 100 * kGB}, kSpeeds));  // a split of one layer is none
}

// Experts are most of the bytes and little of what a token reads.
TEST(Split, MovesExpertsFirstWhereThatIsFaster) {
  const auto sizes = mixture(48);
  const auto plan = plan_split(sizes, {900 * kMB + 48 * 40 * kMB + 10 * 600 * kMB, 100 * kGB}, kSpeeds);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->cpu, (CpuShare{0, 38}));
  const auto by_layers = weigh(sizes, {37, 0}, kSpeeds);
  EXPECT_LE(by_layers.bytes.gpu, 900 * kMB + 48 * 40 * kMB + 10 * 600 * kMB);
  EXPECT_GT(plan->tokens_per_second, by_layers.tokens_per_second);
  // Where crossings are dear, whole layers are faster.
  const StepSpeeds slow_link{1e12, 5e10, 5e-3};
  const auto whole = plan_split(sizes, {900 * kMB + 48 * 40 * kMB + 10 * 600 * kMB, 100 * kGB}, slow_link);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->cpu.experts, 0);
  // Where not even all attention fits, some layers go entirely.
  const auto both = plan_split(sizes, {900 * kMB + 20 * 40 * kMB, 100 * kGB}, kSpeeds);
  ASSERT_TRUE(both);
  EXPECT_EQ(both->cpu, (CpuShare{28, 20}));
}

TEST(Split, LanesFollowLayersAndExperts) {
  const auto model = models::open_model(models::testing::goldens_folder() / "qwen3-moe");
  const auto& program = model.program;
  const auto expert = expert_instructions(program);
  const auto lanes = lanes_of(program, {1, 1});
  size_t experts = 0;
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const auto& instruction = program.instructions[i];
    const std::string kind = name_of(instruction.operation);
    experts += expert[i];
    EXPECT_EQ(expert[i], kind == "expert_matmul" || kind == "expert_combine" || kind == "gated_activation")
        << instruction.name;
    const bool on_cpu = kind == "embed" || instruction.layer == 0 || (instruction.layer == 1 && expert[i]);
    EXPECT_EQ(lanes[i], on_cpu ? kCpuLane : kGpuLane) << instruction.name;
  }
  EXPECT_EQ(experts, 4 * size_t(model.layers));
}

// ---- the plan of a model, for GPUs that nobody has here ----

class SplitPlanOf : public ::testing::Test {
 protected:
  SplitPlanOf() : model(models::open_model(models::testing::goldens_folder() / "llama-bf16")) {
    options.place = Place::cuda;
    options.threads = 2;
    options.context = 64;
  }
  MemoryPlan plan(uint64_t gpu_bytes) const { return plan_memory(model, options, {gpu_bytes, 1e12}, 2e10); }
  std::string refusal(uint64_t gpu_bytes) const {
    try {
      plan(gpu_bytes);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::out_of_memory);
      return e.what();
    }
    return "accepted";
  }
  models::Model model;
  EngineOptions options;
};

TEST_F(SplitPlanOf, AModelThatFitsIsNotSplit) {
  const auto whole = plan(100 * kGB);
  EXPECT_EQ(whole.place, Place::cuda);
  EXPECT_FALSE(whole.split);
  EXPECT_EQ(whole.available, 100 * kGB);
  EXPECT_FALSE(plan(whole.total()).split);
  const auto split = plan(whole.total() - 1);
  ASSERT_TRUE(split.split);
  EXPECT_EQ(split.place, Place::cuda);
  EXPECT_LE(split.split->gpu.total(), whole.total() - 1);
  EXPECT_GE(split.split->on_cpu.layers, 1);
  EXPECT_EQ(split.weights, split.split->gpu.weights + split.split->cpu.weights);
  EXPECT_EQ(split.context, 64);
  EXPECT_GT(split.split->tokens_per_second, 0);
  const auto text = describe(*split.split);
  EXPECT_NE(text.find("on the CPU"), std::string::npos) << text;
  EXPECT_NE(text.find("tokens/s"), std::string::npos) << text;
}

TEST_F(SplitPlanOf, ALayerCountMayBeAskedFor) {
  options.gpu_layers = 1;
  const auto one = plan(100 * kGB);
  ASSERT_TRUE(one.split);
  EXPECT_EQ(one.split->on_cpu, (CpuShare{model.layers - 1, 0}));
  options.gpu_layers = model.layers;
  EXPECT_FALSE(plan(100 * kGB).split);
  for (const int64_t bad : {int64_t{0}, int64_t{-3}, model.layers + 1}) {
    options.gpu_layers = bad;
    EXPECT_THROW(plan(100 * kGB), Error) << bad;
  }
}

TEST_F(SplitPlanOf, SaysWhatIsMissing) {
  const auto little = refusal(1000);
  EXPECT_NE(little.find("even for one of its layers and the scores, 1000 are available"), std::string::npos)
      << little;
  options.gpu_layers = 1;
  const auto one = plan(100 * kGB);
  EXPECT_NE(refusal(one.split->gpu.total() - 1).find("put fewer layers there"), std::string::npos);
  options.gpu_layers.reset();
  options.memory_limit = one.split->cpu.total() / 2;
  const auto host = refusal(one.split->gpu.total());
  EXPECT_NE(host.find("bytes of host memory are needed"), std::string::npos) << host;
  EXPECT_NE(host.find(std::to_string(options.memory_limit) + " are available"), std::string::npos) << host;
}

}  // namespace
}  // namespace cairn::engine
