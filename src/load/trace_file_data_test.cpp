#include "load/trace_file.h"

#include "base/testing.h"
#include "load/reuse.h"

namespace cairn::load {
namespace {

std::filesystem::path traces() { return testing::data_folder() / "traces"; }

TEST(TraceData, Mooncake) {
  CAIRN_NEED_DATA("traces/mooncake/conversation_trace.jsonl");
  const auto path = traces() / "mooncake/conversation_trace.jsonl";
  const auto trace = read_trace(path);
  EXPECT_EQ(trace.format, "mooncake");
  ASSERT_EQ(trace.rows.size(), 12031u);
  EXPECT_NEAR(trace.rows.back().at, 3536.999, 1e-6);
  EXPECT_EQ(trace.rows[0].prompt_tokens, 6758);

  // The share of blocks that stood at the same place of an earlier request, counted by a few lines of Python.
  const auto reuse = ideal_reuse(*open_trace(path, {})->sessions, 512);
  EXPECT_EQ(reuse.requests, 12031);
  EXPECT_NEAR(reuse.part_rate(), 0.3664124783362218, 1e-9);
  // Lengths cut to a sixteenth keep what is shared.
  TraceOptions small;
  small.length_scale = 1. / 16;
  const auto scaled = ideal_reuse(*open_trace(path, small)->sessions, 16);
  EXPECT_NEAR(scaled.part_rate(), reuse.part_rate(), 1e-3);
  EXPECT_NEAR(scaled.token_rate(), ideal_reuse(*open_trace(path, {})->sessions, 256).token_rate(), 5e-3);
}

TEST(TraceData, Csv) {
  CAIRN_NEED_DATA("traces/azure-2023/AzureLLMInferenceTrace_conv.csv");
  const auto azure = read_trace(traces() / "azure-2023/AzureLLMInferenceTrace_conv.csv");
  EXPECT_EQ(azure.rows.size(), 19366u);
  EXPECT_NEAR(azure.rows.back().at, 3500, 100);
  EXPECT_EQ(azure.rows[1].answer_tokens, 109);
  // Splitwise made its traces from Azure's: the same requests in another form.
  const auto splitwise = read_trace(traces() / "vidur/splitwise_conv.csv");
  ASSERT_EQ(splitwise.rows.size(), azure.rows.size());
  for (size_t i = 0; i < azure.rows.size(); i += 97) {
    EXPECT_EQ(splitwise.rows[i].prompt_tokens, azure.rows[i].prompt_tokens);
    EXPECT_NEAR(splitwise.rows[i].at, azure.rows[i].at, 1e-3);
  }
  EXPECT_GT(
      read_trace(traces() / "vidur/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv").rows.size(),
      1000u);
}

TEST(TraceData, JsonLinesOfLlmServingSim) {
  CAIRN_NEED_DATA("traces/llmservingsim/sharegpt-llama-3.1-8b-300-sps10.jsonl");
  EXPECT_EQ(read_trace(traces() / "llmservingsim/sharegpt-llama-3.1-8b-300-sps10.jsonl").rows.size(), 300u);
  EXPECT_EQ(read_trace(traces() / "llmservingsim/workload_me2_01_mixed.jsonl").rows.size(), 608u);
  EXPECT_EQ(read_trace(traces() / "llmservingsim/example_trace.jsonl").rows.size(), 10u);
}

TEST(TraceData, ServeGen) {
  CAIRN_NEED_DATA("traces/servegen/language/m-large");
  for (const char* folder : {"language/m-large", "reason/deepseek-r1", "multimodal/mm-image"}) {
    TraceOptions options;
    options.sessions = 2000;
    options.start = 36000;
    const auto load = open_trace(traces() / "servegen" / folder, options);
    EXPECT_EQ(load->format, "servegen");
    double before = 0;
    int64_t count = 0;
    while (auto session = load->sessions->next()) {
      EXPECT_GE(session->at, before);
      before = session->at;
      EXPECT_GE(total_tokens(session->turns[0].prompt), 1);
      ++count;
    }
    EXPECT_EQ(count, 2000) << folder;
  }
}

}  // namespace
}  // namespace cairn::load
