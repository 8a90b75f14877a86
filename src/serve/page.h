// The web page that `cairn serve` answers at /: the files of src/serve/page/, which the binary carries. They
// need no key (they hold nothing secret; what they ask of /v1 and /engine does), nothing from other hosts,
// and no build step.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "serve/http/server.h"

namespace cairn::serve {

struct PageFile {
  std::string path;               // "/" is index.html; the others are "/page/<name>"
  std::string_view content_type;  // with charset
  std::string_view bytes;
  std::string etag;  // quoted, from the content: changes when a file does
};

std::span<const PageFile> page_files();

// 200, or 304 when the browser's If-None-Match names what is there, with the headers that keep the page to
// itself.
HttpResponse page_response(const PageFile&, std::string_view if_none_match);

// One public route each. What the page then asks: /v1/models, /v1/chat/completions, and /engine (its fields:
// head of page/engine.js).
void add_page_routes(HttpServer&);

}  // namespace cairn::serve
