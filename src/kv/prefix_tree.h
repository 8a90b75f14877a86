// Computed pages, found again by what they were computed from, so that a prompt which begins like an earlier
// one (the next turn of a chat, a shared system prompt, n answers to one prompt) computes only what is new.
//
// A radix tree with one page per node: an edge is exactly the page_tokens ids whose keys and values the page
// holds. A node is found under (its parent, its ids) and the ids are compared, so that a match is exact
// whatever the hashes do; each node also has its name (page_hash.h), by which a PageStore knows it. A
// sequence that ends may leave its partly filled last page as a leaf of fewer tokens. Sequences never write
// into a page of the tree: who goes on inside of one (a partial match) takes a copy (kv::Sequence).
//
// Eviction: leaves that no sequence uses, by age and by what they are worth. All that is not used again stays
// equally long, which is least-recently-used and whose length, the residency, follows from how fast pages
// come. A page that was reused stays longer by half a residency per reuse (three count), up to twice that
// where its prefix is long, since computing a token reads all keys before it. The two ideas are frequency as
// in 2Q (Johnson and Shasha, VLDB 1994) and benefit per byte as in GreedyDual-Size (Cao and Irani, USITS
// 1997; for prefix trees RAGCache, Jin et al. 2024); GreedyDual itself, with or without frequency, loses to
// least-recently-used on real conversations (bench/results/prefix.md). A heap of leaves makes every operation
// O(log pages) per page.
//
// Where a snapshot of other state will join (recurrent layers, windows whose old pages were given back): it
// is valid for exactly one prefix, hence belongs to the node whose last token it follows, as a second
// reference of that node with its own bytes in the eviction's cost. match() then ends at the deepest node on
// the path that carries a snapshot. Nothing of that is built.
//
// For one thread (the engine's). Memory: about 250 bytes per page of the pool.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/page_hash.h"
#include "kv/pool.h"

namespace cairn::kv {

struct PrefixTreeOptions {
  enum class Eviction : uint8_t { cost, least_recent };  // the second to compare with
  Eviction eviction = Eviction::cost;
  // At this many tokens before it, computing a token reads keys for as long as it does everything else. About
  // 16 K for a model of 1 B with f16 keys; larger models: later.
  int64_t attention_tokens = 16384;
  uint64_t key_mask = ~uint64_t{0};  // for tests: fewer bits of the table's keys make collisions common
};

struct PrefixTreeStats {
  int64_t lookups = 0, lookup_tokens = 0;  // match(): prompts and their tokens
  int64_t hits = 0, reused_tokens = 0;     // of these, with at least one token found; tokens found
  int64_t partial_tokens = 0;              // of these, tokens inside a page that was not matched whole
  int64_t inserted_pages = 0, evicted_pages = 0;
  int64_t pages = 0, idle_pages = 0;  // in the tree now; of these, used by no sequence
};

class PrefixTree {
 public:
  // The pool must outlive the tree. fingerprint: see root_hash.
  PrefixTree(KvPool&, std::string_view fingerprint, PrefixTreeOptions = {});
  ~PrefixTree();  // gives back every page
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  struct Scope {
    std::string_view variant = {};  // requests that differ in it share nothing; see root_hash
    // Whether pages with rows that a GPU's decode kernels computed will do. Their bits are not those of a
    // prompt (backends::RowClass), nor are the bits of any row after them.
    bool accept_decoded = true;
  };
  struct Match {
    std::vector<int32_t> pages;  // one reference each for the caller, as Sequence::adopt takes them
    int64_t tokens = 0;          // in them: not a multiple of page_tokens when the last page is partial
    int64_t exact_tokens = 0;    // of these, leading ones whose bits are a prompt's
    int64_t whole_pages = 0;
    PageHash hash;  // of the last whole page (the root's if none): where a PageStore may go on
  };
  // The longest known beginning of `tokens`, at most all but the last: the last one's scores are needed.
  Match match(std::span<const int32_t> tokens, const Scope&);
  Match match(std::span<const int32_t> tokens) { return match(tokens, Scope{}); }
  // Gives back what a match retained from its page number `from` on: for a caller that does not use it.
  void drop(Match&, int64_t from = 0);
  // How many tokens match() would find; counts as no use.
  int64_t peek(std::span<const int32_t> tokens, const Scope&) const;

