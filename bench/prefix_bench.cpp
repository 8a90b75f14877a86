// What the prefix tree costs and what its eviction keeps.
//   prefix_bench [TRACE] [--disk FOLDER]
// Times matches, insertions and evictions with 10^5 and 10^6 pages of 32 tokens in the tree. With Mooncake's
// conversation_trace.jsonl, replays it with room for a part of its pages and prints the share of prompt
// blocks found by this tree's policy, by least-recently-used and by one that knows the future. Links:
// cairn_kv
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "kv/page_store.h"
#include "kv/prefix_tree.h"
#include "kv/trace_testing.h"

namespace {

using namespace cairn::kv;
using Eviction = PrefixTreeOptions::Eviction;
using Clock = std::chrono::steady_clock;

double ns_since(Clock::time_point start) {
  return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

KvConfig config(int page_tokens, int64_t pages) {
  return {.layers = 1,
          .kv_heads = 1,
          .head_dim_k = 1,
          .head_dim_v = 1,
          .page_tokens = page_tokens,
          .form = KvForm::f16,
          .pages = pages};
}

// Chats of 2048 tokens, in four turns of 512; every eighth begins with a shared system prompt of 512.
std::vector<int32_t> chat(int number) {
  std::mt19937 random{uint32_t(number)};
  std::vector<int32_t> tokens(2048);
  for (auto& t : tokens) t = int32_t(random() % 128'000);
  if (number % 8 == 0)
    for (int i = 0; i < 512; ++i) tokens[size_t(i)] = i;
  return tokens;
}

void operations(int64_t pages) {
  constexpr int kPage = 32;
  const auto chats = int(pages / 64);
  KvPool pool(config(kPage, pages + 1024), KvPool::Memory::elsewhere);
  PrefixTree tree(pool, "bench");
  std::vector<int> order;
  for (int i = 0; i < chats; ++i) order.push_back(i);
  std::shuffle(order.begin(), order.end(), std::mt19937{1});

  const auto turn = [&](const std::vector<int32_t>& tokens, double& matching, double& inserting) {
    Sequence s(pool);
    auto start = Clock::now();
    const auto match = tree.match(tokens);
    matching += ns_since(start);
    s.adopt(match.pages, match.tokens);
    s.append(int64_t(tokens.size()) - match.tokens);
    start = Clock::now();
    tree.insert(tokens, s);
    inserting += ns_since(start);
    return match.whole_pages;
  };
  double inserting = 0, ignored = 0;
  for (const int i : order) turn(chat(i), ignored, inserting);
  const int64_t held = tree.stats().pages;

  std::shuffle(order.begin(), order.end(), std::mt19937{2});
  const int sample = std::min(chats, 4000);
  double matching = 0, again = 0, missing = 0;
  int64_t found = 0;
  for (int i = 0; i < sample; ++i) found += turn(chat(order[size_t(i)]), matching, again);
  for (int i = 0; i < sample; ++i) {
    const auto tokens = chat(chats + 1 + 8 * i);
    const auto start = Clock::now();
    tree.peek(tokens, {});
    missing += ns_since(start);
  }
  // A thousand running sequences, each with its leaf in the tree, while pages are taken back a few at a time.
  std::vector<Sequence> running;
  for (int i = 0; i < 1000 && i < chats / 2; ++i) {
    const auto match = tree.match(chat(order[size_t(i)]));
    running.emplace_back(pool).adopt(match.pages, match.tokens);
  }
  const int64_t idle = tree.reclaimable();
  double worst = 0;
  const auto start = Clock::now();
  int64_t freed = 0;
  while (freed < idle / 2) {
    const auto begin = Clock::now();
    freed += tree.reclaim(8);
    worst = std::max(worst, ns_since(begin));
  }
  const double evicting = ns_since(start) / double(freed);
  std::printf("| %lld | %.0f | %.0f | %.0f | %.0f | %.0f | %.1f |\n", static_cast<long long>(held),
              inserting / double(held), matching / double(found), again / double(sample * 64),
              missing / sample, evicting, worst / 1e3);
}

struct Outcome {
  double blocks = 0;  // share of prompt blocks found
  double work = 0;    // share of the prompts' computation that they save
};

// Computing a block whose prefix has `before` blocks; reading keys doubles it at 16 K tokens.
double cost(size_t before) { return 1 + double(before) * kTraceBlock / 16384; }

Outcome replay(const std::vector<TraceRequest>& trace, int64_t pages, Eviction eviction) {
  KvPool pool(config(1, pages), KvPool::Memory::elsewhere);
  PrefixTree tree(pool, "bench", {.eviction = eviction, .attention_tokens = 16384 / kTraceBlock});
  double all = 0, found = 0, all_work = 0, saved = 0;
  for (const TraceRequest& request : trace) {
    std::vector<int32_t> prompt = request.blocks;
    prompt.push_back(-1);
    const auto match = tree.match(prompt);
    for (size_t i = 0; i < request.blocks.size(); ++i) {
      all += 1, all_work += cost(i);
      if (int64_t(i) < match.tokens) found += 1, saved += cost(i);
    }
    Sequence s(pool);
    s.adopt(match.pages, match.tokens);
    // As many of the new blocks as there is room for.
    const auto missing = int64_t(request.blocks.size()) - match.tokens;
    tree.reclaim(missing - pool.free_pages());
    s.append(std::min(missing, pool.free_pages()));
    tree.insert(std::span(request.blocks).first(size_t(s.length())), s);
  }
  return {found / all, saved / all_work};
}

// Evicts what is needed again last (Belady). A block is needed no later than those that follow it, so leaves
// go first by themselves.
Outcome replay_knowing_the_future(const std::vector<TraceRequest>& trace, int64_t pages) {
  std::unordered_map<int32_t, std::vector<int>> uses;
  for (int t = 0; t < int(trace.size()); ++t)
    for (const int32_t block : trace[size_t(t)].blocks) uses[block].push_back(t);
  struct Held {
    int next;
    size_t before;
    int32_t block;
    auto operator<=>(const Held&) const = default;
  };
  std::set<Held> held;
  std::unordered_map<int32_t, Held> places;
  double all = 0, found = 0, all_work = 0, saved = 0;
  for (int t = 0; t < int(trace.size()); ++t) {
    const auto& blocks = trace[size_t(t)].blocks;
    bool hit = true;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto place = places.find(blocks[i]);
      hit = hit && place != places.end();
      all += 1, all_work += cost(i);
      if (hit) found += 1, saved += cost(i);
      if (place != places.end()) held.erase(place->second), places.erase(place);
    }
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto& when = uses[blocks[i]];
      const auto next = std::upper_bound(when.begin(), when.end(), t);
      const Held mine{next == when.end() ? int(trace.size()) : *next, i, blocks[i]};
      held.insert(mine);
      places[blocks[i]] = mine;
    }
    while (int64_t(held.size()) > pages) {
      places.erase(std::prev(held.end())->block);
      held.erase(std::prev(held.end()));
    }
  }
  return {found / all, saved / all_work};
}

// A 1B model's pages: 16 layers of 8 heads of 64, f16.
void disk(const std::filesystem::path& place) {
  const auto folder = place / "prefix_bench";
  constexpr int64_t kPages = 1024;
  std::filesystem::remove_all(folder);
  const auto run = [&](bool first) {
    KvConfig c{.layers = 16,
               .kv_heads = 8,
               .head_dim_k = 64,
               .head_dim_v = 64,
               .page_tokens = 32,
               .form = KvForm::f16,
               .pages = kPages};
    KvPool pool(c);
    PrefixTree tree(pool, "bench");
    PageStore store(pool, host_page_bytes(pool), tree.fingerprint(),
                    {.folder = folder, .queued_pages = kPages});
    store.flush(std::chrono::minutes(1));
    std::vector<int32_t> prompt(kPages * 32 + 1, 7);
    double longest = 0;
    const auto timed = [&](auto&& f) {
      const auto start = Clock::now();
      f();
      longest = std::max(longest, ns_since(start) / 1e3);
    };
    Sequence s(pool);
    std::vector<PageStore::Loaded> done;
    if (first) {
      s.append(kPages * 32);
      for (int32_t page = 0; page < kPages; ++page)
        for (const Part part : {Part::K, Part::V})
          for (int layer = 0; layer < c.layers; ++layer)
            std::memset(pool.head(part, layer, page, 0), page & 0xff, size_t(pool.row_bytes(part)) * 32 * 8);
      tree.insert(std::span(prompt).first(kPages * 32), s);
      timed([&] { store.put(tree, s.block_table()); });
    } else {
      PageStore::Stored stored;
      timed([&] { stored = store.lookup(tree.match(prompt), prompt, {}); });
      std::vector<int32_t> pages;
      pool.allocate(stored.pages(), pages);
      timed([&] { store.load(stored, pages); });
      for (const int32_t page : pages) pool.release(page);
    }
    while (!store.flush(std::chrono::milliseconds(1))) timed([&] { done = store.poll(); });
    timed([&] { done = store.poll(); });
    const auto stats = store.stats();
    std::printf("| %s | %lld | %.0f | %.0f |\n", first ? "write" : "read",
                static_cast<long long>(first ? stats.written_pages : stats.loaded_pages),
                (first ? stats.write_bytes_per_second : stats.read_bytes_per_second) / 1e6, longest);
  };
  std::printf(
      "\n| on disk | pages of 1 MiB | MB/s | longest call of the engine's thread, us |\n"
      "|---|---|---|---|\n");
  run(true);
  run(false);
  std::filesystem::remove_all(folder);
}

}  // namespace

