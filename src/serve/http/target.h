// Where a request goes. There is one reading of a path, and both the key check and the routes use it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/http/server.h"

namespace cairn::serve {

struct Target {
  std::string path;                   // "/" and the segments joined by '/'; "*" for OPTIONS *
  std::vector<std::string> segments;  // decoded; an encoded slash stays inside its segment
  std::string query;
  std::string authority;  // of an absolute target, http://authority/path; it outranks Host
};

// nullptr when fine, else what is wrong. Empty segments (double and trailing slashes) disappear; "." and
// "..", NUL, control characters, a backslash and what is not UTF-8 are refused, encoded or not.
const char* parse_target(std::string_view method, std::string_view raw, Target&);

class Router {
 public:
  struct Match {
    const Handler* handler = nullptr;
    bool is_public = false;
    Fields params = {};
    std::string allowed = {};  // methods of the path, "GET, HEAD, OPTIONS"; empty when no route has it
  };

  // Throws Error(invalid_argument) for a malformed pattern.
  void add(std::string_view method, std::string_view pattern, Handler, bool is_public);
  Match match(std::string_view method, const Target&) const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
    bool is_public;
  };
  static bool fits(const Route&, const Target&, Fields* params);

  std::vector<Route> routes_;
};

}  // namespace cairn::serve
