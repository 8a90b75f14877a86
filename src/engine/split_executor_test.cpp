// A program that two executors compute in turns gives the bits of one that one executor computes: every
// family, cut between layers, around experts, and anywhere; prompts whole and in pieces, batches, new tokens.
#include "engine/split_executor.h"

#include <gtest/gtest.h>

#include <random>

#include "backends/cpu/executor.h"
#include "base/error.h"
#include "models/family_goldens.h"
#include "models/model.h"
#include "program/fuse.h"

namespace cairn::engine {
namespace {

using program::Lane;
using program::Program;
using Rows = std::vector<std::vector<float>>;

constexpr program::Bounds kBounds{64, 8};
constexpr int64_t kContext = 64, kPages = 64;

kv::KvConfig kv_config(const Program& program) {
  kv::KvConfig config;
  config.layers = std::max(1, int(program.kv.size()));
  config.kv_heads = program.kv.empty() ? 1 : int(program.kv.front().kv_heads);
  config.head_dim_k = program.kv.empty() ? 1 : int(program.kv.front().head_dim_k);
  config.head_dim_v = program.kv.empty() ? 1 : int(program.kv.front().head_dim_v);
  config.page_tokens = 8;
  config.pages = program.kv.empty() ? 0 : kPages;
  return config;
}

// The lanes of a model's basic instructions, asked for in order; fused ones follow.
using Lanes = std::function<Lane(const program::Instruction&)>;

class Machine {
 public:
  Machine(const models::Model& model, Program program, bool split)
      : model_(model),
        program_(std::move(program)),
        kv_(kv_config(program_), split ? kv::KvPool::Memory::elsewhere : kv::KvPool::Memory::host) {
    if (split)
      executor_ = std::make_unique<SplitExecutor>(
          program::cut_by_lane(program_), kv_, [this](const program::Part& part) {
            SplitExecutor::Member member;
            member.kv = std::make_unique<kv::KvPool>(kv_config(part.program));
            member.executor = make(part.program, *member.kv);
            return member;
          });
    else
      executor_ = make(program_, kv_);
  }

  // Everything that a model answers below, one row after another.
  Rows answers() {
    Rows rows;
    const auto prompt = random_tokens(29, 1), other = random_tokens(11, 2), third = random_tokens(17, 3);
    for (const size_t piece : {size_t{29}, size_t{7}, size_t{1}}) {
      kv::Sequence sequence(kv_);
      for (size_t done = 0; done < prompt.size(); done += piece) {
        const size_t count = std::min(piece, prompt.size() - done);
        step({{&sequence,
               int64_t(done),
               {prompt.data() + done, count},
               int64_t(std::min<size_t>(count, 2)),
               40}},
             rows);
      }
    }
    // Two answers and a prompt together, the prompt between them; then a fork that goes on inside a page.
    kv::Sequence a(kv_), b(kv_), c(kv_);
    step({{&a, 0, prompt, 0, 40}}, rows);
    step({{&b, 0, other, 1, 40}}, rows);
    const int32_t next[] = {3, 5};
    for (int64_t i = 0; i < 3; ++i) {
      std::vector<backends::SequenceStep> steps = {
          {&a, 29 + i, {next, 1}, 1, 40, backends::RowClass::decode}};
      if (i == 1) steps.push_back({&c, 0, third, 1, 40});
      steps.push_back({&b, 11 + i, {next + 1, 1}, 1, 40, backends::RowClass::decode});
      step(steps, rows);
    }
    kv::Sequence fork = a.fork();
    EXPECT_EQ(fork.length(), a.length());
    step({{&fork, 32, {next, 1}, 1, 40, backends::RowClass::decode}}, rows);
    step({{&a, 32, {next + 1, 1}, 1, 40, backends::RowClass::decode}}, rows);
    return rows;
  }

