#include "kv/prefix_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <random>

#include "base/content_hash.h"

namespace cairn::kv {
namespace {

// How many children of one node are compared for a partial match: the newest. A system prompt may be followed
// by a hundred thousand different questions.
constexpr int kSiblings = 32;

uint64_t content(std::span<const int32_t> tokens, uint64_t seed) {
  return content_hash(std::as_bytes(tokens), seed);
}

int32_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  return int32_t(
      std::mismatch(a.begin(), a.begin() + std::ptrdiff_t(std::min(a.size(), b.size())), b.begin()).first -
      a.begin());
}

}  // namespace

PrefixTree::PrefixTree(KvPool& pool, std::string_view fingerprint, PrefixTreeOptions options)
    : pool_(pool), fingerprint_(fingerprint), options_(options), page_tokens_(pool.config().page_tokens) {
  std::random_device random;
  seed_ = uint64_t{random()} << 32 | random();
  const auto pages = size_t(pool.config().pages);
  nodes_.resize(pages);
  tokens_ = std::make_unique_for_overwrite<int32_t[]>(pages * size_t(page_tokens_));
  table_.assign(std::bit_ceil(2 * pages + 1), kNone);  // at most half full
}

PrefixTree::~PrefixTree() {
  for (size_t page = 0; page < nodes_.size(); ++page)
    if (nodes_[page].tokens > 0) {
      pool_.set_cached(int32_t(page), false);
      pool_.release(int32_t(page));
    }
}

std::span<const int32_t> PrefixTree::tokens_of(int32_t node) const {
  return {tokens_.get() + size_t(node) * size_t(page_tokens_), size_t(nodes_[size_t(node)].tokens)};
}

uint64_t PrefixTree::key(uint64_t content, int32_t parent, bool exact) const {
  return combine_hashes(content, uint64_t(int64_t{parent}) * 2 + (exact ? 1 : 0)) & options_.key_mask;
}

int32_t PrefixTree::root(std::string_view variant) const {
  const auto found = root_by_variant_.find(variant);
  return found == root_by_variant_.end() ? kNone : found->second;
}

int32_t PrefixTree::make_root(std::string_view variant) {
  if (const int32_t known = root(variant); known != kNone) return known;
  int32_t made = -1 - int32_t(roots_.size());
  if (free_roots_.empty()) {
    roots_.emplace_back();
  } else {
    made = free_roots_.back();
    free_roots_.pop_back();
  }
  roots_[size_t(-1 - made)] = {std::string(variant), root_hash(fingerprint_, pool_.config(), variant), kNone};
  root_by_variant_.emplace(variant, made);
  return made;
}

int32_t& PrefixTree::first_child(int32_t node) {
  return node < 0 ? roots_[size_t(-1 - node)].first_child : nodes_[size_t(node)].first_child;
}
int32_t PrefixTree::first_child(int32_t node) const {
  return node < 0 ? roots_[size_t(-1 - node)].first_child : nodes_[size_t(node)].first_child;
}
const PageHash& PrefixTree::hash_of(int32_t node) const {
  return node < 0 ? roots_[size_t(-1 - node)].hash : nodes_[size_t(node)].hash;
}

int32_t PrefixTree::find_child(int32_t parent, std::span<const int32_t> tokens, uint64_t content,
                               bool exact) const {
  const uint64_t wanted = key(content, parent, exact);
  const size_t mask = table_.size() - 1;
  for (size_t at = size_t(wanted) & mask; table_[at] != kNone; at = (at + 1) & mask) {
    const Node& node = nodes_[size_t(table_[at])];
    if (node.key == wanted && node.parent == parent && node.exact == exact &&
        std::ranges::equal(tokens_of(table_[at]), tokens))
      return table_[at];
  }
  return kNone;
}

PrefixTree::Found PrefixTree::find(std::span<const int32_t> tokens, const Scope& scope) const {
  Found found;
  found.node = root(scope.variant);
  if (found.node == kNone || tokens.size() < 2) return found;
  const auto usable = tokens.first(tokens.size() - 1);
  const bool decoded_too = scope.accept_decoded && decoded_pages_ > 0;
  // Below a decoded page everything is decoded. Both ways are followed, since either may reach further.
  int32_t exact = found.node, decoded = kNone;
  const auto page = size_t(page_tokens_);
  for (size_t i = 0; (i + 1) * page <= usable.size(); ++i) {
    const auto ids = usable.subspan(i * page, page);
    const uint64_t hash = content(ids, seed_);
    int32_t next = decoded != kNone ? find_child(decoded, ids, hash, false) : kNone;
    if (next == kNone && exact != kNone && decoded_too) next = find_child(exact, ids, hash, false);
    decoded = next;
    if (exact != kNone) exact = find_child(exact, ids, hash, true);
    if (exact == kNone && decoded == kNone) break;
    found.node = exact != kNone ? exact : decoded;
    ++found.pages;
  }
  found.exact = found.pages;
  for (int32_t node = found.node; node >= 0 && !nodes_[size_t(node)].exact;
       node = nodes_[size_t(node)].parent)
    --found.exact;
  if (!pool_.can_copy()) return found;
  const auto rest = usable.subspan(size_t(found.pages) * page);
  int seen = 0;
  for (int32_t child = first_child(found.node); child != kNone && seen < kSiblings;
       child = nodes_[size_t(child)].next, ++seen) {
    if (!nodes_[size_t(child)].exact && !scope.accept_decoded) continue;
    const int32_t same = common_prefix(rest, tokens_of(child));
    if (same <= found.partial_tokens) continue;
    found.partial_tokens = same;
    found.partial = child;
  }
  return found;
}

