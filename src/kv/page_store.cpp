#include "kv/page_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/cache_folder.h"
#include "base/content_hash.h"

namespace cairn::kv {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::string_view kMagic = "cairn KV";
constexpr uint32_t kFormat = 1;  // of the file; a page in another format counts as damaged
constexpr std::string_view kSuffix = ".page";
constexpr auto kTouchAfter = 10min;   // a file's time of use is brought up to date this often
constexpr auto kRetryAfter = 60s;     // when the disk was full
constexpr auto kOrphanAfter = 60min;  // a temporary file whose writer died

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}
// When the page number `index` of a text is used now: the last page is the first to go, since those before it
// are of use without it.
int64_t use_time(int64_t now, size_t index) { return now - int64_t(index) * 1000; }

template <typename T>
void append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

uint64_t checksum(std::string_view text) { return content_hash(std::as_bytes(std::span(text))); }

// A regular file of exactly this size; ENOENT and the like: errno, another size: EINVAL.
int read_whole(const fs::path& path, size_t size, std::string& into) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return errno;
  struct stat facts {};
  int error = fstat(file, &facts) != 0 ? errno : 0;
  if (!error && (!S_ISREG(facts.st_mode) || uint64_t(facts.st_size) != size)) error = EINVAL;
  into.resize(size);
  for (size_t done = 0; !error && done < size;) {
    const ssize_t count = read(file, into.data() + done, size - done);
    if (count < 0 && errno != EINTR) error = errno;
    if (count == 0) error = EINVAL;
    if (count > 0) done += size_t(count);
  }
  close(file);
  return error;
}

double blend(double old, double latest) { return old == 0 ? latest : 0.7 * old + 0.3 * latest; }

}  // namespace

PageStore::PageStore(KvPool& pool, std::unique_ptr<PageBytes> bytes, const PageHash& fingerprint,
                     PageStoreOptions options)
    : pool_(pool), bytes_(std::move(bytes)), fingerprint_(fingerprint), options_(std::move(options)) {
  Page any;
  any.tokens.resize(size_t(pool_.config().page_tokens));
  file_bytes_ = header(any).size() + uint64_t(bytes_->size()) + sizeof(uint64_t);
  thread_ = std::thread([this] { work(); });
}

PageStore::~PageStore() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  for (auto* jobs : {&loads_, &writes_})
    for (const Job& job : *jobs)
      for (const int32_t page : job.held) pool_.release(page);
  for (const Job& job : done_)
    for (const int32_t page : job.held) pool_.release(page);
}

PageStore::Stored PageStore::lookup(const PrefixTree::Match& match, std::span<const int32_t> prompt,
                                    const PrefixTree::Scope& scope) {
  const auto page = size_t(pool_.config().page_tokens);
  Stored stored{.before = match.hash, .names = {}, .tokens = {}, .exact_pages = 0};
  bool exact = match.exact_tokens >= match.whole_pages * int64_t(page);
  const auto known = [&](const PageHash& name) {
    const std::lock_guard lock(mutex_);
    return files_.contains(name);
  };
  PageHash before = match.hash;
  for (size_t at = size_t(match.whole_pages) * page; at + page < prompt.size(); at += page) {
    const auto ids = prompt.subspan(at, page);
    PageHash name = next_hash(before, ids, exact);
    if (!known(name)) {
      if (!exact || !scope.accept_decoded) break;
      exact = false;
      if (!known(name = next_hash(before, ids, false))) break;
    }
    if (!exact && !scope.accept_decoded) break;
    stored.names.push_back(name);
    stored.tokens.insert(stored.tokens.end(), ids.begin(), ids.end());
    stored.exact_pages += exact;
    before = name;
  }
  const std::lock_guard lock(mutex_);
  asked_ = true;
  if (scan_is_due()) wake_.notify_one();
  return stored;
}

double PageStore::load_seconds(int64_t pages) const {
  const std::lock_guard lock(mutex_);
  const double rate = stats_.read_bytes_per_second > 0 ? stats_.read_bytes_per_second : 1e9;
  return double(uint64_t(pages + loading_pages_) * file_bytes_) / rate;
}