  struct Insertion {
    std::string_view variant = {};
    // How many leading tokens were computed by a prompt's kernels on top of such rows only (a CPU has no
    // others): Match::exact_tokens plus what came after as RowClass::prompt without a gap.
    int64_t exact_tokens = std::numeric_limits<int64_t>::max();
    // The sequence ends here and its last, partly filled page is worth keeping too.
    bool with_tail = false;
  };
  // Remembers the pages that hold `tokens`, the sequence's first ones. Where the tree has a page already, the
  // sequence shares it from now on and its own copy is freed. The tree retains what it keeps.
  void insert(std::span<const int32_t> tokens, Sequence&, const Insertion&);
  void insert(std::span<const int32_t> tokens, Sequence& sequence) { insert(tokens, sequence, Insertion{}); }

  // Pages that reclaim() can free now. O(1).
  int64_t reclaimable() const { return pool_.idle_cached_pages(); }
  // Frees up to `pages` pages, the least valuable first, and says how many.
  int64_t reclaim(int64_t pages);

  PrefixTreeStats stats() const;
  bool contains(int32_t page) const { return nodes_[size_t(page)].tokens > 0; }
  // Of a page that the tree contains: its tokens (fewer than page_tokens: a tail), whether it and all before
  // it are exact, and its name (a tail has none).
  std::span<const int32_t> tokens(int32_t page) const { return tokens_of(page); }
  bool exact(int32_t page) const { return nodes_[size_t(page)].exact; }
  const PageHash& hash(int32_t page) const { return nodes_[size_t(page)].hash; }
  const PageHash& hash_before(int32_t page) const { return hash_of(nodes_[size_t(page)].parent); }
  // Names the pool and the model without a variant.
  PageHash fingerprint() const { return root_hash(fingerprint_, pool_.config(), {}); }
  // Checks every link and count; empty when all is well. For tests, O(pages).
  std::string problems() const;

 private:
  // Numbered as its page. Roots, which have no page, are numbered -1, -2, ...
  struct Node {
    PageHash hash;
    double value = 0;  // evicted in this order
    int64_t used = 0;  // a clock; decides between equal values
    uint64_t key = 0;  // of the table
    int32_t parent = kNone;
    int32_t first_child = kNone, next = kNone, previous = kNone;  // the children, newest first
    int32_t children = 0;
    int32_t depth = 0;   // pages before this one
    int32_t tokens = 0;  // 0: this page is not in the tree; < page_tokens: a tail
    int32_t heap = -1;   // where in heap_; -1: not a leaf
    int32_t reuses = 0;  // matches since it came
    bool exact = false;
  };
  struct Root {
    std::string variant;
    PageHash hash;
    int32_t first_child = kNone;
  };
  struct Found {
    int32_t node = kNone;          // the last whole page, or the root
    int32_t pages = 0, exact = 0;  // whole pages; leading exact ones
    int32_t partial = kNone;       // a child that begins with more of the tokens
    int32_t partial_tokens = 0;
  };
  static constexpr int32_t kNone = std::numeric_limits<int32_t>::min();

  std::span<const int32_t> tokens_of(int32_t node) const;
  uint64_t key(uint64_t content, int32_t parent, bool exact) const;
  int32_t find_child(int32_t parent, std::span<const int32_t> tokens, uint64_t content, bool exact) const;
  Found find(std::span<const int32_t> tokens, const Scope&) const;
  int32_t root(std::string_view variant) const;  // kNone: no page has it
  int32_t make_root(std::string_view variant);
  int32_t& first_child(int32_t node);
  int32_t first_child(int32_t node) const;
  const PageHash& hash_of(int32_t node) const;

  void add(int32_t parent, int32_t page, std::span<const int32_t> tokens, uint64_t content, bool exact);
  void remove(int32_t page);
  void touch(int32_t page, int reuses);
  double value(const Node&) const;  // if used now

  void table_insert(int32_t page);
  void table_erase(int32_t page);
  bool before(int32_t a, int32_t b) const;  // a is evicted before b
  void heap_push(int32_t page);
  void heap_remove(int32_t page);
  void heap_settle(size_t at);

  KvPool& pool_;
  std::string fingerprint_;
  PrefixTreeOptions options_;
  int32_t page_tokens_;
  uint64_t seed_;  // of the table's keys; random, so that no prompt can fill one place of the table
  std::vector<Node> nodes_;
  std::unique_ptr<int32_t[]> tokens_;  // [pages][page_tokens]
  std::vector<int32_t> table_;         // open addressing, linear; kNone: empty
  std::vector<int32_t> heap_;          // leaves
  std::vector<Root> roots_;
  std::vector<int32_t> free_roots_;
  std::map<std::string, int32_t, std::less<>> root_by_variant_;
  int64_t clock_ = 0;        // matches and insertions
  int64_t evicted_use_ = 0;  // when the page most recently used, of those evicted, was used
  int64_t decoded_pages_ = 0;
  PrefixTreeStats stats_;
};

}  // namespace cairn::kv
