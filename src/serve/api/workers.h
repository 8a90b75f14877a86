// Threads for what takes longer than an I/O thread may: reading bodies, rendering templates, tokenising.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace cairn::serve {

class Workers {
 public:
  Workers(int threads, size_t queue);
  ~Workers();  // runs what is queued

  // False when the queue is full. A task never throws.
  bool post(std::function<void()> task);
  size_t queued() const;

 private:
  void loop();

  const size_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cairn::serve
