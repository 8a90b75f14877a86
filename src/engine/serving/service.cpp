#include "engine/serving/sequence.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "base/steady_seconds.h"

namespace cairn::engine {
namespace {

constexpr auto kHeartbeat = std::chrono::seconds(1);  // of an idle thread
constexpr auto kIdle = std::chrono::milliseconds(1);
constexpr size_t kListed = 256;   // requests that a list names
constexpr size_t kLookedUp = 16;  // waiting sequences whose prefix is looked up before every step
constexpr auto kLastWrites = std::chrono::seconds(5);

// The place of a sequence in a list; plans name them mostly in the list's order, so the search goes on from
// the last one found.
template <typename List>
size_t locate(const List& list, SequenceId id, size_t& from) {
  for (size_t i = 0; i < list.size(); ++i, ++from) {
    if (from >= list.size()) from = 0;
    if (list[from]->id == id) return from;
  }
  return list.size();
}

}  // namespace

Service::Service(Engine& engine, const text::Tokenizer& tokenizer, const ServiceOptions& options)
    : engine_(engine),
      tokenizer_(tokenizer),
      options_(options),
      policy_(make_policy(options.policy, options.scheduling)),
      masks_(std::min(8, engine.threads() / 4)) {
  const int64_t rows = engine.bounds().logits;
  if (options_.max_running <= 0 || options_.max_running > rows) options_.max_running = rows;
  rows_alike_ = engine.memory().place == Place::cpu;
  // A GPU's attention has work space for so many rows of answers; answers that are computed again are many.
  decode_rows_ = rows_alike_ ? engine.bounds().tokens : std::min(engine.bounds().tokens, rows);
  for (const auto& rope : engine.program().ropes) length_matters_ |= depends_on_length(rope.scaling);
  if (options.reuse_prefixes)
    prefixes_ = std::make_unique<kv::PrefixTree>(engine.kv(), engine.page_fingerprint());
  if (options.spill_bytes > 0)
    spill_ = std::make_unique<kv::Spill>(engine.kv(), engine.page_bytes(), options.spill_bytes);
  if (prefixes_ && !options.store.folder.empty()) {
    auto store = options.store;
    store.on_ready = [this] {
      const std::lock_guard lock(mutex_);
      loaded_ = true;
      wake_.notify_one();
    };
    store_ =
        std::make_unique<kv::PageStore>(engine.kv(), engine.page_bytes(), prefixes_->fingerprint(), store);
  }
  seen_ = step_ended_ = steady_seconds();
  thread_ = std::thread([this] { loop(); });
}

Service::~Service() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = closing_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Service::check(const GenerateRequest& r) const {
  const auto& model = engine_.model();
  if (model.encoder() && !r.embed)
    fail(ErrorKind::invalid_argument,
         "this model is an encoder, which writes no answers; ask /v1/embeddings");
  if (r.prompt.empty()) fail(ErrorKind::invalid_argument, "the prompt is empty; give it at least one token");
  const auto tokens = int64_t(r.prompt.size());
  if (tokens + (r.embed ? 0 : 1) > engine_.context())
    fail(ErrorKind::invalid_argument,
         "the prompt has {} tokens, the context holds {}{}; shorten the prompt or start with a larger --ctx "
         "(this model goes up to {})",
         tokens, engine_.context(), r.embed ? "" : " and must leave room for an answer",
         model.context_length);
  for (const auto id : r.prompt)
    if (id < 0 || id >= model.vocabulary_size)
      fail(ErrorKind::invalid_argument, "token id {} of the prompt lies outside the vocabulary of {}", id,
           model.vocabulary_size);
  if (r.max_tokens < 0)
    fail(ErrorKind::invalid_argument, "max_tokens is {}; it must be at least 1", r.max_tokens);
  if (r.max_tokens > 0 && tokens + r.max_tokens > engine_.context())
    fail(ErrorKind::invalid_argument,
         "the prompt has {} tokens and max_tokens is {}, together {}; the context holds {}", tokens,
         r.max_tokens, tokens + r.max_tokens, engine_.context());
  r.sampling.validate(int32_t(model.vocabulary_size));
}

RequestId Service::submit(GenerateRequest request, std::shared_ptr<Listener> listener) {
  check(request);
  auto job = std::make_shared<Job>();
  const int answers = request.embed ? 1 : request.sampling.n;
  const int64_t room = engine_.context() - int64_t(request.prompt.size());
  job->max_answer = request.embed ? 1 : request.max_tokens > 0 ? request.max_tokens : room;
  job->request = std::move(request);
  job->listener = std::move(listener);
  job->submitted = steady_seconds();
  {
    const std::lock_guard lock(mutex_);
    const auto refuse = [&](const std::string& why) {
      const std::lock_guard stats_lock(stats_mutex_);
      ++stats_.refused;
      throw Error(ErrorKind::overloaded, why);
    };
    if (closing_) refuse("the server is closing; ask another one or try again later");
    if (alive_ + answers > options_.max_waiting + options_.max_running)
      refuse(fmt::format("{} answers run or wait and no more than {} may; try again later", alive_,
                         options_.max_waiting + options_.max_running));
    job->id = ++next_request_;
    alive_ += answers;
    submitted_.push_back(job);
  }
  wake_.notify_one();
  return job->id;
}

void Service::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    cancelled_.push_back(id);
  }
  wake_.notify_one();
}

