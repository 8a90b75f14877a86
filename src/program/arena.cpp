#include "program/arena.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"

namespace cairn::program {

ArenaPlan plan_arena(const Program& program, const Bounds& bounds) {
  struct Life {
    int first = -1, last = -1;
    int64_t bytes = 0;
  };
  std::vector<Life> lives(program.values.size());
  const auto extend = [&](Value v, int at) {
    auto& life = lives[size_t(v.id)];
    if (life.first < 0 || at < life.first) life.first = at;
    life.last = std::max(life.last, at);
  };
  for (Value input : {program.ids, program.positions, program.logit_rows}) extend(input, 0);
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const Uses used = uses(program.instructions[i].operation);
    for (Value v : used.in) extend(v, int(i));
    for (Value v : used.out) extend(v, int(i));
  }
  // What is handed over lives when its stage begins, or still when it has ended.
  for (const auto& stage : program.stages) {
    for (Value v : stage.in) extend(v, stage.begin);
    for (Value v : stage.out) extend(v, stage.end - 1);
  }
  const int end = int(program.instructions.size());
  for (Value output : {program.logits, program.hidden})
    if (output) extend(output, end);
  for (size_t v = 0; v < lives.size(); ++v) {
    int64_t elements = 1;
    for (const Extent extent : program.values[v].shape) elements *= bounds.of(extent);
    lives[v].bytes =
        round_up(elements * int64_t(tensor::bytes_of(program.values[v].dtype)), ArenaPlan::kAlignment);
  }

  ArenaPlan plan;
  plan.offsets.assign(lives.size(), ArenaPlan::kNone);
  std::vector<int64_t> alive(size_t(end) + 1, 0);
  for (const auto& life : lives)
    for (int at = life.first; life.first >= 0 && at <= life.last; ++at) alive[size_t(at)] += life.bytes;
  plan.lower_bound = *std::max_element(alive.begin(), alive.end());

  std::vector<size_t> order(lives.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lives[a].bytes > lives[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (const size_t v : order) {
    const Life& life = lives[v];
    if (life.bytes == 0 || life.first < 0) continue;
    int64_t offset = 0;
    for (const size_t other : placed) {
      const Life& there = lives[other];
      if (there.last < life.first || life.last < there.first) continue;
      if (plan.offsets[other] - offset >= life.bytes) break;
      offset = std::max(offset, plan.offsets[other] + there.bytes);
    }
    plan.offsets[v] = offset;
    plan.bytes = std::max(plan.bytes, offset + life.bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), v,
                                   [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; }),
                  v);
  }
  return plan;
}

}  // namespace cairn::program
