#include "kv/prefix_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "base/content_hash.h"
#include "base/error.h"

namespace cairn::kv {
namespace {

using Tokens = std::vector<int32_t>;
constexpr int kPage = 4;
using Match = PrefixTree::Match;

KvConfig config(int64_t pages) {
  return {.layers = 2,
          .kv_heads = 2,
          .head_dim_k = 1,
          .head_dim_v = 2,
          .page_tokens = kPage,
          .form = KvForm::f32,
          .pages = pages};
}

Tokens text(int32_t first, int64_t count) {
  Tokens tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(first + int32_t(i));
  return tokens;
}

// What a model would write: rows that depend on all tokens so far, on the request's variant and on whether
// any of them was computed by decode kernels.
uint32_t row_bits(std::span<const int32_t> tokens, std::string_view variant, bool exact) {
  return uint32_t(
      content_hash(std::as_bytes(tokens), content_hash(std::as_bytes(std::span(variant))) + exact));
}

template <typename F>
void each_row(KvPool& pool, const Sequence& s, int64_t from, F&& f) {
  for (int64_t t = from; t < s.length(); ++t)
    for (int layer = 0; layer < 2; ++layer)
      for (int head = 0; head < 2; ++head)
        for (const Part part : {Part::K, Part::V})
          f(t, pool.head(part, layer, s.block_table()[size_t(t / kPage)], head) +
                   t % kPage * pool.row_bytes(part));
}

// A sequence with the text that it holds.
struct Live {
  Sequence sequence;
  Tokens tokens;
  std::string variant;
  int64_t exact = 0;  // leading tokens computed as a prompt

