#include "formats/hub_cache.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestPart = 255, kLongestPath = 1024, kLongestRepo = 96;

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// A relative path of plain parts, none of which leads up or nowhere.
bool is_plain_path(std::string_view path) {
  if (path.empty() || path.size() > kLongestPath) return false;
  for (const char c : path)
    if (uint8_t(c) < 0x20 || c == 0x7f || c == '\\') return false;
  while (true) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.size() > kLongestPart) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

bool is_repo_part(std::string_view part) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return !part.empty() && part.size() <= kLongestRepo && std::all_of(part.begin(), part.end(), allowed) &&
         part.front() != '.' && part.front() != '-' && part.find("..") == std::string_view::npos &&
         part.find("--") == std::string_view::npos;
}

std::string folder_name(std::string repo) {
  if (const size_t slash = repo.find('/'); slash != std::string::npos) repo.replace(slash, 1, "--");
  return "models--" + repo;
}

}  // namespace

void check_repo(std::string_view repo) {
  const size_t slash = repo.find('/');
  const bool good = slash == std::string_view::npos
                        ? is_repo_part(repo)
                        : is_repo_part(repo.substr(0, slash)) && is_repo_part(repo.substr(slash + 1));
  if (!good)
    fail(ErrorKind::invalid_argument,
         "'{}' is no model name: it must look like org/name (letters, digits, - _ .)", shown(repo));
}

void check_revision(std::string_view revision) {
  if (!is_plain_path(revision)) fail(ErrorKind::invalid_argument, "'{}' is no revision", shown(revision));
}

void check_hub_file(std::string_view file) {
  if (!is_plain_path(file))
    fail(ErrorKind::invalid_argument, "'{}' is no file name inside a model: it is refused", shown(file));
}

void check_commit(std::string_view commit) {
  if (commit.size() != 40 || !is_hex(commit))
    fail(ErrorKind::network, "the hub names the commit '{}', which is not 40 hexadecimal digits",
         shown(commit));
}

void check_etag(std::string_view etag) {
  if ((etag.size() != 40 && etag.size() != 64) || !is_hex(etag))
    fail(ErrorKind::network,
         "the hub gives the checksum '{}', which is neither a sha256 nor a git sha1; what cannot be verified "
         "is not "
         "downloaded",
         shown(etag));
}

HubCache::HubCache(const fs::path& root, const std::string& repo) {
  check_repo(repo);
  folder_ = root / folder_name(repo);
}

fs::path HubCache::blob(const std::string& etag) const {
  check_etag(etag);
  return folder_ / "blobs" / etag;
}

fs::path HubCache::incomplete(const std::string& etag) const { return blob(etag).concat(".incomplete"); }

fs::path HubCache::snapshot(const std::string& commit) const {
  check_commit(commit);
  return folder_ / "snapshots" / commit;
}

std::optional<std::string> HubCache::commit_of(const std::string& revision) const {
  check_revision(revision);
  if (revision.size() == 40 && is_hex(revision)) return revision;
  const auto path = folder_ / "refs" / revision;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::nullopt;
  std::string commit = read_text_file(path, 4096);
  commit.erase(std::min(commit.find_last_not_of(" \r\n\t") + 1, commit.size()));
  if (commit.size() != 40 || !is_hex(commit)) return std::nullopt;
  return commit;
}

std::vector<std::string> HubCache::files_of(const std::string& commit) const {
  const auto folder = snapshot(commit);
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code broken;
    if (entry->is_regular_file(broken))
      files.push_back(entry->path().lexically_relative(folder).generic_string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool HubCache::has(const std::string& commit, const std::string& file, const std::string& etag,
                   uint64_t size) const {
  check_hub_file(file);
  std::error_code error;
  const auto link = snapshot(commit) / file;
  return fs::equivalent(link, blob(etag), error) && fs::file_size(link, error) == size && !error;
}

void HubCache::link(const std::string& commit, const std::string& file, const std::string& etag) const {
  check_hub_file(file);
  const auto link = snapshot(commit) / file;
  fs::create_directories(link.parent_path());
  const auto target = blob(etag).lexically_relative(link.parent_path());
  const auto temporary = fs::path(link).concat(fmt::format(".{}.partial", getpid()));
  std::error_code error;
  fs::remove(temporary, error);
  fs::create_symlink(target, temporary, error);
  if (error) fail(ErrorKind::io, "cannot make the link {}: {}", temporary.string(), error.message());
  fs::rename(temporary, link, error);
  if (error) fail(ErrorKind::io, "cannot put {} in place: {}", link.string(), error.message());
}

void HubCache::set_ref(const std::string& revision, const std::string& commit) const {
  check_revision(revision);
  check_commit(commit);
  if (revision == commit) return;
  const auto path = folder_ / "refs" / revision;
  fs::create_directories(path.parent_path());
  write_file_atomically(path, std::as_bytes(std::span(commit)));
}

}  // namespace cairn::formats
