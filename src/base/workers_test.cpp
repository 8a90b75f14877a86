#include "base/workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace cairn {
namespace {

TEST(Workers, RunWhatIsQueuedBeforeTheyGo) {
  std::atomic<int> done{0};
  {
    Workers workers(3);
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(workers.post([&] { ++done; }));
  }
  EXPECT_EQ(done, 1000);
}

TEST(Workers, RefuseWhatIsTooMuch) {
  std::promise<void> go;
  std::promise<void> started;
  const auto gate = go.get_future().share();
  Workers workers(1, 2);
  EXPECT_TRUE(workers.post([&] {
    started.set_value();
    gate.wait();
  }));
  started.get_future().wait();
  EXPECT_TRUE(workers.post([] {}));
  EXPECT_TRUE(workers.post([] {}));
  EXPECT_EQ(workers.queued(), 2u);
  EXPECT_FALSE(workers.post([] {}));
  go.set_value();
}

}  // namespace
}  // namespace cairn
