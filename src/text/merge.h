// The merge loop of byte-pair encoding: again and again the adjacent pair of lowest rank, leftmost among
// equals, becomes one symbol. Short words scan for the minimum; long ones use a heap, O(n log n).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "text/string_map.h"

namespace cairn::text {

struct Symbol {
  uint32_t begin = 0, end = 0;  // bytes of the word
  int32_t id = -1;
};

// lookup(left, right) gives the PairMap::Entry of the pair, rank -1 when it does not merge.
template <typename Lookup>
void merge_short(std::vector<Symbol>& symbols, std::vector<PairMap::Entry>& pairs, Lookup&& lookup) {
  pairs.resize(symbols.size());
  for (size_t i = 0; i + 1 < symbols.size(); ++i) pairs[i] = lookup(symbols[i], symbols[i + 1]);
  size_t count = symbols.size();
  while (count > 1) {
    size_t best = count;
    uint32_t rank = 0xffffffff;  // an absent pair's -1 as unsigned: never smaller
    for (size_t i = 0; i + 1 < count; ++i)
      if (uint32_t(pairs[i].rank) < rank) rank = uint32_t(pairs[i].rank), best = i;
    if (best == count) break;
    symbols[best].end = symbols[best + 1].end;
    symbols[best].id = pairs[best].result;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i] = pairs[i + 1];
    }
    --count;
    if (best + 1 < count) pairs[best] = lookup(symbols[best], symbols[best + 1]);
    if (best > 0) pairs[best - 1] = lookup(symbols[best - 1], symbols[best]);
  }
  symbols.resize(count);
}

template <typename Lookup>
void merge_long(std::vector<Symbol>& symbols, Lookup&& lookup) {
  struct Candidate {
    int32_t rank;
    uint32_t left;
    uint32_t right;
    uint32_t right_end;  // with left's end at push time: tells whether both are still what they were
    uint32_t left_end;
    int32_t result;
    bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
  };
  constexpr uint32_t kNone = 0xffffffff;
  const uint32_t count = uint32_t(symbols.size());
  std::vector<uint32_t> previous(count), next(count);
  for (uint32_t i = 0; i < count; ++i)
    previous[i] = i == 0 ? kNone : i - 1, next[i] = i + 1 == count ? kNone : i + 1;
  std::vector<bool> dead(count);
  std::vector<Candidate> heap;
  const auto candidate = [&](uint32_t left, uint32_t right) {
    const PairMap::Entry e = lookup(symbols[left], symbols[right]);
    if (e.rank < 0) return false;
    heap.push_back({e.rank, left, right, symbols[right].end, symbols[left].end, e.result});
    return true;
  };
  for (uint32_t i = 0; i + 1 < count; ++i) candidate(i, i + 1);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate c = heap.back();
    heap.pop_back();
    if (dead[c.left] || dead[c.right] || symbols[c.left].end != c.left_end ||
        symbols[c.right].end != c.right_end)
      continue;
    symbols[c.left].end = symbols[c.right].end;
    symbols[c.left].id = c.result;
    dead[c.right] = true;
    next[c.left] = next[c.right];
    if (next[c.left] != kNone) {
      previous[next[c.left]] = c.left;
      if (candidate(c.left, next[c.left])) std::push_heap(heap.begin(), heap.end());
    }
    if (previous[c.left] != kNone && candidate(previous[c.left], c.left))
      std::push_heap(heap.begin(), heap.end());
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < count; ++i)
    if (!dead[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

template <typename Lookup>
void merge_symbols(std::vector<Symbol>& symbols, std::vector<PairMap::Entry>& scratch, Lookup&& lookup) {
  if (symbols.size() <= 40)
    merge_short(symbols, scratch, lookup);
  else
    merge_long(symbols, lookup);
}

}  // namespace cairn::text