uint64_t PageStore::load(const Stored& stored, std::span<const int32_t> pages) {
  assert(pages.size() == stored.names.size());
  const auto page_tokens = size_t(pool_.config().page_tokens);
  Job job;
  PageHash before = stored.before;
  const int64_t now = now_ns();
  for (size_t i = 0; i < pages.size(); ++i) {
    const auto ids = std::span(stored.tokens).subspan(i * page_tokens, page_tokens);
    job.pages.push_back({stored.names[i],
                         before,
                         {ids.begin(), ids.end()},
                         int64_t(i) < stored.exact_pages,
                         pages[i],
                         use_time(now, i)});
    before = stored.names[i];
    pool_.retain(pages[i]);
  }
  job.held.assign(pages.begin(), pages.end());
  const std::lock_guard lock(mutex_);
  job.ticket = ++last_ticket_;
  loading_pages_ += int64_t(pages.size());
  loads_.push_back(std::move(job));
  wake_.notify_one();
  return last_ticket_;
}

void PageStore::put(const PrefixTree& tree, std::span<const int32_t> pages) {
  const auto page_tokens = size_t(pool_.config().page_tokens);
  const int64_t now = now_ns();
  Job job;
  size_t last = 0;  // past the last page to be written
  const std::lock_guard lock(mutex_);
  asked_ = true;
  for (size_t i = 0; i < pages.size(); ++i) {
    if (!tree.contains(pages[i]) || tree.tokens(pages[i]).size() < page_tokens) break;
    const PageHash& name = tree.hash(pages[i]);
    if (queued_.contains(name)) continue;
    Page page{name, tree.hash_before(pages[i]), {}, tree.exact(pages[i]), -1, use_time(now, i)};
    const auto file = files_.find(name);
    if (file != files_.end()) {
      const int64_t stamp = file->second.stamp;
      remember(name, file->second.bytes, page.used, stamp);
      if (now - stamp < std::chrono::nanoseconds(kTouchAfter).count()) continue;
    } else {
      if (stats_.queued_pages >= options_.queued_pages) {
        ++stats_.dropped_pages;
        continue;
      }
      const auto tokens = tree.tokens(pages[i]);
      page.tokens.assign(tokens.begin(), tokens.end());
      page.number = pages[i];
      last = i + 1;
      queued_.insert(name);
      ++stats_.queued_pages;
    }
    job.pages.push_back(std::move(page));
  }
  if (job.pages.empty()) return;
  // All pages before, too, though only some are read: the tree counts on pages in use having used parents.
  job.held.assign(pages.begin(), pages.begin() + std::ptrdiff_t(last));
  for (const int32_t page : job.held) pool_.retain(page);
  writes_.push_back(std::move(job));
  wake_.notify_one();
}

void PageStore::drop_queued() {
  const std::lock_guard lock(mutex_);
  for (size_t i = writing_ ? 1 : 0; i < writes_.size(); ++i) finish(std::move(writes_[i]));
  writes_.resize(writing_ ? 1 : 0);
  if (!writing_) return;
  Job& current = writes_.front();
  for (size_t i = current.next + 1; i < current.pages.size(); ++i)
    if (current.pages[i].number >= 0) stats_.queued_pages -= int64_t(queued_.erase(current.pages[i].name));
  current.pages.resize(current.next + 1);
}

void PageStore::finish(Job&& job) {
  if (job.ticket == 0) {
    for (const Page& page : job.pages)
      if (page.number >= 0) stats_.queued_pages -= int64_t(queued_.erase(page.name));
  } else {
    loading_pages_ -= int64_t(job.pages.size());
  }
  done_.push_back(std::move(job));
}

std::vector<PageStore::Loaded> PageStore::poll() {
  std::vector<Job> done;
  {
    const std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  std::vector<Loaded> loaded;
  for (const Job& job : done) {
    for (const int32_t page : job.held) pool_.release(page);
    if (job.ticket != 0) loaded.push_back({job.ticket, int64_t(job.next)});
  }
  return loaded;
}

bool PageStore::flush(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, limit, [&] { return scanned_ && !busy_ && loads_.empty() && writes_.empty(); });
}

PageStoreStats PageStore::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

