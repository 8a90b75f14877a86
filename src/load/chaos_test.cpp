#include "load/chaos.h"

#include "base/error.h"
#include "load/load.h"
#include "load/load_testing.h"
#include "load/report.h"

namespace cairn::load {
namespace {

using namespace testing;

TEST(Chaos, ReadsKinds) {
  EXPECT_EQ(parse_mischiefs("").size(), size_t(kMischiefs));
  EXPECT_EQ(parse_mischiefs("slow,leave"), (std::vector<Mischief>{Mischief::slow, Mischief::leave}));
  EXPECT_THROW(parse_mischiefs("slow,fast"), Error);
}

// A load beside every kind of misbehaviour, against the server of `cairn serve`.
TEST(Chaos, SeesWhatTheServerDoesAndDisturbsNobody) {
  ScriptedServer server([](int, const nlohmann::json& body) {
    Script script;
    if (!body.is_object() || body.value("max_tokens", nlohmann::json()) != 5) script.status = 400;
    script.pauses.assign(5, 10ms);
    return script;
  });
  boost::asio::io_context io;
  Client client(io, parse_target(server.url()));
  const auto alphabet = uncalibrated_alphabet();
  RequestStyle style;
  ChaosOptions mischief;
  mischief.clients = 8;
  mischief.idle = 50;
  mischief.patience = 0.1;
  Chaos chaos(io, client, style, alphabet, mischief);
  SyntheticOptions sessions;
  sessions.sessions = 60;
  sessions.prompt = Length(20);
  sessions.answer = Length(5);
  LoadOptions options;
  options.concurrency = 4;
  options.timeout = 20s;
  chaos.start();
  const auto run = run_load(io, client, *synthetic_sessions(sessions), alphabet, options);
  EXPECT_EQ(chaos.idle_opened(), 50);
  EXPECT_EQ(chaos.idle_open(), 50);
  chaos.stop();
  EXPECT_EQ(summarise(run, {}, false).failed, 0);
  for (int i = 0; i < kMischiefs; ++i) EXPECT_GT(chaos.tally(Mischief(i)).tried, 0) << to_string(Mischief(i));
  EXPECT_GT(chaos.tally(Mischief::malformed).answered[4], 0);
  EXPECT_GT(chaos.tally(Mischief::garbage).answered[4] + chaos.tally(Mischief::garbage).closed, 0);
  EXPECT_GT(chaos.tally(Mischief::half_head).left, 0);
  EXPECT_TRUE(chaos.server_errors().empty());
  EXPECT_GT(server.server().stats().malformed, 0u);
}

TEST(Chaos, NamesBodiesThatBreakTheServer) {
  ScriptedServer server([](int, const nlohmann::json&) {
    Script script;
    script.status = 500;
    return script;
  });
  boost::asio::io_context io;
  Client client(io, parse_target(server.url()));
  const auto alphabet = uncalibrated_alphabet();
  const RequestStyle style;
  ChaosOptions mischief;
  mischief.kinds = {Mischief::malformed};
  Chaos chaos(io, client, style, alphabet, mischief);
  chaos.start();
  io.run_for(300ms);
  chaos.stop();
  ASSERT_FALSE(chaos.server_errors().empty());
  EXPECT_EQ(chaos.server_errors()[0].substr(0, 4), "500:");
}

}  // namespace
}  // namespace cairn::load
