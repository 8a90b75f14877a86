#include "quantize/calibration.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <memory>

#include "backends/cpu/executor.h"
#include "base/error.h"
#include "engine/memory_plan.h"
#include "program/fuse.h"
#include "program/parts.h"
#include "quantize/dense.h"

namespace cairn::quantize {
namespace {

using program::Program;
using program::Value;

constexpr program::Lane kBefore = 0, kBlock = 1, kBehind = 2;

// The program around one block; absent parts are null.
struct Cut {
  program::Parts parts;
  const program::Part* of(program::Lane lane) const {
    for (const auto& part : parts.parts)
      if (part.lane == lane) return &part;
    return nullptr;
  }
};

Cut cut_around(const models::Model& model, int32_t layer) {
  Program placed = model.program;
  bool begun = false;  // the first block
  for (auto& instruction : placed.instructions) {
    begun = begun || instruction.layer >= 0;
    const int32_t of = instruction.layer >= 0 ? instruction.layer : begun ? INT32_MAX : -1;
    instruction.lane = of < layer ? kBefore : of == layer ? kBlock : kBehind;
  }
  Cut cut{program::cut_by_lane(program::fuse(placed))};
  for (const auto& part : cut.parts.parts)
    if (part.program.stages.size() != 1)
      fail(ErrorKind::unsupported, "{}: the blocks of this model do not follow one another", model.file);
  return cut;
}

const std::vector<Value>& into(const program::Part& part) { return part.program.stages.front().in; }

// What is taken from the executor before it runs a stage.
struct Take {
  size_t stage = 0;
  Value x, chosen;  // chosen: of a mixture's product
  bool per_choice = false;
};

Take take_of(const program::Operation& operation) {
  if (const auto* op = std::get_if<program::MatMul>(&operation)) return {0, op->x, {}, false};
  if (const auto* op = std::get_if<program::GatedMatMul>(&operation)) return {0, op->x, {}, false};
  if (const auto* op = std::get_if<program::ExpertMatMul>(&operation))
    return {0, op->x, op->chosen, op->per_choice};
  return {};
}

// Cuts the only stage of a part in front of the first product that reads a tapped value.
std::vector<Take> cut_stages(Program& part, std::span<const Tap> taps) {
  std::vector<Take> takes;
  const auto whole = part.stages.front();
  part.stages = {{0, 0, whole.in, {}}};
  for (size_t i = 0; i < part.instructions.size(); ++i) {
    Take take = take_of(part.instructions[i].operation);
    const bool wanted = take.x && std::any_of(taps.begin(), taps.end(), [&](const Tap& tap) {
                          return tap.x == take.x && (tap.expert >= 0) == bool(take.chosen);
                        });
    const bool known = std::any_of(takes.begin(), takes.end(),
                                   [&](const Take& t) { return t.x == take.x && t.chosen == take.chosen; });
    if (!wanted || known) continue;
    if (part.stages.back().begin < int32_t(i)) {
      part.stages.back().end = int32_t(i);
      part.stages.push_back({int32_t(i), int32_t(i), {}, {}});
    }
    take.stage = part.stages.size() - 1;
    if (take.stage > 0)
      for (const Value v : {take.x, take.chosen})
        if (v) part.stages[take.stage - 1].out.push_back(v);
    takes.push_back(take);
  }
  part.stages.back().end = whole.end;
  part.stages.back().out = whole.out;
  return takes;
}

void note(const Tap& tap, const MatrixView& x, ThreadPool& pool) {
  tap.to->rows += x.rows;
  if (tap.moments == Moments::products) return add_squares(x, tap.to->products, pool);
  float* sums = tap.to->squares.data();
  pool.split(x.cols, 16, [&](Range part) {
    for (int64_t r = 0; r < x.rows; ++r)
      for (int64_t c = part.begin; c < part.end; ++c)
        sums[c] += x.data[r * x.stride + c] * x.data[r * x.stride + c];
  });
}

// Adds what the taps want of a step's rows.
void note(const Take& take, cpu::Executor& executor, const Program& part, int64_t rows,
          std::span<const Tap> taps, ThreadPool& pool) {
  const int64_t cols = part.width(take.x), count = rows * part.info(take.x).shape.front().size;
  const auto* x = reinterpret_cast<const float*>(executor.hand_out(take.x));
  std::vector<float> gathered;
  for (const auto& tap : taps) {
    if (tap.x != take.x || (tap.expert >= 0) != bool(take.chosen)) continue;
    if (tap.expert < 0) {
      note(tap, {x, count, cols, cols}, pool);
      continue;
    }
    const auto* chosen = reinterpret_cast<const int32_t*>(executor.hand_out(take.chosen));
    const int64_t top_k = part.width(take.chosen);
    gathered.clear();
    for (int64_t pair = 0; pair < rows * top_k; ++pair)
      if (chosen[pair] == tap.expert) {
        const float* line = x + (take.per_choice ? pair : pair / top_k) * cols;
        gathered.insert(gathered.end(), line, line + cols);
      }
    if (!gathered.empty()) note(tap, {gathered.data(), int64_t(gathered.size()) / cols, cols, cols}, pool);
  }
}

// Sums become means.
void finish(const Tap& tap) {
  const float factor = tap.to->rows > 0 ? 1 / float(tap.to->rows) : 0;
  for (float& value : tap.to->squares) value *= factor;
  tap.to->products.scale(factor);
}

}  // namespace

// Pieces of sequences that run together: whole short samples, or a part of a long one.
struct Calibration::Step {
  size_t sample = 0, count = 1;  // whole samples from there on
  int64_t begin = 0, end = 0;    // of one long sample, tokens
  int64_t first_row = 0, rows = 0;
};

Calibration::Calibration(const models::Model& model, std::vector<std::vector<int32_t>> samples,
                         const std::filesystem::path& folder, ThreadPool& pool, int64_t step_rows)
    : samples_(std::move(samples)),
      folder_(folder),
      pool_(pool),
      step_rows_(step_rows > 0 ? step_rows : std::clamp<int64_t>(model.hidden_size / 4, 256, 1024)) {
  for (const auto& sample : samples_) {
    rows_ += int64_t(sample.size());
    for (const int32_t id : sample)
      if (id < 0 || id >= model.vocabulary_size)
        fail(ErrorKind::invalid_argument,
             "token {} of the calibration text lies outside of the model's vocabulary of {}", id,
             model.vocabulary_size);
  }
  const auto cut = cut_around(model, 0);
  const auto* before = cut.of(kBefore);
  if (!before || !cut.of(kBlock))
    fail(ErrorKind::unsupported, "{}: the model has no blocks to calibrate", model.file);
  run(model, before->program, {}, &between_, {});
}

void Calibration::pass(const models::Model& current, int32_t layer, std::span<const Tap> taps, bool advance,
                       const std::function<void(int64_t)>& on_rows) {
  const auto cut = cut_around(current, layer);
  const auto* block = cut.of(kBlock);
  assert(block);
  Program part = block->program;
  if (!advance) part.stages.front().out.clear();
  Rows out;
  run(current, part, taps, advance ? &out : nullptr, on_rows);
  if (!advance) return;
  const auto* behind = cut.of(kBehind);
  Rows next;
  for (const Value v : behind ? into(*behind) : std::vector<Value>{}) {
    if (auto made = out.extract(v.id); !made.empty())
      next.insert(std::move(made));
    else if (auto kept = between_.extract(v.id); !kept.empty())
      next.insert(std::move(kept));
  }
  between_ = std::move(next);
}

void Calibration::run(const models::Model& model, const Program& whole, std::span<const Tap> taps, Rows* out,
                      const std::function<void(int64_t)>& on_rows) {
  Program part = whole;
  const std::vector<Value> in = part.stages.front().in, made = part.stages.front().out;
  const auto takes = cut_stages(part, taps);
  const size_t last = out || takes.empty() ? part.stages.size() - 1 : takes.back().stage;
  // Weights behind the last tap are not packed.
  if (!out && !takes.empty()) {
    part.instructions.resize(size_t(part.stages[last].begin));
    if (last == 0) part.stages.front() = {0, 0, in, {}};
    part.stages.resize(std::max<size_t>(last, 1));
  }

  std::vector<Step> steps;
  int64_t row = 0, longest = 0, most = 1;
  for (size_t s = 0; s < samples_.size(); ++s) {
    const auto size = int64_t(samples_[s].size());
    longest = std::max(longest, size);
    if (!steps.empty() && steps.back().begin == 0 && steps.back().end == 0 &&
        steps.back().rows + size <= step_rows_) {
      ++steps.back().count, steps.back().rows += size;
    } else if (size <= step_rows_) {
      steps.push_back({s, 1, 0, 0, row, size});
    } else {
      for (int64_t at = 0; at < size; at += step_rows_)
        steps.push_back(
            {s, 1, at, std::min(at + step_rows_, size), row + at, std::min(step_rows_, size - at)});
    }
    row += size;
  }
  for (const auto& step : steps) most = std::max(most, step.rows);

  constexpr int kPageTokens = 32;
  // Short samples of a step have pages of their own.
  const int64_t cache =
      std::max(longest, most) + int64_t(kPageTokens) * std::min<int64_t>(most, int64_t(samples_.size()));
  kv::KvPool kv(
      engine::kv_config(model, std::max<size_t>(part.kv.size(), 1), kv::KvForm::f16, kPageTokens, cache));
  cpu::Executor executor(part, model.weights,
                         cpu::Weights(part, model.weights, model.checkpoint.files, pool_), pool_, kv,
                         {most, 1}, longest);
  for (const auto& tap : taps) {
    tap.to->rows = 0;
    tap.to->cols = part.width(tap.x);
    if (tap.moments == Moments::products)
      tap.to->products = SymmetricMatrix(tap.to->cols);
    else
      tap.to->squares.assign(size_t(tap.to->cols), 0.f);
  }
  const auto bytes_of_row = [&](Value v) {
    const auto& info = part.info(v);
    return size_t(part.width(v) * info.shape.front().size) * tensor::bytes_of(info.dtype);
  };
  if (out)
    for (const Value v : made) out->emplace(v.id, RowsFile(folder_, bytes_of_row(v)));

  std::vector<kv::Sequence> sequences;
  std::vector<std::byte> room;
  for (const auto& step : steps) {
    const bool piece = step.end > 0;
    if (!piece || step.begin == 0) sequences.clear();
    std::vector<backends::SequenceStep> rows;
    for (size_t i = 0; i < step.count; ++i) {
      const auto& sample = samples_[step.sample + i];
      if (!piece || step.begin == 0) sequences.emplace_back(kv);
      const auto tokens =
          piece ? std::span(sample).subspan(size_t(step.begin), size_t(step.rows)) : std::span(sample);
      rows.push_back({nullptr, step.begin, tokens, 0, int64_t(sample.size()), backends::RowClass::prompt});
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i].sequence = &sequences[i];
      sequences[i].append(int64_t(rows[i].tokens.size()));
    }
    executor.begin_stages(rows, nullptr);
    for (const Value v : in) {
      const auto found = between_.find(v.id);
      assert(found != between_.end());
      room.resize(size_t(step.rows) * found->second.row_bytes());
      found->second.read(step.first_row, room);
      executor.hand_in(v, room.data());
    }
    size_t taken = 0;
    for (size_t stage = 0; stage <= last; ++stage) {
      for (; taken < takes.size() && takes[taken].stage == stage; ++taken)
        note(takes[taken], executor, part, step.rows, taps, pool_);
      if (stage < last || out) executor.run_stage(stage);
    }
    if (out)
      for (const Value v : made)
        out->at(v.id).write(step.first_row, {executor.hand_out(v), size_t(step.rows) * bytes_of_row(v)});
    if (on_rows) on_rows(step.rows);
  }
  for (const auto& tap : taps) finish(tap);
}

}  // namespace cairn::quantize
