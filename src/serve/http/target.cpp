#include "serve/http/target.h"

#include "base/error.h"
#include "serve/http/text.h"
#include "text/utf8.h"

namespace cairn::serve {
namespace {

constexpr size_t kSegments = 64;

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = to_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool is_name(std::string_view segment) { return segment.size() > 2 && segment.front() == '{'; }
bool is_rest(std::string_view segment) { return is_name(segment) && segment[segment.size() - 2] == '*'; }

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    if (slash > 0) segments.push_back(path.substr(0, slash));
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return segments;
}

}  // namespace

std::optional<std::string> percent_decoded(std::string_view text, bool plus_is_space) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      decoded += char(high * 16 + low);
      i += 2;
    } else {
      decoded += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

const char* parse_target(std::string_view method, std::string_view raw, Target& target) {
  if (raw == "*") {
    if (method != "OPTIONS") return "The target * belongs to OPTIONS.";
    target.path = "*";
    return nullptr;
  }
  for (const std::string_view scheme : {"http://", "https://"})
    if (same_ignoring_case(raw.substr(0, scheme.size()), scheme)) {
      raw.remove_prefix(scheme.size());
      const size_t end = std::min(raw.find_first_of("/?"), raw.size());
      target.authority = raw.substr(0, end);
      raw.remove_prefix(end);
      if (target.authority.empty() || target.authority.find('@') != std::string::npos)
        return "The request's target names no host, or a user.";
      if (raw.empty() || raw[0] == '?') {
        target.path = "/";
        target.query = raw.substr(std::min<size_t>(1, raw.size()));
        return nullptr;
      }
      break;
    }
  if (raw.empty() || raw[0] != '/') return "The request's target must be a path.";
  const size_t question = raw.find('?');
  if (question != raw.npos) target.query = raw.substr(question + 1);
  for (const std::string_view part : split(raw.substr(0, question))) {
    auto segment = percent_decoded(part);
    if (!segment) return "The request's path holds a % that encodes nothing.";
    if (*segment == "." || *segment == "..") return "The request's path holds . or .. as a segment.";
    for (const char c : *segment)
      if (uint8_t(c) < 0x20 || c == 0x7f || c == '\\')
        return "The request's path holds a control character or a backslash.";
    if (!text::is_valid_utf8(*segment)) return "The request's path is not UTF-8.";
    if (target.segments.size() == kSegments) return "The request's path is too deep.";
    target.segments.push_back(std::move(*segment));
  }
  for (const auto& segment : target.segments) target.path += "/" + segment;
  if (target.path.empty()) target.path = "/";
  return nullptr;
}

void Router::add(std::string_view method, std::string_view pattern, Handler handler, bool is_public) {
  if (!is_token(method) || pattern.empty() || pattern[0] != '/' || !handler)
    fail(ErrorKind::invalid_argument,
         "route {} {}: a method, a pattern that begins with / and a handler are needed", method, pattern);
  Route route{std::string(method), {}, std::move(handler), is_public};
  for (const auto segment : split(pattern)) {
    if (!route.segments.empty() && is_rest(route.segments.back()))
      fail(ErrorKind::invalid_argument, "route {} {}: nothing can follow {}", method, pattern,
           route.segments.back());
    if ((segment.front() == '{') != (segment.back() == '}') || segment == "{}" || segment == "{*}")
      fail(ErrorKind::invalid_argument, "route {} {}: {} is neither text nor {{name}}", method, pattern,
           segment);
    route.segments.emplace_back(segment);
  }
  routes_.push_back(std::move(route));
}

bool Router::fits(const Route& route, const Target& target, Fields* params) {
  const size_t wanted = route.segments.size(), got = target.segments.size();
  const bool open_end = wanted > 0 && is_rest(route.segments.back());
  if (open_end ? got < wanted : got != wanted) return false;
  for (size_t i = 0; i < wanted; ++i)
    if (!is_name(route.segments[i]) && route.segments[i] != target.segments[i]) return false;
  if (!params) return true;
  for (size_t i = 0; i < wanted; ++i) {
    const std::string& segment = route.segments[i];
    if (is_rest(segment)) {
      std::string rest = target.segments[i];
      for (size_t j = i + 1; j < got; ++j) rest += "/" + target.segments[j];
      params->emplace_back(segment.substr(1, segment.size() - 3), std::move(rest));
    } else if (is_name(segment)) {
      params->emplace_back(segment.substr(1, segment.size() - 2), target.segments[i]);
    }
  }
  return true;
}

Router::Match Router::match(std::string_view method, const Target& target) const {
  Match match;
  if (target.path == "*") return match;
  const auto allow = [&](std::string_view name) {
    if (match.allowed.find(name) != std::string::npos) return;
    match.allowed += (match.allowed.empty() ? "" : ", ") + std::string(name);
  };
  for (const auto& route : routes_) {
    if (!fits(route, target, nullptr)) continue;
    allow(route.method);
    if (route.method == "GET") allow("HEAD");
    const bool same = route.method == method || (method == "HEAD" && route.method == "GET");
    if (!same || match.handler) continue;
    match.handler = &route.handler;
    match.is_public = route.is_public;
    fits(route, target, &match.params);
  }
  if (!match.allowed.empty()) allow("OPTIONS");
  return match;
}

}  // namespace cairn::serve
