// Every chat template of the shared material renders an ordinary conversation with tools, whatever shape it
// expects the messages in.
#include <filesystem>
#include <fstream>
#include <map>

#include "base/error.h"
#include "base/testing.h"
#include "text/answer/messages.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string describe(const TemplateTraits& traits) {
  std::string text;
  const auto add = [&](bool set, const char* name) {
    text += set ? std::string(text.empty() ? "" : " ") + name : "";
  };
  add(traits.content_parts, "parts");
  add(!traits.writes_calls, "no-calls");
  add(traits.text_arguments, "text-arguments");
  add(traits.null_content, "null-content");
  add(traits.calls_or_content, "calls-or-content");
  add(traits.calls_or_reasoning, "calls-or-reasoning");
  add(traits.one_call, "one-call");
  add(traits.short_ids, "short-ids");
  add(!traits.tool_role, "no-tool-role");
  add(traits.developer_role, "developer");
  add(traits.described_tools, "described-tools");
  add(traits.functions, "functions");
  return text;
}

TEST(MessagesData, EveryTemplateRendersAConversationWithTools) {
  CAIRN_NEED_DATA("templates");
  const Json messages = Json::parse(R"([
    {"role": "user", "content": [{"type": "text", "text": "QUESTION"}]},
    {"role": "assistant", "content": "THOUGHT", "reasoning": "WHY", "tool_calls": [
      {"id": "call_0123456789abcdefghijklmn", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"ROME\"}"}},
      {"id": "call_1123456789abcdefghijklmn", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"OSLO\"}"}}]},
    {"role": "tool", "tool_call_id": "call_0123456789abcdefghijklmn", "content": "SUN"},
    {"role": "tool", "tool_call_id": "call_1123456789abcdefghijklmn", "content": "SNOW"},
    {"role": "assistant", "content": null},
    {"role": "user", "content": "AGAIN"}])");
  const Json tools =
      Json::parse(R"([{"type": "function", "function": {"name": "get_weather", "description": "d",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}}}])");
  // What a template refuses or leaves out for reasons of its own.
  const std::map<std::string, std::string> refuses = {
      {"google-gemma-2-2b-it",
       "messages[1].tool_calls: the model's chat template has no place for tool calls"},
      {"llama-cpp-rwkv-world",
       "messages[1].tool_calls: the model's chat template has no place for tool calls"},
      {"microsoft-Phi-3.5-mini-instruct",
       "messages[1].tool_calls: the model's chat template has no place for tool calls"},
      {"llama-cpp-deepseek-r1",
       "llama-cpp-deepseek-r1, line 12: TypeError: Object of type generator is not JSON serializable"}};
  std::map<std::string, std::string> traits;
  for (const char* folder : {"templates", "templates/minja/tests_files"})
    for (const auto& entry : fs::directory_iterator(testing::data_folder() / folder)) {
      if (entry.path().extension() != ".jinja") continue;
      const std::string name = entry.path().stem();
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string source{std::istreambuf_iterator<char>(file), {}};
      const ChatTemplate chat_template(source, name);
      const ChatPrompts prompts(chat_template, AnswerFormat::detect(source), "<bos>", "<eos>");
      traits[name] = describe(prompts.traits());
      try {
        const std::string prompt = prompts.render({.messages = messages, .tools = tools});
        for (const char* word : {"QUESTION", "ROME", "OSLO", "SUN", "SNOW", "AGAIN"})
          EXPECT_NE(prompt.find(word), std::string::npos) << name << " lost " << word << "\n" << prompt;
      } catch (const Error& e) {
        const auto known = refuses.find(name);
        EXPECT_EQ(std::string(e.what()), known == refuses.end() ? "" : known->second) << name;
      }
    }
  for (const auto& [name, words] : traits) std::printf("%-50s %s\n", name.c_str(), words.c_str());
}

}  // namespace
}  // namespace cairn::text
