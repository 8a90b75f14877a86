// What the service promises: the same bytes as an answer alone, whatever runs beside it, however its prompt
// is cut and however often it is preempted; and that ends, refusals and cancellations reach whom they
// concern.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <random>

#include "base/error.h"
#include "engine/serving/service_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

class ServiceWith : public ::testing::TestWithParam<const char*> {};

TEST_P(ServiceWith, SameBytesAloneAndInABatch) {
  Loaded model(64 * 256);
  const auto requests = mixed_requests(model, 40);
  const auto expected = alone(model, requests);
  ServiceOptions o;
  o.policy = GetParam();
  EXPECT_EQ(served(model, requests, o), expected);

  Loaded small(12 * 32);
  EXPECT_EQ(served(small, requests, o), expected);
  EXPECT_EQ(small.engine.kv().free_pages(), small.engine.kv().config().pages);

  // Again, with what the first round left behind, and without any reuse.
  ServiceStats stats;
  std::vector<GenerateRequest> twice = requests;
  twice.insert(twice.end(), requests.begin(), requests.end());
  auto expected_twice = expected;
  expected_twice.insert(expected_twice.end(), expected.begin(), expected.end());
  EXPECT_EQ(served(model, twice, o, &stats), expected_twice);
  EXPECT_GT(stats.reused_tokens, 0u);
  EXPECT_EQ(served(small, twice, o, &stats), expected_twice);
  auto pages_of_8 = options(16 * 32);
  pages_of_8.page_tokens = 8;
  Loaded fine(0, pages_of_8);
  EXPECT_EQ(served(fine, requests, o), expected);
  o.reuse_prefixes = false;
  EXPECT_EQ(served(small, requests, o, &stats), expected);
  EXPECT_EQ(stats.reused_tokens, 0u);
}

// Answers that grow past what the pool holds together: some are thrown out and computed again.
TEST_P(ServiceWith, SameBytesAfterPreemption) {
  Loaded model(64 * 256), small(12 * 32);
  auto requests = mixed_requests(model, 10);
  for (auto& r : requests) r.max_tokens = 120, r.ignore_end = true;
  ServiceOptions o;
  o.policy = GetParam();
  ServiceStats stats;
  EXPECT_EQ(served(small, requests, o, &stats), served(model, requests, o));
  EXPECT_GT(stats.preemptions, 0u);
  o.reuse_prefixes = false;
  EXPECT_EQ(served(small, requests, o, &stats), served(model, requests, o));
  EXPECT_GT(stats.preemptions, 0u);
}

// Pages that were kept aside come back as they were, instead of being computed again.
TEST_P(ServiceWith, SameBytesAfterASpill) {
  Loaded model(64 * 256), small(12 * 32);
  auto requests = mixed_requests(model, 10);
  for (auto& r : requests) r.max_tokens = 120, r.ignore_end = true;
  const auto expected = served(model, requests, {});
  for (const bool reuse : {true, false}) {
    ServiceOptions o;
    o.policy = GetParam();
    o.reuse_prefixes = reuse;
    o.spill_bytes = 64 << 20;
    ServiceStats stats;
    EXPECT_EQ(served(small, requests, o, &stats), expected);
    EXPECT_GT(stats.preemptions, 0u);
    EXPECT_GT(stats.restored_tokens, 0u);
    EXPECT_EQ(stats.spilled_pages, 0);
    EXPECT_EQ(small.engine.kv().free_pages(), small.engine.kv().config().pages);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ServiceWith, ::testing::Values("first-come", "continuous"));

TEST(Service, GivesSeveralAnswersToOnePrompt) {
  Loaded model(4096);
  auto r = request(model, "Once upon a time", 7, 20);
  std::vector<std::string> expected;
  for (int stream = 0; stream < 4; ++stream) {
    Session session(model.engine, *model.tokenizer);
    GenerateOptions o;
    o.sampling = r.sampling;
    o.max_tokens = r.max_tokens;
    expected.push_back(session.generate(r.prompt, o, stream).text);
  }
  EXPECT_NE(expected[0], expected[1]);
  r.sampling.n = 4;
  Service service(model.engine, *model.tokenizer, first_come());
  auto recorder = std::make_shared<Recorder>(4);
  service.submit(r, recorder);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(recorder->wait(i).text, expected[size_t(i)]);
  r.prompt.clear();
  for (int i = 0; i < 100; ++i) r.prompt.push_back(5 + i);
  auto longer = std::make_shared<Recorder>(4);
  service.submit(r, longer);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(longer->wait(i).end->reused_tokens, i == 0 ? 0 : 96);
}

// The next turn of a chat computes what is new, and its answer has the bytes it would have had anyway.
TEST(Service, ReadsOnlyWhatIsNew) {
  Loaded model(4096);
  const std::string story =
      "Once upon a time there was a little fox who lived near the river and counted stars.";
  const auto turn = [&](Service& service, const std::vector<int32_t>& prompt, uint64_t seed) {
    auto r = request(model, "x", seed, 40);
    r.prompt = prompt;
    auto recorder = std::make_shared<Recorder>();
    service.submit(r, recorder);
    return recorder->wait();
  };
  std::vector<int32_t> prompt = model.tokenizer->encode(story), second;
  std::string expected;
  {
    Service service(model.engine, *model.tokenizer, first_come());
    const auto one = turn(service, prompt, 1);
    EXPECT_EQ(one.end->reused_tokens, 0);
    second = prompt;
    second.insert(second.end(), one.tokens.begin(), one.tokens.end());
    const size_t known = second.size();
    const auto more = model.tokenizer->encode(" Then he went home.", {.add_special = false});
    second.insert(second.end(), more.begin(), more.end());
    const auto two = turn(service, second, 2);
    EXPECT_EQ(two.end->reused_tokens, int64_t(known) - 1);  // the answer's last token was never fed
    expected = two.text;
  }
  auto o = first_come();
  o.reuse_prefixes = false;
  Service service(model.engine, *model.tokenizer, o);
  const auto two = turn(service, second, 2);
  EXPECT_EQ(two.end->reused_tokens, 0);
  EXPECT_EQ(two.text, expected);
}

// A server that is started again finds on disk what the last one computed.
TEST(Service, RemembersAcrossRestarts) {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("cairn-service-{}", getpid());
  ServiceOptions o;
  o.store.folder = folder;
  std::vector<std::string> expected;
  std::vector<GenerateRequest> requests;
  {
    Loaded model(4096);
    requests = mixed_requests(model, 12);
    for (auto& r : requests) r.max_tokens = 60, r.ignore_end = true;
    expected = served(model, requests, o);
  }
  ServiceStats stats;
  Loaded model(4096);
  EXPECT_EQ(served(model, requests, o, &stats), expected);
  EXPECT_GT(stats.store.loaded_pages, 0);
  EXPECT_GT(stats.reused_tokens, 0u);
  // With a pool so small that what is written, read and computed compete for its pages.
  Loaded small(12 * 32);
  EXPECT_EQ(served(small, requests, o, &stats), expected);
  EXPECT_EQ(small.engine.kv().free_pages(), small.engine.kv().config().pages);
  // Damaged files are computed again.
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) std::filesystem::resize_file(entry.path(), entry.file_size() / 2);
  Loaded again(4096);
  EXPECT_EQ(served(again, requests, o, &stats), expected);
  EXPECT_EQ(stats.store.loaded_pages, 0);
  std::filesystem::remove_all(folder);
}

