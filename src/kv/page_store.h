// Pages on disk, so that what was computed survives a restart and outlives its room in memory. One file per
// page, named by the page's hash, in a folder that several processes may share: files appear whole (a rename)
// and a page has the same bytes whoever wrote it. Beside the rows a file holds the model's fingerprint, the
// names of the page and of the one before, the token ids and a checksum; whatever does not agree with what is
// asked for is deleted and counts as not there. Nothing is synced to the disk: a page that a power cut tore
// is such a file.
//
// A thread of its own does all that touches the disk. What it still has to write it holds by a reference
// (rows of a shared page never change, so they need no copy), bounded; more is not kept this time and offered
// again with the sequence's next put(). The folder is bounded by its bytes: files least recently used go, of
// one text the last page first.
//
// All functions are for the engine's thread and never wait for the disk, except flush(). At admission:
//   auto match = tree.match(prompt, scope);
//   auto stored = store.lookup(match, prompt, scope);
//   if (stored.pages() > 0 && store.load_seconds(stored.pages()) < stored.tokens.size() / tokens_per_second)
//   {
//     tree.drop(match, match.whole_pages);           // a partial page is in the way
//     pool.allocate(stored.pages(), pages);
//     ticket = store.load(stored, pages);            // meanwhile others run
//   }
// and when poll() names the ticket, the sequence adopts match.pages and the first `loaded` of pages, the
// others are released and the tree gets an insert().
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kv/page_bytes.h"
#include "kv/page_hash.h"
#include "kv/pool.h"
#include "kv/prefix_tree.h"

namespace cairn::kv {

struct PageStoreOptions {
  std::filesystem::path folder = {};    // made, for its owner only, with the first page
  uint64_t bytes = uint64_t{16} << 30;  // all files together, other models' too
  int64_t queued_pages = 1024;          // held for writing at most
  std::chrono::seconds rescan{60};      // how often to see what other processes did
  // Both are called from the store's thread: one line when pages cannot be kept; poll() has something.
  std::function<void(const std::string&)> log = {};
  std::function<void()> on_ready = {};
};

struct PageStoreStats {
  int64_t files = 0;
  uint64_t bytes = 0;
  int64_t queued_pages = 0;
  int64_t written_pages = 0, loaded_pages = 0;
  int64_t dropped_pages = 0;  // not written: the queue was full
  int64_t failed_pages = 0;   // not written: the disk was full or the like
  int64_t damaged_pages = 0;  // found on disk, did not hold what they should, deleted
  int64_t evicted_pages = 0;
  double read_bytes_per_second = 0, write_bytes_per_second = 0;  // lately; 0: nothing measured
};

class PageStore {
 public:
  // fingerprint: PrefixTree::fingerprint(). The pool must outlive the store.
  PageStore(KvPool&, std::unique_ptr<PageBytes>, const PageHash& fingerprint, PageStoreOptions);
  ~PageStore();  // what is still queued is not written: flush() first
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  // Whole pages that follow what is in memory.
  struct Stored {
    PageHash before;              // the last page in memory
    std::vector<PageHash> names;  // one per page
    std::vector<int32_t> tokens;  // names.size() * page_tokens
    int64_t exact_pages = 0;      // leading ones; see PrefixTree::Scope
    int64_t pages() const { return int64_t(names.size()); }
  };
  // What is on disk after a match's whole pages, again without the prompt's last token.
  Stored lookup(const PrefixTree::Match&, std::span<const int32_t> prompt, const PrefixTree::Scope&);
  // How long load() of so many pages would take from now, by what was measured lately (before that: 1 GB/s).
  double load_seconds(int64_t pages) const;
  // Reads into pages that the caller has allocated, one per stored page. They stay allocated until poll()
  // names the ticket, even if the caller releases them.
  uint64_t load(const Stored&, std::span<const int32_t> pages);

  // Writes those of a sequence's pages which the tree has and the disk lacks.
  void put(const PrefixTree&, std::span<const int32_t> pages);
  // Gives up what is queued for writing, since its pages are needed; poll() frees them.
  void drop_queued();

  struct Loaded {
    uint64_t ticket = 0;
    int64_t pages = 0;  // leading ones that now hold their rows
  };
  // Ends what the thread has done: frees pages and says what was loaded. To be called between steps.
  std::vector<Loaded> poll();
  // Waits until all is written and loaded, at most so long. True when it is. poll() is still due.
  bool flush(std::chrono::milliseconds);

  PageStoreStats stats() const;

 private:
  struct Page {
    PageHash name, before;
    std::vector<int32_t> tokens;
    bool exact = true;
    int32_t number = -1;  // in the pool; -1: only to be marked as used
    int64_t used = 0;     // when, in ns since 1970; of pages used together, later ones seem a little older
  };
  struct Job {
    uint64_t ticket = 0;        // 0: to be written
    std::vector<Page> pages;    // first to last
    std::vector<int32_t> held;  // references
    size_t next = 0;            // pages done
  };
  struct File {
    uint64_t bytes = 0;
    int64_t stamp = 0;  // its time on disk, which follows its uses at some distance
    std::multimap<int64_t, PageHash>::iterator order;
  };
  using Clock = std::chrono::steady_clock;

  // The thread's.
  void work();
  void scan();
  void load(Job&);
  void write_page(const Page&);
  bool load_page(const Page&);
  void touch(const Page&);
  void evict(uint64_t room);  // until so many bytes more fit
  void say_once(const std::string&);

  // With mutex_ held.
  bool scan_is_due() const;
  void remember(const PageHash&, uint64_t bytes, int64_t used, int64_t stamp);
  void forget(const PageHash&);
  void finish(Job&&);

  std::string header(const Page&) const;
  std::filesystem::path path(const PageHash&) const;

  KvPool& pool_;
  std::unique_ptr<PageBytes> bytes_;
  PageHash fingerprint_;
  PageStoreOptions options_;
  uint64_t file_bytes_ = 0;  // of one of this model's pages

  mutable std::mutex mutex_;  // of all below
  std::condition_variable wake_, idle_;
  std::deque<Job> loads_, writes_;
  std::vector<Job> done_;
  std::unordered_map<PageHash, File, PageHashHasher> files_;
  std::multimap<int64_t, PageHash> by_use_;  // time in ns: oldest first
  std::unordered_set<PageHash, PageHashHasher> queued_;
  PageStoreStats stats_;
  int64_t loading_pages_ = 0;  // asked for and not done
  uint64_t last_ticket_ = 0;
  Clock::time_point last_scan_;
  bool busy_ = false, writing_ = false;  // the thread is at work; on the front of writes_
  bool scanned_ = false, asked_ = false, stop_ = false;

  std::string buffer_;  // these are the thread's own
  Clock::time_point full_until_;
  bool said_ = false;
  std::thread thread_;
};

}  // namespace cairn::kv
