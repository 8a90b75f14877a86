// On a GPU, whose kernels for prompts and for answers round differently: the same request has the same bytes
// alone, in a batch of 64, with its prompt cut, after preemptions that recompute, spilled to the host, from
// the prefix cache and from disk.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "backends/cuda/device.h"
#include "engine/serving/service_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

EngineOptions gpu_options(int64_t cache_tokens, kv::KvForm form = kv::KvForm::bf16) {
  EngineOptions o;
  o.threads = 4;
  o.place = Place::cuda;
  o.context = 512;
  o.cache_tokens = cache_tokens;
  o.step_tokens = 2048;
  o.step_logits = 64;
  o.kv_form = form;
  return o;
}

// One engine per size of pool for all tests: loading takes longer than serving here.
Loaded& large() {
  static Loaded model(0, gpu_options(64 * 512));
  return model;
}
Loaded& small() {
  static Loaded model(0, gpu_options(24 * 32));
  return model;
}

struct ServiceOnGpu : ::testing::Test {
  void SetUp() override {
    std::string why;
    if (cuda::list_devices(&why).empty()) GTEST_SKIP() << "not tested on a GPU: " << why;
  }
  static void expect_same(const std::vector<std::string>& got, const std::vector<std::string>& expected,
                          const char* what) {
    ASSERT_EQ(got.size(), expected.size());
    int different = 0;
    for (size_t i = 0; i < got.size(); ++i)
      if (got[i] != expected[i] && ++different <= 3)
        ADD_FAILURE() << what << ", request " << i << ":\n  " << got[i] << "\nalone:\n  " << expected[i];
    EXPECT_EQ(different, 0) << what;
  }
};

// Long enough for several pages, some of them beginning alike.
std::vector<GenerateRequest> requests_for(const Loaded& model, size_t count) {
  auto all = mixed_requests(model, count);
  const std::vector<int32_t> story = model.tokenizer->encode(
      "Once upon a time there was a little fox who lived near the river and liked to count the stars at "
      "night "
      "while his mother told him about the wide sea and the ships that sail on it. One day he met a boy "
      "named "
      "Tim who had a red ball and wanted to play with him all day long until the sun went down behind the "
      "hills and both of them had to go home where a warm soup and a soft bed waited for them.");
  for (size_t i = 0; i < all.size(); i += 2) {
    auto& prompt = all[i].prompt;
    prompt.insert(prompt.begin(), story.begin(), story.end() - int64_t(i % 7));
  }
  for (size_t i = 0; i < all.size(); ++i)
    all[i].max_tokens = int64_t(30 + 7 * i % 50), all[i].ignore_end = true;
  return all;
}

TEST_F(ServiceOnGpu, SameBytesAloneAndInABatch) {
  auto& model = large();
  const auto requests = requests_for(model, 64);
  std::vector<std::string> expected;
  for (const auto& r : requests) {  // not alone(): a Session ends at the end of a turn
    ServiceOptions o;
    o.reuse_prefixes = false;
    expected.push_back(served(model, {r}, o)[0]);
  }
  {
    auto until_end = requests;
    for (auto& r : until_end) r.ignore_end = false;
    until_end.resize(12);
    expect_same(served(model, until_end, {}), alone(model, until_end), "a session's");
  }
  for (const char* policy : {"first-come", "continuous"}) {
    ServiceOptions o;
    o.policy = policy;
    o.reuse_prefixes = false;
    expect_same(served(model, requests, o), expected, "batch of 64");
    o.reuse_prefixes = true;
    auto twice = requests;
    twice.insert(twice.end(), requests.begin(), requests.end());
    auto expected_twice = expected;
    expected_twice.insert(expected_twice.end(), expected.begin(), expected.end());
    ServiceStats stats;
    expect_same(served(model, twice, o, &stats), expected_twice, "with prefixes reused");
    EXPECT_GT(stats.reused_tokens, 0u);
    EXPECT_GT(stats.prefixes.partial_tokens, 0) << "no part of a page was copied";

    // Answers that grow past the pool: computed again, then kept in host memory.
    auto& tight = small();
    for (const bool reuse : {false, true})
      for (const uint64_t spill : {uint64_t{0}, uint64_t{256} << 20}) {
        o.reuse_prefixes = reuse;
        o.spill_bytes = spill;
        expect_same(served(tight, requests, o, &stats), expected,
                    fmt::format("{} in a small pool, reuse {}, spill {}", policy, reuse, spill).c_str());
        // The other policy looks ahead, and needs to preempt nothing here.
        const bool preempts = o.policy == "first-come";
        if (preempts) {
          EXPECT_GT(stats.preemptions, 0u);
        }
        fmt::print(
            "{} reuse {} spill {}: {} preemptions, {} tokens spilled, {} restored, {} reused, {} computed\n",
            policy, reuse, spill, stats.preemptions, stats.spilled_tokens, stats.restored_tokens,
            stats.reused_tokens, stats.computed_tokens);
        if (spill && preempts) {
          EXPECT_GT(stats.restored_tokens, 0u);
        }
        EXPECT_EQ(stats.spilled_pages, 0);
        EXPECT_EQ(tight.engine.kv().free_pages(), tight.engine.kv().config().pages);
      }
  }

  // From disk, by a service that has computed nothing.
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("cairn-gpu-service-{}", getpid());
  ServiceOptions o;
  o.store.folder = folder;
  ServiceStats stats;
  expect_same(served(model, requests, o), expected, "with a store");
  // A page is taken from disk when its folder has been read in time and reading is thought to be sooner than
  // computing: on a busy machine not always at the first try.
  for (int i = 0; i < 5 && stats.store.loaded_pages == 0; ++i)
    expect_same(served(model, requests, o, &stats), expected, "from disk");
  EXPECT_GT(stats.store.loaded_pages, 0);
  EXPECT_GT(stats.reused_tokens, 0u);
  std::filesystem::remove_all(folder);
}

