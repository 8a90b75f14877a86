// Lines to stderr from threads that must not wait: a slow or stopped reader of stderr loses lines, never
// time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace cairn::app {

class LineLog {
 public:
  explicit LineLog(size_t lines = 10'000);
  ~LineLog();  // writes what is left, for a second at most

  // Control characters become '?', so that a line is one line. A time stamp is put before it.
  void write(std::string_view line);

 private:
  void loop();

  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> lines_;
  uint64_t lost_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cairn::app
