#include "program/launches.h"

#include <gtest/gtest.h>

namespace cairn::program {
namespace {

// A step of `count` kernels `run` ns long, each launched `apart` ns after the one before and started `wait`
// ns later at the earliest, when the device is free.
void step(Trace& trace, int count, uint64_t begin, uint64_t apart, uint64_t wait, uint64_t run,
          const std::vector<std::string>& names = {"a"}) {
  trace.begin_step("test");
  uint64_t free = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t launch = begin + uint64_t(i) * apart, start = std::max(free, launch + wait);
    free = start + run;
    trace.emit(KernelRecord{0, 0, names[size_t(i) % names.size()], launch, launch + 1, start, free});
  }
}

TEST(Launches, EmptyDeviceWaitsForTheHost) {
  Trace trace;
  step(trace, 1000, 5000, 4000, 2000, 500);
  const auto t = launch_totals(trace);
  EXPECT_EQ(t.kernels, 1000);
  EXPECT_NEAR(t.queued, 1000 * 2e-6, 1e-12);  // each finds the device idle
  EXPECT_NEAR(t.running, 1000 * 0.5e-6, 1e-12);
  EXPECT_NEAR(t.latency, 999 * 4e-6 + 2.5e-6, 1e-12);
  EXPECT_NEAR(t.idle() + t.busy, t.latency, 1e-15);
}

TEST(Launches, LongKernelsQueue) {
  Trace trace;
  step(trace, 100, 0, 1000, 2000, 5000);
  // Kernel i starts at 2000 + 5000 i and was launched at 1000 i.
  EXPECT_NEAR(launch_totals(trace).queued, (100 * 2000.0 + 4000.0 * 99 * 100 / 2) * 1e-9, 1e-12);
}

TEST(Launches, StepsAreSummedApartAndOverlapsCountOnce) {
  Trace trace;
  step(trace, 10, 0, 1000, 1000, 500);
  step(trace, 10, uint64_t{1} << 40, 1000, 1000, 500);
  auto t = launch_totals(trace);
  EXPECT_EQ(t.steps, 2);
  EXPECT_NEAR(t.latency, 2 * (9000 + 1500) * 1e-9, 1e-12);  // not the time between the steps
  trace.clear();
  trace.begin_step("test");
  trace.emit(KernelRecord{0, 0, "a", 0, 1, 100, 300});
  trace.emit(KernelRecord{0, 0, "b", 10, 11, 200, 400});
  t = launch_totals(trace);
  EXPECT_NEAR(t.running, 400e-9, 1e-15);
  EXPECT_NEAR(t.busy, 300e-9, 1e-15);
}

TEST(Launches, ChainsAreTheRepeatedBody) {
  Trace trace;
  step(trace, 40, 0, 1000, 1000, 500, {"norm", "product", "attention", "add"});
  const auto pairs = certain_chains(trace, 4);
  ASSERT_EQ(pairs.size(), 1u);
  EXPECT_EQ(pairs[0].count, 10);
  EXPECT_EQ(pairs[0].names.front(), "norm");
  // "product" is followed by two different kernels: no certain chain starts with it.
  trace.clear();
  step(trace, 4, 0, 1000, 1000, 500, {"product", "norm", "product", "add"});
  for (const auto& c : certain_chains(trace, 2)) EXPECT_NE(c.names.front(), "product");
}

TEST(Launches, ReportNamesTheSlowerSide) {
  Program program;
  program.instructions.emplace_back();
  program.instructions.back().name = "layers.0.norm";
  Trace host, device;
  step(host, 100, 0, 4000, 2000, 500);
  step(device, 100, 0, 1000, 2000, 5000);
  EXPECT_NE(summarize_launches(host, program, 2).find("the device waits for the host"), std::string::npos);
  EXPECT_NE(summarize_launches(device, program, 2).find("kernels queue"), std::string::npos);
  EXPECT_EQ(summarize_launches(Trace(), program, 2), "");
}

}  // namespace
}  // namespace cairn::program
