// Finds good settings by measuring few of them: a discrete space, and which point to measure next.
//
// tpe: the tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter Optimization",
// NeurIPS 2011) on discrete dimensions. After some random points, the measured ones are split into the best
// quarter and the rest; each side gives every dimension a density (counts over a flat prior, spread to the
// neighbours where values have an order), candidates are drawn from the good side, and the one with the
// largest ratio of the two densities that has not been measured yet is next.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::plan {

struct Dimension {
  std::string name;
  std::vector<std::string> values;
  bool ordered = true;  // neighbours behave alike
};
using Point = std::vector<int>;  // an index into each dimension's values

enum class SearchMethod : uint8_t { grid, random, tpe };
SearchMethod parse_search_method(std::string_view);  // throws Error(invalid_argument) listing the names

struct TpeOptions {
  int random_points = 20;  // at first; never more than an eighth of the space, nor fewer than two
  double good_share = 0.25;
  int candidates = 24;
};

struct Trial {
  Point point;
  std::optional<double> value;  // the larger the better; absent: this setting cannot run
};

class Search {
 public:
  // Throws Error(invalid_argument) for a dimension without values, and for more than a million points.
  Search(std::vector<Dimension>, SearchMethod, uint64_t seed, TpeOptions = {});

  const std::vector<Dimension>& dimensions() const { return dimensions_; }
  int64_t points() const { return points_; }
  // A point that has not been told yet; empty when all have.
  std::optional<Point> next();
  // Also for points that next() did not propose: cells kept from an earlier search. A second value for a
  // point replaces the first.
  void tell(const Point&, std::optional<double> value);
  const std::vector<Trial>& trials() const { return trials_; }
  const Trial* best() const;  // null: nothing could run

 private:
  int64_t index(const Point&) const;
  Point point(int64_t index) const;
  int64_t random_unknown();
  std::optional<int64_t> by_densities();
  uint64_t random(uint64_t below);
  double uniform();

  std::vector<Dimension> dimensions_;
  SearchMethod method_;
  TpeOptions options_;
  uint64_t state_;
  int64_t points_ = 1, known_count_ = 0;
  std::vector<int32_t> trial_of_;  // by index; -1: unknown
  std::vector<Trial> trials_;
};

}  // namespace cairn::plan
