// Which rows of a step read the same pages from the beginning of their sequences on: what FlashInfer's
// composable formats are for (arXiv 2501.01005, section 3.1.2). Shared tokens are one block-sparse matrix
// with many rows to a block, so that their keys and values are read once; what is left of each row is
// another.
//
// Reading is shared in whole units (chunks of a row's tokens whose states are joined anyway), so the states
// are the same, bit for bit, whether a unit was read alone or together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace cairn::attention {

// A reader of units: tokens [u * unit_pages, (u + 1) * unit_pages) pages.
struct PrefixReader {
  const int32_t* pages = nullptr;
  int64_t unit_pages = 0;
  int64_t units = 0;  // that it may share, from 0 on; pages has them all
};

// Readers that share units [begin, end): all of them, and none of the others read the same ones.
struct SharedUnits {
  int64_t begin = 0, end = 0;
  int32_t first_member = 0, members = 0;  // in SharedPrefixes::members
};

struct SharedPrefixes {
  std::vector<SharedUnits> groups;  // parents before children: a tree of prefixes
  std::vector<int32_t> members;     // readers
  std::vector<int64_t> shared;      // per reader: units from 0 on that are in groups

 private:
  friend void find_shared_prefixes(std::span<const PrefixReader>, SharedPrefixes&);
  struct Branch {
    int32_t begin, end;
    int64_t unit;
  };
  std::vector<int32_t> order_;
  std::vector<Branch> branches_;
};

// Linear in the readers' units, apart from sorting the readers; readers of different unit sizes share
// nothing.
void find_shared_prefixes(std::span<const PrefixReader>, SharedPrefixes&);

}  // namespace cairn::attention
