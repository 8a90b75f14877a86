#include "text/answer/messages.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/answer/tool_schema.h"

namespace cairn::text {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDepth = 128;  // of arguments and schemas; templates and writers recurse over them

void check_depth(const Json& value, const std::string& place, int depth = 0) {
  if (depth > kMostDepth)
    fail(ErrorKind::invalid_argument, "{}: nested deeper than {} levels", place, kMostDepth);
  if (value.is_structured())
    for (const Json& inner : value) check_depth(inner, place, depth + 1);
}

[[noreturn]] void wrong_type(const std::string& place, const char* wanted, const Json& got) {
  fail(ErrorKind::invalid_argument, "{}: expected {}, got {}", place, wanted, got.type_name());
}

const Json* field(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_field(const Json& object, const char* name, const std::string& place) {
  const Json* value = field(object, name);
  if (value == nullptr) return "";
  if (!value->is_string()) wrong_type(fmt::format("{}.{}", place, name), "a string", *value);
  return value->get<std::string>();
}

// The text of a content: a string, null, or parts.
std::string content_text(const Json& message, const std::string& place) {
  const Json* content = field(message, "content");
  if (content == nullptr) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) wrong_type(place + ".content", "a string, a list of parts or null", *content);
  std::string text;
  bool first = true;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string at = fmt::format("{}.content[{}]", place, i);
    std::string one;
    if (part.is_string()) {
      one = part.get<std::string>();
    } else if (!part.is_object()) {
      wrong_type(at, "an object with a type", part);
    } else {
      const std::string type = text_field(part, "type", at);
      const bool refusal = type == "refusal";
      if (type != "text" && type != "input_text" && type != "output_text" && !refusal)
        fail(ErrorKind::unsupported, "{}: a part of type '{}', but only text is read here", at, type);
      if (field(part, refusal ? "refusal" : "text") == nullptr)
        fail(ErrorKind::invalid_argument, "{}.{}: missing", at, refusal ? "refusal" : "text");
      one = text_field(part, refusal ? "refusal" : "text", at);
    }
    text += (first ? "" : "\n") + one;
    first = false;
  }
  return text;
}

bool is_short_id(std::string_view id) {
  return id.size() == 9 && std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isalnum(c); });
}

// Nine letters and digits for any id, the same for the call and its result.
std::string short_id(std::string_view id) {
  if (is_short_id(id)) return std::string(id);
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  std::string text;
  while (text.size() < 9) {
    text += "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[hash % 62];
    hash = hash / 62 + 0x9e3779b97f4a7c15u * (text.size() + 1);
  }
  return text;
}

class Preparer {
 public:
  Preparer(const TemplateTraits& traits, const AnswerFormat& format) : traits_(traits), format_(format) {}

  Json prepare(const Json& messages) {
    if (!messages.is_array()) wrong_type("messages", "a list", messages);
    if (messages.empty())
      fail(ErrorKind::invalid_argument, "messages: empty, at least one message is needed");
    for (size_t i = 0; i < messages.size(); ++i) add(messages[i], fmt::format("messages[{}]", i));
    return traits_.one_call ? one_call_each() : std::move(out_);
  }

