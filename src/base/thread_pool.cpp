#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace cairn {
namespace {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int core = 0; core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &set)) cores.push_back(core);
  if (cores.empty()) cores.push_back(0);
  return cores;
}

// About 50 us: longer than the gap between two instructions of a step, shorter than a person notices.
constexpr int kSpins = 2000;

}  // namespace

Range split_range(int64_t count, int index, int parts, int64_t granule) {
  const int64_t granules = ceil_div(count, granule);
  const int64_t begin = granules * index / parts * granule, end = granules * (index + 1) / parts * granule;
  return {std::min(begin, count), std::min(end, count)};
}

int ThreadPool::available_cores() { return int(allowed_cores().size()); }

ThreadPool::ThreadPool(int threads) {
  if (threads < 0)
    fail(ErrorKind::invalid_argument, "the number of threads is {}; it must be 0 (all) or more", threads);
  const auto cores = allowed_cores();
  threads_ = threads == 0 ? int(cores.size()) : threads;
  for (int thread = 1; thread < threads_; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
    if (threads_ <= int(cores.size())) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(cores[size_t(thread)], &set);
      pthread_setaffinity_np(workers_.back().native_handle(), sizeof set, &set);
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::call(int thread) {
  try {
    function_(context_, thread);
  } catch (...) {
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void ThreadPool::run_erased(Function function, void* context) {
  function_ = function;
  context_ = context;
  if (threads_ > 1) {
    pending_.store(threads_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1);  // sequentially consistent: pairs with the sleeper's check below
    if (sleeping_.load() > 0) {
      const std::lock_guard lock(mutex_);  // a worker between its check and its wait is caught here
      wake_.notify_all();
    }
  }
  call(0);
  // The others end at nearly the same time; on an oversubscribed machine they may need this core to end at
  // all.
  for (int spins = 0; pending_.load(std::memory_order_acquire) > 0; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      sched_yield();
    }
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (generation_.load(std::memory_order_acquire) == seen) {
      if (++spins < kSpins) {
        pause();
        continue;
      }
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      sleeping_.fetch_sub(1);
    }
    ++seen;
    if (stop_) return;
    call(thread);
    pending_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace cairn
