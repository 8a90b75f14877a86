// A persistent team of threads, each pinned to its own core, that runs one function at a time in lockstep.
// Between runs the workers spin for a short while (a decode step is hundreds of runs a few microseconds
// apart) and then sleep. The caller is thread 0.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace cairn {

// The part of [0, count) that belongs to `index` of `parts`, cut at multiples of `granule`.
struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
  bool operator==(const Range&) const = default;
};
Range split_range(int64_t count, int index, int parts, int64_t granule = 1);

class ThreadPool {
 public:
  // 0 threads: one per core that the process may use. Throws Error(invalid_argument) for a negative number.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return threads_; }

  // Calls f(thread) once on each thread, 0 <= thread < size(), and returns when all have ended.
  // The first exception is rethrown here. Not reentrant: f must not call run.
  template <typename F>
  void run(F&& f) {
    using Callable = std::remove_reference_t<F>;
    run_erased([](void* context, int thread) { (*static_cast<Callable*>(context))(thread); },
               const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Calls f(Range) on each thread with its part of [0, count).
  template <typename F>
  void split(int64_t count, int64_t granule, F&& f) {
    run([&](int thread) {
      const Range part = split_range(count, thread, threads_, granule);
      if (!part.empty()) f(part);
    });
  }

  static int available_cores();

 private:
  using Function = void (*)(void*, int);
  void run_erased(Function, void* context);
  void work(int thread);
  void call(int thread);

  int threads_ = 1;
  std::vector<std::thread> workers_;
  Function function_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<int> pending_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

}  // namespace cairn
