#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>

#include "base/error.h"

namespace cairn {
namespace {

TEST(ThreadPool, EveryThreadRunsOncePerCall) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<int> calls(size_t(threads), 0);
    for (int i = 0; i < 10000; ++i) pool.run([&](int thread) { ++calls[size_t(thread)]; });
    EXPECT_EQ(calls, std::vector<int>(size_t(threads), 10000));
  }
}

TEST(ThreadPool, SleepingWorkersWake) {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pool.run([&](int) { ++calls; });
  }
  EXPECT_EQ(calls, 15);
}

TEST(ThreadPool, SplitCoversTheRangeOnceAtGranules) {
  for (int64_t count : {0, 1, 15, 16, 17, 1000})
    for (int parts : {1, 2, 3, 7}) {
      int64_t next = 0;
      for (int i = 0; i < parts; ++i) {
        const Range part = split_range(count, i, parts, 16);
        EXPECT_EQ(part.begin, next);
        EXPECT_TRUE(part.end % 16 == 0 || part.end == count);
        next = part.end;
      }
      EXPECT_EQ(next, count);
    }
}

TEST(ThreadPool, ExceptionReachesTheCaller) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.run([](int thread) {
    if (thread == 1) throw std::runtime_error("worker");
  }),
               std::runtime_error);
  int calls = 0;
  pool.run([&](int thread) { calls += thread == 0; });
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(ThreadPool(-1), Error);
}

}  // namespace
}  // namespace cairn