PrefixTree::Match PrefixTree::match(std::span<const int32_t> tokens, const Scope& scope) {
  const Found found = find(tokens, scope);
  Match match;
  match.hash =
      found.node == kNone ? root_hash(fingerprint_, pool_.config(), scope.variant) : hash_of(found.node);
  match.whole_pages = found.pages;
  match.tokens = int64_t{found.pages} * page_tokens_ + found.partial_tokens;
  match.exact_tokens = int64_t{found.exact} * page_tokens_;
  match.pages.resize(size_t(found.pages));
  ++clock_;
  int32_t node = found.node;
  for (size_t i = match.pages.size(); i > 0; node = nodes_[size_t(node)].parent) match.pages[--i] = node;
  if (found.partial != kNone) {
    match.pages.push_back(found.partial);
    if (found.exact == found.pages && nodes_[size_t(found.partial)].exact) match.exact_tokens = match.tokens;
  }
  for (const int32_t page : match.pages) {
    pool_.retain(page);
    touch(page, 1);
  }
  ++stats_.lookups;
  stats_.lookup_tokens += int64_t(tokens.size());
  stats_.hits += match.tokens > 0;
  stats_.reused_tokens += match.tokens;
  stats_.partial_tokens += found.partial_tokens;
  return match;
}

void PrefixTree::drop(Match& match, int64_t from) {
  while (int64_t(match.pages.size()) > from) {
    pool_.release(match.pages.back());
    match.pages.pop_back();
  }
  match.tokens = std::min(match.tokens, from * page_tokens_);
  match.exact_tokens = std::min(match.exact_tokens, match.tokens);
}

int64_t PrefixTree::peek(std::span<const int32_t> tokens, const Scope& scope) const {
  const Found found = find(tokens, scope);
  return int64_t{found.pages} * page_tokens_ + found.partial_tokens;
}

void PrefixTree::insert(std::span<const int32_t> tokens, Sequence& sequence, const Insertion& how) {
  assert(int64_t(tokens.size()) <= sequence.length());
  const auto page_size = size_t(page_tokens_);
  const size_t whole = tokens.size() / page_size;
  if (whole == 0 && !(how.with_tail && pool_.can_copy() && !tokens.empty())) return;
  int32_t parent = root(how.variant);  // made only if something is added
  ++clock_;
  const auto grow = [&](int32_t page, std::span<const int32_t> ids, uint64_t hash, bool exact) {
    if (parent == kNone) parent = make_root(how.variant);
    add(parent, page, ids, hash, exact);
  };
  for (size_t i = 0; i < whole; ++i) {
    const auto ids = tokens.subspan(i * page_size, page_size);
    const bool exact = int64_t((i + 1) * page_size) <= how.exact_tokens;
    const uint64_t hash = content(ids, seed_);
    const int32_t page = sequence.block_table()[i];
    const int32_t known = find_child(parent, ids, hash, exact);
    if (known == kNone) {
      assert(!contains(page));  // else it would hold two texts, or a decoded page was called exact
      if (contains(page)) return;
      grow(page, ids, hash, exact);
      parent = page;
      continue;
    }
    if (known != page) {
      // Two decoded pages of one text need not have the same bits, and this sequence began with its own.
      if (!exact) return;
      pool_.retain(known);
      sequence.share_page(i, known);
    }
    touch(known, 0);
    parent = known;
  }
  // A tail, unless it is a partial match that nothing was added to, or some page begins with it.
  const auto tail = tokens.subspan(whole * page_size);
  if (!how.with_tail || !pool_.can_copy() || tail.empty()) return;
  const int32_t page = sequence.block_table()[whole];
  const bool exact = int64_t(tokens.size()) <= how.exact_tokens;
  if (contains(page)) return;
  int32_t child = parent == kNone ? kNone : first_child(parent);
  for (int seen = 0; child != kNone && seen < kSiblings; child = nodes_[size_t(child)].next, ++seen)
    if (size_t(common_prefix(tail, tokens_of(child))) == tail.size() && nodes_[size_t(child)].exact >= exact)
      return touch(child, 0);
  grow(page, tail, 0, exact);
}