 private:
  void add(const Json& given, const std::string& place) {
    if (!given.is_object()) wrong_type(place, "an object", given);
    Json message = given;
    std::string role = text_field(given, "role", place);
    if (role == "function") role = "tool";
    if (role == "developer" && !traits_.developer_role) role = "system";
    constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool"};
    if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end())
      fail(ErrorKind::invalid_argument, "{}.role: '{}' is none of system, developer, user, assistant, tool",
           place, role);
    message["role"] = role;
    std::string text = content_text(given, place);
    message.erase("tool_calls");
    if (role == "tool") {
      add_result(message, text, place);
      return;
    }
    if (role != "assistant") {
      message["content"] = content(text);
      out_.push_back(std::move(message));
      return;
    }
    const std::string reasoning = add_reasoning(message, place);
    Json calls = calls_of(given, place);
    if (calls.empty()) {
      message["content"] = content(text);
      out_.push_back(std::move(message));
      return;
    }
    add_calls(std::move(message), std::move(calls), text, reasoning, place);
  }

  Json content(const std::string& text) const {
    return traits_.content_parts ? Json::array({{{"type", "text"}, {"text", text}}}) : Json(text);
  }

  // {"thinking": r, ...message, "reasoning_content": r}, as transformers does it.
  static std::string add_reasoning(Json& message, const std::string& place) {
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      if (field(message, name) == nullptr) continue;
      const std::string reasoning = text_field(message, name, place);
      Json aliased = {{"thinking", reasoning}};
      aliased.update(message);
      aliased["reasoning_content"] = reasoning;
      message = std::move(aliased);
      return reasoning;
    }
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) message.erase(name);  // null
    return "";
  }

  Json calls_of(const Json& given, const std::string& place) {
    Json calls = Json::array();
    const Json* list = field(given, "tool_calls");
    if (list == nullptr) return calls;
    if (!list->is_array()) wrong_type(place + ".tool_calls", "a list", *list);
    call_ids_.clear();
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string at = fmt::format("{}.tool_calls[{}]", place, i);
      const Json& call = (*list)[i];
      if (!call.is_object()) wrong_type(at, "an object", call);
      const Json* function = field(call, "function");
      if (function == nullptr || !function->is_object())
        fail(ErrorKind::invalid_argument, "{}.function: missing", at);
      Json one = call;
      std::string id = text_field(call, "id", at);
      if (id.empty()) id = fmt::format("{}#{}", place, i);
      if (traits_.short_ids || field(call, "id") == nullptr) id = short_id(id);
      const std::string name = text_field(*function, "name", at + ".function");
      if (name.empty()) fail(ErrorKind::invalid_argument, "{}.function.name: missing", at);
      one["id"] = id;
      if (field(call, "type") == nullptr) one["type"] = "function";
      one["function"]["arguments"] = arguments_of(*function, at + ".function.arguments");
      call_ids_.emplace_back(id, name);
      calls.push_back(std::move(one));
    }
    results_ = 0;
    return calls;
  }

  // Always the object here; add_calls() writes it as text where the template wants that.
  static Json arguments_of(const Json& function, const std::string& place) {
    const Json* arguments = field(function, "arguments");
    if (arguments == nullptr) return Json::object();
    Json object = *arguments;
    if (arguments->is_string()) {
      const std::string& text = arguments->get_ref<const std::string&>();
      if (text.find_first_not_of(" \n\r\t") == std::string::npos) return Json::object();
      try {
        object = Json::parse(text);
      } catch (const Json::parse_error& e) {
        fail(ErrorKind::invalid_argument, "{}: not JSON at byte {}", place, e.byte);
      }
    }
    if (!object.is_object()) wrong_type(place, "a JSON object", object);
    check_depth(object, place);
    return object;
  }

  void add_calls(Json message, Json calls, std::string text, const std::string& reasoning,
                 const std::string& place) {
    if (!traits_.writes_calls) {
      const auto written = format_.write_calls(calls);
      if (!written)
        fail(ErrorKind::unsupported, "{}.tool_calls: the model's chat template has no place for tool calls",
             place);
      message["content"] = content(text.empty() ? *written : text + "\n" + *written);
      out_.push_back(std::move(message));
      return;
    }
    if (traits_.text_arguments)
      for (Json& call : calls) {
        Json& arguments = call["function"]["arguments"];
        arguments = arguments.dump();
      }
    if (traits_.calls_or_content && !text.empty()) {
      Json said = message;
      said["content"] = content(text);
      out_.push_back(std::move(said));
      text.clear();
      for (const char* name : {"reasoning_content", "thinking", "reasoning"}) message.erase(name);
    }
    // Where only one of both may stand before a call, the text joins the reasoning.
    if (traits_.calls_or_reasoning && !text.empty() && !reasoning.empty()) {
      message["thinking"] = message["reasoning_content"] = reasoning + "\n\n" + text;
      text.clear();
    }
    message["content"] = text.empty() && traits_.null_content ? Json() : content(text);
    message["tool_calls"] = std::move(calls);
    out_.push_back(std::move(message));
  }

  void add_result(Json& message, const std::string& text, const std::string& place) {
    std::string id = text_field(message, "tool_call_id", place);
    if (traits_.short_ids && !id.empty()) id = short_id(id);
    if (id.empty() && results_ < call_ids_.size()) id = call_ids_[results_].first;
    ++results_;
    for (const auto& [call_id, name] : call_ids_)
      if (call_id == id && field(message, "name") == nullptr) message["name"] = name;
    if (!id.empty()) message["tool_call_id"] = id;
    message["content"] = content(text);
    if (!traits_.tool_role) message["role"] = "user";
    out_.push_back(std::move(message));
  }

  // Several calls become several messages, each with its results behind it.
  Json one_call_each() const {
    Json split = Json::array();
    for (size_t i = 0; i < out_.size(); ++i) {
      const auto calls = out_[i].find("tool_calls");
      if (calls == out_[i].end() || calls->size() < 2) {
        split.push_back(out_[i]);
        continue;
      }
      std::vector<Json> results;
      size_t next = i + 1;
      for (; next < out_.size() && out_[next].value("role", "") == "tool"; ++next)
        results.push_back(out_[next]);
      Json message = out_[i];
      for (const Json& call : *calls) {
        message["tool_calls"] = Json::array({call});
        split.push_back(message);
        for (Json& result : results)
          if (!result.is_null() && result.value("tool_call_id", "") == call["id"]) {
            split.push_back(std::move(result));
            result = nullptr;
          }
        message["content"] = traits_.null_content ? Json() : content("");
        for (const char* name : {"reasoning_content", "thinking", "reasoning"}) message.erase(name);
      }
      for (Json& result : results)
        if (!result.is_null()) split.push_back(std::move(result));
      i = next - 1;
    }
    return split;
  }

  const TemplateTraits& traits_;
  const AnswerFormat& format_;
  Json out_ = Json::array();
  std::vector<std::pair<std::string, std::string>> call_ids_;  // id and name, of the last message with calls
  size_t results_ = 0;                                         // messages of role tool since then
};