// A grammar binds each answer by itself, in a batch and after preemptions as alone.
TEST(Service, BindsAnswersToGrammars) {
  Loaded model(4096), small(12 * 32);
  text::GrammarCompiler compiler(*model.tokenizer, int32_t(model.engine.model().vocabulary_size));
  auto requests = mixed_requests(model, 16);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].max_tokens = 150;
    if (i % 4 != 3) requests[i].grammar = compiler.regex(i % 2 ? "([a-z]{3,9} ){20}end" : "[0-9]{40}");
  }
  std::vector<std::string> expected;
  for (const auto& r : requests) expected.push_back(served(model, {r}, {})[0]);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % 4 == 3) continue;
    if (i % 2 == 0) {
      EXPECT_EQ(expected[i].size(), 40u);
      EXPECT_EQ(expected[i].find_first_not_of("0123456789"), std::string::npos) << expected[i];
    } else {
      EXPECT_EQ(std::count(expected[i].begin(), expected[i].end(), ' '), 20) << expected[i];
      EXPECT_TRUE(expected[i].ends_with("end")) << expected[i];
    }
  }
  EXPECT_EQ(served(model, requests, {}), expected);
  ServiceStats stats;
  EXPECT_EQ(served(small, requests, {}, &stats), expected);
}

TEST(Service, RefusesWhatCanNeverRun) {
  Loaded model(256);
  Service service(model.engine, *model.tokenizer, first_come());
  const auto expect_refusal = [&](GenerateRequest r, const char* words) {
    try {
      service.submit(std::move(r), std::make_shared<Recorder>());
      FAIL() << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  const auto good = request(model, "Once", 0, 4);
  auto r = good;
  r.prompt.clear();
  expect_refusal(r, "empty");
  r.prompt.assign(256, 5);
  expect_refusal(r, "256 tokens, the context holds 256");
  r.prompt.assign(200, 5);
  r.max_tokens = 57;
  expect_refusal(r, "together 257");
  r = good;
  r.prompt[0] = -1;
  expect_refusal(r, "-1");
  r.prompt[0] = int32_t(model.engine.model().vocabulary_size);
  expect_refusal(r, "vocabulary");
  r = good;
  r.max_tokens = -5;
  expect_refusal(r, "-5");
  r = good;
  r.sampling.n = 1'000'000'000;
  expect_refusal(r, "n is");
  auto recorder = std::make_shared<Recorder>();
  service.submit(good, recorder);
  EXPECT_EQ(recorder->wait().end->answer_tokens, 4);
}

TEST(Service, CancelsWithinAStepAndTurnsAwayWhatIsTooMuch) {
  Loaded model(4096);
  auto o = first_come();
  o.max_running = 1, o.max_waiting = 2;
  Service service(model.engine, *model.tokenizer, o);
  auto endless = request(model, "Once upon a time", 0, 200);
  endless.ignore_end = true;
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<RequestId> ids;
  std::promise<void> started;
  for (int i = 0; i < 3; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    if (i == 0) recorders[0]->on_first_piece = [&] { started.set_value(); };
    ids.push_back(service.submit(endless, recorders.back()));
  }
  EXPECT_THROW(service.submit(endless, std::make_shared<Recorder>()), Error);
  started.get_future().wait();
  service.cancel(ids[0]);
  service.cancel(ids[1]);
  service.cancel(12345);
  EXPECT_EQ(recorders[0]->wait().end->finish, Finish::cancelled);
  EXPECT_LT(recorders[0]->wait().end->answer_tokens, 200);
  EXPECT_EQ(recorders[1]->wait().end->answer_tokens, 0);
  EXPECT_EQ(recorders[2]->wait().end->finish, Finish::length);
  EXPECT_EQ(recorders[2]->wait().end->answer_tokens, 200);
  EXPECT_EQ(service.stats().refused, 1u);
}

TEST(Service, ListsWhatHasNotEnded) {
  Loaded model(4096);
  auto o = first_come();
  o.max_running = 1;
  Service service(model.engine, *model.tokenizer, o);
  auto endless = request(model, "Once upon a time", 0, 200);
  endless.ignore_end = true;
  endless.id = "one";
  auto first = std::make_shared<Recorder>(), second = std::make_shared<Recorder>();
  service.submit(endless, first);
  endless.id = "two";
  service.submit(endless, second);
  std::vector<RequestView> seen;
  for (int i = 0; i < 10000 && seen.size() < 2; ++i) {
    seen = service.requests();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].id, "one");
  EXPECT_TRUE(seen[0].state == "decode" || seen[0].state == "prefill") << seen[0].state;
  EXPECT_GT(seen[0].pages, 0);
  EXPECT_EQ(seen[1].id, "two");
  EXPECT_EQ(seen[1].state, "waiting");
  first->wait();
  second->wait();
  (void)service.requests();
  for (int i = 0; i < 10000 && !service.requests().empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(service.requests().empty());
}

// An idle thread is seen to live, one that hangs outside of any step is not.
TEST(Service, ShowsWhetherItsThreadMoves) {
  struct Stubborn : Recorder {
    void on_end(const Ended& e) override {
      hangs.set_value();
      go.get_future().wait();
      Recorder::on_end(e);
    }
    std::promise<void> hangs, go;
  };
  Loaded model(4096);
  auto o = first_come();
  o.max_running = 1;
  Service service(model.engine, *model.tokenizer, o);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_LT(service.stats().since_seen, 1.3);
  auto endless = request(model, "Once upon a time", 0, 200);
  endless.ignore_end = true;
  auto first = std::make_shared<Recorder>();
  auto stubborn = std::make_shared<Stubborn>();
  service.submit(endless, first);
  service.cancel(service.submit(endless, stubborn));
  stubborn->hangs.get_future().wait();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_GT(service.stats().since_seen, 0.19);
  EXPECT_EQ(service.stats().step_running_for, 0);
  stubborn->go.set_value();
  first->wait();
}

TEST(Service, DrainsAndThenRefuses) {
  Loaded model(4096);
  Service service(model.engine, *model.tokenizer, first_come());
  auto recorder = std::make_shared<Recorder>();
  service.submit(request(model, "Once upon a time", 0, 30), recorder);
  EXPECT_TRUE(service.drain(60));
  EXPECT_EQ(recorder->wait().end->answer_tokens, 30);
  EXPECT_THROW(service.submit(request(model, "Once", 0, 3), std::make_shared<Recorder>()), Error);
}

TEST(Service, DrainCutsWhatTakesTooLong) {
  Loaded model(4096);
  Service service(model.engine, *model.tokenizer, first_come());
  auto r = request(model, "Once upon a time", 0, 240);
  r.ignore_end = true;
  r.max_tokens = 240;
  auto recorder = std::make_shared<Recorder>();
  service.submit(r, recorder);
  EXPECT_FALSE(service.drain(0));
  EXPECT_EQ(recorder->wait().end->finish, Finish::cancelled);
}

TEST(Service, EmbedsLongTextsBesideAnswers) {
  Loaded model(4096);
  Service service(model.engine, *model.tokenizer, first_come());
  GenerateRequest r = request(model, "Once", 0, 0);
  r.embed = true;
  r.prompt.clear();
  for (int i = 0; i < 150; ++i) r.prompt.push_back(5 + i);
  auto talk = std::make_shared<Recorder>(), embed = std::make_shared<Recorder>();
  service.submit(request(model, "Once upon a time", 0, 30), talk);
  service.submit(r, embed);
  const auto& end = *embed->wait().end;
  ASSERT_EQ(int64_t(end.embedding.size()), model.engine.model().hidden_size);
  double squares = 0;
  for (const float v : end.embedding) squares += double(v) * v;
  EXPECT_NEAR(squares, 1, 1e-5);
  talk->wait();
}

}  // namespace
}  // namespace cairn::engine