void PrefixTree::add(int32_t parent, int32_t page, std::span<const int32_t> tokens, uint64_t content,
                     bool exact) {
  pool_.retain(page);
  pool_.set_cached(page, true);
  Node& node = nodes_[size_t(page)];
  node = {};
  std::ranges::copy(tokens, tokens_.get() + size_t(page) * size_t(page_tokens_));
  node.tokens = int32_t(tokens.size());
  node.parent = parent;
  node.exact = exact;
  if (node.tokens == page_tokens_) {
    node.hash = next_hash(hash_of(parent), tokens, exact);
    node.key = key(content, parent, exact);
    table_insert(page);
  }
  int32_t& first = first_child(parent);
  node.next = first;
  if (first != kNone) nodes_[size_t(first)].previous = page;
  first = page;
  if (parent >= 0) {
    Node& above = nodes_[size_t(parent)];
    node.depth = above.depth + 1;
    ++above.children;
    if (above.heap >= 0) heap_remove(parent);
  }
  node.used = clock_;
  node.value = value(node);
  heap_push(page);
  decoded_pages_ += !exact;
  ++stats_.pages;
  ++stats_.inserted_pages;

  // A tail with which this page begins says nothing new.
  int seen = 0;
  for (int32_t child = node.next; child != kNone && seen < kSiblings;
       child = nodes_[size_t(child)].next, ++seen) {
    const Node& old = nodes_[size_t(child)];
    if (old.tokens >= node.tokens || old.exact > exact || pool_.references(child) > 1 ||
        common_prefix(tokens, tokens_of(child)) < old.tokens)
      continue;
    remove(child);
    break;
  }
}

// Takes a leaf out of the tree.
void PrefixTree::remove(int32_t page) {
  Node& node = nodes_[size_t(page)];
  assert(node.children == 0);
  if (node.tokens == page_tokens_) table_erase(page);
  if (node.heap >= 0) heap_remove(page);
  if (node.previous != kNone)
    nodes_[size_t(node.previous)].next = node.next;
  else
    first_child(node.parent) = node.next;
  if (node.next != kNone) nodes_[size_t(node.next)].previous = node.previous;
  if (node.parent >= 0) {
    if (--nodes_[size_t(node.parent)].children == 0) heap_push(node.parent);
  } else if (first_child(node.parent) == kNone) {
    Root& empty = roots_[size_t(-1 - node.parent)];
    root_by_variant_.erase(empty.variant);
    empty = {};
    free_roots_.push_back(node.parent);
  }
  decoded_pages_ -= !node.exact;
  node.tokens = 0;
  --stats_.pages;
  pool_.set_cached(page, false);
  pool_.release(page);
}

int64_t PrefixTree::reclaim(int64_t pages) {
  pages = std::min(pages, reclaimable());
  int64_t freed = 0;
  std::vector<int32_t> in_use;
  while (freed < pages && !heap_.empty()) {
    const int32_t leaf = heap_.front();
    if (pool_.references(leaf) > 1) {
      heap_remove(leaf);
      in_use.push_back(leaf);
      continue;
    }
    evicted_use_ = std::max(evicted_use_, nodes_[size_t(leaf)].used);
    remove(leaf);
    ++freed;
  }
  stats_.evicted_pages += freed;
  // In use is as good as just used; and so they are not met again at once.
  ++clock_;
  for (const int32_t leaf : in_use) {
    heap_push(leaf);
    touch(leaf, 0);
  }
  return freed;
}

double PrefixTree::value(const Node& node) const {
  if (options_.eviction == PrefixTreeOptions::Eviction::least_recent) return double(clock_);
  const double before = double(node.depth) * page_tokens_;
  const double cost = 1 + std::min(before / double(std::max<int64_t>(options_.attention_tokens, 1)), 1.0);
  return double(clock_) + double(clock_ - evicted_use_) * 0.5 * std::min(node.reuses, 3) * cost;
}

void PrefixTree::touch(int32_t page, int reuses) {
  Node& node = nodes_[size_t(page)];
  node.reuses = std::min(node.reuses + reuses, 1000);
  node.used = clock_;
  node.value = value(node);
  if (node.heap >= 0) heap_settle(size_t(node.heap));
}

PrefixTreeStats PrefixTree::stats() const {
  PrefixTreeStats now = stats_;
  now.idle_pages = pool_.idle_cached_pages();
  return now;
}

void PrefixTree::table_insert(int32_t page) {
  const size_t mask = table_.size() - 1;
  size_t at = size_t(nodes_[size_t(page)].key) & mask;
  while (table_[at] != kNone) at = (at + 1) & mask;
  table_[at] = page;
}