bool Service::drain(double seconds) {
  std::unique_lock lock(mutex_);
  closing_ = true;
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const bool ended =
      idle_.wait_until(lock, std::chrono::time_point_cast<std::chrono::steady_clock::duration>(until),
                       [&] { return alive_ == 0; });
  if (ended) return true;
  stop_ = true;
  wake_.notify_all();
  idle_.wait(lock, [&] { return alive_ == 0; });
  return false;
}

ServiceStats Service::stats() const {
  const std::lock_guard lock(stats_mutex_);
  auto stats = stats_;
  const double now = steady_seconds(), began = step_began_;
  stats.step_running_for = began > 0 ? now - began : 0;
  stats.since_step = now - step_ended_;
  stats.since_seen = now - seen_;
  return stats;
}

SequenceView Service::view(const Sequence& s) const {
  SequenceView v;
  v.id = s.id;
  v.client = std::hash<std::string>{}(s.job->request.client);
  v.priority = s.job->request.priority;
  v.arrival = s.job->submitted;
  v.known = int64_t(s.known.size());
  v.computed = s.cache.length();
  v.prompt_tokens = s.prompt_tokens();
  v.max_tokens = s.max_tokens();
  v.pages = int64_t(s.cache.block_table().size());
  v.preemptions = s.preemptions;
  return v;
}

// Waiting sequences stay in the order of their arrival: those that were preempted go back among them.
void Service::enqueue(std::unique_ptr<Sequence> s) {
  const auto place =
      std::upper_bound(waiting_.begin(), waiting_.end(), s->id,
                       [](SequenceId id, const std::unique_ptr<Sequence>& other) { return id < other->id; });
  waiting_.insert(place, std::move(s));
}

void Service::take_inbox() {
  std::vector<std::shared_ptr<Job>> submitted;
  std::vector<RequestId> cancelled;
  bool stop = false;
  {
    std::unique_lock lock(mutex_);
    if (running_.empty() && waiting_.empty())
      wake_.wait_for(lock, kHeartbeat, [&] {
        return (stop_ && loading_.empty()) || !submitted_.empty() || !cancelled_.empty() || loaded_;
      });
    loaded_ = false;
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    stop = stop_;
  }
  for (auto& job : submitted) {
    const int answers = job->request.embed ? 1 : job->request.sampling.n;
    for (int i = 0; i < answers; ++i) {
      auto s = std::make_unique<Sequence>(engine_.kv(), job, i, tokenizer_,
                                          int32_t(engine_.model().vocabulary_size), masks_);
      s->id = ++next_sequence_;
      enqueue(std::move(s));
    }
  }
  if (cancelled.empty() && !stop) return;
  const auto sweep = [&](std::vector<std::unique_ptr<Sequence>>& list) {
    for (auto& s : list)
      if (stop || std::find(cancelled.begin(), cancelled.end(), s->job->id) != cancelled.end())
        s->finish = Finish::cancelled, end(*s);
  };
  sweep(running_);
  sweep(waiting_);
  for (auto& l : loading_)  // its pages are given back when the disk is done with them
    if (!l.sequence->finish &&
        (stop || std::find(cancelled.begin(), cancelled.end(), l.sequence->job->id) != cancelled.end()))
      l.sequence->finish = Finish::cancelled, end(*l.sequence);
  retire();
}

// Removes what has ended.
void Service::retire() {
  const auto ended = [](const std::unique_ptr<Sequence>& s) { return s->finish || s->error; };
  int64_t count = 0;
  for (auto* list : {&running_, &waiting_}) count += std::erase_if(*list, ended);
  if (count == 0) return;
  const std::lock_guard lock(mutex_);
  alive_ -= count;
  if (alive_ == 0) idle_.notify_all();
}

