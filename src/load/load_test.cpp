// Runs against a server whose timings are scripted: what is reported must be what was scripted.
#include "load/load.h"

#include "base/error.h"
#include "load/calibrate.h"
#include "load/load_testing.h"
#include "load/report.h"

namespace cairn::load {
namespace {

using namespace testing;

// Waking up late on a busy machine is not what these tests look for, and waking up early is impossible: lower
// bounds are exact, upper ones generous. Figures are checked against records in client_test.cpp.
constexpr double kSlack = 0.5;

Script paced(std::chrono::milliseconds first, std::chrono::milliseconds gap, int chunks) {
  Script script;
  script.pauses.assign(size_t(chunks), gap);
  script.pauses[0] = first;
  return script;
}

std::unique_ptr<SessionSource> sessions(int64_t count, double rate = 0, int64_t turns = 1, double pause = 0) {
  SyntheticOptions options;
  options.sessions = count;
  options.prompt = Length(20);
  options.answer = Length(5);
  options.turns = turns;
  options.pause = pause;
  options.rate = rate;
  options.burstiness = std::numeric_limits<double>::infinity();
  options.seed = 1;
  return synthetic_sessions(options);
}

struct Bench {
  explicit Bench(ScriptedServer& server) : client(io, parse_target(server.url())) {}
  Run run(SessionSource& source, const LoadOptions& options) {
    return run_load(io, client, source, alphabet, options);
  }
  boost::asio::io_context io;
  Client client;
  Alphabet alphabet = uncalibrated_alphabet();
};

LoadOptions closed(int64_t concurrency) {
  LoadOptions options;
  options.concurrency = concurrency;
  options.timeout = 20s;
  return options;
}

TEST(Load, ReportsTheTimesThatWereScripted) {
  ScriptedServer server([](int, const nlohmann::json&) {
    auto script = paced(100ms, 20ms, 5);
    script.prompt_tokens = 33;
    script.cached_tokens = 16;
    return script;
  });
  Bench bench(server);
  const auto run = bench.run(*sessions(4), closed(1));
  const auto summary = summarise(run, parse_slo("ttft=1s"), false);
  EXPECT_EQ(summary.requests, 4);
  EXPECT_EQ(summary.failed, 0);
  EXPECT_EQ(summary.answer_tokens, 20);
  EXPECT_EQ(summary.prompt_tokens, 4 * 33);
  EXPECT_EQ(summary.cached_tokens, 4 * 16);
  EXPECT_EQ(summary.itl.count(), 16u);
  EXPECT_GE(summary.ttft.quantile(0), 0.100);
  EXPECT_LT(summary.ttft.quantile(0.5), 0.100 + kSlack);
  EXPECT_GE(summary.itl.mean(), 0.0195);
  EXPECT_LT(summary.itl.quantile(0.5), 0.020 + kSlack);
  EXPECT_NEAR(summary.tpot.mean(), summary.itl.mean(), 1e-4);
  EXPECT_GE(summary.latency.quantile(0), 0.180);
  EXPECT_GE(summary.seconds, 0.72);
  EXPECT_NEAR(summary.per_second(summary.answer_tokens), 20 / summary.seconds, 1e-9);
  EXPECT_EQ(summary.good, 4);
  EXPECT_EQ(run.connections, 1u) << "connections are kept";
}

TEST(Load, ClosedLoopKeepsItsConcurrency) {
  std::atomic<int> running{0}, most{0};
  ScriptedServer server([&](int, const nlohmann::json&) {
    int now = ++running, before = most;
    while (now > before && !most.compare_exchange_weak(before, now)) {
    }
    std::this_thread::sleep_for(50ms);
    --running;
    return paced(1ms, 1ms, 2);
  });
  Bench bench(server);
  const auto run = bench.run(*sessions(12), closed(4));
  EXPECT_EQ(run.requests.size(), 12u);
  EXPECT_EQ(most, 4);
  EXPECT_GE(run.seconds, 0.15);
}

TEST(Load, OpenLoopCountsFromWhenARequestWasDue) {
  // One at a time and 100 ms each, due every 25 ms: the n-th waits for those before it.
  ScriptedServer server([](int, const nlohmann::json&) { return paced(90ms, 10ms, 2); });
  Bench bench(server);
  LoadOptions options;
  options.most_in_flight = 1;
  options.timeout = 20s;
  const auto run = bench.run(*sessions(5, 40), options);
  ASSERT_EQ(run.requests.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    const auto& request = run.requests[i];
    EXPECT_NEAR(request.due, 0.025 * double(i), 1e-3);
    EXPECT_GE(request.end - request.due, 0.1 * double(i + 1) - 0.025 * double(i) - 1e-3);
  }
  const auto summary = summarise(run, {}, false);
  EXPECT_GE(summary.latency.max(), 0.39);
  EXPECT_GE(summary.late.max(), 0.29);
}

TEST(Load, OpenLoopDoesNotWaitForAnswers) {
  ScriptedServer server([](int, const nlohmann::json&) { return paced(300ms, 1ms, 2); });
  Bench bench(server);
  const auto run = bench.run(*sessions(10, 100), {});
  EXPECT_EQ(run.requests.size(), 10u);
  EXPECT_LT(run.seconds, 0.09 + 0.3 + 5 * kSlack);
}

TEST(Load, TellsFaultsApart) {
  ScriptedServer server([](int number, const nlohmann::json&) {
    auto script = paced(1ms, 1ms, 3);
    if (number == 1) script.status = 429;
    if (number == 2) script.breaks_off = true;
    if (number == 3) script.error = "out of pages";
    if (number == 4) script.pauses.clear();
    if (number == 5) script.pauses = {1500ms};
    return script;
  });
  Bench bench(server);
  auto options = closed(1);
  options.timeout = 1s;
  const auto run = bench.run(*sessions(7), options);
  const auto summary = summarise(run, {}, false);
  EXPECT_EQ(summary.requests, 7);
  EXPECT_EQ(summary.failed, 5);
  EXPECT_EQ(summary.faults,
            (std::map<std::string, int64_t>{
                {"status_429", 1}, {"closed", 1}, {"in_stream", 1}, {"empty", 1}, {"timeout", 1}}));
  EXPECT_EQ(run.faults.count("status 429: scripted"), 1u);
  EXPECT_EQ(run.faults.count("in_stream: out of pages"), 1u);
  const auto json = to_json(summary, {});
  EXPECT_EQ(json["faults"]["status_429"], 1);
  EXPECT_EQ(json["requests"]["complete"], 2);
}

TEST(Load, TurnsGoOnFromTheAnswerBefore) {
  ScriptedServer server([](int, const nlohmann::json&) { return paced(1ms, 1ms, 3); });
  Bench bench(server);
  const auto run = bench.run(*sessions(2, 0, 3, 0.01), closed(1));
  ASSERT_EQ(run.requests.size(), 6u);
  const auto bodies = server.bodies();
  EXPECT_EQ(bodies[0]["messages"].size(), 1u);
  ASSERT_EQ(bodies[2]["messages"].size(), 5u);
  EXPECT_EQ(bodies[2]["messages"][0], bodies[0]["messages"][0]);
  EXPECT_EQ(bodies[2]["messages"][1],
            (nlohmann::json{{"role", "assistant"}, {"content", " word word word"}}));
  EXPECT_EQ(bodies[3]["messages"].size(), 1u) << "the second conversation";
  EXPECT_NE(bodies[3]["messages"][0], bodies[0]["messages"][0]);
  EXPECT_EQ(run.requests[2].turn, 2);
}

TEST(Load, AnswersWithoutStreamAndJsonAreJudged) {
  ScriptedServer server([](int number, const nlohmann::json& body) {
    EXPECT_EQ(body["response_format"]["type"], "json_schema");
    auto script = paced(1ms, 1ms, 1);
    script.text = number == 0 ? "{\"a\":1}" : "{\"a\":";
    return script;
  });
  Bench bench(server);
  auto options = closed(1);
  options.style.stream = false;
  options.style.response_format = {{"type", "json_schema"}};
  const auto summary = summarise(bench.run(*sessions(2), options), {}, false);
  EXPECT_EQ(summary.failed, 0);
  EXPECT_EQ(summary.json_valid, 1);
  EXPECT_EQ(summary.json_invalid, 1);
  EXPECT_EQ(summary.tpot.count(), 0u) << "one piece has no pace";
}

TEST(Load, CountsChunksWhereTheServerCountsNothingAndNotesShortAnswers) {
  ScriptedServer server([](int number, const nlohmann::json&) {
    auto script = paced(1ms, 1ms, number == 0 ? 5 : 3);
    script.usage = false;
    return script;
  });
  Bench bench(server);
  auto options = closed(1);
  options.style.ignore_end = true;
  const auto summary = summarise(bench.run(*sessions(2), options), {}, true);
  EXPECT_FALSE(summary.counted_by_server);
  EXPECT_EQ(summary.answer_tokens, 8);
  EXPECT_EQ(summary.short_answers, 1);
  EXPECT_TRUE(server.bodies()[0]["ignore_eos"].get<bool>());
}

TEST(Load, StopsWhenTold) {
  ScriptedServer server([](int, const nlohmann::json&) { return paced(10ms, 100ms, 8); });
  Bench bench(server);
  std::atomic<bool> stop{false};
  auto options = closed(3);
  options.stop = &stop;
  options.progress = [&](int64_t, int64_t) { stop = true; };
  const auto run = bench.run(*sessions(100), options);
  EXPECT_TRUE(run.stopped);
  EXPECT_EQ(run.abandoned, 3);
  EXPECT_TRUE(run.requests.empty());
}

TEST(Load, DurationEndsAClosedLoop) {
  ScriptedServer server([](int, const nlohmann::json&) { return paced(10ms, 10ms, 2); });
  Bench bench(server);
  auto options = closed(2);
  options.duration = 0.3;
  const auto run = bench.run(*sessions(-1), options);
  EXPECT_GT(run.requests.size(), 4u);
  EXPECT_GE(run.seconds, 0.25);
  EXPECT_LT(run.seconds, 0.3 + 4 * kSlack);
}

TEST(Load, SurvivesAServerThatIsGone) {
  auto server =
      std::make_unique<ScriptedServer>([](int, const nlohmann::json&) { return paced(1ms, 1ms, 2); });
  Bench bench(*server);
  server.reset();
  const auto summary = summarise(bench.run(*sessions(3), closed(1)), {}, false);
  EXPECT_EQ(summary.failed, 3);
  EXPECT_EQ(summary.faults.at("connect"), 3);
}

TEST(Calibrate, LearnsTheModelAndTheLengthsFromUsage) {
  // A tokenizer of one and a half tokens per word behind a template of 12.
  ScriptedServer server([](int, const nlohmann::json& body) {
    const auto& text = body["messages"][0]["content"].get_ref<const std::string&>();
    auto script = paced(1ms, 1ms, 1);
    script.prompt_tokens = 12 + 3 * std::count(text.begin(), text.end(), ' ') / 2;
    return script;
  });
  boost::asio::io_context io;
  Client client(io, parse_target(server.url() + "/v1/"));
  const auto facts = calibrate(io, client, {});
  EXPECT_EQ(facts.model, "scripted");
  EXPECT_EQ(facts.owned_by, "test");
  EXPECT_EQ(facts.tokenizer, "usage");
  EXPECT_NEAR(facts.alphabet.tokens_per_word, 1.5, 1e-9);
  EXPECT_EQ(facts.alphabet.overhead_tokens, 12);

  RequestStyle style;
  Session session;
  Turn turn;
  turn.prompt = {{7, 300}};
  const auto body = nlohmann::json::parse(Conversation(style, facts.alphabet, session).body(turn));
  const auto& text = body["messages"][0]["content"].get_ref<const std::string&>();
  EXPECT_EQ(12 + std::count(text.begin(), text.end(), ' ') * 3 / 2, 300);
}

TEST(Calibrate, KeepsWordsThatAreOneTokenBehindTheBeginOfText) {
  ScriptedServer server([](int, const nlohmann::json& body) {
    auto script = paced(1ms, 1ms, 1);
    const auto& prompt = body["prompt"];
    script.prompt_tokens = prompt.is_array()
                               ? int64_t(prompt.size())
                               : 1 + std::count(prompt.get_ref<const std::string&>().begin(),
                                                prompt.get_ref<const std::string&>().end(), ' ');
    return script;
  });
  server.tokenizes = true;
  boost::asio::io_context io;
  Client client(io, parse_target(server.url()));
  CalibrationOptions options;
  options.api = Api::completions;
  auto facts = calibrate(io, client, options);
  EXPECT_EQ(facts.tokenizer, "tokenize");
  EXPECT_EQ(facts.alphabet.tokens_per_word, 1);
  EXPECT_EQ(facts.alphabet.overhead_tokens, 1);
  EXPECT_GT(facts.alphabet.words.size(), 200u);
  EXPECT_LT(facts.alphabet.words.size(), common_words().size());
  for (const auto& word : facts.alphabet.words) EXPECT_EQ(word.find('x'), word.npos) << word;
  EXPECT_EQ(std::count(facts.alphabet.ids.begin(), facts.alphabet.ids.end(), 1), 0)
      << "no begin of text inside";
  options.token_ids = true;
  facts = calibrate(io, client, options);
  RequestStyle style;
  style.api = Api::completions;
  style.token_ids = true;
  Session session;
  Turn turn;
  turn.prompt = {{7, 123}};
  EXPECT_EQ(nlohmann::json::parse(Conversation(style, facts.alphabet, session).body(turn))["prompt"].size(),
            123u);
}

TEST(Calibrate, SaysWhatTheServerSaid) {
  ScriptedServer server([](int, const nlohmann::json&) {
    Script script;
    script.status = 401;
    return script;
  });
  boost::asio::io_context io;
  Client client(io, parse_target(server.url()));
  try {
    calibrate(io, client, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("401"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("scripted"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cairn::load
