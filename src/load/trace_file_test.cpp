#include "load/trace_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "load/random.h"
#include "load/servegen.h"

namespace cairn::load {
namespace {

class TraceFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("cairn_trace_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  void refuse(const std::string& text, const std::string& says) {
    try {
      read_trace(write("bad", text));
      ADD_FAILURE() << "accepted: " << text.substr(0, 80);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_file) << error.what();
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  }
  std::vector<Session> sessions(const std::filesystem::path& path, const TraceOptions& options) {
    std::vector<Session> all;
    load_ = open_trace(path, options);
    while (auto session = load_->sessions->next()) all.push_back(*session);
    return all;
  }

  std::filesystem::path folder_;
  std::shared_ptr<TraceLoad> load_;
};

const std::string kMooncake =
    "{\"timestamp\": 1000, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [3, 4]}\n"
    "{\"timestamp\": 3500, \"input_length\": 512, \"output_length\": 50, \"hash_ids\": [3]}\n";

TEST_F(TraceFile, ReadsCsvWithDatesAndWithSeconds) {
  const auto azure =
      read_trace(write("a.csv",
                       "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                       "2023-11-16 23:59:59.5000000,374,44\r\n2023-11-17 00:00:01.2500000,396,109\r\n"));
  EXPECT_EQ(azure.format, "csv");
  ASSERT_EQ(azure.rows.size(), 2u);
  EXPECT_NEAR(azure.rows[1].at, 1.75, 1e-6);
  EXPECT_EQ(azure.rows[1].prompt_tokens, 396);
  EXPECT_EQ(azure.rows[1].answer_tokens, 109);
  EXPECT_EQ(
      read_trace(
          write("b.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,2\n"))
          .rows.size(),
      1u);
  const auto vidur =
      read_trace(write("c.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n2.5,10,3\n0.5,20,4"));
  ASSERT_EQ(vidur.rows.size(), 2u);
  EXPECT_EQ(vidur.rows[0].prompt_tokens, 20) << "sorted by time";
  EXPECT_EQ(vidur.rows[1].at, 2);
  EXPECT_EQ(read_trace(write("d.csv", "num_prefill_tokens,num_decode_tokens,pd_ratio\n7,3,2.3\n")).rows[0].at,
            0);
}

TEST_F(TraceFile, ReadsJsonLines) {
  const auto mooncake = read_trace(write("m", kMooncake));
  EXPECT_EQ(mooncake.format, "mooncake");
  EXPECT_EQ(mooncake.block_tokens, 512);
  EXPECT_EQ(mooncake.rows[0].at, 0);
  EXPECT_EQ(mooncake.rows[1].at, 2.5);
  EXPECT_EQ(mooncake.rows[0].blocks, (std::vector<uint64_t>{3, 4}));
  const auto simulated = read_trace(write(
      "s", "{\"input_toks\":10,\"output_toks\":70,\"arrival_time_ns\":46926808,\"input_tok_ids\":[1]}"));
  EXPECT_EQ(simulated.format, "llmservingsim");
  EXPECT_EQ(simulated.rows[0].answer_tokens, 70);
}

TEST_F(TraceFile, EqualBlocksBecomeEqualPartsAtEveryScale) {
  const auto path = write("m", kMooncake);
  const auto whole = sessions(path, {});
  ASSERT_EQ(whole.size(), 2u);
  const auto& first = whole[0].turns[0].prompt;
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[0].tokens, 512);
  EXPECT_EQ(first[1].tokens, 88);
  EXPECT_EQ(whole[1].turns[0].prompt[0], first[0]);
  EXPECT_NE(first[0].key, first[1].key);
  EXPECT_EQ(whole[1].at, 2.5);

  TraceOptions options;
  options.length_scale = 1. / 16;
  options.time_scale = 0.1;
  const auto small = sessions(path, options);
  EXPECT_EQ(small[0].turns[0].prompt[0].tokens, 32);
  EXPECT_EQ(small[0].turns[0].prompt[1].tokens, 6);
  EXPECT_EQ(small[0].turns[0].answer_tokens, 1) << "never nothing";
  EXPECT_NEAR(small[1].at, 0.25, 1e-9);
  EXPECT_EQ(load_->block_tokens, 32);

  options = {};
  options.longest = 600;
  EXPECT_EQ(sessions(path, options).size(), 1u);
  EXPECT_EQ(load_->left_out, 1);
  options = {};
  options.start = 1;
  EXPECT_EQ(sessions(path, options).at(0).at, 1.5);
  options = {};
  options.sessions = 1;
  EXPECT_EQ(sessions(path, options).size(), 1u);
}

TEST_F(TraceFile, RefusesWhatIsNoTrace) {
  refuse("", "empty");
  refuse("\n\n", "empty");
  refuse("hello\nworld\n", "hello");
  refuse("{\"a\":1}\n", "line 1");
  refuse("{\"input_length\":1\n", "line 1");
  refuse("[1,2]\n", "[1,2]");
  const std::string header = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  refuse(header, "no request");
  refuse(header + "1,2\n", "line 2");
  refuse(header + "1,2,x\n", "'x'");
  refuse(header + "1,-2,3\n", "-2");
  refuse(header + "1,2,1e300\n", "1e+300");
  refuse(header + "1,nan,3\n", "nan");
  refuse(header + "2023-13-01 00:00:00,1,3\n", "2023-13-01");
  refuse(header + "2023-11-16 18:17:0x,1,3\n", "time");
  refuse(header + "2023-11-16,1,3\n", "");
  const auto row = [](const std::string& time, const std::string& input, const std::string& blocks) {
    return "{\"timestamp\":" + time + ",\"input_length\":" + input +
           ",\"output_length\":1,\"hash_ids\":" + blocks + "}\n";
  };
  refuse(row("0", "513", "[1]"), "make 2");
  refuse(row("0", "512", "[1,2]"), "make 1");
  refuse(row("0", "512", "[-1]"), "hash_ids");
  refuse(row("0", "512", "[1.5]"), "hash_ids");
  refuse(row("0", "512", "7"), "hash_ids");
  refuse(row("0", "-1", "[]"), "input_length");
  refuse(row("0", "9000000000", "[]"), "input_length");
  refuse(row("-5", "512", "[1]"), "timestamp");
  refuse(row("1e300", "512", "[1]"), "timestamp");
  refuse(row("0", "512", "[1]") + "{\"input_toks\":1,\"output_toks\":1,\"arrival_time_ns\":1}\n", "line 2");
  refuse(std::string(200, '{'), "line 1");
  EXPECT_THROW(read_trace(folder_ / "missing"), Error);
  EXPECT_THROW(open_trace(folder_, {}), Error);
}

TEST_F(TraceFile, ServeGenDrawsArrivalsAtItsRates) {
  write("chunk-0-trace.csv",
        "0,2,1,Gamma,1,0.5\n600,0,0,,0,0\n1200,4,2,Weibull,0.6,0.2\n1800,0,0,,0,0\n2400,0,0,,0,0\n");
  write("chunk-0-dataset.json",
        R"({"0": {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{7: 1.0}"},
            "1200": {"input_tokens": "{300: 1.0}", "output_tokens": "{9: 1.0}"}})");
  write("chunk-1-trace.csv", "0,1,1,Gamma,2,0.5\n600,0,0,,0,0\n");
  write(
      "chunk-1-dataset.json",
      R"({"0": {"text_tokens": "{10: 1.0}", "image_tokens": "{500: 1.0}", "image_count": "{2: 1.0}", "output_tokens": "{5: 1.0}"}})");
  ASSERT_TRUE(is_servegen(folder_));
  const auto all = sessions(folder_, {});
  int64_t first = 0, images = 0, later = 0, prompt = 0;
  double before = 0;
  for (const auto& session : all) {
    EXPECT_GE(session.at, before);
    before = session.at;
    const auto& turn = session.turns[0];
    if (turn.prompt[0].tokens == 1010) {
      ++images;
      EXPECT_LT(session.at, 600);
    } else if (session.at < 600) {
      ++first;
      prompt += turn.prompt[0].tokens;
      EXPECT_EQ(turn.answer_tokens, 7);
    } else {
      ++later;
      EXPECT_GE(session.at, 1200);
      EXPECT_LT(session.at, 1800);
      EXPECT_EQ(turn.prompt[0].tokens, 300);
    }
  }
  EXPECT_NEAR(double(first), 1200, 110);  // three standard deviations
  EXPECT_NEAR(double(images), 600, 60);
  EXPECT_NEAR(double(later), 2400, 280);
  EXPECT_NEAR(double(prompt) / double(first), 175, 5);
  EXPECT_EQ(load_->format, "servegen");