constexpr std::string_view kContinueMark = "CAIRNCONTINUESHERE";

}  // namespace

Json prepare_messages(const Json& messages, const TemplateTraits& traits, const AnswerFormat& format) {
  return Preparer(traits, format).prepare(messages);
}

Json prepare_tools(const Json& tools, const TemplateTraits& traits) {
  if (tools.is_null() || (tools.is_array() && tools.empty())) return nullptr;
  if (!tools.is_array()) wrong_type("tools", "a list", tools);
  Json prepared = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string place = fmt::format("tools[{}]", i);
    if (!tools[i].is_object()) wrong_type(place, "an object", tools[i]);
    check_depth(tools[i], place);
    const bool wrapped = field(tools[i], "function") != nullptr;
    const Json& function = answer::function_of(tools[i]);
    const std::string at = wrapped ? place + ".function" : place;
    if (answer::name_of(tools[i]).empty())
      fail(ErrorKind::invalid_argument, "{}.name: missing or not a string", at);
    for (const char* name : {"parameters", "input_schema"})
      if (const Json* schema = field(function, name); schema != nullptr && !schema->is_object())
        wrong_type(fmt::format("{}.{}", at, name), "a JSON schema", *schema);
    Json one = wrapped ? tools[i] : Json{{"type", "function"}, {"function", function}};
    if (field(one, "type") == nullptr) one["type"] = "function";
    Json& inner = one["function"];
    if (!wrapped) inner.erase("type");
    if (field(inner, "parameters") == nullptr) {
      inner["parameters"] = answer::parameters_of(tools[i]);
      inner.erase("input_schema");
    }
    Json& parameters = inner["parameters"];
    if (!parameters.contains("properties")) parameters["properties"] = Json::object();
    if (traits.described_tools && field(inner, "description") == nullptr) inner["description"] = "";
    prepared.push_back(std::move(one));
  }
  return prepared;
}

ChatPrompts::ChatPrompts(const ChatTemplate& chat_template, AnswerFormat format, std::string bos_text,
                         std::string eos_text)
    : template_(chat_template),
      format_(std::move(format)),
      bos_(std::move(bos_text)),
      eos_(std::move(eos_text)),
      traits_(probe_template(chat_template)) {}

std::string ChatPrompts::render(const Request& request, const TemplateLimits& limits,
                                std::function<std::tm()> now) const {
  if (!request.variables.is_null() && !request.variables.is_object())
    wrong_type("chat_template_kwargs", "an object", request.variables);
  Json variables = {{"messages", prepare_messages(request.messages, traits_, format_)},
                    {"tools", prepare_tools(request.tools, traits_)},
                    {"documents", nullptr},
                    {"bos_token", bos_},
                    {"eos_token", eos_},
                    {"add_generation_prompt", !request.continue_last}};
  if (traits_.functions) {
    variables["functions"] = variables["tools"].is_null() ? "[]" : variables["tools"].dump(4);
    const std::tm time = now ? now() : [] {
      const std::time_t seconds = std::time(nullptr);
      std::tm parts{};
      localtime_r(&seconds, &parts);
      return parts;
    }();
    char text[64];
    std::strftime(text, sizeof text, "%B %d %Y %H:%M:%S", &time);
    variables["datetime"] = text;
  }
  if (!request.variables.is_null())
    for (auto variable = request.variables.begin(); variable != request.variables.end(); ++variable) {
      if (variables.contains(variable.key()) && variable.key() != "documents")
        fail(ErrorKind::invalid_argument, "chat_template_kwargs.{}: is set by the request itself",
             variable.key());
      check_depth(*variable, "chat_template_kwargs." + variable.key());
      variables[variable.key()] = *variable;
    }
  if (!request.continue_last) return template_.render(variables, limits, std::move(now));

  Json& last = variables["messages"].back();
  const std::string place = fmt::format("messages[{}]", request.messages.size() - 1);
  if (last["role"] != "assistant" || last.contains("tool_calls"))
    fail(ErrorKind::invalid_argument, "{}: only an assistant's text can be continued", place);
  Json& content = traits_.content_parts ? last["content"].back()["text"] : last["content"];
  content = content.get<std::string>() + std::string(kContinueMark);
  std::string prompt = template_.render(variables, limits, std::move(now));
  const size_t mark = prompt.rfind(kContinueMark);
  if (mark == std::string::npos)
    fail(ErrorKind::unsupported, "{}: the chat template does not write it where it could be continued",
         place);
  prompt.resize(mark);
  return prompt;
}

}  // namespace cairn::text
