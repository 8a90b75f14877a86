#include "base/workers.h"

#include <algorithm>

namespace cairn {

Workers::Workers(int threads, size_t queue) : count_(std::max(1, threads)), limit_(queue) {}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

bool Workers::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (tasks_.size() >= limit_) return false;
    tasks_.push_back(std::move(task));
    while (int(threads_.size()) < count_) threads_.emplace_back([this] { loop(); });
  }
  wake_.notify_one();
  return true;
}

size_t Workers::queued() const {
  const std::lock_guard lock(mutex_);
  return tasks_.size();
}

void Workers::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes before the lock is taken again
    lock.lock();
  }
}

}  // namespace cairn
