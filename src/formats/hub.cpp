#include "formats/hub.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/hub_cache.h"
#include "formats/hub_download.h"
#include "formats/hub_files.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kListingLimit = 64 << 20;
constexpr size_t kMostFiles = 100'000;
constexpr uint64_t kSpareDisk = 64 << 20;  // left free

struct Listing {
  std::string commit;
  std::vector<std::string> files;
};

// What the hub says of one file before it is downloaded.
struct Facts {
  std::string etag;
  std::optional<uint64_t> size;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

class Hub {
 public:
  Hub(const PullRequest& request, const PullOptions& options)
      : request_(request), options_(options), endpoint_(parse_url(options.endpoint)), client_(options.http) {
    while (endpoint_.target.ends_with('/')) endpoint_.target.pop_back();
    check_repo(request.repo);
    check_revision(request.revision);
    if (!request.file.empty()) check_hub_file(request.file);
  }

  Listing list() {
    const std::string what = fmt::format("{} at {}", request_.repo, request_.revision);
    std::string text;
    retry(options_, [&] {
      text.clear();
      HttpRequest http{.url = url("/api/models/" + percent_encode(request_.repo, "/") + "/revision/" +
                                  percent_encode(request_.revision)),
                       .bearer = options_.token,
                       .body_limit = kListingLimit};
      http.wants_body = [&](const HttpHead& head) {
        if (head.status != 200) refuse_status(head, what, !options_.token.empty());
        return true;
      };
      http.on_body = [&](std::string_view bytes) { text += bytes; };
      client_.fetch(std::move(http));
    });
    const std::string name = fmt::format("the hub's listing of {}", what);
    const auto json = parse_json(text, name);
    Listing listing;
    listing.commit = require_string(json, "sha", name);
    check_commit(listing.commit);
    const auto* siblings = find_field(json, "siblings", name);
    if (!siblings || !siblings->is_array() || siblings->size() > kMostFiles)
      fail(ErrorKind::network, "{} has no list 'siblings' of at most {} files", name, kMostFiles);
    for (const auto& sibling : *siblings) listing.files.push_back(require_string(sibling, "rfilename", name));
    return listing;
  }

  Url file_url(const std::string& commit, const std::string& file) const {
    return url("/" + percent_encode(request_.repo, "/") + "/resolve/" + commit + "/" +
               percent_encode(file, "/"));
  }

  // Large files answer with a redirect to another host that carries X-Linked-Etag and X-Linked-Size; small
  // ones with ETag and Content-Length, perhaps behind redirects within the hub.
  HubFile describe(const std::string& commit, const std::string& file) {
    check_hub_file(file);
    const Url address = file_url(commit, file);
    const std::string what = fmt::format("{} of {}", file, request_.repo);
    Facts linked, plain;
    const auto note = [&](const HttpHead& head) {
      if (const auto etag = head.field("X-Linked-Etag")) linked.etag = *etag;
      if (const auto size = head.field("X-Linked-Size")) linked.size = to_size(*size, what);
    };
    retry(options_, [&] {
      linked = plain = {};
      HttpRequest http{.method = "HEAD", .url = address, .bearer = options_.token};
      http.follows = [&](const HttpHead& head, const Url& to) {
        note(head);
        return to.origin() == address.origin();
      };
      const HttpHead head = client_.fetch(std::move(http));
      note(head);
      if (head.status != 200 && !head.is_redirect()) refuse_status(head, what, !options_.token.empty());
      if (const auto etag = head.field("ETag"); etag && head.status == 200) plain.etag = *etag;
      if (head.status == 200) plain.size = head.content_length();
    });
    const Facts& facts = linked.etag.empty() ? plain : linked;
    const auto size = facts.size ? facts.size : plain.size;
    if (facts.etag.empty() || !size)
      fail(ErrorKind::network,
           "{}: the hub gives no checksum or no size; what cannot be verified is not downloaded", what);
    return {what, address, bare_etag(facts.etag), *size};
  }

  HttpClient& client() { return client_; }

 private:
  Url url(const std::string& path) const {
    Url result = endpoint_;
    result.target += path;
    return result;
  }

  // W/"abc" -> abc. What is left must be a checksum.
  static std::string bare_etag(std::string_view etag) {
    if (etag.starts_with("W/")) etag.remove_prefix(2);
    if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
    check_etag(etag);
    return std::string(etag);
  }

  static uint64_t to_size(std::string_view text, const std::string& what) {
    const bool digits = !text.empty() && text.size() <= 18 &&
                        std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!digits) fail(ErrorKind::network, "{}: the hub gives the size '{}'", what, shown(text));
    return std::stoull(std::string(text));
  }

  const PullRequest& request_;
  const PullOptions& options_;
  Url endpoint_;
  HttpClient client_;
};

void check_disk(const fs::path& cache, uint64_t needed) {
  std::error_code error;
  const auto space = fs::space(cache, error);
  if (!error && (needed > space.available || space.available - needed < kSpareDisk))
    fail(ErrorKind::io, "{} bytes are to be downloaded, but the disk of {} has only {} bytes free", needed,
         cache.string(), space.available);
}

bool is_complete(const HubCache& cache, const HubFile& file) {
  std::error_code error;
  const auto size = fs::file_size(cache.blob(file.etag), error);
  return !error && size == file.size;
}

}  // namespace

