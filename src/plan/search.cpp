#include "plan/search.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace cairn::plan {
namespace {

constexpr int64_t kMostPoints = 1'000'000;

// One dimension's probabilities: a flat prior of weight 1 and one count per trial, a quarter of it on each
// neighbour where there is an order.
std::vector<double> density(const Dimension& dimension, size_t d, const std::vector<const Trial*>& trials) {
  const size_t n = dimension.values.size();
  std::vector<double> p(n, 1.0 / double(n));
  for (const auto* trial : trials) {
    const auto at = size_t(trial->point[d]);
    const double aside = dimension.ordered ? 0.25 : 0;
    double kept = 1;
    if (at > 0) p[at - 1] += aside, kept -= aside;
    if (at + 1 < n) p[at + 1] += aside, kept -= aside;
    p[at] += kept;
  }
  for (auto& v : p) v /= double(trials.size() + 1);
  return p;
}

}  // namespace

SearchMethod parse_search_method(std::string_view name) {
  if (name == "grid") return SearchMethod::grid;
  if (name == "random") return SearchMethod::random;
  if (name == "tpe") return SearchMethod::tpe;
  fail(ErrorKind::invalid_argument, "the search method is '{}'; it must be grid, random or tpe", name);
}

Search::Search(std::vector<Dimension> dimensions, SearchMethod method, uint64_t seed, TpeOptions options)
    : dimensions_(std::move(dimensions)), method_(method), options_(options), state_(seed) {
  for (const auto& d : dimensions_) {
    if (d.values.empty()) fail(ErrorKind::invalid_argument, "there is no value for {} to try", d.name);
    points_ *= int64_t(d.values.size());
    if (points_ > kMostPoints)
      fail(ErrorKind::invalid_argument, "the space has more than {} points; leave out some values",
           kMostPoints);
  }
  trial_of_.assign(size_t(points_), -1);
  options_.random_points = int(std::max<int64_t>(2, std::min<int64_t>(options_.random_points, points_ / 8)));
}

// splitmix64 (Steele et al., OOPSLA 2014): the same sequence everywhere.
uint64_t Search::random(uint64_t below) {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % below;
}
double Search::uniform() { return double(random(uint64_t{1} << 53)) / double(uint64_t{1} << 53); }

int64_t Search::index(const Point& p) const {
  int64_t i = 0;
  for (size_t d = 0; d < dimensions_.size(); ++d) i = i * int64_t(dimensions_[d].values.size()) + p[d];
  return i;
}

Point Search::point(int64_t i) const {
  Point p(dimensions_.size());
  for (size_t d = dimensions_.size(); d-- > 0;) {
    p[d] = int(i % int64_t(dimensions_[d].values.size()));
    i /= int64_t(dimensions_[d].values.size());
  }
  return p;
}

int64_t Search::random_unknown() {
  auto skip = int64_t(random(uint64_t(points_ - known_count_)));
  for (int64_t i = 0;; ++i)
    if (trial_of_[size_t(i)] < 0 && skip-- == 0) return i;
}

std::optional<int64_t> Search::by_densities() {
  std::vector<const Trial*> order;
  for (const auto& trial : trials_) order.push_back(&trial);
  std::stable_sort(order.begin(), order.end(), [](const Trial* a, const Trial* b) {
    return a->value.value_or(-INFINITY) > b->value.value_or(-INFINITY);
  });
  const auto good_count = size_t(std::max(1.0, std::ceil(options_.good_share * double(order.size()))));
  const std::vector<const Trial*> good(order.begin(), order.begin() + int64_t(good_count)),
      rest(order.begin() + int64_t(good_count), order.end());
  std::vector<std::vector<double>> of_good, of_rest;
  for (size_t d = 0; d < dimensions_.size(); ++d) {
    of_good.push_back(density(dimensions_[d], d, good));
    of_rest.push_back(density(dimensions_[d], d, rest));
  }
  std::optional<int64_t> best;
  double best_ratio = 0;
  for (int c = 0; c < options_.candidates; ++c) {
    Point p(dimensions_.size());
    double ratio = 1;
    for (size_t d = 0; d < dimensions_.size(); ++d) {
      double u = uniform();
      while (size_t(p[d]) + 1 < of_good[d].size() && u >= of_good[d][size_t(p[d])])
        u -= of_good[d][size_t(p[d]++)];
      ratio *= of_good[d][size_t(p[d])] / of_rest[d][size_t(p[d])];
    }
    const int64_t i = index(p);
    if (trial_of_[size_t(i)] < 0 && ratio > best_ratio) best = i, best_ratio = ratio;
  }
  return best;
}

std::optional<Point> Search::next() {
  if (known_count_ == points_) return std::nullopt;
  if (method_ == SearchMethod::grid)
    for (int64_t i = 0;; ++i)
      if (trial_of_[size_t(i)] < 0) return point(i);
  if (method_ == SearchMethod::tpe && int64_t(trials_.size()) >= options_.random_points)
    if (const auto i = by_densities()) return point(*i);
  return point(random_unknown());
}

void Search::tell(const Point& p, std::optional<double> value) {
  if (p.size() != dimensions_.size())
    fail(ErrorKind::invalid_argument, "a point of {} dimensions was told to a search over {}", p.size(),
         dimensions_.size());
  for (size_t d = 0; d < p.size(); ++d)
    if (p[d] < 0 || size_t(p[d]) >= dimensions_[d].values.size())
      fail(ErrorKind::invalid_argument, "value {} of {} was told; it has {}", p[d], dimensions_[d].name,
           dimensions_[d].values.size());
  auto& trial = trial_of_[size_t(index(p))];
  if (trial >= 0) {
    trials_[size_t(trial)].value = value;
    return;
  }
  trial = int32_t(trials_.size());
  trials_.push_back({p, value});
  ++known_count_;
}

const Trial* Search::best() const {
  const Trial* best = nullptr;
  for (const auto& trial : trials_)
    if (trial.value && (!best || *trial.value > *best->value)) best = &trial;
  return best;
}

}  // namespace cairn::plan
