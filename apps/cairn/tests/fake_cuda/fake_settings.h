// Settings of the fake libraries, from an environment variable of the form "name=value,name=value".
#pragma once

#include <cstdlib>
#include <string>

inline std::string fake_setting(const char* variable, const std::string& name, const std::string& otherwise) {
  const char* all = std::getenv(variable);
  const std::string text = all ? "," + std::string(all) + "," : ",";
  const auto at = text.find("," + name + "=");
  if (at == std::string::npos) return otherwise;
  const auto begin = at + name.size() + 2;
  return text.substr(begin, text.find(',', begin) - begin);
}
inline long long fake_number(const char* variable, const std::string& name, long long otherwise) {
  const auto text = fake_setting(variable, name, "");
  return text.empty() ? otherwise : std::atoll(text.c_str());
}
