// Two or more executors that compute one model together: each has a part of its program (program/parts.h),
// with its own weights, cache and work space. In a step they take turns; what one computes for another is
// handed over between turns.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "backends/common/part_executor.h"
#include "kv/pool.h"
#include "program/parts.h"

namespace cairn::engine {

class SplitExecutor final : public backends::Executor {
 public:
  // A part's executor and the memory of its cache slots, addressed by the page numbers of the whole model's
  // pool.
  struct Member {
    std::unique_ptr<kv::KvPool> kv;
    std::unique_ptr<backends::PartExecutor>
        executor;  // of the Part that was asked for, which stays where it is
  };
  // pages: the pool in which sequences count their pages; its bytes lie with the members. It learns to copy
  // pages when all members can. Members are made in the order of the parts; pages must outlive the executor.
  SplitExecutor(program::Parts, kv::KvPool& pages, const std::function<Member(const program::Part&)>& make);

  backends::StepResult run(std::span<const backends::SequenceStep>, program::Trace* trace = nullptr) override;
  const program::Bounds& bounds() const override { return members_.front().executor->bounds(); }
  uint64_t scratch_bytes() const override;
  std::unique_ptr<kv::PageBytes> page_bytes() override;  // the members', one after another
  int64_t table_pages() const override;
  backends::StepTimes times() const override;

 private:
  void hand_over(const program::Turn&);
  void join(const std::vector<program::Trace>&, program::Trace&) const;

  program::Parts parts_;
  std::vector<Member> members_;
};

}  // namespace cairn::engine
