#include "kv/page_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <random>

#include "base/content_hash.h"
#include "base/mapped_file.h"

namespace cairn::kv {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Tokens = std::vector<int32_t>;
constexpr int kPage = 4;

Tokens text(int32_t first, int64_t count) {
  Tokens tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(first + int32_t(i));
  return tokens;
}

class PageStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("cairn-page-store-" + std::to_string(getpid()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::vector<fs::path> files() const {
    std::vector<fs::path> found;
    if (fs::exists(folder_))
      for (const auto& entry : fs::recursive_directory_iterator(folder_))
        if (entry.is_regular_file()) found.push_back(entry.path());
    std::ranges::sort(found);
    return found;
  }
  fs::path folder_;
};

// A server: a pool, what it remembers in memory, and the folder.
struct Server {
  explicit Server(fs::path folder, std::string model = "model", PageStoreOptions options = {})
      : pool({.layers = 2,
              .kv_heads = 2,
              .head_dim_k = 1,
              .head_dim_v = 2,
              .page_tokens = kPage,
              .form = KvForm::f32,
              .pages = 64}),
        tree(pool, model) {
    options.folder = std::move(folder);
    options.log = [this](const std::string& line) {
      last_line = line;
      ++lines;
    };
    store.emplace(pool, host_page_bytes(pool), tree.fingerprint(), options);
    EXPECT_TRUE(store->flush(10s));  // it has read the folder
  }

  template <typename F>
  void each_row(const Sequence& s, std::span<const int32_t> tokens, int64_t from, F&& f) {
    for (int64_t t = from; t < s.length(); ++t)
      for (int layer = 0; layer < 2; ++layer)
        for (int head = 0; head < 2; ++head)
          for (const Part part : {Part::K, Part::V}) {
            const auto bits = uint32_t(content_hash(std::as_bytes(tokens.first(size_t(t + 1))),
                                                    uint64_t(layer * 4 + head * 2 + int(part))));
            f(t, bits,
              pool.head(part, layer, s.block_table()[size_t(t / kPage)], head) +
                  t % kPage * pool.row_bytes(part));
          }
  }
  void verify(const Sequence& s, std::span<const int32_t> tokens) {
    each_row(s, tokens, 0, [&](int64_t t, uint32_t bits, std::byte* row) {
      ASSERT_EQ(std::memcmp(row, &bits, sizeof(bits)), 0) << "token " << t;
    });
  }

  // Runs a prompt as the engine would. Says how many tokens came from the disk.
  int64_t run(const Tokens& prompt, bool keep = true) {
    auto match = tree.match(prompt);
    const auto stored = store->lookup(match, prompt, {});
    std::vector<int32_t> pages;
    int64_t loaded = 0;
    if (stored.pages() > 0) {
      tree.drop(match, match.whole_pages);
      pool.allocate(stored.pages(), pages);
      const auto ticket = store->load(stored, pages);
      EXPECT_TRUE(store->flush(10s));
      for (const auto& done : store->poll())
        if (done.ticket == ticket) loaded = done.pages;
      for (size_t i = 0; i < pages.size(); ++i)
        if (int64_t(i) < loaded)
          match.pages.push_back(pages[i]);
        else
          pool.release(pages[i]);
      match.tokens += loaded * kPage;
    }
    Sequence s(pool);
    s.adopt(match.pages, match.tokens);
    verify(s, prompt);
    const int64_t from = s.length();
    s.append(int64_t(prompt.size()) - from);
    each_row(s, prompt, from,
             [](int64_t, uint32_t bits, std::byte* row) { std::memcpy(row, &bits, sizeof(bits)); });
    tree.insert(prompt, s, {.with_tail = true});
    if (keep) store->put(tree, s.block_table());
    return loaded * kPage;
  }
  void settle() {
    EXPECT_TRUE(store->flush(10s));
    store->poll();
  }

  KvPool pool;
  PrefixTree tree;
  std::atomic<int> lines = 0;
  std::string last_line;  // read after flush()
  std::optional<PageStore> store;
};

TEST_F(PageStoreTest, WhatWasComputedSurvivesARestart) {
  {
    Server first(folder_);
    EXPECT_EQ(first.run(text(1, 18)), 0);
    first.settle();
    EXPECT_EQ(first.store->stats().written_pages, 4);
    EXPECT_EQ(first.tree.reclaim(100), 5);  // four pages and a tail: nothing is held any longer
    EXPECT_EQ(first.run(text(1, 18)), 16);
    first.run(text(1, 24));  // in memory
    first.settle();
    EXPECT_EQ(first.store->stats().written_pages, 6);
    EXPECT_EQ(first.store->stats().loaded_pages, 4);
  }
  Server second(folder_);
  EXPECT_EQ(second.store->stats().files, 6);
  EXPECT_EQ(second.run(text(1, 24)), 20) << "the last token's page is computed";
  EXPECT_EQ(second.run(text(1, 21)), 0) << "in memory now";
  struct stat facts {};
  ASSERT_EQ(stat(folder_.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
}

TEST_F(PageStoreTest, VariantsAndDecodedPagesAreToldApartOnDiskToo) {
  const Tokens tokens = text(1, 17);
  {
    Server first(folder_);
    Sequence s(first.pool);
    s.append(16);
    first.tree.insert(text(1, 16), s, {.variant = "adapter", .exact_tokens = 8});
    first.store->put(first.tree, s.block_table());
    first.settle();
    EXPECT_EQ(first.store->stats().written_pages, 4);
  }
  Server second(folder_);
  const auto found = [&](const PrefixTree::Scope& scope) {
    return second.store->lookup(second.tree.match(tokens, scope), tokens, scope);
  };
  EXPECT_EQ(found({}).pages(), 0);
  EXPECT_EQ(found({.variant = "adapter", .accept_decoded = false}).pages(), 2);
  const auto all = found({.variant = "adapter"});
  EXPECT_EQ(all.pages(), 4);
  EXPECT_EQ(all.exact_pages, 2);
  std::vector<int32_t> pages;
  second.pool.allocate(4, pages);
  second.store->load(all, pages);
  EXPECT_TRUE(second.store->flush(10s));
  EXPECT_EQ(second.store->poll().at(0).pages, 4);
  // Where memory holds the decoded part already, what follows it is decoded as well.
  Sequence s(second.pool);
  s.adopt(std::span(pages).first(3), 12);
  second.pool.release(pages[3]);
  second.tree.insert(text(1, 12), s, {.variant = "adapter", .exact_tokens = 8});
  EXPECT_EQ(found({.variant = "adapter"}).pages(), 1);
  EXPECT_EQ(found({.variant = "adapter"}).exact_pages, 0);
  EXPECT_EQ(found({.variant = "adapter", .accept_decoded = false}).pages(), 0);
}

TEST_F(PageStoreTest, AnotherModelFindsNothing) {
  {
    Server first(folder_);
    first.run(text(1, 18));
    first.settle();
  }
  Server other(folder_, "another model");
  EXPECT_EQ(other.run(text(1, 18), false), 0);
  // Nor when somebody renames a file to what the other model looks for.
  Server model(folder_);
  auto match = other.tree.match(text(1, 5));
  const std::string name = other.tree.hash(match.pages[0]).hex();
  other.tree.drop(match);
  const auto from = files().front();
  fs::create_directories(folder_ / name.substr(0, 2));
  fs::rename(from, folder_ / name.substr(0, 2) / (name + ".page"));
  Server again(folder_, "another model");
  EXPECT_EQ(again.run(text(1, 18), false), 0);
  EXPECT_EQ(again.store->stats().damaged_pages, 1);
}

TEST_F(PageStoreTest, NoDamagedByteIsEverServed) {
  {
    Server first(folder_);
    first.run(text(1, 4));
    first.settle();
  }
  ASSERT_EQ(files().size(), 1u);
  const fs::path file = files()[0];
  const std::string good = read_text_file(file);
  Server server(folder_);
  const auto served = [&](const std::string& bytes) {
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << bytes;
    server.store.reset();
    PageStoreOptions options;
    options.folder = folder_;
    server.store.emplace(server.pool, host_page_bytes(server.pool), server.tree.fingerprint(), options);
    EXPECT_TRUE(server.store->flush(10s));
    const int64_t tokens = server.run(text(1, 6), false);
    server.tree.reclaim(100);
    return tokens;
  };
  ASSERT_EQ(served(good), 4);
  for (size_t i = 0; i < good.size(); ++i)
    for (const char bits : {'\x01', '\x80', '\xff'}) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ bits);
      ASSERT_EQ(served(bad), 0) << "byte " << i;
      ASSERT_FALSE(fs::exists(file));
    }
  for (size_t size = 0; size < good.size(); ++size) {
    ASSERT_EQ(served(good.substr(0, size)), 0) << size << " bytes";
    ASSERT_FALSE(fs::exists(file));
  }
  ASSERT_EQ(served(good + '\0'), 0);
  EXPECT_EQ(server.store->stats().damaged_pages, 1);
  ASSERT_EQ(served(good), 4);
}

TEST_F(PageStoreTest, OddThingsInTheFolderAreLeftAlone) {
  Server first(folder_);
  first.run(text(1, 8));
  first.settle();
  const fs::path page = files()[0], pipe = files()[1];
  fs::create_directories(folder_ / "ab" / "cd");
  std::ofstream(folder_ / "ab" / "notes.page") << "not a name";
  fs::remove(pipe);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  fs::path link = page;
  fs::rename(page, folder_ / "elsewhere");
  fs::create_symlink(folder_ / "elsewhere", link);
  const fs::path orphan = page.parent_path() / (page.filename().string() + ".1-1.part");
  std::ofstream(orphan) << "half";
  fs::last_write_time(orphan, fs::file_time_type::clock::now() - 2h);
  Server second(folder_);
  EXPECT_EQ(second.store->stats().files, 0);
  EXPECT_EQ(second.run(text(1, 9), false), 0);
  EXPECT_FALSE(fs::exists(orphan));
  EXPECT_TRUE(fs::exists(folder_ / "ab" / "notes.page"));
  // A file that changed into something else since the folder was read.
  first.tree.reclaim(100);
  EXPECT_EQ(first.run(text(1, 9), false), 0);
}

TEST_F(PageStoreTest, TheFolderIsBoundedAndTailsGoFirst) {
  Server probe(folder_);
  probe.run(text(1, 4));
  probe.settle();
  const uint64_t bytes = probe.store->stats().bytes;
  EXPECT_EQ(bytes, fs::file_size(files()[0]));
  fs::remove_all(folder_);

  Server server(folder_, "model", {.folder = {}, .bytes = 6 * bytes});
  server.run(text(1, 16));
  server.settle();
  server.run(text(100, 16));
  server.settle();
  EXPECT_EQ(server.store->stats().evicted_pages, 2);
  EXPECT_EQ(files().size(), 6u);
  Server again(folder_, "model", {.folder = {}, .bytes = 6 * bytes});  // the order survives
  EXPECT_EQ(again.run(text(1, 17), false), 8);
  EXPECT_EQ(again.run(text(100, 17), false), 16);
}

TEST_F(PageStoreTest, AFullQueueDropsAndTheNextTurnOffersAgain) {
  Server server(folder_, "model", {.folder = {}, .bytes = 1 << 20, .queued_pages = 2});
  server.run(text(1, 100), false);
  auto match = server.tree.match(text(1, 100));
  server.store->put(server.tree, match.pages);
  server.settle();
  EXPECT_GT(server.store->stats().dropped_pages, 0);
  EXPECT_GE(server.store->stats().written_pages, 2);
  for (int i = 0; i < 50; ++i) {
    server.store->put(server.tree, match.pages);
    server.settle();
  }
  EXPECT_EQ(server.store->stats().written_pages, 25);
  server.tree.drop(match);
  EXPECT_EQ(server.tree.reclaimable(), 25);
}

TEST_F(PageStoreTest, QueuedPagesAreGivenUpWhenTheirRoomIsNeeded) {
  for (int round = 0; round < 5; ++round) {
    Server server(folder_ / std::to_string(round));
    server.run(text(1, 200));
    server.store->drop_queued();
    server.settle();
    EXPECT_EQ(server.tree.reclaimable(), 50);
    EXPECT_EQ(server.store->stats().queued_pages, 0);
    server.run(text(1, 201));
    server.settle();
    EXPECT_EQ(server.store->stats().written_pages, 50);
  }
}

TEST_F(PageStoreTest, PagesStayUntilTheyAreWritten) {
  struct Gated : PageBytes {
    explicit Gated(std::unique_ptr<PageBytes> bytes) : inner(std::move(bytes)) {}
    int64_t size() const override { return inner->size(); }
    void read(int32_t page, std::span<std::byte> to) override {
      while (!open) std::this_thread::yield();
      inner->read(page, to);
    }
    void write(int32_t page, std::span<const std::byte> from) override { inner->write(page, from); }
    std::unique_ptr<PageBytes> inner;
    std::atomic<bool> open = false;
  };
  Server server(folder_);
  auto gated = std::make_unique<Gated>(host_page_bytes(server.pool));
  auto& open = gated->open;
  server.store.emplace(server.pool, std::move(gated), server.tree.fingerprint(),
                       PageStoreOptions{.folder = folder_});
  server.run(text(1, 18));
  server.store->poll();
  EXPECT_EQ(server.tree.reclaim(100), 1);  // the tail, which is not for the disk
  open = true;
  server.settle();
  EXPECT_EQ(server.tree.reclaim(100), 4);
}

TEST_F(PageStoreTest, NoRoomOnTheDiskIsOneLine) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 100;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    Server server(folder_);
    server.run(text(1, 40));
    server.settle();
    server.run(text(100, 40));
    server.settle();
    EXPECT_EQ(server.lines, 1);
    EXPECT_NE(server.last_line.find("no room in " + folder_.string()), std::string::npos) << server.last_line;
    EXPECT_EQ(server.store->stats().failed_pages, 20);
    EXPECT_EQ(server.store->stats().written_pages, 0);
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(files().empty());  // no half file is left
  // A folder that cannot be made.
  std::ofstream(folder_ / "file") << "x";
  Server server(folder_ / "file" / "folder");
  EXPECT_EQ(server.run(text(1, 40)), 0);
  server.settle();
  EXPECT_EQ(server.lines, 1);
}

TEST_F(PageStoreTest, LoadingTimeFollowsWhatWasMeasured) {
  Server server(folder_);
  EXPECT_GT(server.store->load_seconds(1), 0);
  EXPECT_LT(server.store->load_seconds(1), 1e-5);  // a few hundred bytes at 1 GB/s
  server.run(text(1, 100));
  server.settle();
  server.tree.reclaim(100);
  EXPECT_EQ(server.run(text(1, 100)), 96);
  const auto stats = server.store->stats();
  EXPECT_GT(stats.read_bytes_per_second, 0);
  EXPECT_GT(stats.write_bytes_per_second, 0);
  EXPECT_NEAR(server.store->load_seconds(24), double(stats.bytes) / 25 * 24 / stats.read_bytes_per_second,
              1e-9);
}

// A backend that cannot give or take a page loses it and nothing else.
TEST_F(PageStoreTest, ABackendThatFailsLosesThePage) {
  struct Broken : PageBytes {
    int64_t size() const override { return 10; }
    void read(int32_t, std::span<std::byte>) override {
      if (!readable) throw std::runtime_error("device lost");
    }
    void write(int32_t, std::span<const std::byte>) override { throw std::runtime_error("device lost"); }
    bool readable = false;
  };
  for (const bool readable : {false, true}) {
    Server server(folder_);
    auto broken = std::make_unique<Broken>();
    broken->readable = readable;
    std::atomic<int> lines = 0, ready = 0;
    server.store.emplace(
        server.pool, std::move(broken), server.tree.fingerprint(),
        PageStoreOptions{
            .folder = folder_, .log = [&](const std::string&) { ++lines; }, .on_ready = [&] { ++ready; }});
    server.run(text(1, 8));
    server.settle();
    EXPECT_EQ(server.store->stats().written_pages, readable ? 2 : 0);
    server.tree.reclaim(100);
    EXPECT_EQ(server.run(text(1, 9)), 0);
    server.settle();
    EXPECT_EQ(lines, 1);
    EXPECT_GT(ready, 0);
    server.store.reset();
  }
}

// Two processes of one folder, each with its engine thread, loading what the other writes and evicts.
TEST_F(PageStoreTest, ServersMayShareAFolder) {
  std::atomic<int64_t> from_disk = 0;
  const auto serve = [&](uint32_t seed) {
    Server server(folder_, "model", {.folder = {}, .bytes = 30 * 600, .rescan = 0s});
    std::mt19937 random(seed);
    for (int i = 0; i < 300; ++i) {
      const Tokens prompt = text(int32_t(random() % 5) * 1000, 1 + random() % 60);
      server.tree.reclaim(int64_t(random() % 64));
      if (server.pool.free_pages() < 40) {
        server.settle();
        server.tree.reclaim(64);
      }
      from_disk += server.run(prompt);
      server.store->poll();
    }
    server.settle();
    EXPECT_EQ(server.tree.problems(), "");
    EXPECT_EQ(server.store->stats().damaged_pages, 0);
    server.tree.reclaim(64);
    EXPECT_EQ(server.pool.free_pages(), 64);
  };
  std::thread one([&] { serve(1); }), two([&] { serve(2); });
  one.join();
  two.join();
  EXPECT_GT(from_disk, 500);
}

}  // namespace
}  // namespace cairn::kv
