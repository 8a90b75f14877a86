#include "text/constrain/json_formats.h"

#include <map>
#include <string>

namespace cairn::text::constrain {

namespace {

std::map<std::string, std::string, std::less<>> make_formats() {
  // RFC 3339, upper case. February has 29 days in years that 4 divides but 100 does not, or 400 does.
  const std::string leap_year = R"((?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00))";
  const std::string date =
      R"((?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))|)" +
      leap_year + "-02-29)";
  // Without leap seconds: whether one is right depends on the date and the offset.
  const std::string time =
      R"((?:(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)))";
  // RFC 3339, appendix A.
  const std::string clock = R"(T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))";
  const std::string duration =
      "(?:P(?:\\d+W|(?:\\d+Y(?:\\d+M(?:\\d+D)?)?|\\d+M(?:\\d+D)?|\\d+D)(?:" + clock + ")?|" + clock + "))";
  const std::string byte = R"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d))";
  const std::string ipv4 = byte + "(?:\\." + byte + "){3}";
  // RFC 4291: eight groups, of which :: stands for one or more; the last two may be an IPv4 address.
  const std::string group = "[0-9A-Fa-f]{1,4}";
  const std::string last = "(?:" + group + ":" + group + "|" + ipv4 + ")";
  std::string ipv6 = "(?:" + group + ":){6}" + last + "|::(?:" + group + ":){5}" + last;
  for (int before = 1; before <= 5; ++before)
    ipv6 += "|(?:" + group + ":){0," + std::to_string(before - 1) + "}" + group + "::(?:" + group + ":){" +
            std::to_string(5 - before) + "}" + last;
  ipv6 += "|::(?:" + group + ":){0,4}" + last + "|::" + group + "|::";
  ipv6 += "|(?:" + group + ":){0,5}" + group + "::" + group + "|(?:" + group + ":){0,6}" + group + "::";
  // RFC 1123 in ASCII. Labels never have two hyphens in a row (so none is an unchecked "xn--"), and as many
  // as can never pass 253 characters.
  const std::string label = "[0-9A-Za-z](?:-?[0-9A-Za-z]){0,30}", brief = "[0-9A-Za-z](?:-?[0-9A-Za-z]){0,7}";
  const std::string hostname =
      "(?:" + label + "(?:\\." + label + "){0,3}|" + brief + "(?:\\." + brief + "){0,14})";
  // RFC 5321 without quoted names, comments and addresses in brackets.
  const std::string atom = R"([0-9A-Za-z!#$%&'*+/=?^_`{|}~-])";
  const std::string email = atom + "{1,30}(?:\\." + atom + "{1,30})?@" + hostname;
  // RFC 3986 without addresses in brackets.
  const std::string hex = "%[0-9A-Fa-f]{2}";
  const std::string character = R"((?:[0-9A-Za-z._~!$&'()*+,;=:@-]|)" + hex + ")";
  const std::string path = "(?:/" + character + "*)*";
  const std::string tail = R"((?:\?(?:)" + character + R"(|[/?])*)?(?:#(?:)" + character + R"(|[/?])*)?)";
  const std::string authority = R"((?:(?:[0-9A-Za-z._~!$&'()*+,;=:-]|)" + hex +
                                R"()*@)?(?:[0-9A-Za-z._~!$&'()*+,;=-]|)" + hex + R"()*(?::\d*)?)";
  const std::string uri = "[A-Za-z][0-9A-Za-z+.-]*:(?://" + authority + path + "|/(?:" + character + "+" +
                          path + ")?|" + character + "+" + path + "|)" + tail;
  const std::string pointer = "(?:/(?:[^/~]|~[01])*)*";
  return {
      {"date", date},
      {"time", time},
      {"date-time", date + "T" + time},
      {"duration", duration},
      {"uuid", "[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"},
      {"ipv4", ipv4},
      {"ipv6", ipv6},
      {"hostname", hostname},
      {"email", email},
      {"uri", uri},
      {"json-pointer", pointer},
      {"relative-json-pointer", "(?:0|[1-9]\\d*)(?:#|" + pointer + ")"},
  };
}

}  // namespace

std::string_view format_pattern(std::string_view name) {
  static const auto formats = make_formats();
  const auto found = formats.find(name);
  return found == formats.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace cairn::text::constrain