int main(int count, char** arguments) {
  std::printf("%s, one core\n\n", processor().c_str());
  std::printf(
      "| pages | insert, ns/page | match, ns/page | insert known, ns/page | miss, ns | evict, ns/page | "
      "longest eviction of 8, us |\n|---|---|---|---|---|---|---|\n");
  for (const int64_t pages : {int64_t{100'000}, int64_t{1'000'000}}) operations(pages);
  const char* file = nullptr;
  for (int i = 1; i < count; ++i)
    if (!std::strcmp(arguments[i], "--disk") && i + 1 < count)
      disk(arguments[++i]);
    else
      file = arguments[i];
  if (!file) return 0;
  const auto trace = load_trace(file);
  std::printf("\n%zu requests, blocks of %d tokens: prompt blocks found, %% (computation saved, %%)\n\n",
              trace.size(), kTraceBlock);
  std::printf("| room, blocks | least recently used | this tree | knowing the future |\n|---|---|---|---|\n");
  for (const int64_t pages : {2'000, 5'000, 10'000, 20'000, 50'000, 100'000, 200'000}) {
    const Outcome lru = replay(trace, pages, Eviction::least_recent),
                  tree = replay(trace, pages, Eviction::cost), best = replay_knowing_the_future(trace, pages);
    std::printf("| %lld | %.1f (%.1f) | %.1f (%.1f) | %.1f (%.1f) |\n", static_cast<long long>(pages),
                100 * lru.blocks, 100 * lru.work, 100 * tree.blocks, 100 * tree.work, 100 * best.blocks,
                100 * best.work);
  }
  return 0;
}
