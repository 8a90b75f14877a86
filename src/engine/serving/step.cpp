// Runs the planned step, and those after it that need no new plan.
#include <algorithm>
#include <atomic>

#include "base/steady_seconds.h"
#include "engine/serving/sequence.h"

namespace cairn::engine {
namespace {

// Steps that follow one plan: policies may go by time.
constexpr int kMostAhead = 16;

}  // namespace

// Tokens are drawn where the scores are as far as that can be. ahead: 1 for a step behind one whose tokens
// are not known yet.
void Service::describe_draws(Step& step, int ahead) const {
  step.draws.assign(step.shares.size(), std::nullopt);
  step.all_drawn = true;
  for (size_t i = 0; i < step.shares.size(); ++i) {
    auto& share = step.shares[i];
    auto& draw = step.draws[i];
    if (share.logit_rows == 1 && !step.sequences[i]->job->request.embed)
      draw = step.sequences[i]->writer.next_draw(ahead);
    if (draw && !engine_.draws(*draw)) draw.reset();
    share.draw = draw ? &*draw : nullptr;
    step.all_drawn &= draw.has_value();
  }
}

// Whether step_ can be followed, before its tokens are known, by one that gives every answer one more: next_.
// Not when there is news for the policy.
bool Service::fill_next() {
  if (!step_.all_drawn) return false;
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || loaded_ || !submitted_.empty() || !cancelled_.empty()) return false;
  }
  const auto alive = [](const auto& s) { return !s->finish && !s->error; };
  const auto left = std::count_if(step_.sequences.begin(), step_.sequences.end(), alive);
  if (left != std::count_if(running_.begin(), running_.end(), alive)) return false;  // others wait to go on
  if (left != int64_t(step_.sequences.size()) && !waiting_.empty()) return false;    // there is room again
  int64_t pages = 0, table = 0;
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    Sequence& s = *step_.sequences[i];
    if (s.finish || s.error) continue;
    if (int64_t(s.writer.tokens().size()) + 1 >= s.job->max_answer) continue;  // step_ draws its last
    if (s.cache.must_copy()) return false;
    pages += s.cache.pages_needed(1);
    table += engine_.kv().pages_of(s.cache.length() + 1);
    backends::SequenceStep share;
    share.sequence = &s.cache;
    share.tokens = {s.known.data(), 1};
    share.logit_rows = 1;
    share.rope_length = s.max_tokens();
    share.row_class = backends::RowClass::decode;
    share.drawn_row = int64_t(i);  // every share of step_ has one row
    next_.sequences.push_back(&s);
    next_.shares.push_back(share);
    ++next_.shape.decode_rows;
    next_.shape.context += s.cache.length() + 1;
  }
  if (next_.sequences.empty() || pages > engine_.kv().free_pages() || table > engine_.table_pages() ||
      int64_t(next_.sequences.size()) > decode_rows_)
    return false;
  describe_draws(next_, 1);
  return next_.all_drawn;
}

void Service::run_steps() {
  double began = steady_seconds();
  step_began_ = began;
  const bool overlap = options_.overlap.value_or(engine_.overlaps());
  if (overlap) describe_draws(step_, 0);
  std::optional<Error> error;
  try {
    engine_.enqueue(step_.shares);
  } catch (const Error& e) {
    error = e;
  }
  for (int ahead = 0;; ++ahead) {
    next_ = {};
    bool next = overlap && !error && ahead < kMostAhead && fill_next();
    if (next) try {
        engine_.enqueue(next_.shares);
      } catch (const Error&) {  // the planned step, or the next, will say it again
        next = false;
      }
    if (!next) next_ = {};
    for (auto* s : next_.sequences) s->fed_ahead = 1;
    backends::StepResult result;
    if (!error) try {
        result = engine_.finish();
      } catch (const Error& e) {
        error = e;
      }
    if (error)
      for (auto* s : step_.sequences) s->error = *error;
    finish_step(result, began, error.has_value());
    for (auto* s : next_.sequences) s->fed_ahead = 0;
    if (!next) break;
    std::swap(step_, next_);
    began = step_computed_;
    step_began_ = began;
    error.reset();
  }
  step_began_ = 0;
  step_ended_ = steady_seconds();
}

