#include "plan/search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"

namespace cairn::plan {
namespace {

Dimension numbers(std::string name, int count) {
  Dimension d{std::move(name), {}};
  for (int i = 0; i < count; ++i) d.values.push_back(std::to_string(i));
  return d;
}

// A landscape as the measured ones are: throughput grows with the batch and saturates, threads help unless
// the batch is small, large steps cost memory that the largest batches do not have (a hole), one setting is
// flat.
double throughput(const Point& p) {
  const double batch = std::pow(2.0, p[0]), threads = 1 + p[1], step = std::pow(2.0, 5 + p[2]);
  double t = 40 * threads * batch / (batch + 6 * threads) * (1 - 16 / step);
  t *= p[3] == 1 ? 1.1 : p[3] == 2 ? 0.8 : 1;
  return t * (1 + 0.01 * std::sin(double(p[0] * 7 + p[1] * 3 + p[2] * 5 + p[3] * 11)));
}
bool fits(const Point& p) { return p[0] + p[2] < 11; }

const std::vector<Dimension> kSpace = {numbers("batch", 8), numbers("threads", 4), numbers("step", 6),
                                       numbers("kv", 3)};

// Best value after the given number of measurements, as a share of the best there is.
double found(SearchMethod method, uint64_t seed, int64_t measurements) {
  Search search(kSpace, method, seed);
  double best_there_is = 0;
  Search all(kSpace, SearchMethod::grid, 0);
  while (const auto p = all.next()) {
    if (fits(*p)) best_there_is = std::max(best_there_is, throughput(*p));
    all.tell(*p, 0);
  }
  for (int64_t i = 0; i < measurements; ++i) {
    const auto p = *search.next();
    search.tell(p, fits(p) ? std::optional(throughput(p)) : std::nullopt);
  }
  return search.best() ? *search.best()->value / best_there_is : 0;
}

TEST(Search, VisitsEveryPointOnceWhateverTheMethod) {
  for (const auto method : {SearchMethod::grid, SearchMethod::random, SearchMethod::tpe}) {
    Search search({numbers("a", 3), numbers("b", 1), numbers("c", 7)}, method, 5);
    std::set<Point> seen;
    while (const auto p = search.next()) {
      EXPECT_TRUE(seen.insert(*p).second);
      search.tell(*p, double(p->at(2)));
    }
    EXPECT_EQ(seen.size(), 21u);
    EXPECT_EQ(search.best()->point.at(2), 6);
  }
}

// A quarter of the space is enough for the estimator, in nine of ten searches, and it beats chance.
TEST(Search, FindsTheBestSettingsByMeasuringAQuarter) {
  int close = 0;
  double estimated = 0, by_chance = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const double share = found(SearchMethod::tpe, seed, 8 * 4 * 6 * 3 / 4);
    close += share >= 0.97;
    estimated += found(SearchMethod::tpe, seed, 60) / 10;
    by_chance += found(SearchMethod::random, seed, 60) / 10;
  }
  EXPECT_GE(close, 9);
  EXPECT_GT(estimated, by_chance);
}

TEST(Search, SkipsWhatCannotRunAndGoesOnFromWhatIsKnown) {
  Search search({numbers("a", 4)}, SearchMethod::tpe, 1);
  EXPECT_EQ(search.best(), nullptr);
  search.tell({3}, std::nullopt);
  search.tell({1}, 5);
  search.tell({1}, 7);  // measured again
  EXPECT_EQ(search.trials().size(), 2u);
  while (const auto p = search.next()) {
    EXPECT_NE(p->at(0), 1);
    EXPECT_NE(p->at(0), 3);
    search.tell(*p, 1);
  }
  EXPECT_EQ(*search.best()->value, 7);
  EXPECT_THROW(search.tell({4}, 1), Error);
  EXPECT_THROW(search.tell({0, 0}, 1), Error);
  EXPECT_THROW(Search({numbers("a", 0)}, SearchMethod::grid, 1), Error);
  EXPECT_THROW(Search(std::vector<Dimension>(7, numbers("a", 20)), SearchMethod::grid, 1), Error);
}

}  // namespace
}  // namespace cairn::plan
