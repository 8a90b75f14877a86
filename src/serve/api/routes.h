// The table of endpoints with a JSON body: what api.cpp routes and openapi.cpp describes.
#pragma once

#include <span>

#include "serve/api/serving.h"

namespace cairn::serve {

using Endpoint = void (*)(Serving&, const HttpRequest&, Json body, const std::shared_ptr<Reply>&);

struct PostRoute {
  const char* path;
  const char* request;  // names of schemas
  const char* response;
  bool streams;  // answers an event stream for "stream": true
  const char* summary;
  Endpoint endpoint;
};
std::span<const PostRoute> post_routes();

struct GetRoute {
  const char* path;
  const char* response;  // a schema's name; "": see content_type
  const char* content_type;
  const char* summary;
};
std::span<const GetRoute> get_routes();

}  // namespace cairn::serve
