// What one render shares: limits, the clock, variables, and what must live until the render ends.
#pragma once

#include <chrono>
#include <ctime>
#include <functional>

#include "text/chat_template.h"
#include "text/jinja/value.h"

namespace cairn::text::jinja {

class Runtime {
 public:
  Runtime(const TemplateLimits& l, std::function<std::tm()> now)
      : limits(l),
        local_time(std::move(now)),
        steps_left_(l.steps),
        deadline_(std::chrono::steady_clock::now() +
                  std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                      std::chrono::duration<double>(l.seconds))) {}
  ~Runtime() { clear(); }
  Runtime(const Runtime&) = delete;

  // Counts work: one per node or turn, more for what handles many bytes at once.
  void step(size_t n = 1) {
    steps_left_ -= int64_t(n);
    if (steps_left_ < 0) raise(Fault::limit, "more than {} steps", limits.steps);
    if ((until_clock_ -= int64_t(n)) < 0) check_clock();
  }
  void bytes(size_t n) { step(n / 64 + 1); }  // handled n bytes
  void keep(std::shared_ptr<Mutable> m) { kept_.push_back(std::move(m)); }
  void check_stack() const;

  // Counts what nests at run time (macro calls, recursive loops) and refuses to go past limits.depth.
  class Deeper {
   public:
    explicit Deeper(Runtime& r) : runtime_(r) {
      if (runtime_.depth_ >= runtime_.limits.depth)
        raise(Fault::limit, "calls nest deeper than {}", runtime_.limits.depth);
      ++runtime_.depth_;
    }
    ~Deeper() { --runtime_.depth_; }
    Deeper(const Deeper&) = delete;

   private:
    Runtime& runtime_;
  };

  void clear() {
    for (const auto& m : kept_) m->clear();
    kept_.clear();
  }

  const TemplateLimits limits;
  const std::function<std::tm()> local_time;

 private:
  void check_clock() {
    until_clock_ = 4096;
    if (std::chrono::steady_clock::now() > deadline_)
      raise(Fault::limit, "more than {} seconds", limits.seconds);
  }
  int64_t steps_left_, until_clock_ = 4096;
  int depth_ = 0;
  std::chrono::steady_clock::time_point deadline_;
  std::vector<std::shared_ptr<Mutable>> kept_;
  const char* stack_base_ = static_cast<const char*>(__builtin_frame_address(0));
};

}  // namespace cairn::text::jinja
