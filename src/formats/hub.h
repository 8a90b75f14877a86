// Models from a Hugging Face-compatible hub: find out what a repository holds, download what is needed,
// verify size and checksum of every file, keep them in the cache that other programs share. The hub is not
// trusted: names, sizes, checksums and redirects are checked (hub_cache.h, http_client.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "formats/http_client.h"

namespace cairn::formats {

struct PullRequest {
  std::string repo;  // "org/name", or "name"
  std::string
      file;  // a file, a GGUF quantization such as "Q4_K_M", or "" for what is needed to run the model
  std::string revision = "main";
  bool operator==(const PullRequest&) const = default;
};

// "org/name", "org/name:file-or-quantization", "org/name@revision", with or without "hf.co/" or the hub's
// address in front. Throws Error(invalid_argument) for anything else.
PullRequest parse_model_name(std::string_view);
bool is_model_name(std::string_view);

struct PullOptions {
  std::string endpoint = "https://huggingface.co";
  std::string token;            // sent to the endpoint's origin only
  std::filesystem::path cache;  // the folder that holds models--org--name
  bool offline = false;         // refuse to use the network
  HttpOptions http;
  int attempts = 5;                         // without progress, for one file
  std::chrono::milliseconds backoff{1000};  // before the second attempt, doubled for each further one
};

// HF_ENDPOINT, HF_TOKEN (or the file HF_TOKEN_PATH, or token in HF_HOME), HF_HUB_CACHE, HF_HOME,
// HF_HUB_OFFLINE, with the defaults of huggingface_hub.
PullOptions pull_options_from_environment();

struct PullProgress {
  std::string_view file;
  uint64_t done = 0, total = 0;  // bytes
  size_t index = 0, count = 0;   // of the files, from 0
};
using PullListener = std::function<void(const PullProgress&)>;

// Downloads what is missing and returns what to open: the snapshot's folder, or the one file that was asked
// for. Cut downloads are resumed, also by a later call. Throws Error(network), (not_found),
// (invalid_argument), (io) or (cancelled); what is incomplete never appears under its final name.
std::filesystem::path pull(const PullRequest&, const PullOptions&, const PullListener& = {});

// What pull would return, when the cache holds all of it; uses no network.
std::optional<std::filesystem::path> find_cached(const PullRequest&, const PullOptions&);

}  // namespace cairn::formats
