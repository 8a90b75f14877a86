#include "line_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>

namespace cairn::app {
namespace {

std::string stamp() {
  const auto now = std::chrono::system_clock::now();
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z ", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                     ms);
}

// Waits for a reader, but not longer than `milliseconds` (-1: for ever).
bool write_all(std::string_view text, int milliseconds) {
  while (!text.empty()) {
    pollfd ready{STDERR_FILENO, POLLOUT, 0};
    if (poll(&ready, 1, milliseconds) <= 0) return false;
    const auto written =
        ::write(STDERR_FILENO, text.data(), std::min<size_t>(text.size(), 512));  // below PIPE_BUF
    if (written <= 0) return false;
    text.remove_prefix(size_t(written));
  }
  return true;
}

}  // namespace

LineLog::LineLog(size_t lines) : limit_(lines), thread_([this] { loop(); }) {}

LineLog::~LineLog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void LineLog::write(std::string_view line) {
  std::string text = stamp();
  for (const char c : line) text += uint8_t(c) < 0x20 || c == 0x7f ? '?' : c;
  text += '\n';
  {
    const std::lock_guard lock(mutex_);
    if (lines_.size() >= limit_) {
      ++lost_;
      return;
    }
    lines_.push_back(std::move(text));
  }
  wake_.notify_one();
}

void LineLog::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || !lines_.empty(); });
    if (lines_.empty()) return;
    std::string batch;
    while (!lines_.empty() && batch.size() < 64 << 10) {
      batch += lines_.front();
      lines_.pop_front();
    }
    if (lost_ > 0) batch += fmt::format("{}{} lines were lost: nobody read them\n", stamp(), lost_);
    lost_ = 0;
    lock.unlock();
    bool written = write_all(batch, 1000);
    lock.lock();
    // A reader that stopped: go on waiting, unless the program ends.
    while (!written && !stop_) {
      lock.unlock();
      written = write_all(batch, 1000);
      lock.lock();
    }
    if (!written && stop_) return;
  }
}

}  // namespace cairn::app
