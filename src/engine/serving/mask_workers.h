// Threads that compute grammars' masks while a step runs, so that none waits for them unless they take
// longer.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "text/constrain/grammar_mask.h"

namespace cairn::engine {

class MaskWorkers {
 public:
  explicit MaskWorkers(int threads);
  ~MaskWorkers();  // what is queued is computed first

  // The mask must live, and not be used, until the future is ready. It carries what prepare() throws. The
  // threads start with the first call.
  std::future<void> prepare(text::GrammarMask&);

 private:
  void loop();

  const int count_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::packaged_task<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace cairn::engine