// Tells the listener how it ended. The sequence stays in its list until retire().
void Service::end(Sequence& s) {
  const double now = steady_seconds();
  Ended e;
  e.answer = s.answer;
  e.finish = s.finish.value_or(Finish::cancelled);
  if (s.error) e.error = s.error->kind(), e.message = s.error->what();
  e.prompt_tokens = s.prompt_tokens();
  e.reused_tokens = s.reused;
  e.answer_tokens = int64_t(s.writer.tokens().size());
  e.queued_seconds = (s.admitted > 0 ? s.admitted : now) - s.job->submitted;
  e.first_token_seconds = s.first_token > 0 ? s.first_token - s.job->submitted : 0;
  e.seconds = now - s.job->submitted;
  e.preemptions = s.preemptions;
  if (s.job->request.embed && e.finish == Finish::end_of_turn) e.embedding = s.pooled.result();
  s.job->listener->on_end(e);
  s.job->prompt_read |= s.answer == 0;
  s.cache.truncate(s.cache.length() - s.fed_ahead);
  if (s.error)
    s.cache.release();  // who knows what its pages hold
  else
    release(s);
  const std::lock_guard lock(stats_mutex_);
  ++(s.error ? stats_.failed : stats_.ended[size_t(e.finish)]);
  stats_.whole.add(e.seconds);
}

void Service::plan() {
  running_views_.clear();
  waiting_views_.clear();
  for (const auto& s : running_) {
    running_views_.push_back(view(*s));
    running_views_.back().shared_pages = shared_pages(*s);
  }
  for (const auto& s : waiting_)
    if (s->answer == 0 || s->job->prompt_read) {
      waiting_views_.push_back(view(*s));
      waiting_views_.back().reusable = reusable(*s, waiting_views_.size() <= kLookedUp);
    }
  SchedulerState state;
  state.now = steady_seconds();
  state.running = running_views_;
  state.waiting = waiting_views_;
  state.free_pages = pages_at_hand();
  state.total_pages = engine_.kv().config().pages;
  state.page_tokens = engine_.kv().config().page_tokens;
  state.step_tokens = engine_.bounds().tokens;
  state.step_sequences = engine_.bounds().logits;
  state.max_running = options_.max_running;
  plan_.clear();
  policy_->plan(state, plan_);
}

void Service::apply_preemptions() {
  size_t from = 0;
  for (const auto id : plan_.preempt) {
    const size_t place = locate(running_, id, from);
    if (place == running_.size()) continue;
    auto s = std::move(running_[place]);
    running_.erase(running_.begin() + int64_t(place));
    spill(*s);
    release(*s);
    ++s->preemptions;
    enqueue(std::move(s));
    const std::lock_guard lock(stats_mutex_);
    ++stats_.preemptions;
  }
}