bool PageStore::scan_is_due() const { return asked_ && Clock::now() >= last_scan_ + options_.rescan; }

void PageStore::work() {
  scan();
  std::unique_lock lock(mutex_);
  for (;;) {
    busy_ = false;
    if (loads_.empty() && writes_.empty()) idle_.notify_all();
    wake_.wait(lock, [&] { return stop_ || !loads_.empty() || !writes_.empty() || scan_is_due(); });
    if (stop_) return;
    busy_ = true;
    bool ready = false;
    if (!loads_.empty()) {  // somebody waits for these
      Job job = std::move(loads_.front());
      loads_.pop_front();
      lock.unlock();
      load(job);
      lock.lock();
      finish(std::move(job));
      ready = true;
    } else if (scan_is_due()) {
      lock.unlock();
      scan();
      lock.lock();
    } else {
      const Page page = writes_.front().pages[writes_.front().next];
      writing_ = true;
      lock.unlock();
      page.number < 0 ? touch(page) : write_page(page);
      lock.lock();
      writing_ = false;
      Job& job = writes_.front();
      if (++job.next == job.pages.size()) {
        finish(std::move(job));
        writes_.pop_front();
        ready = true;
      }
    }
    if (!ready || !options_.on_ready) continue;
    lock.unlock();
    options_.on_ready();
    lock.lock();
  }
}

