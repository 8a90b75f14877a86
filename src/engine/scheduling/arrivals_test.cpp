#include "engine/scheduling/arrivals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"

namespace cairn::engine {
namespace {

struct TemporaryFile {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("cairn_trace_" + std::to_string(getpid()));
  explicit TemporaryFile(const std::string& text) { std::ofstream(path) << text; }
  ~TemporaryFile() { std::filesystem::remove(path); }
};

TEST(Arrivals, KeepRateAndLengthsOfAPoissonLoad) {
  const auto load = poisson_load({.rate = 5, .requests = 20000, .prompt_mean = 300, .answer_mean = 100});
  double prompts = 0, answers = 0;
  for (const auto& a : load) prompts += double(a.prompt_tokens), answers += double(a.answer_tokens);
  EXPECT_NEAR(20000 / load.back().at, 5, 0.15);
  EXPECT_NEAR(prompts / 20000, 300, 12);
  EXPECT_NEAR(answers / 20000, 100, 4);
}

TEST(Arrivals, ReadTheTracesThatArePublished) {
  {
    const TemporaryFile file(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5000000,374,44\r\n2023-11-17 "
        "00:00:01.0000000,396,109\n");
    const auto load = read_trace(file.path, 10);
    ASSERT_EQ(load.size(), 2u);
    EXPECT_EQ(load[0].at, 0);
    EXPECT_NEAR(load[1].at, 1.5, 1e-9);
    EXPECT_EQ(load[1].prompt_tokens, 396);
    EXPECT_EQ(load[1].answer_tokens, 109);
  }
  {
    const TemporaryFile file(
        "{\"timestamp\": 500, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1]}\n"
        "{\"timestamp\": 3000, \"input_length\": 7, \"output_length\": 1, \"hash_ids\": []}\n");
    const auto load = read_trace(file.path, 10);
    ASSERT_EQ(load.size(), 2u);
    EXPECT_EQ(load[1].at, 2.5);
    EXPECT_EQ(load[0].content, (std::vector<int64_t>{0, 1}));
    EXPECT_EQ(read_trace(file.path, 1).size(), 1u);
  }
}

TEST(Arrivals, NameTheLineThatIsNoRequest) {
  const std::string head = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,20\n";
  for (const char* bad :
       {"1,2", "1,2,3,4", "x,2,3", "1,-2,3", "1,0,3", "1,nan,3", "1,1e300,3", "{\"timestamp\": 1}",
        "{\"timestamp\": 1, \"input_length\": \"a\", \"output_length\": 1, \"hash_ids\": []}", "{"}) {
    const TemporaryFile file(head + bad);
    try {
      read_trace(file.path, 10);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_file);
      EXPECT_NE(std::string(e.what()).find("line 3"), std::string::npos) << e.what();
    }
  }
  const TemporaryFile other("a,b,c\n1,2,3\n");
  EXPECT_THROW(read_trace(other.path, 10), Error);
  EXPECT_THROW(read_trace("/nowhere/trace.csv", 10), Error);
}

}  // namespace
}  // namespace cairn::engine