  void compute(KvPool& pool, std::span<const int32_t> more, bool decode) {
    const int64_t from = sequence.length();
    sequence.append(int64_t(more.size()));
    if (!decode && exact == from) exact = from + int64_t(more.size());
    tokens.insert(tokens.end(), more.begin(), more.end());
    each_row(pool, sequence, from, [&](int64_t t, std::byte* row) {
      const uint32_t bits = row_bits(std::span(tokens).first(size_t(t + 1)), variant, t < exact);
      std::memcpy(row, &bits, sizeof(bits));
    });
  }
  // A page counts as decoded from its first token on, so rows past `exact` may be either.
  void verify(KvPool& pool) {
    ASSERT_EQ(int64_t(tokens.size()), sequence.length());
    each_row(pool, sequence, 0, [&](int64_t t, std::byte* row) {
      uint32_t bits = 0;
      std::memcpy(&bits, row, sizeof(bits));
      const auto so_far = std::span(tokens).first(size_t(t + 1));
      if (t < exact || bits != row_bits(so_far, variant, false)) {
        ASSERT_EQ(bits, row_bits(so_far, variant, true)) << "token " << t << " of " << tokens.size();
      }
    });
  }
};

Live begin(KvPool& pool, PrefixTree& tree, const Tokens& prompt, std::string variant = "") {
  Live live{Sequence(pool), {}, std::move(variant), 0};
  auto match = tree.match(prompt, {.variant = live.variant});
  live.sequence.adopt(match.pages, match.tokens);
  live.tokens.assign(prompt.begin(), prompt.begin() + match.tokens);
  live.exact = match.exact_tokens;
  live.compute(pool, std::span(prompt).subspan(size_t(match.tokens)), false);
  return live;
}

TEST(Sequence, ForkSharesWholePagesAndCopiesThePartialOne) {
  KvPool pool(config(8));
  Live a{Sequence(pool), {}, "", 0};
  a.compute(pool, text(1, 10), false);  // 3 pages, the last half full
  Live b{a.sequence.fork(), a.tokens, "", a.exact};
  EXPECT_EQ(pool.free_pages(), 5);
  EXPECT_EQ(b.sequence.pages_needed(1), 1);  // the copy
  EXPECT_EQ(b.sequence.pages_needed(3), 2);
  b.compute(pool, text(50, 1), true);
  EXPECT_EQ(pool.free_pages(), 4);
  EXPECT_EQ(a.sequence.pages_needed(1), 0);  // the page is its own again
  a.compute(pool, text(90, 1), true);
  EXPECT_EQ(a.sequence.block_table()[1], b.sequence.block_table()[1]);
  EXPECT_NE(a.sequence.block_table()[2], b.sequence.block_table()[2]);
  a.verify(pool), b.verify(pool);
}

TEST(Sequence, NoRoomForTheCopyChangesNothing) {
  KvPool pool(config(3));
  Sequence a(pool);
  a.append(10);
  Sequence b = a.fork();
  EXPECT_THROW(b.append(1), Error);
  EXPECT_EQ(b.length(), 10);
  EXPECT_EQ(pool.references(a.block_table()[2]), 2);
}

TEST(Sequence, WherePagesCannotBeCopiedAForkEndsAtAPage) {
  KvPool pool(config(8), KvPool::Memory::elsewhere);
  Sequence a(pool);
  a.append(10);
  Sequence b = a.fork();
  EXPECT_EQ(b.length(), 8);
  std::vector<int32_t> copied;
  pool.set_page_copy([&](int32_t from, int32_t to, int64_t tokens) { copied = {from, to, int32_t(tokens)}; });
  Sequence c = a.fork();
  EXPECT_EQ(c.length(), 10);
  c.append(1);
  EXPECT_EQ(copied, (std::vector<int32_t>{a.block_table()[2], c.block_table()[2], 2}));
}

#ifndef NDEBUG
TEST(SequenceDeathTest, WritingIntoAPageOfOthersIsCaught) {
  KvPool pool(config(8));
  Sequence a(pool);
  a.append(4);
  a.reserve(4);
  pool.retain(a.block_table()[1]);  // nobody may hold a page that is still to be written
  EXPECT_DEATH(a.append(1), "references");
}
#endif

TEST(PrefixTree, TheNextTurnOfAChatComputesNewTokensOnly) {
  KvPool pool(config(32));
  PrefixTree tree(pool, "model");
  Tokens chat = text(1, 10);
  for (int turn = 0; turn < 4; ++turn) {
    EXPECT_EQ(tree.peek(chat, {}), turn == 0 ? 0 : int64_t(chat.size()) - 3);
    const int64_t reused = tree.stats().reused_tokens;
    Live live = begin(pool, tree, chat);
    if (turn > 0) {
      EXPECT_EQ(tree.stats().reused_tokens - reused, int64_t(chat.size()) - 3) << "all but the question";
    }
    EXPECT_EQ(live.exact, int64_t(chat.size()));
    tree.insert(chat, live.sequence);
    live.compute(pool, text(100 * turn + 100, 5), false);
    tree.insert(live.tokens, live.sequence, {.with_tail = true});
    live.verify(pool);
    chat = live.tokens;
    const Tokens question = text(1000 * turn + 1000, 3);
    chat.insert(chat.end(), question.begin(), question.end());
    ASSERT_EQ(tree.problems(), "");
    // Shared, and the tail of the turn before is gone: no page is held twice.
    EXPECT_EQ(pool.free_pages(), 32 - pool.pages_of(int64_t(live.tokens.size())));
  }
  EXPECT_EQ(tree.stats().lookups, 4);
}

TEST(PrefixTree, TheLastTokenIsNeverReused) {
  KvPool pool(config(8));
  PrefixTree tree(pool, "model");
  Live a = begin(pool, tree, text(1, 8));
  tree.insert(a.tokens, a.sequence);
  EXPECT_EQ(tree.peek(text(1, 9), {}), 8);
  EXPECT_EQ(tree.peek(text(1, 8), {}), 7);  // 4 whole, 3 of the next page
  EXPECT_EQ(tree.peek(text(1, 1), {}), 0);
  EXPECT_EQ(tree.peek({}, {}), 0);
  Live b = begin(pool, tree, text(1, 8));
  EXPECT_EQ(tree.stats().partial_tokens, 3);
  EXPECT_NE(b.sequence.block_table()[1], a.sequence.block_table()[1]);  // copied, since it goes on inside
  b.verify(pool), a.verify(pool);
  // Equal pages computed twice are shared from the insertion on.
  tree.insert(b.tokens, b.sequence);
  EXPECT_EQ(b.sequence.block_table()[1], a.sequence.block_table()[1]);
  EXPECT_EQ(pool.free_pages(), 6);
}

TEST(PrefixTree, WithoutPageCopiesOnlyWholePagesMatch) {
  KvPool pool(config(8), KvPool::Memory::elsewhere);
  PrefixTree tree(pool, "model");
  Sequence s(pool);
  s.append(7);
  tree.insert(text(1, 7), s, {.with_tail = true});
  EXPECT_EQ(tree.peek(text(1, 8), {}), 4);
  EXPECT_EQ(tree.stats().pages, 1);
}

TEST(PrefixTree, VariantsAndFingerprintsShareNothing) {
  KvPool pool(config(8));
  PrefixTree tree(pool, "model"), other(pool, "another model");
  Live a = begin(pool, tree, text(1, 8), "adapter");
  tree.insert(a.tokens, a.sequence, {.variant = "adapter"});
  EXPECT_EQ(tree.peek(text(1, 9), {.variant = "adapter"}), 8);
  EXPECT_EQ(tree.peek(text(1, 9), {}), 0);
  const auto names = [&](PrefixTree& t, std::string_view variant) {
    return t.match(text(90, 9), {.variant = variant}).hash;
  };
  EXPECT_NE(names(tree, ""), names(tree, "adapter"));
  EXPECT_NE(names(tree, ""), names(other, ""));
  EXPECT_NE(names(tree, "adapter"), tree.hash(a.sequence.block_table()[0]));
  a.sequence.release();
  EXPECT_EQ(tree.reclaim(100), 2);
  EXPECT_EQ(tree.problems(), "");  // an emptied variant leaves nothing behind
}

TEST(PrefixTree, DecodedPagesAreFoundOnlyWhereTheyWillDo) {
  KvPool pool(config(16));
  PrefixTree tree(pool, "model");
  Live a = begin(pool, tree, text(1, 6));
  a.compute(pool, text(7, 6), true);
  tree.insert(a.tokens, a.sequence, {.exact_tokens = a.exact});
  EXPECT_EQ(tree.peek(text(1, 13), {.accept_decoded = false}), 4);
  const auto match = tree.match(text(1, 13));
  EXPECT_EQ(match.tokens, 12);
  EXPECT_EQ(match.exact_tokens, 4);
  // The same text computed as a prompt is another page beside it, and preferred.
  Live b{Sequence(pool), {}, "", 0};
  b.compute(pool, text(1, 8), false);
  tree.insert(b.tokens, b.sequence, {.exact_tokens = b.exact});
  EXPECT_EQ(tree.peek(text(1, 13), {.accept_decoded = false}), 8);
  EXPECT_EQ(tree.peek(text(1, 13), {}), 12);
  EXPECT_EQ(tree.match(text(1, 9)).exact_tokens, 8);
  EXPECT_EQ(tree.problems(), "");
}

TEST(PrefixTree, ReusedPagesStayLongerAndAgeWinsInTheEnd) {
  KvPool pool(config(64));
  PrefixTree tree(pool, "model", {.attention_tokens = 4});
  const auto keep = [&](const Tokens& tokens) {
    Sequence s(pool);
    s.append(int64_t(tokens.size()));
    tree.insert(tokens, s);
  };
  const auto cached = [&](int32_t first) { return tree.peek(text(first, 5), {}) == 4; };
  for (int i = 0; i < 10; ++i) keep(text(100 * i, 4));
  Match reused = tree.match(text(0, 5));
  tree.drop(reused);
  for (int i = 10; i < 20; ++i) {  // ten pages have room
    keep(text(100 * i, 4));
    EXPECT_EQ(tree.reclaim(1), 1);
    EXPECT_TRUE(cached(0)) << i;  // used at the same time as page 9, which goes now
    EXPECT_EQ(cached(100 * (i - 8)), true) << i;
  }
  EXPECT_FALSE(cached(900));
  for (int i = 20; i < 30; ++i) {
    keep(text(100 * i, 4));
    EXPECT_EQ(tree.reclaim(1), 1);
  }
  EXPECT_FALSE(cached(0));
  EXPECT_EQ(tree.problems(), "");
}

TEST(PrefixTree, OfReusedPagesThoseWithLongPrefixesStayLonger) {
  KvPool pool(config(64));
  PrefixTree tree(pool, "model", {.attention_tokens = 16});
  Sequence s(pool);
  s.append(20);
  tree.insert(text(0, 20), s);
  s.truncate(0);
  s.append(4);
  tree.insert(text(100, 4), s);
  s.truncate(0);
  for (int i = 0; i < 2; ++i)
    for (const auto& tokens : {text(0, 21), text(100, 5)}) {  // the short one last
      Match match = tree.match(tokens);
      tree.drop(match);
    }
  EXPECT_EQ(tree.reclaim(1), 1);
  EXPECT_EQ(tree.peek(text(100, 5), {}), 0);
  EXPECT_EQ(tree.peek(text(0, 21), {}), 20);
}

TEST(PrefixTree, PagesInUseAreNotReclaimable) {
  KvPool pool(config(8));
  PrefixTree tree(pool, "model");
  Live a = begin(pool, tree, text(1, 12));
  tree.insert(a.tokens, a.sequence);
  EXPECT_EQ(tree.reclaimable(), 0);
  EXPECT_EQ(tree.reclaim(8), 0);
  a.sequence.truncate(4);
  EXPECT_EQ(tree.reclaimable(), 2);
  EXPECT_EQ(tree.reclaim(8), 2);
  EXPECT_EQ(tree.peek(text(1, 13), {}), 4);
  a.sequence.release();
  EXPECT_EQ(tree.reclaimable(), 1);
}

// Random sequences on a small pool against a plain map of all prefixes.
class RandomWalk {
 public:
  RandomWalk(uint32_t seed, PrefixTreeOptions options)
      : random_(seed), options_(options), tree_(pool_, "m", options) {}

