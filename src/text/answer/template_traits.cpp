#include <optional>

#include "base/error.h"
#include "text/answer/messages.h"

namespace cairn::text {

namespace {

using Json = nlohmann::ordered_json;

// Words that no template contains, as content, argument and result.
constexpr const char *kText = "needletext", *kKey = "needlekey", *kValue = "needlevalue",
                     *kOther = "needleother";

class Prober {
 public:
  explicit Prober(const ChatTemplate& chat_template) : template_(chat_template) {}

  TemplateTraits probe() {
    const Json user = message("user", "hello");
    if (!render({user}) && render({user}, {{"functions", "[]"}, {"datetime", "now"}})) {
      traits_.functions = true;
      extra_ = {{"functions", "[]"}, {"datetime", "now"}};
    }
    traits_.content_parts =
        !shows({message("user", kText)}, kText) &&
        shows({message("user", Json::array({{{"type", "text"}, {"text", kText}}}))}, kText);
    probe_tools();
    probe_calls();
    const bool developer = shows({message("developer", kText), user}, kText);
    traits_.developer_role = developer && !shows({message("needlerole", kText), user}, kText);
    return traits_;
  }

 private:
  static Json message(const char* role, Json content) {
    return {{"role", role}, {"content", std::move(content)}};
  }

  Json text(const char* words) const {
    return traits_.content_parts ? Json::array({{{"type", "text"}, {"text", words}}}) : Json(words);
  }

  std::optional<std::string> render(std::vector<Json> messages, const Json& more = Json::object()) const {
    Json variables = {{"messages", messages}, {"tools", tools_},      {"documents", nullptr},
                      {"bos_token", "<bos>"}, {"eos_token", "<eos>"}, {"add_generation_prompt", false}};
    variables.update(extra_);
    variables.update(more);
    try {
      return template_.render(
          variables, {.steps = 1'000'000, .output_bytes = 4 << 20, .value_bytes = 64 << 20, .seconds = 2});
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  bool shows(std::vector<Json> messages, const char* words) const {
    const auto text = render(std::move(messages));
    return text && text->find(words) != std::string::npos;
  }

  // Probing calls needs a template that takes the tools at all.
  void probe_tools() {
    Json function = {
        {"name", "needletool"},
        {"description", "needle"},
        {"parameters",
         {{"type", "object"},
          {"properties", {{"needleparameter", {{"type", "string"}, {"description", "needle"}}}}}}}};
    const Json user = message("user", text("hello"));
    const auto with = [&](const Json& one) {
      tools_ = Json::array({{{"type", "function"}, {"function", one}}});
      return render({user}).has_value();
    };
    const bool described = with(function);
    Json bare = function;
    bare.erase("description");
    traits_.described_tools = described && !with(bare);
    if (!with(function)) tools_ = nullptr;
  }

  Json calls(bool as_text, int count, const char* id = "call00001") const {
    Json list = Json::array();
    for (int i = 0; i < count; ++i) {
      Json arguments = {{kKey, i == 0 ? kValue : kOther}};
      if (as_text) arguments = arguments.dump();
      list.push_back({{"id", i == 0 ? id : "call00002"},
                      {"type", "function"},
                      {"function", {{"name", "needletool"}, {"arguments", arguments}}}});
    }
    return list;
  }

  std::vector<Json> conversation(const Json& content, const Json& calls) const {
    Json assistant = message("assistant", content);
    assistant["tool_calls"] = calls;
    return {message("user", text("hello")), assistant};
  }

  // Whether a rendered call is what the model would write: neither Python's notation nor text in quotes.
  static bool well_written(const std::optional<std::string>& prompt, bool as_text) {
    if (!prompt || prompt->find(kValue) == std::string::npos) return false;
    const std::string key = kKey;
    if (as_text)
      return prompt->find("\\\"" + key) == std::string::npos &&
             prompt->find("{{\"" + key) == std::string::npos;
    return prompt->find("'" + key + "'") == std::string::npos;
  }

  void probe_calls() {
    const Json empty = traits_.content_parts ? text("") : Json("");
    for (const Json& content : {empty, Json()})
      for (const bool as_text : {false, true}) {
        if (traits_.writes_calls || !well_written(render(conversation(content, calls(as_text, 1))), as_text))
          continue;
        traits_.writes_calls = true;
        traits_.text_arguments = as_text;
        traits_.null_content = content.is_null();
      }
    Json after = message("assistant", text("hello"));
    if (traits_.writes_calls) {
      const bool as_text = traits_.text_arguments;
      const Json content = traits_.null_content ? Json() : empty;
      const auto one = conversation(content, calls(as_text, 1));
      after = one.back();
      const auto both = render(conversation(text(kText), calls(as_text, 1)));
      traits_.calls_or_content = !both || both->find(kValue) == std::string::npos;
      if (!traits_.calls_or_content) {
        auto thought = conversation(text(kText), calls(as_text, 1));
        thought.back()["thinking"] = thought.back()["reasoning_content"] = "needle";
        traits_.calls_or_reasoning = !render(thought);
      }
      traits_.one_call = !shows(conversation(content, calls(as_text, 2)), kOther);
      traits_.short_ids = !render(conversation(content, calls(as_text, 1, "call_0123456789abcdefghijklmn")));
    }
    Json result = message("tool", text(kText));
    result["tool_call_id"] = "call00001";
    result["name"] = "needletool";
    traits_.tool_role = shows({message("user", text("hello")), after, result}, kText);
  }

  const ChatTemplate& template_;
  TemplateTraits traits_;
  Json extra_ = Json::object();
  Json tools_;
};

}  // namespace

TemplateTraits probe_template(const ChatTemplate& chat_template) { return Prober(chat_template).probe(); }

}  // namespace cairn::text
