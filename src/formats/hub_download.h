// One file of a hub repository into the cache: resumed where it stopped, verified before it gets its name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "formats/hub.h"
#include "formats/hub_cache.h"

namespace cairn::formats {

struct HubFile {
  std::string name;  // for errors
  Url url;
  std::string etag;  // the sha256, or the git blob sha1, of its contents: also the blob's name
  uint64_t size = 0;
};

// `progress` gets the bytes that are there. Throws Error(network) when the answer is not the promised file.
void download_blob(HttpClient&, const HubFile&, const HubCache&, const PullOptions&,
                   const std::function<void(uint64_t)>& progress);

// Turns an answer that is no success into an Error that says what to do. TransientError for 429 and 5xx.
[[noreturn]] void refuse_status(const HttpHead&, const std::string& what, bool with_token);

// Calls `action` until it does not throw TransientError, at most options.attempts times.
void retry(const PullOptions&, const std::function<void()>& action);
void wait_before_retry(const PullOptions&,
                       int failures);  // ends early, with Error(cancelled), on cancellation

}  // namespace cairn::formats
