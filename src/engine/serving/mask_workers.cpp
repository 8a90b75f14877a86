#include "engine/serving/mask_workers.h"

#include <algorithm>

namespace cairn::engine {

MaskWorkers::MaskWorkers(int threads) : count_(std::max(1, threads)) {}

MaskWorkers::~MaskWorkers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& thread : threads_) thread.join();
}

std::future<void> MaskWorkers::prepare(text::GrammarMask& mask) {
  std::packaged_task<void()> task([&mask] { mask.prepare(); });
  auto ready = task.get_future();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    while (int(threads_.size()) < count_) threads_.emplace_back([this] { loop(); });
  }
  wake_.notify_one();
  return ready;
}

void MaskWorkers::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    lock.lock();
  }
}

}  // namespace cairn::engine