void PrefixTree::table_erase(int32_t page) {
  const size_t mask = table_.size() - 1;
  size_t hole = size_t(nodes_[size_t(page)].key) & mask;
  while (table_[hole] != page) hole = (hole + 1) & mask;
  // Whatever follows moves up unless it would come before its own place.
  for (size_t at = (hole + 1) & mask; table_[at] != kNone; at = (at + 1) & mask) {
    const size_t home = size_t(nodes_[size_t(table_[at])].key) & mask;
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    table_[hole] = table_[at];
    hole = at;
  }
  table_[hole] = kNone;
}

bool PrefixTree::before(int32_t a, int32_t b) const {
  const Node &x = nodes_[size_t(a)], &y = nodes_[size_t(b)];
  return x.value != y.value ? x.value < y.value : x.used < y.used;
}

void PrefixTree::heap_push(int32_t page) {
  nodes_[size_t(page)].heap = int32_t(heap_.size());
  heap_.push_back(page);
  heap_settle(heap_.size() - 1);
}

void PrefixTree::heap_remove(int32_t page) {
  const auto at = size_t(std::exchange(nodes_[size_t(page)].heap, -1));
  const int32_t last = heap_.back();
  heap_.pop_back();
  if (last == page) return;
  heap_[at] = last;
  nodes_[size_t(last)].heap = int32_t(at);
  heap_settle(at);
}

// Moves what stands at `at` up or down to where it belongs.
void PrefixTree::heap_settle(size_t at) {
  const int32_t page = heap_[at];
  const auto place = [&](size_t where, int32_t what) {
    heap_[where] = what;
    nodes_[size_t(what)].heap = int32_t(where);
  };
  for (; at > 0 && before(page, heap_[(at - 1) / 2]); at = (at - 1) / 2) place(at, heap_[(at - 1) / 2]);
  for (size_t child; (child = 2 * at + 1) < heap_.size(); at = child) {
    if (child + 1 < heap_.size() && before(heap_[child + 1], heap_[child])) ++child;
    if (!before(heap_[child], page)) break;
    place(at, heap_[child]);
  }
  place(at, page);
}

std::string PrefixTree::problems() const {
  std::string text;
  const auto expect = [&](bool holds, int32_t page, const char* what) {
    if (!holds) text += fmt::format("page {}: {}\n", page, what);
  };
  std::vector<int32_t> children(nodes_.size());
  int64_t present = 0, idle = 0, leaves = 0;
  const auto walk = [&](int32_t parent) {
    for (int32_t child = first_child(parent), last = kNone; child != kNone;
         last = std::exchange(child, nodes_[size_t(child)].next)) {
      const Node& node = nodes_[size_t(child)];
      expect(contains(child), child, "a child that is not in the tree");
      expect(node.parent == parent, child, "another's child");
      expect(node.previous == last, child, "its list is broken");
      expect(node.depth == (parent < 0 ? 0 : nodes_[size_t(parent)].depth + 1), child, "wrong depth");
      expect(parent < 0 || !node.exact || nodes_[size_t(parent)].exact, child, "exact below decoded");
      if (parent >= 0) ++children[size_t(parent)];
    }
  };
  for (const auto& [variant, root] : root_by_variant_) {
    expect(first_child(root) != kNone, root, "an empty root");
    walk(root);
  }
  for (int32_t page = 0; size_t(page) < nodes_.size(); ++page)
    if (contains(page)) walk(page);
  for (int32_t page = 0; size_t(page) < nodes_.size(); ++page) {
    const Node& node = nodes_[size_t(page)];
    if (!contains(page)) continue;
    ++present;
    idle += pool_.references(page) == 1;
    leaves += node.children == 0;
    expect(pool_.references(page) > 0, page, "in the tree and free");
    expect(node.children == children[size_t(page)], page, "wrong number of children");
    expect((node.heap >= 0) == (node.children == 0), page, "the heap holds exactly the leaves");
    if (node.heap >= 0) {
      expect(heap_[size_t(node.heap)] == page, page, "its place in the heap is another's");
      expect(node.heap == 0 || !before(page, heap_[size_t(node.heap - 1) / 2]), page, "the heap's order");
    }
    if (node.tokens < page_tokens_) {
      expect(node.children == 0, page, "a tail with children");
      continue;
    }
    expect(find_child(node.parent, tokens_of(page), content(tokens_of(page), seed_), node.exact) == page,
           page, "not found under its tokens");
    expect(node.hash == next_hash(hash_of(node.parent), tokens_of(page), node.exact), page, "wrong name");
  }
  expect(present == stats_.pages, -1, "number of pages");
  expect(idle == pool_.idle_cached_pages(), -1, "number of idle pages");
  expect(leaves == int64_t(heap_.size()), -1, "size of the heap");
  return text;
}

}  // namespace cairn::kv