// Turns the plan's shares into the step's rows, admitting those that waited. A policy is trusted to be fair,
// not to be right: what does not fit is cut.
void Service::fill_step() {
  step_ = {};
  const int64_t page_tokens = engine_.kv().config().page_tokens;
  // Rows of scores: one for a sequence whose known tokens will all be computed, all rows of an embedding.
  int64_t rows_left = engine_.bounds().logits, tokens_left = engine_.bounds().tokens;
  int64_t decodes_left = decode_rows_, tables_left = engine_.table_pages();
  pages_taken_ = 0;
  size_t from_running = 0, from_waiting = 0;
  for (const auto& share : plan_.shares) {
    size_t place = locate(running_, share.id, from_running);
    if (place == running_.size()) {
      const size_t waits = locate(waiting_, share.id, from_waiting);
      if (waits == waiting_.size() || place + loading_.size() >= size_t(options_.max_running)) continue;
      const bool ready = admit(waiting_[waits]);
      if (ready) running_.push_back(std::move(waiting_[waits]));
      waiting_.erase(waiting_.begin() + int64_t(waits));
      if (!ready) continue;
    }
    Sequence& s = *running_[place];
    int64_t pages = pages_at_hand() - pages_taken_;
    if (pages < 0) {  // it was admitted with kept pages that others count on
      s.cache.release();
      s.exact = 0;
      continue;
    }
    if (s.cache.must_copy() && pages == 0) {  // rather compute a part of a page again
      s.cache.truncate(s.cache.length() / page_tokens * page_tokens);
      s.exact = std::min(s.exact, s.cache.length());
    }
    if (s.cache.must_copy()) --pages;
    const int64_t position = s.cache.length();
    const int64_t room = (int64_t(s.cache.block_table().size()) + pages) * page_tokens - position;
    int64_t count = std::min({share.tokens, s.left(), tokens_left, room});
    // Prompts and answers are computed by different kernels, so a share holds rows of one kind.
    const bool prompt = position < s.prompt_tokens();
    count = std::min(count, prompt ? s.prompt_tokens() - position : decodes_left);
    const bool embed = s.job->request.embed;
    if (embed) count = std::min(count, rows_left);
    if (engine_.model().encoder())  // a text is read whole, in this step or in a later one
      count = s.left() <= std::min({tokens_left, rows_left, room}) ? s.left() : 0;
    const int64_t rows = embed ? count : position + count == int64_t(s.known.size()) ? 1 : 0;
    const int64_t table = engine_.kv().pages_of(position + count);
    if (count < 1 || rows > rows_left || table > tables_left) continue;
    tokens_left -= count, rows_left -= rows, tables_left -= table;
    if (!prompt) decodes_left -= count;
    pages_taken_ += s.cache.pages_needed(count);
    backends::SequenceStep step;
    step.sequence = &s.cache;
    step.tokens = std::span(s.known).subspan(size_t(position), size_t(count));
    step.logit_rows = rows;
    step.rope_length = s.max_tokens();
    step.row_class = prompt ? backends::RowClass::prompt : backends::RowClass::decode;
    step_.sequences.push_back(&s);
    step_.shares.push_back(step);
    if (!prompt && count == 1)
      ++step_.shape.decode_rows;
    else
      step_.shape.prompt_tokens += count,
          step_.shape.prompt_pairs += count * position + count * (count + 1) / 2;
    step_.shape.context += position + count;
    if (prompt && s.exact == position) s.exact += count;
  }
  const int64_t missing = pages_taken_ - engine_.kv().free_pages();
  if (missing > 0) prefixes_->reclaim(missing);
}

void Service::loop() {
  for (;;) {
    seen_ = steady_seconds();
    publish();
    take_inbox();
    take_loaded();
    {
      const std::lock_guard lock(mutex_);
      if (stop_ && running_.empty() && waiting_.empty() && loading_.empty() && submitted_.empty()) break;
    }
    if (running_.empty() && waiting_.empty()) continue;
    const double began = steady_seconds();
    plan();
    apply_preemptions();
    fill_step();
    planning_ += steady_seconds() - began;
    if (step_.sequences.empty()) {  // a policy may wait, for a batch to gather say, but never without an end
      if (store_) store_->drop_queued();
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, kIdle);
      continue;
    }
    run_steps();
    retire();
  }
  // What was computed is worth some seconds of a shutdown.
  if (store_ && store_->flush(kLastWrites)) store_->poll();
}

std::vector<RequestView> Service::requests() const {
  list_wanted_ = true;
  const std::lock_guard lock(stats_mutex_);
  return requests_;
}

// With stats_mutex_ held.
void Service::list() {
  requests_.clear();
  const double now = steady_seconds();
  const auto add = [&](const Sequence& s, const char* state) {
    if (requests_.size() >= kListed) return;
    const auto& r = s.job->request;
    requests_.push_back({r.id, r.client, state, s.answer, r.priority, s.prompt_tokens(), s.cache.length(),
                         int64_t(s.writer.tokens().size()), int64_t(s.cache.block_table().size()),
                         s.preemptions, now - s.job->submitted});
  };
  for (const auto& s : running_) add(*s, s->cache.length() < s->prompt_tokens() ? "prefill" : "decode");
  for (const auto& l : loading_) add(*l.sequence, "loading");
  for (const auto& s : waiting_) add(*s, s->kept ? "spilled" : s->preemptions > 0 ? "preempted" : "waiting");
}

void Service::publish() {
  const std::lock_guard lock(stats_mutex_);
  stats_.running = int64_t(running_.size() + loading_.size());
  stats_.waiting = int64_t(waiting_.size());
  stats_.drawing = drawing_, stats_.planning = planning_;
  stats_.device = engine_.times();
  if (list_wanted_.exchange(false) || (running_.empty() && waiting_.empty() && loading_.empty())) list();
  stats_.pages = engine_.kv().config().pages;
  stats_.free_pages = engine_.kv().free_pages();
  if (prefixes_) stats_.prefixes = prefixes_->stats();
  if (store_) stats_.store = store_->stats();
  if (spill_) stats_.spill_pages = spill_->pages(), stats_.spilled_pages = spill_->used_pages();
}

}  // namespace cairn::engine