  void run(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFatalFailure(); ++i) {
      switch (below(8)) {
        case 0:
        case 1:
        case 2: start(); break;
        case 3:
          if (auto* s = any()) grow(*s);
          break;
        case 4:
          if (auto* s = any()) remember(*s, false);
          break;
        case 5:
          if (auto* s = any()) end(*s);
          break;
        case 6:
          if (auto* s = any()) below(2) ? fork(*s) : cut(*s);
          break;
        case 7: reclaim(below(6)); break;
      }
      check();
    }
    live_.clear();
    reclaim(1000);
    ASSERT_EQ(pool_.free_pages(), pool_.config().pages);
    ASSERT_TRUE(known_.empty());
  }
  int64_t reused() const { return tree_.stats().reused_tokens; }

 private:
  // (variant, whole pages of text, how many of them are exact) -> page and when it was last used.
  using Key = std::tuple<std::string, Tokens, int64_t>;
  struct Known {
    int32_t page;
    int64_t used;       // at least as late as this
    int64_t used_last;  // and at most: some uses are not worth following exactly
  };
  void use(Known& known) { known.used = known.used_last = clock_; }
  void use_maybe(int32_t page) {
    for (auto& [k, v] : known_)
      if (v.page == page) v.used_last = clock_;
  }

  int below(int n) { return int(random_() % uint32_t(n)); }
  Live* any() { return live_.empty() ? nullptr : &live_[size_t(below(int(live_.size())))]; }
  Tokens some(int most) {
    Tokens tokens(size_t(1 + below(most)));
    for (auto& t : tokens) t = below(3);
    return tokens;
  }
  bool make_room(int64_t pages) {
    if (pool_.free_pages() < pages) reclaim(pages - pool_.free_pages());
    return pool_.free_pages() >= pages;
  }
  static Key key(const std::string& variant, const Tokens& tokens, int64_t pages, int64_t exact_tokens) {
    return {variant, Tokens(tokens.begin(), tokens.begin() + pages * kPage),
            std::min(pages, exact_tokens / kPage)};
  }

