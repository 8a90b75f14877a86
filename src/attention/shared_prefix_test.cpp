#include "attention/shared_prefix.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace cairn::attention {
namespace {

using Pages = std::vector<int32_t>;

TEST(SharedPrefixes, AreATree) {
  // Two pages to a unit. 0, 1 and 2 share two units, 1 and 2 a third; 3 begins alike but not for a unit; 4 is
  // alone; 5 has other units.
  const Pages tables[] = {
      {1, 2, 3, 4, 9, 9}, {1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 5, 6, 10, 11}, {1, 12, 3, 4}, {13, 14},
      {1, 2, 3, 4}};
  std::vector<PrefixReader> readers;
  for (const Pages& p : tables) readers.push_back({p.data(), 2, int64_t(p.size() / 2)});
  readers[5].unit_pages = 4, readers[5].units = 1;
  SharedPrefixes found;
  find_shared_prefixes(readers, found);
  ASSERT_EQ(found.groups.size(), 2u);
  const auto members = [&](const SharedUnits& g) {
    return Pages(found.members.begin() + g.first_member, found.members.begin() + g.first_member + g.members);
  };
  EXPECT_EQ(found.groups[0].begin, 0);
  EXPECT_EQ(found.groups[0].end, 2);
  EXPECT_EQ(members(found.groups[0]), (Pages{0, 1, 2}));
  EXPECT_EQ(found.groups[1].begin, 2);
  EXPECT_EQ(found.groups[1].end, 3);
  EXPECT_EQ(members(found.groups[1]), (Pages{1, 2}));
  EXPECT_EQ(found.shared, (std::vector<int64_t>{2, 3, 3, 0, 0, 0}));
  readers.resize(1);
  find_shared_prefixes(readers, found);
  EXPECT_TRUE(found.groups.empty());
}

TEST(SharedPrefixes, HoldExactlyWhatIsTheSame) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 200; ++trial) {
    // Readers that branch off earlier ones.
    std::vector<Pages> tables;
    int32_t next = 0;
    for (int i = 0; i < 20; ++i) {
      Pages p;
      if (i > 0 && random() % 4 != 0) {
        const Pages& from = tables[random() % tables.size()];
        p.assign(from.begin(), from.begin() + std::ptrdiff_t(random() % (from.size() + 1)));
      }
      for (size_t more = 1 + random() % 12; more > 0; --more) p.push_back(next++);
      tables.push_back(p);
    }
    std::vector<PrefixReader> readers;
    for (const Pages& p : tables) {
      const int64_t unit = 1 + int64_t(random() % 2);
      readers.push_back({p.data(), unit, int64_t(p.size()) / unit});
    }
    SharedPrefixes found;
    find_shared_prefixes(readers, found);
    std::map<std::pair<int32_t, int64_t>, std::set<int32_t>> together;  // (reader, unit) -> its group
    for (const SharedUnits& g : found.groups)
      for (int64_t u = g.begin; u < g.end; ++u)
        for (int32_t m = 0; m < g.members; ++m) {
          auto& group = together[{found.members[size_t(g.first_member + m)], u}];
          EXPECT_TRUE(group.empty()) << "a unit is read twice";
          group.insert(found.members.begin() + g.first_member,
                       found.members.begin() + g.first_member + g.members);
        }
    for (int32_t i = 0; i < 20; ++i)
      for (int64_t u = 0; u < readers[size_t(i)].units; ++u) {
        std::set<int32_t> wanted;
        for (int32_t j = 0; j < 20; ++j) {
          const PrefixReader &x = readers[size_t(i)], &y = readers[size_t(j)];
          if (x.unit_pages == y.unit_pages && y.units > u &&
              std::equal(x.pages, x.pages + (u + 1) * x.unit_pages, y.pages))
            wanted.insert(j);
        }
        if (wanted.size() == 1) wanted.clear();
        EXPECT_EQ((together[{i, u}]), wanted) << "trial " << trial << " reader " << i << " unit " << u;
        EXPECT_EQ(found.shared[size_t(i)] > u, !wanted.empty());
      }
  }
}

}  // namespace
}  // namespace cairn::attention
