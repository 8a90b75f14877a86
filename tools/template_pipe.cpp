// Renders many templates in one process, for tools/template_diff.py: one JSON object per line of stdin,
// {"template": text, "variables": object}, answered by one per line of stdout, {"ok": text} or
// {"error": sentence, "kind": kind}. The clock stands where tools/template_reference.py has it.
#include <exception>
#include <iostream>
#include <string>

#include "base/error.h"
#include "text/chat_template.h"

namespace {

std::tm frozen() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 13;
  now.tm_min = 5;
  now.tm_sec = 9;
  now.tm_wday = 5;
  now.tm_yday = 207;
  return now;
}

}  // namespace

int main() {
  using Json = nlohmann::ordered_json;
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      const Json request = Json::parse(line);
      const cairn::text::ChatTemplate chat_template(request["template"].get<std::string>(), "t");
      answer["ok"] = chat_template.render(request["variables"], {}, frozen);
    } catch (const cairn::Error& e) {
      answer = {{"error", e.what()}, {"kind", to_string(e.kind())}};
    } catch (const std::exception& e) {
      answer = {{"error", e.what()}, {"kind", "not an Error"}};
    }
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  }
}