// What a step's scores mean for one sequence: its next token, or a part of an embedding. On a thread of the
// pool.
void Service::advance(Sequence& s, const float* hidden, std::span<float> scores, int64_t rows,
                      std::optional<int32_t> drawn) try {
  if (rows == 0) return;
  if (s.job->request.embed) {
    // From the first token on, for the second time after a preemption.
    if (s.cache.length() == rows) s.pooled = models::PooledRows(engine_.model().pooling);
    s.pooled.add(hidden, rows, engine_.model().hidden_size);
    if (s.left() == 0) s.finish = Finish::end_of_turn;
    return;
  }
  if (s.mask_ready.valid()) s.mask_ready.get();
  const auto written = drawn ? s.writer.next_drawn(*drawn) : s.writer.next(scores);
  if (s.mask && !written.finish) s.prepare_mask(masks_);  // while the next step runs
  if (written.token) {
    const double now = steady_seconds();
    s.known.push_back(*written.token);
    if (s.first_token == 0)
      s.first_token = now, s.waited_first = now - s.job->submitted;
    else
      s.gap = now - s.last_token;
    s.last_token = now;
  }
  Piece piece;
  piece.answer = s.answer;
  piece.computed = step_computed_;
  piece.text = written.text;
  if (written.token) {
    piece.tokens = {&*written.token, 1};
    if (s.job->request.sampling.logprobs > 0) piece.logprobs = s.writer.top_logprobs();
  }
  if (!piece.text.empty() || !piece.tokens.empty()) s.job->listener->on_piece(piece);
  s.finish = written.finish;
} catch (const Error& e) {
  s.error = e;
}

void Service::finish_step(const backends::StepResult& result, double began, bool failed) {
  auto& [sequences, shares, draws, all_drawn, shape] = step_;
  step_computed_ = steady_seconds();
  const double seconds = step_computed_ - began;
  for (auto* s : sequences) s->gap = s->waited_first = -1;
  if (!failed) {
    const double expected = policy_->predict(shape);
    const auto vocabulary = size_t(engine_.model().vocabulary_size);
    const auto dim = size_t(engine_.model().hidden_size);
    first_row_.clear();
    for (size_t i = 0, row = 0; i < sequences.size(); row += size_t(shares[i++].logit_rows))
      first_row_.push_back(row);
    std::atomic<size_t> next{0};
    engine_.pool().run([&](int) {
      for (size_t i = next++; i < step_.sequences.size(); i = next++) {
        Sequence& s = *step_.sequences[i];
        if (s.finish || s.error) continue;  // it had ended when this step was under way
        const size_t row = first_row_[i];
        advance(s, result.hidden ? result.hidden + row * dim : nullptr,
                result.logits ? std::span(result.logits + row * vocabulary, vocabulary) : std::span<float>(),
                step_.shares[i].logit_rows,
                step_.shares[i].draw ? std::optional(result.tokens[row]) : std::nullopt);
      }
    });
    drawing_ += steady_seconds() - step_computed_;
    policy_->measured(shape, seconds);
    count_step(seconds, expected);
  }
  for (auto* s : sequences) {
    // The prompt is read: others may begin where it ends.
    if (s->waited_first >= 0) remember(*s, false), s->job->prompt_read = true;
    if ((s->error || s->finish) && !s->ended) s->ended = true, end(*s);
  }
}

void Service::count_step(double seconds, double expected) {
  const std::lock_guard lock(stats_mutex_);
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    const Sequence& s = *step_.sequences[i];
    if (s.gap >= 0) stats_.between_tokens.add(s.gap);
    if (s.waited_first >= 0) stats_.first_token.add(s.waited_first);
    stats_.answer_tokens += s.gap >= 0 || s.waited_first >= 0;
    stats_.computed_tokens += step_.shares[i].tokens.size();
  }
  ++stats_.steps;
  stats_.step.add(seconds);
  if (expected > 0) stats_.predicted_step.add(expected);
}

}  // namespace cairn::engine