// Only the thread adds and removes files of this process, so what is found can replace what was known.
void PageStore::scan() {
  struct Found {
    PageHash name;
    uint64_t bytes;
    int64_t used;
  };
  std::vector<Found> found;
  std::error_code error;
  const auto each = [&](const fs::path& folder, auto&& f) {
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) f(*it);
  };
  each(options_.folder, [&](const fs::directory_entry& part) {
    std::error_code ignored;
    if (part.path().filename().string().size() != 2 || !part.is_directory(ignored)) return;
    each(part.path(), [&](const fs::directory_entry& entry) {
      struct stat facts {};
      if (lstat(entry.path().c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return;
      const int64_t used = int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec;
      const std::string name = entry.path().filename().string();
      const auto hash = PageHash::from_hex(std::string_view(name).substr(0, name.find('.')));
      if (!hash) return;
      if (name.ends_with(kSuffix))
        found.push_back({*hash, uint64_t(facts.st_size), used});
      else if (now_ns() - used > std::chrono::nanoseconds(kOrphanAfter).count())
        fs::remove(entry.path(), ignored);
    });
  });
  const std::lock_guard lock(mutex_);
  files_.clear();
  by_use_.clear();
  stats_.files = 0;
  stats_.bytes = 0;
  for (const Found& f : found) remember(f.name, f.bytes, f.used, f.used);
  last_scan_ = Clock::now();
  scanned_ = true;
  asked_ = false;
}

void PageStore::load(Job& job) {
  const auto start = Clock::now();
  while (job.next < job.pages.size() && load_page(job.pages[job.next])) ++job.next;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  for (size_t i = 0; i < job.next; ++i) touch(job.pages[i]);
  const std::lock_guard lock(mutex_);
  stats_.loaded_pages += int64_t(job.next);
  if (job.next > 0)
    stats_.read_bytes_per_second =
        blend(stats_.read_bytes_per_second, double(job.next * file_bytes_) / std::max(seconds, 1e-9));
}

bool PageStore::load_page(const Page& page) {
  const int error = read_whole(path(page.name), file_bytes_, buffer_);
  bool damaged = error == EINVAL;
  if (!error) {
    const std::string_view file = buffer_;
    const std::string wanted = header(page);
    uint64_t sum = 0;
    std::memcpy(&sum, file.data() + file.size() - sizeof(sum), sizeof(sum));
    damaged = !file.starts_with(wanted) || sum != checksum(file.substr(0, file.size() - sizeof(sum)));
    if (!damaged) {
      try {
        bytes_->write(page.number,
                      std::as_bytes(std::span(file.substr(wanted.size(), size_t(bytes_->size())))));
        return true;
      } catch (const std::exception& e) {
        say_once(fmt::format("a page from {} could not be placed: {}", options_.folder.string(), e.what()));
        return false;
      }
    }
  }
  std::error_code ignored;
  if (damaged) fs::remove(path(page.name), ignored);
  const std::lock_guard lock(mutex_);
  forget(page.name);
  stats_.damaged_pages += damaged;
  return false;
}

void PageStore::write_page(const Page& page) {
  bool kept = Clock::now() >= full_until_;
  {
    const std::lock_guard lock(mutex_);
    if (files_.contains(page.name)) return;  // queued before the folder was read
    kept = kept && file_bytes_ <= options_.bytes;
  }
  const auto start = Clock::now();
  if (kept) {
    try {
      std::error_code ignored;
      if (fs::create_directories(options_.folder, ignored))  // it will hold what people wrote
        fs::permissions(options_.folder, fs::perms::owner_all, ignored);
      evict(file_bytes_);
      buffer_ = header(page);
      const size_t begin = buffer_.size();
      buffer_.resize(begin + size_t(bytes_->size()));
      bytes_->read(page.number, std::as_writable_bytes(std::span(buffer_).subspan(begin)));
      append(buffer_, checksum(buffer_));
      kept = write_cache_file(path(page.name), buffer_);
      if (kept) {
        touch(page);
      } else {
        full_until_ = Clock::now() + kRetryAfter;
        say_once(fmt::format("computed pages are not kept: no room in {}, or it cannot be written",
                             options_.folder.string()));
      }
    } catch (const std::exception& e) {
      kept = false;
      say_once(
          fmt::format("a computed page could not be kept in {}: {}", options_.folder.string(), e.what()));
    }
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const std::lock_guard lock(mutex_);
  ++(kept ? stats_.written_pages : stats_.failed_pages);
  if (!kept) return;
  remember(page.name, file_bytes_, page.used, page.used);
  stats_.write_bytes_per_second =
      blend(stats_.write_bytes_per_second, double(file_bytes_) / std::max(seconds, 1e-9));
}

void PageStore::touch(const Page& page) {
  const timespec time{page.used / 1'000'000'000, page.used % 1'000'000'000}, times[2] = {time, time};
  utimensat(AT_FDCWD, path(page.name).c_str(), times, AT_SYMLINK_NOFOLLOW);
  const std::lock_guard lock(mutex_);
  if (const auto file = files_.find(page.name); file != files_.end())
    remember(page.name, file->second.bytes, page.used, page.used);
}

void PageStore::evict(uint64_t room) {
  for (;;) {
    PageHash oldest;
    {
      const std::lock_guard lock(mutex_);
      if (by_use_.empty() || stats_.bytes + room <= options_.bytes) return;
      oldest = by_use_.begin()->second;
      forget(oldest);
      ++stats_.evicted_pages;
    }
    std::error_code ignored;
    fs::remove(path(oldest), ignored);
  }
}

void PageStore::remember(const PageHash& name, uint64_t bytes, int64_t used, int64_t stamp) {
  forget(name);
  files_[name] = {bytes, stamp, by_use_.emplace(used, name)};
  ++stats_.files;
  stats_.bytes += bytes;
}

void PageStore::forget(const PageHash& name) {
  const auto file = files_.find(name);
  if (file == files_.end()) return;
  --stats_.files;
  stats_.bytes -= file->second.bytes;
  by_use_.erase(file->second.order);
  files_.erase(file);
}

void PageStore::say_once(const std::string& line) {
  if (!said_ && options_.log) options_.log(line);
  said_ = true;
}

std::string PageStore::header(const Page& page) const {
  std::string text(kMagic);
  append(text, kFormat);
  append(text, uint32_t(page.tokens.size()));
  append(text, uint64_t(bytes_->size()));
  append(text, fingerprint_);
  append(text, page.before);
  append(text, page.name);
  append(text, uint64_t{page.exact});
  for (const int32_t token : page.tokens) append(text, token);
  return text;
}

// 256 folders: a million files are no burden for any of them.
fs::path PageStore::path(const PageHash& name) const {
  const std::string hex = name.hex();
  return options_.folder / hex.substr(0, 2) / (hex + std::string(kSuffix));
}

}  // namespace cairn::kv