  TraceOptions later_only;
  later_only.start = 1200;
  const auto rest = sessions(folder_ / "chunk-0-trace.csv", later_only);
  EXPECT_LT(rest.at(0).at, 30);
  EXPECT_NEAR(double(rest.size()), 2400, 280);
}

TEST_F(TraceFile, RefusesBrokenServeGenFiles) {
  const std::string dataset = R"({"0": {"input_tokens": "{1: 1}", "output_tokens": "{1: 1}"}})";
  const auto refused = [&](const std::string& trace, const std::string& lengths, const std::string& says) {
    write("chunk-0-trace.csv", trace);
    write("chunk-0-dataset.json", lengths);
    try {
      sessions(folder_, {});
      ADD_FAILURE() << says;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  };
  refused("", dataset, "empty");
  refused("0,1\n", dataset, "2 columns");
  refused("0,-1,1,Gamma,1,1\n", dataset, "rate");
  refused("0,1,1,Pareto,1,1\n", dataset, "Pareto");
  refused("0,1,1,Gamma,0,1\n", dataset, "shape");
  refused("600,1,1,Gamma,1,1\n0,1,1,Gamma,1,1\n", dataset, "line 2");
  refused("0,1,1,Gamma,1,1\n", "{}", "no lengths");
  refused("0,1,1,Gamma,1,1\n", "[]", "object");
  refused("0,1,1,Gamma,1,1\n", R"({"0": {"input_tokens": "{}", "output_tokens": "{}"}})", "no lengths");
  refused("0,1,1,Gamma,1,1\n", R"({"x": {"input_tokens": "{1: 1}", "output_tokens": "{1: 1}"}})", "time");
  for (const char* bad :
       {"", "{,}", "{1}", "{1:}", "{1: 1", "{1: 1}}", "{1: -1}", "{1: nan}", "{1e12: 1}", "[1]"})
    EXPECT_THROW(parse_histogram(bad, "x"), Error) << bad;
  Random random(1);
  EXPECT_EQ(parse_histogram(" { 5 : 1e-3 , 6:0 } ", "x").draw(random), 5);
}

}  // namespace
}  // namespace cairn::load