  void start() {
    Tokens prompt = some(12);
    std::string variant = below(4) ? "" : "v";
    if (const Live* earlier = any(); earlier && below(3)) {
      variant = earlier->variant;
      prompt.insert(prompt.begin(), earlier->tokens.begin(),
                    earlier->tokens.begin() + below(int(earlier->tokens.size()) + 1));
    } else if (!ended_.empty() && below(3)) {
      const auto& [name, tokens] = ended_[size_t(below(int(ended_.size())))];
      variant = name;
      prompt.insert(prompt.begin(), tokens.begin(), tokens.begin() + below(int(tokens.size()) + 1));
    }
    const PrefixTree::Scope scope{.variant = variant, .accept_decoded = below(2) == 0};
    int64_t exact_pages = 0, pages = 0;
    for (int64_t n = 1; n * kPage < int64_t(prompt.size()); ++n)
      for (int64_t e = 0; e <= n; ++e)
        if (known_.contains(key(variant, prompt, n, e * kPage))) (e == n ? exact_pages : pages) = n;
    pages = std::max(pages, exact_pages);
    const int64_t peeked = tree_.peek(prompt, scope);
    auto match = tree_.match(prompt, scope);
    ASSERT_EQ(match.tokens, peeked);
    ASSERT_LT(match.tokens, int64_t(prompt.size()));
    ASSERT_GE(match.whole_pages, exact_pages);
    ASSERT_LE(match.whole_pages, scope.accept_decoded ? pages : exact_pages);
    if (!scope.accept_decoded) {
      ASSERT_EQ(match.exact_tokens, match.tokens);
    }
    for (int64_t n = 1; n <= match.whole_pages; ++n) {
      const auto found = known_.find(key(variant, prompt, n, std::min(n * kPage, match.exact_tokens)));
      ASSERT_NE(found, known_.end());
      ASSERT_EQ(found->second.page, match.pages[size_t(n - 1)]);
      use(found->second);
    }
    if (int64_t(match.pages.size()) > match.whole_pages) use_maybe(match.pages.back());
    // No page that begins with more of the prompt was overlooked (fewer siblings than it looks at).
    if (match.whole_pages == exact_pages)
      for (const auto& [k, v] : known_) {
        const auto& [name, tokens, exact] = k;
        const int64_t n = int64_t(tokens.size()) / kPage;
        if (name != variant || n != exact_pages + 1 || exact != n) continue;
        const auto same = std::mismatch(tokens.begin(), tokens.end(), prompt.begin(), prompt.end() - 1).first;
        ASSERT_TRUE(same - tokens.begin() <= match.tokens);
      }
    if (below(8) == 0) tree_.drop(match, below(int(match.pages.size()) + 1));
    Live live{Sequence(pool_), Tokens(prompt.begin(), prompt.begin() + match.tokens), variant,
              match.exact_tokens};
    live.sequence.adopt(match.pages, match.tokens);
    live.verify(pool_);
    const auto rest = std::span(prompt).subspan(size_t(match.tokens));
    if (live_.size() > 5 || !make_room(live.sequence.pages_needed(int64_t(rest.size())))) return;
    live.compute(pool_, rest, false);
    live_.push_back(std::move(live));
  }
  void grow(Live& live) {
    const Tokens more = some(6);
    if (make_room(live.sequence.pages_needed(int64_t(more.size())))) live.compute(pool_, more, below(2) == 0);
  }
  void fork(Live& live) {
    if (live_.size() > 5) return;
    Live other{live.sequence.fork(), live.tokens, live.variant, live.exact};
    live_.push_back(std::move(other));
  }
  void cut(Live& live) {
    const int64_t length = below(int(live.tokens.size()) + 1);
    live.sequence.truncate(length);
    live.tokens.resize(size_t(length));
    live.exact = std::min(live.exact, length);
  }
  void remember(Live& live, bool with_tail) {
    tree_.insert(live.tokens, live.sequence,
                 {.variant = live.variant, .exact_tokens = live.exact, .with_tail = with_tail});
    for (int64_t n = 1; n * kPage <= int64_t(live.tokens.size()); ++n) {
      const int32_t page = live.sequence.block_table()[size_t(n - 1)];
      const auto [at, added] =
          known_.try_emplace(key(live.variant, live.tokens, n, live.exact), Known{page, clock_, clock_});
      if (at->second.page != page) {
        ASSERT_GT(n * kPage, live.exact);  // an exact page is shared
        break;
      }
      use(at->second);
    }
    if (with_tail)  // a page that begins with the tail counts as used instead
      for (auto& [k, v] : known_) {
        const auto& [variant, tokens, exact] = k;
        if (tokens.size() > live.tokens.size() &&
            std::equal(live.tokens.begin(), live.tokens.end(), tokens.begin()))
          v.used_last = clock_;
      }
  }
  void end(Live& live) {
    remember(live, below(2) == 0);
    ended_.emplace_back(live.variant, live.tokens);
    if (ended_.size() > 20) ended_.erase(ended_.begin());
    std::swap(live, live_.back());
    live_.pop_back();
  }
  void reclaim(int64_t pages) {
    const int64_t can = tree_.reclaimable(), free = pool_.free_pages();
    const int64_t freed = tree_.reclaim(pages);
    ASSERT_EQ(freed, std::min(pages, can));
    ASSERT_EQ(pool_.free_pages(), free + freed);
    int64_t newest_evicted = -1;
    for (auto it = known_.begin(); it != known_.end();) {
      if (tree_.contains(it->second.page)) {
        ++it;
        continue;
      }
      ASSERT_EQ(pool_.references(it->second.page), 0);
      newest_evicted = std::max(newest_evicted, it->second.used);
      it = known_.erase(it);
    }
    // Least recently used first: no older leaf that was idle all the time stayed. Leaves in use were touched.
    if (freed > 0)
      for (auto& [k, v] : known_)
        if (pool_.references(v.page) > 1 && is_leaf(k)) v.used_last = clock_;
    if (options_.eviction == PrefixTreeOptions::Eviction::least_recent)
      for (const auto& [k, v] : known_)
        if (is_leaf(k) && pool_.references(v.page) == 1) {
          ASSERT_GE(v.used_last, newest_evicted);
        }
  }
  bool is_leaf(const Key& k) {
    const auto next = known_.upper_bound(k);
    for (auto it = next; it != known_.end(); ++it) {
      const auto& [variant, tokens, exact] = it->first;
      const auto& mine = std::get<1>(k);
      if (variant != std::get<0>(k) || tokens.size() < mine.size() ||
          !std::equal(mine.begin(), mine.end(), tokens.begin()))
        break;
      if (tokens.size() > mine.size() && std::min(exact, int64_t(mine.size()) / kPage) == std::get<2>(k))
        return false;
    }
    return true;
  }