 private:
  std::unique_ptr<cpu::Executor> make(const Program& program, kv::KvPool& kv) {
    return std::make_unique<cpu::Executor>(
        program, model_.weights, cpu::Weights(program, model_.weights, model_.checkpoint.files, pool_), pool_,
        kv, kBounds, kContext);
  }
  std::vector<int32_t> random_tokens(size_t count, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(count);
    for (auto& t : tokens) t = int32_t(random() % uint32_t(model_.vocabulary_size));
    return tokens;
  }
  void step(std::vector<backends::SequenceStep> steps, Rows& rows) {
    for (auto& s : steps) s.sequence->append(int64_t(s.tokens.size()));
    program::Trace trace;
    const auto result = executor_->run(steps, &trace);
    EXPECT_EQ(trace.records().size(), program_.instructions.size());
    const auto vocabulary = size_t(model_.vocabulary_size), dim = size_t(model_.hidden_size);
    for (size_t r = 0; r < size_t(result.rows); ++r) {
      rows.emplace_back(result.logits + r * vocabulary, result.logits + (r + 1) * vocabulary);
      rows.emplace_back(result.hidden + r * dim, result.hidden + (r + 1) * dim);
    }
  }

  const models::Model& model_;
  Program program_;
  ThreadPool pool_{1};
  kv::KvPool kv_;
  std::unique_ptr<backends::Executor> executor_;
};

bool is_expert_work(const program::Operation& operation) {
  return std::holds_alternative<program::ExpertMatMul>(operation) ||
         std::holds_alternative<program::ExpertCombine>(operation);
}

Rows answers_split(const models::Model& model, const Lanes& lanes, bool fuse = true) {
  Program program = model.program;
  for (auto& instruction : program.instructions) instruction.lane = lanes(instruction);
  return Machine(model, fuse ? program::fuse(program) : program::expand(program), true).answers();
}

class SplitFamily : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(SplitFamily, GivesTheSameBits) {
  const auto model = models::open_model(GetParam());
  const auto layers = int32_t(model.layers);
  const Rows whole = Machine(model, program::fuse(model.program), false).answers();
  EXPECT_GT(whole.size(), 20u);
  for (const int32_t cut : {0, 1, layers})
    EXPECT_EQ(answers_split(model,
                            [&, inside = false](const program::Instruction& i) mutable {
                              inside |= i.layer >= 0;
                              return Lane(i.layer >= 0 ? i.layer < cut : !inside);
                            }),
              whole)
        << "cut before layer " << cut;
  EXPECT_EQ(answers_split(
                model, [](const program::Instruction& i) { return Lane(i.layer >= 0 && i.layer % 2 == 1); }),
            whole)
      << "every other layer";
  if (std::any_of(model.program.instructions.begin(), model.program.instructions.end(),
                  [](const auto& i) { return is_expert_work(i.operation); })) {
    EXPECT_EQ(
        answers_split(model, [](const program::Instruction& i) { return Lane(is_expert_work(i.operation)); }),
        whole)
        << "around experts";
  }
  // Every instruction somewhere, on up to three executors; only a cache slot stays together.
  std::mt19937 random(uint32_t(model.parameters));
  std::vector<Lane> slot_lane(model.program.kv.size());
  for (auto& lane : slot_lane) lane = Lane(random() % 3);
  const bool fuse = random() % 2 == 0;
  EXPECT_EQ(answers_split(
                model,
                [&](const program::Instruction& i) {
                  if (const auto* op = std::get_if<program::KvWrite>(&i.operation))
                    return slot_lane[size_t(op->slot)];
                  if (const auto* op = std::get_if<program::Attention>(&i.operation))
                    return slot_lane[size_t(op->slot)];
                  return Lane(random() % 3);
                },
                fuse),
            whole)
      << "anywhere";
}

INSTANTIATE_TEST_SUITE_P(Goldens, SplitFamily, ::testing::ValuesIn(models::testing::golden_models()),
                         [](const auto& tested) { return models::testing::test_name(tested.param); });

}  // namespace
}  // namespace cairn::engine
