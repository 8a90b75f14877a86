#include "serve/page.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/content_hash.h"
#include "base/embedded_file.h"

namespace cairn::serve {

const std::vector<EmbeddedFile>& embedded_files();

namespace {

// What a model writes is shown on this page, and people keep API keys in it. Nothing but its own files may
// run, load or be talked to, no text can become markup (trusted-types refuses innerHTML), and no other site
// may frame it.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string_view content_type(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> kTypes[] = {
      {".html", "text/html; charset=utf-8"},
      {".js", "text/javascript; charset=utf-8"},
      {".css", "text/css; charset=utf-8"},
      {".svg", "image/svg+xml; charset=utf-8"},
  };
  for (const auto& [ending, type] : kTypes)
    if (name.ends_with(ending)) return type;
  return "application/octet-stream";  // the test refuses a file that ends up here
}

// If-None-Match: a list of tags, each perhaps weak (W/"..."), or * (RFC 9110, 13.1.2).
bool matches(std::string_view list, std::string_view etag) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    std::string_view tag = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (!tag.empty() && (tag.front() == ' ' || tag.front() == '\t')) tag.remove_prefix(1);
    while (!tag.empty() && (tag.back() == ' ' || tag.back() == '\t')) tag.remove_suffix(1);
    if (tag.starts_with("W/")) tag.remove_prefix(2);
    if (tag == "*" || tag == etag) return true;
  }
  return false;
}

}  // namespace

std::span<const PageFile> page_files() {
  static const std::vector<PageFile> files = [] {
    std::vector<PageFile> made;
    for (const auto& [name, text] : embedded_files())
      made.push_back({name == "index.html" ? "/" : fmt::format("/page/{}", name), content_type(name), text,
                      fmt::format("\"{:016x}\"", content_hash(std::as_bytes(std::span(text))))});
    return made;
  }();
  return files;
}

HttpResponse page_response(const PageFile& file, std::string_view if_none_match) {
  const bool same = matches(if_none_match, file.etag);
  return {.status = same ? 304 : 200,
          .content_type = std::string(file.content_type),
          .body = same ? std::string() : std::string(file.bytes),
          .headers = {
              {"ETag", file.etag},
              {"Cache-Control", "no-cache"},  // asked for again each time, answered with 304
              {"Content-Security-Policy", std::string(kPolicy)},
              {"X-Content-Type-Options", "nosniff"},
              {"X-Frame-Options", "DENY"},
              {"Referrer-Policy", "no-referrer"},
              {"Cross-Origin-Opener-Policy", "same-origin"},
              {"Cross-Origin-Resource-Policy", "same-origin"},
              {"Permissions-Policy", "camera=(), microphone=(), geolocation=()"},
          }};
}

void add_page_routes(HttpServer& server) {
  for (const PageFile& file : page_files())
    server.route(
        "GET", file.path,
        [&file](HttpRequest request, std::shared_ptr<Reply> reply) {
          reply->respond(page_response(file, request.header("If-None-Match")));
        },
        true);
}

}  // namespace cairn::serve
