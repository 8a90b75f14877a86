// Threads for what takes longer than its caller may, first come first served: reading bodies and rendering
// templates for I/O threads, masks of grammars while a step runs.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

namespace cairn {

class Workers {
 public:
  // The threads start with the first task.
  explicit Workers(int threads, size_t queue = std::numeric_limits<size_t>::max());
  ~Workers();  // runs what is queued
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False when the queue is full. A task never throws.
  bool post(std::function<void()> task);
  size_t queued() const;

 private:
  void loop();

  const int count_;
  const size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cairn