  void check() {
    ++clock_;
    ASSERT_EQ(tree_.problems(), "");
    std::map<int32_t, int> references;
    for (auto& live : live_) {
      live.verify(pool_);
      for (const int32_t page : live.sequence.block_table()) ++references[page];
    }
    int64_t used = 0;
    for (int32_t page = 0; page < pool_.config().pages; ++page) {
      const int want = references[page] + tree_.contains(page);
      ASSERT_EQ(pool_.references(page), want) << "page " << page;
      used += want > 0;
    }
    ASSERT_EQ(pool_.free_pages(), pool_.config().pages - used);
    for (const auto& [k, v] : known_) ASSERT_TRUE(tree_.contains(v.page));
  }

  std::mt19937 random_;
  PrefixTreeOptions options_;
  KvPool pool_{config(40)};
  PrefixTree tree_;
  std::vector<Live> live_;
  std::vector<std::pair<std::string, Tokens>> ended_;
  std::map<Key, Known> known_;
  int64_t clock_ = 0;
};

TEST(PrefixTree, AgreesWithAMapOfAllPrefixesUnderMemoryPressure) {
  using Eviction = PrefixTreeOptions::Eviction;
  for (uint32_t seed = 0; seed < 60 && !HasFatalFailure(); ++seed) {
    SCOPED_TRACE(seed);
    // Two bits of the keys: only the comparison of tokens tells pages apart.
    RandomWalk walk(seed, {.eviction = seed % 2 ? Eviction::cost : Eviction::least_recent,
                           .key_mask = seed % 3 ? ~uint64_t{0} : 3});
    walk.run(400);
    EXPECT_GT(walk.reused(), 100);
  }
}

}  // namespace
}  // namespace cairn::kv