PullRequest parse_model_name(std::string_view name) {
  const std::string_view whole = name;
  for (const std::string_view prefix : {"https://", "http://"})
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  for (const std::string_view prefix : {"hf.co/", "huggingface.co/"})
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  PullRequest request;
  if (const size_t at = name.rfind('@'); at != std::string_view::npos) {
    request.revision = name.substr(at + 1);
    check_revision(request.revision);
    name = name.substr(0, at);
  }
  if (const size_t colon = name.find(':'); colon != std::string_view::npos) {
    request.file = name.substr(colon + 1);
    check_hub_file(request.file);
    name = name.substr(0, colon);
  }
  request.repo = name;
  if (name.find('/') == std::string_view::npos)
    fail(ErrorKind::invalid_argument, "'{}' is no model name: it must look like org/name", shown(whole));
  check_repo(request.repo);
  return request;
}

bool is_model_name(std::string_view name) {
  try {
    parse_model_name(name);
    return true;
  } catch (const Error&) {
    return false;
  }
}

PullOptions pull_options_from_environment() {
  PullOptions options;
  if (const auto endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) options.endpoint = endpoint;
  fs::path home = environment("HF_HOME");
  if (home.empty()) {
    fs::path base = environment("XDG_CACHE_HOME");
    if (base.empty()) base = fs::path(environment("HOME").empty() ? "." : environment("HOME")) / ".cache";
    home = base / "huggingface";
  }
  options.cache = environment("HF_HUB_CACHE");
  if (options.cache.empty()) options.cache = environment("HUGGINGFACE_HUB_CACHE");
  if (options.cache.empty()) options.cache = home / "hub";
  options.token = environment("HF_TOKEN");
  const auto token_file =
      environment("HF_TOKEN_PATH").empty() ? home / "token" : fs::path(environment("HF_TOKEN_PATH"));
  std::error_code missing;
  if (options.token.empty() && fs::is_regular_file(token_file, missing))
    options.token = read_text_file(token_file, 4096);
  while (!options.token.empty() && uint8_t(options.token.back()) <= ' ') options.token.pop_back();
  for (const char c : options.token)
    if (uint8_t(c) <= ' ' || uint8_t(c) >= 0x7f)
      fail(ErrorKind::invalid_argument, "the token in HF_TOKEN or {} has a space or an odd character",
           token_file.string());
  const auto offline = environment("HF_HUB_OFFLINE");
  options.offline =
      offline == "1" || offline == "true" || offline == "TRUE" || offline == "yes" || offline == "on";
  return options;
}

std::optional<fs::path> find_cached(const PullRequest& request, const PullOptions& options) try {
  const HubCache cache(options.cache, request.repo);
  const auto commit = cache.commit_of(request.revision);
  if (!commit) return std::nullopt;
  const auto folder = cache.snapshot(*commit);
  try {
    const auto selection =
        select_hub_files(request.repo, cache.files_of(*commit), request.file,
                         [&](const std::string& file) { return read_text_file(folder / file); });
    return selection.open.empty() ? folder : folder / selection.open;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::not_found || error.kind() == ErrorKind::invalid_file) return std::nullopt;
    throw;
  }
} catch (const fs::filesystem_error& error) {
  fail(ErrorKind::io, "the cache cannot be read: {}", error.what());
}

fs::path pull(const PullRequest& request, const PullOptions& options, const PullListener& listener) try {
  if (options.offline) {
    if (const auto cached = find_cached(request, options)) return *cached;
    fail(ErrorKind::not_found, "{} is not in the cache {}, and HF_HUB_OFFLINE forbids to download it",
         request.repo, options.cache.string());
  }
  Hub hub(request, options);
  const HubCache cache(options.cache, request.repo);
  const Listing listing = hub.list();
  size_t index = 0, count = 0;
  const auto fetch = [&](const HubFile& file, const std::string& name) {
    const auto report = [&](uint64_t done) {
      if (listener) listener({name, done, file.size, index, count});
    };
    if (is_complete(cache, file))
      report(file.size);
    else
      download_blob(hub.client(), file, cache, options, report);
    if (!cache.has(listing.commit, name, file.etag, file.size)) cache.link(listing.commit, name, file.etag);
  };
  fs::create_directories(options.cache);
  const auto selection =
      select_hub_files(request.repo, listing.files, request.file, [&](const std::string& name) {
        const HubFile file = hub.describe(listing.commit, name);
        check_disk(options.cache, file.size);
        count = 1;
        fetch(file, name);
        return read_text_file(cache.snapshot(listing.commit) / name);
      });
  for (const auto& name : selection.files) check_hub_file(name);
  std::vector<HubFile> files;
  uint64_t needed = 0;
  for (const auto& name : selection.files) {
    files.push_back(hub.describe(listing.commit, name));
    constexpr uint64_t kMore = uint64_t{1} << 60;  // than any disk has; capped, so that the sum cannot wrap
    if (!is_complete(cache, files.back()))
      needed = std::min(needed + std::min(files.back().size, kMore), kMore);
  }
  check_disk(options.cache, needed);
  count = files.size();
  for (index = 0; index < count; ++index) fetch(files[index], selection.files[index]);
  cache.set_ref(request.revision, listing.commit);
  const auto folder = cache.snapshot(listing.commit);
  return selection.open.empty() ? folder : folder / selection.open;
} catch (const fs::filesystem_error& error) {
  fail(ErrorKind::io, "{} cannot be put into the cache: {}", request.repo, error.what());
}

}  // namespace cairn::formats
