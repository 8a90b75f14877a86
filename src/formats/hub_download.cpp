#include "formats/hub_download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "base/error.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

namespace fs = std::filesystem;

// sha256 of the contents, or git's blob hash: sha1 of "blob <size>\0" and the contents. The length tells
// which.
class Checksum {
 public:
  explicit Checksum(const HubFile& file) : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    const bool sha256 = file.etag.size() == 64;
    if (!context_ || EVP_DigestInit_ex(context_.get(), sha256 ? EVP_sha256() : EVP_sha1(), nullptr) != 1)
      fail(ErrorKind::unsupported, "OpenSSL offers no {} here", sha256 ? "sha256" : "sha1");
    if (sha256) return;
    const std::string header = fmt::format("blob {}", file.size);
    add({header.c_str(), header.size() + 1});
  }
  void add(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string text;
    for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// The unfinished file, locked against a second download of the same contents.
class Incomplete {
 public:
  Incomplete(fs::path path, const HubFile& file) : path_(std::move(path)), file_(file), checksum_(file) {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd_ < 0) failed("open");
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      close(fd_);
      fail(ErrorKind::io, "{} is being downloaded by another process ({} is locked)", file.name,
           path_.string());
    }
    read_what_is_there();
  }
  ~Incomplete() { close(fd_); }
  Incomplete(const Incomplete&) = delete;
  Incomplete& operator=(const Incomplete&) = delete;

  uint64_t size() const { return size_; }

  void append(std::string_view bytes) {
    checksum_.add(bytes);
    while (!bytes.empty()) {
      const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), off_t(size_));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) failed("write");
      size_ += uint64_t(written);
      bytes.remove_prefix(size_t(written));
    }
  }

  void start_over() {
    if (ftruncate(fd_, 0) != 0) failed("truncate");
    size_ = 0;
    checksum_ = Checksum(file_);
  }

  // Gives the verified contents their name, or removes them when they are not what the hub promised.
  void finish(const fs::path& blob) {
    const std::string found = checksum_.hex();
    if (found != file_.etag) {
      unlink(path_.c_str());
      fail(ErrorKind::network,
           "{}: the downloaded {} bytes have the checksum {}, but the hub promised {}; they were "
           "removed",
           file_.name, size_, found, file_.etag);
    }
    if (fsync(fd_) != 0) failed("write");
    if (rename(path_.c_str(), blob.c_str()) != 0) failed("rename");
  }

 private:
  void read_what_is_there() {
    struct stat status {};
    if (fstat(fd_, &status) != 0) failed("read the size of");
    if (uint64_t(status.st_size) > file_.size) return start_over();
    std::vector<char> piece(1 << 20);
    while (size_ < uint64_t(status.st_size)) {
      const ssize_t got = pread(fd_, piece.data(), piece.size(), off_t(size_));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) failed("read");
      checksum_.add({piece.data(), size_t(got)});
      size_ += uint64_t(got);
    }
  }
  [[noreturn]] void failed(const char* what) {
    fail(ErrorKind::io, "cannot {} {}: {}", what, path_.string(), std::strerror(errno));
  }

  fs::path path_;
  const HubFile& file_;
  Checksum checksum_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

// One request for what is missing. Returns when the connection brought all of it; throws otherwise.
void fetch_rest(HttpClient& client, const HubFile& file, const PullOptions& options, Incomplete& target,
                const std::function<void(uint64_t)>& progress) {
  HttpRequest request{.url = file.url, .bearer = options.token, .body_limit = file.size};
  const uint64_t from = target.size();
  if (from > 0) request.fields.emplace_back("Range", fmt::format("bytes={}-", from));
  request.wants_body = [&](const HttpHead& head) {
    if (head.status == 416 &&
        from > 0) {  // the hub does not know that many bytes: what is here is something else
      target.start_over();
      throw TransientError(fmt::format("{}: the hub refuses to go on at byte {}", file.name, from));
    }
    if (head.status != 200 && !(head.status == 206 && from > 0))
      refuse_status(head, file.name, !options.token.empty());
    const uint64_t expected = head.status == 206 ? file.size - from : file.size;
    if (const auto length = head.content_length(); length && *length != expected)
      fail(ErrorKind::network, "{}: the hub sends {} bytes, but promised {}", file.name, *length, expected);
    if (head.status == 206) {
      const std::string wanted = fmt::format("bytes {}-{}/{}", from, file.size - 1, file.size);
      const std::string_view range = head.field("Content-Range").value_or("no Content-Range");
      if (range != wanted)
        fail(ErrorKind::network, "{}: the hub sends '{}', but '{}' was asked for", file.name, shown(range),
             wanted);
    } else if (from > 0) {
      target.start_over();  // it cannot resume
    }
    return true;
  };
  request.on_body = [&](std::string_view bytes) {
    if (bytes.size() > file.size - target.size())
      fail(ErrorKind::network, "{}: the hub sends more than the {} bytes it promised", file.name, file.size);
    target.append(bytes);
    progress(target.size());
  };
  client.fetch(std::move(request));
  if (target.size() < file.size)
    throw TransientError(
        fmt::format("{}: the download ended after {} of {} bytes", file.name, target.size(), file.size));
}

}  // namespace

void wait_before_retry(const PullOptions& options, int failures) {
  const auto end = std::chrono::steady_clock::now() + options.backoff * (1 << std::clamp(failures - 1, 0, 6));
  while (std::chrono::steady_clock::now() < end) {
    if (options.http.cancel && *options.http.cancel)
      fail(ErrorKind::cancelled, "cancelled between two attempts");
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(50), options.backoff));
  }
}

void retry(const PullOptions& options, const std::function<void()>& action) {
  for (int failures = 1;; ++failures) {
    try {
      return action();
    } catch (const TransientError&) {
      if (failures >= options.attempts) throw;
    }
    wait_before_retry(options, failures);
  }
}

void refuse_status(const HttpHead& head, const std::string& what, bool with_token) {
  const auto said = head.field("X-Error-Message");
  const std::string detail = said ? fmt::format(" (\"{}\")", shown(*said)) : "";
  if (head.status == 429 || head.status >= 500)
    throw TransientError(fmt::format("{}: the hub answers {}{}; try again later", what, head.status, detail));
  if (head.status == 404) fail(ErrorKind::not_found, "{} is not on the hub{}", what, detail);
  if (head.status == 401 || head.status == 403)
    fail(
        ErrorKind::network, "{}: the hub answers {}{}: {}", what, head.status, detail,
        with_token
            ? "the token in HF_TOKEN does not give access; the model may need its conditions accepted on its "
              "page first"
            : "the model is private, gated or not there; set HF_TOKEN to a token that may read it");
  fail(ErrorKind::network, "{}: the hub answers {}{}", what, head.status, detail);
}

void download_blob(HttpClient& client, const HubFile& file, const HubCache& cache, const PullOptions& options,
                   const std::function<void(uint64_t)>& progress) {
  const auto blob = cache.blob(file.etag);
  fs::create_directories(blob.parent_path());
  Incomplete target(cache.incomplete(file.etag), file);
  progress(target.size());
  for (int failures = 0; target.size() < file.size;) {
    const uint64_t before = target.size();
    try {
      fetch_rest(client, file, options, target, progress);
    } catch (const TransientError&) {
      failures = target.size() > before ? 1 : failures + 1;
      if (failures >= options.attempts) throw;
      wait_before_retry(options, failures);
    }
  }
  target.finish(blob);
}

}  // namespace cairn::formats
