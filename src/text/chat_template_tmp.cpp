// TEMPORARY until the template interpreter lands from its branch: delete this file then.
#include "base/error.h"
#include "text/chat_template.h"
namespace cairn::text {
struct ChatTemplate::Program {};
ChatTemplate::ChatTemplate(std::string_view, std::string) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
std::string ChatTemplate::render(const nlohmann::ordered_json&, const TemplateLimits&) const {
  fail(ErrorKind::unsupported, "no templates yet");
}
}  // namespace cairn::text