// Another request's prompt is this one's answer: its rows, computed as a prompt's, must not be taken.
TEST_F(ServiceOnGpu, TakesNoPromptsRowsForAnAnswers) {
  auto& model = large();
  auto& tight = small();
  auto requests = requests_for(model, 8);
  for (auto& r : requests) r.max_tokens = 200;
  ServiceOptions o;
  Service first(model.engine, *model.tokenizer, o);
  std::vector<std::string> expected;
  std::vector<GenerateRequest> mixed;
  for (const auto& r : requests) {
    auto recorder = std::make_shared<Recorder>();
    first.submit(r, recorder);
    const auto& answer = recorder->wait();
    expected.push_back(answer.text);
    auto copy = r;
    copy.prompt.insert(copy.prompt.end(), answer.tokens.begin(), answer.tokens.end() - 4);
    copy.max_tokens = 2;
    mixed.push_back(copy);
    mixed.push_back(r);
  }
  ServiceStats stats;
  const auto got = served(tight, mixed, o, &stats);
  std::vector<std::string> answers;
  for (size_t i = 1; i < got.size(); i += 2) answers.push_back(got[i]);
  expect_same(answers, expected, "beside its own answer as a prompt");
  fmt::print("{} preemptions, {} tokens reused\n", stats.preemptions, stats.reused_tokens);
}

TEST_F(ServiceOnGpu, ServesMoreSequencesThanAGraphRecords) {
  auto o = gpu_options(256 * 128);
  o.step_logits = 256;
  Loaded model(0, o);
  auto requests = requests_for(model, 256);
  std::vector<std::string> expected;
  ServiceOptions service;
  service.scheduling.max_token_gap = 10;
  const auto all = served(model, requests, service);
  for (size_t i = 0; i < requests.size(); i += 17) {
    service.reuse_prefixes = false;
    EXPECT_EQ(served(model, {requests[i]}, service)[0], all[i]) << i;
  }
}

TEST_F(ServiceOnGpu, SameBytesWithCachesOfOtherForms) {
  for (const auto form : {kv::KvForm::q8_0, kv::KvForm::f16}) {
    Loaded model(0, gpu_options(64 * 512, form)), tight(0, gpu_options(24 * 32, form));
    const auto requests = requests_for(model, 64);
    ServiceOptions o;
    o.policy = "first-come";
    const auto expected = served(model, requests, o);
    ServiceStats stats;
    expect_same(served(tight, requests, o, &stats), expected, "small pool");
    o.spill_bytes = 256 << 20;
    expect_same(served(tight, requests, o, &stats), expected, "small pool, spilled");
    EXPECT_GT(stats.restored_tokens, 0u);
  }
}

}  // namespace
}  // namespace cairn::engine
