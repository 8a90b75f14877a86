#include "text/chat_template.h"

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/jinja/scope.h"
#include "text/jinja/unicode.h"

namespace cairn::text {

namespace {

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  return parts;
}

}  // namespace

struct ChatTemplate::Program {
  std::string name;
  jinja::Tree tree;
};

ChatTemplate::ChatTemplate(std::string_view source, std::string name)
    : program_(std::make_unique<Program>()) {
  program_->name = std::move(name);
  constexpr size_t kMostSource = size_t{16} << 20;
  if (source.size() > kMostSource)
    fail(ErrorKind::invalid_file, "{}: {} bytes, more than the {} a template may have", program_->name,
         source.size(), kMostSource);
  if (!jinja::is_valid_utf8(source)) fail(ErrorKind::invalid_file, "{}: not valid UTF-8", program_->name);
  try {
    program_->tree = jinja::parse(source);
    jinja::resolve_names(program_->tree);
  } catch (const jinja::SyntaxError& e) {
    fail(ErrorKind::invalid_file, "{}, line {}: {}", program_->name, e.line, e.message);
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const nlohmann::ordered_json& variables, const TemplateLimits& limits,
                                 std::function<std::tm()> now) const {
  if (!variables.is_object())
    fail(ErrorKind::invalid_argument, "{}: the variables are {} where a JSON object is needed",
         program_->name, variables.type_name());
  jinja::MemoryMeter meter(limits.value_bytes);
  jinja::Runtime runtime(limits, now ? std::move(now) : local_time);
  int line = 0;
  try {
    jinja::Interpreter interpreter(runtime, program_->tree, jinja::from_json(variables));
    try {
      std::string text = interpreter.run();
      if (!jinja::is_valid_utf8(text))
        raise(jinja::Fault::value,
              "the rendered text holds half a surrogate pair, which UTF-8 cannot encode");
      runtime.clear();
      return text;
    } catch (const jinja::Raise&) {
      line = interpreter.line();
      runtime.clear();
      throw;
    }
  } catch (const jinja::Raise& e) {
    const auto kind =
        e.fault == jinja::Fault::unsupported ? ErrorKind::unsupported : ErrorKind::invalid_argument;
    if (e.fault == jinja::Fault::raised)
      fail(kind, "{}, line {}: the template refuses: {}", program_->name, line, e.message);
    if (e.fault == jinja::Fault::unsupported)
      fail(kind, "{}, line {}: cannot render {}", program_->name, line, e.message);
    if (e.fault == jinja::Fault::limit)
      fail(kind, "{}, line {}: rendering stopped: {}", program_->name, line, e.message);
    fail(kind, "{}, line {}: {}: {}", program_->name, line, jinja::to_string(e.fault), e.message);
  }
}

}  // namespace cairn::text
