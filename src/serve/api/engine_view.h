// GET /engine: what the engine does now and did in the last two minutes, for the web page's live view. The
// fields are described at the head of page/engine.js.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "serve/api/serving.h"

namespace cairn::serve {

class EngineView {
 public:
  explicit EngineView(const Serving&);  // takes one sample a second
  ~EngineView();

  std::string json() const;

 private:
  struct Sample {
    int64_t running = 0, waiting = 0, pages_used = 0;
    double prompt_per_s = 0, answer_per_s = 0, step_ms = 0, predicted_ms = 0;
  };
  void loop();

  const Serving& serving_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::deque<Sample> samples_;
  std::thread thread_;
};

}  // namespace cairn::serve
