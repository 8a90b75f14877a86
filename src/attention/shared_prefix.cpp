#include "attention/shared_prefix.h"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace cairn::attention {

void find_shared_prefixes(std::span<const PrefixReader> readers, SharedPrefixes& found) {
  found.groups.clear(), found.members.clear(), found.branches_.clear(), found.order_.clear();
  found.shared.assign(readers.size(), 0);
  std::vector<int32_t>& order = found.order_;
  for (size_t i = 0; i < readers.size(); ++i)
    if (readers[i].units > 0 && readers[i].unit_pages > 0) order.push_back(int32_t(i));
  const auto key = [&](int32_t i) {
    const PrefixReader& r = readers[size_t(i)];
    return std::tuple(r.unit_pages, r.pages[0], i);
  };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });

  const auto same = [&](int32_t a, int32_t b, int64_t unit) {
    const PrefixReader &x = readers[size_t(a)], &y = readers[size_t(b)];
    const int64_t at = unit * x.unit_pages;
    return x.pages == y.pages || std::memcmp(x.pages + at, y.pages + at, size_t(x.unit_pages) * 4) == 0;
  };
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const PrefixReader& first = readers[size_t(order[begin])];
    for (end = begin; end < order.size(); ++end) {
      const PrefixReader& r = readers[size_t(order[end])];
      if (r.unit_pages != first.unit_pages || r.pages[0] != first.pages[0]) break;
    }
    if (end - begin > 1) found.branches_.push_back({int32_t(begin), int32_t(end), 0});
  }

  // Each branch's readers agree on all units before its own.
  for (size_t b = 0; b < found.branches_.size(); ++b) {
    const auto branch = found.branches_[b];
    const auto begin = order.begin() + branch.begin, end = order.begin() + branch.end;
    int64_t unit = branch.unit;
    const auto agree = [&](int32_t i) { return readers[size_t(i)].units > unit && same(*begin, i, unit); };
    while (std::all_of(begin, end, agree)) ++unit;
    if (unit > branch.unit) {
      found.groups.push_back(
          {branch.unit, unit, int32_t(found.members.size()), int32_t(branch.end - branch.begin)});
      found.members.insert(found.members.end(), begin, end);
      for (auto i = begin; i != end; ++i) found.shared[size_t(*i)] = unit;
    }
    const auto longer =
        std::stable_partition(begin, end, [&](int32_t i) { return readers[size_t(i)].units <= unit; });
    for (auto next = longer; next != end;) {
      const int32_t leader = *next;
      const auto rest = std::stable_partition(next, end, [&](int32_t i) { return same(leader, i, unit); });
      if (rest - next > 1)
        found.branches_.push_back({int32_t(next - order.begin()), int32_t(rest - order.begin()), unit});
      next = rest;
    }
  }
}

}  // namespace cairn::attention
