// Steps enqueued before the tokens of the one ahead are known, on the CPU, which has everything but the
// speed: nothing of it shows in the answers.
#include "engine/serving/service_testing.h"

namespace cairn::engine {
namespace {

using namespace testing;

ServiceOptions ahead() {
  ServiceOptions o;
  o.overlap = true;
  return o;
}

TEST(ServiceAhead, SameBytesAsAlone) {
  Loaded model(64 * 64);
  auto requests = mixed_requests(model, 24);
  requests[3].sampling.logprobs = 2;  // drawn from scores
  requests[5].sampling.stop = {" the"};
  requests[7].sampling.repetition_penalty = 1.3f;
  requests[8].max_tokens = 1;
  requests[9].max_tokens = 2;
  requests[10].sampling.frequency_penalty = 0.5f, requests[10].sampling.penalty_window = 5;
  const auto expected = alone(model, requests);
  ServiceStats stats;
  EXPECT_EQ(served(model, requests, ahead(), &stats), expected);
  EXPECT_GT(stats.steps, 0u);
  EXPECT_EQ(served(model, {requests[0]}, ahead()), std::vector<std::string>{expected[0]});
}

TEST(ServiceAhead, SameBytesInASmallPool) {
  Loaded model(24 * 32);
  const auto requests = mixed_requests(model, 20);
  const auto expected = alone(model, requests);
  ServiceStats stats;
  EXPECT_EQ(served(model, requests, ahead(), &stats), expected);
}

TEST(ServiceAhead, SeveralAnswersAndTheNextTurn) {
  Loaded model(64 * 64);
  auto r = request(model, "Once upon a time there was a dragon who", 7, 30);
  r.sampling.n = 4;
  std::vector<std::vector<int32_t>> got[2];
  for (const bool overlap : {false, true}) {
    ServiceOptions o;
    o.overlap = overlap;
    Service service(model.engine, *model.tokenizer, o);
    auto recorder = std::make_shared<Recorder>(4);
    service.submit(r, recorder);
    for (int i = 0; i < 4; ++i) got[overlap].push_back(recorder->wait(i).tokens);
    auto next = r;  // goes on with what is cached of the first answer
    next.sampling.n = 1;
    next.prompt.insert(next.prompt.end(), got[overlap][0].begin(), got[overlap][0].end());
    next.prompt.push_back(r.prompt.back());
    auto second = std::make_shared<Recorder>();
    service.submit(next, second);
    got[overlap].push_back(second->wait().tokens);
    EXPECT_GT(service.stats().reused_tokens, 0u);
  }
  EXPECT_EQ(got[1], got[0]);
}

TEST(ServiceAhead, CancelsAndRefusesNothingElse) {
  Loaded model(64 * 64);
  const auto requests = mixed_requests(model, 6);
  const auto expected = alone(model, requests);
  Service service(model.engine, *model.tokenizer, ahead());
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (const auto& r : requests) {
    recorders.push_back(std::make_shared<Recorder>());
    service.submit(r, recorders.back());
  }
  auto cancelled = request(model, "Once upon a time", 3, 200);
  cancelled.ignore_end = true;
  auto recorder = std::make_shared<Recorder>();
  std::atomic<RequestId> id{0};
  recorder->on_first_piece = [&] { service.cancel(id); };
  id = service.submit(cancelled, recorder);
  EXPECT_LT(recorder->wait().tokens.size(), 200u);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(recorders[i]->wait().text, expected[i]);
}

}  // namespace
}  // namespace cairn::engine
