#include "engine/scheduling/flover.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "backends/cpu/executor.h"
#include "base/steady_seconds.h"

namespace cairn::engine {
Flover::Flover(Engine& engine, const FloverOptions& options)
    : engine_(engine), options_(options), slots_(engine.kv(), options.slots, options.slot_tokens) {
  if (options.prefill_piece < 1 || options.slot_tokens > engine.context())
    fail(ErrorKind::invalid_argument,
         "slots of {} tokens and prompts in pieces of {}: slots may be up to {} tokens long (the context), "
         "pieces "
         "have at least 1",
         options.slot_tokens, options.prefill_piece, engine.context());
  const auto& bounds = engine.bounds();
  if (bounds.tokens < options.slots || bounds.logits < options.slots)
    fail(ErrorKind::invalid_argument,
         "{} slots need steps of as many rows and scores; the engine has {} and {}", options.slots,
         bounds.tokens, bounds.logits);
  if (options.prefill == FloverOptions::Prefill::aside) {
    if (engine.memory().place != Place::cpu)
      fail(ErrorKind::unsupported,
           "prompts are read aside on the CPU only; on a GPU read them between tokens");
    side_pool_ = std::make_unique<ThreadPool>(options.prefill_threads);
    cpu::Weights weights(engine.program(), engine.model().weights, engine.model().checkpoint.files,
                         *side_pool_);
    side_ = std::make_unique<cpu::Executor>(engine.program(), engine.model().weights, std::move(weights),
                                            *side_pool_, engine.kv(),
                                            program::Bounds{options.prefill_piece, 1}, engine.context());
  }
  options_.prefill_piece = std::min(options_.prefill_piece, side_ ? options_.prefill_piece : bounds.tokens);
  table_.resize(size_t(options.slots));
  if (side_) reader_ = std::thread([this] { read_prompts(); });
  loop_ = std::thread([this] { generate(); });
}

Flover::~Flover() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  queued_.notify_all(), joined_.notify_all();
  if (reader_.joinable()) reader_.join();
  loop_.join();
}

Flover::Id Flover::submit(FloverRequest request) {
  const auto vocabulary = int32_t(engine_.model().vocabulary_size);
  request.sampling.validate(vocabulary);
  const auto prompt = int64_t(request.prompt.size());
  if (prompt < 1 || request.max_tokens < 1)
    fail(ErrorKind::invalid_argument, "a prompt of {} tokens and max_tokens of {}: both must be at least 1",
         prompt, request.max_tokens);
  if (prompt > options_.slot_tokens - request.max_tokens)
    fail(ErrorKind::invalid_argument,
         "the prompt has {} tokens and max_tokens is {}, together {}; a slot holds {}", prompt,
         request.max_tokens, prompt + request.max_tokens, options_.slot_tokens);
  for (const int32_t id : request.prompt)
    if (id < 0 || id >= vocabulary)
      fail(ErrorKind::invalid_argument, "token id {} of the prompt lies outside the vocabulary of {}", id,
           vocabulary);
  text::Sampler sampler(request.sampling, vocabulary, 0);
  sampler.prompt(request.prompt);
  const std::lock_guard lock(mutex_);
  if (waiting_.size() >= options_.most_waiting)
    fail(ErrorKind::overloaded, "{} requests wait for {} slots and no more may; try again later",
         waiting_.size(), options_.slots);
  waiting_.push_back(std::make_unique<Job>(Job{++next_, std::move(request), std::move(sampler)}));
  (side_ ? queued_ : joined_).notify_one();
  return next_;
}

void Flover::cancel(Id id) {
  const std::lock_guard lock(mutex_);
  for (auto& job : waiting_)
    if (job->id == id) job->cancelled = true;
  for (auto& slot : table_)
    if (slot.job && slot.job->id == id) slot.job->cancelled = true;
  queued_.notify_all(), joined_.notify_all();
}

std::optional<size_t> Flover::position(Id id) const {
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < waiting_.size(); ++i)
    if (waiting_[i]->id == id) return i;
  return std::nullopt;
}

void Flover::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] {
    return waiting_.empty() &&
           std::none_of(table_.begin(), table_.end(), [](const Slot& s) { return bool(s.job); });
  });
}

FloverStats Flover::stats() const {
  const std::lock_guard lock(mutex_);
  FloverStats stats = stats_;
  stats.waiting = waiting_.size();
  for (const auto& s : table_)
    stats.live += s.state == Slot::State::live, stats.holes += s.state == Slot::State::hole;
  return stats;
}

std::pair<int, int> Flover::range() const {
  int low = options_.slots, high = -1;
  for (int i = 0; i < options_.slots; ++i)
    if (table_[size_t(i)].state == Slot::State::live) low = std::min(low, i), high = i;
  return {low, high};
}

// A hole between live slots first, then beside them, above before below.
int Flover::choose_slot() const {
  const auto [low, high] = range();
  const auto open = [&](int i) {
    const auto state = table_[size_t(i)].state;
    return state == Slot::State::free || (state == Slot::State::hole && !computing_holes_);
  };
  for (int i = low; i <= high; ++i)
    if (open(i)) return i;
  for (int i = high + 1; i < options_.slots; ++i)
    if (open(i)) return i;
  for (int i = std::min(low, options_.slots); i-- > 0;)
    if (open(i)) return i;
  return -1;
}

int Flover::start_reading() {
  const auto gone = [&](const std::unique_ptr<Job>& job) {
    if (!job->cancelled && !stop_) return false;
    if (job->request.on_end) job->request.on_end(Finish::cancelled, "");
    return true;
  };
  if (std::erase_if(waiting_, gone) > 0) idle_.notify_all();
  const int place = waiting_.empty() ? -1 : choose_slot();
  if (place < 0) return -1;
  Slot& slot = table_[size_t(place)];
  if (slot.cache) slots_.close(place, *slot.cache);
  slot.cache = slots_.open(place);
  slot.job = std::move(waiting_.front());
  slot.state = Slot::State::reading;
  waiting_.pop_front();
  return place;
}

// Without the lock: a slot that is being read belongs to its reader.
bool Flover::read_piece(Slot& slot) {
  Job& job = *slot.job;
  const auto& prompt = job.request.prompt;
  const int64_t from = slot.cache->length();
  const int64_t count = std::min(int64_t(prompt.size()) - from, options_.prefill_piece);
  const bool last = from + count == int64_t(prompt.size());
  backends::SequenceStep step{&*slot.cache,
                              from,
                              std::span(prompt).subspan(size_t(from), size_t(count)),
                              last ? 1 : 0,
                              int64_t(prompt.size()) + job.request.max_tokens,
                              backends::RowClass::prompt};
  backends::StepResult result;
  if (side_) {
    slot.cache->append(count);
    result = side_->run({&step, 1});
  } else {
    result = engine_.step({&step, 1});
  }
  if (last) draw(job, {result.logits, size_t(engine_.model().vocabulary_size)});
  return last;
}

bool Flover::try_piece(Slot& slot) {
  try {
    return read_piece(slot);
  } catch (const Error& e) {
    give_up(*slot.job, e.what());
    return true;
  }
}

void Flover::give_up(Job& job, const std::string& error) {
  job.finish = Finish::cancelled, job.error = error, job.told = true;
}

void Flover::draw(Job& job, std::span<float> scores) try {
  const int32_t token = job.sampler.sample(scores);
  if (std::find(job.request.ends.begin(), job.request.ends.end(), token) != job.request.ends.end()) {
    job.finish = Finish::end_of_turn;
    return;
  }
  job.sampler.accept(token);
  job.last = token, job.told = false;
  if (++job.answered == job.request.max_tokens) job.finish = Finish::length;
} catch (const Error& e) {
  give_up(job, e.what());
}

void Flover::tell(Job& job) {
  if (job.told || (job.finish == Finish::end_of_turn)) return;
  job.told = true;
  if (job.request.on_token) job.request.on_token(job.last);
}

void Flover::read_prompts() {
  std::unique_lock lock(mutex_);
  for (;;) {
    int place = -1;
    queued_.wait(lock, [&] { return (place = start_reading()) >= 0 || stop_; });
    if (place < 0) return;
    Slot& slot = table_[size_t(place)];
    for (bool done = false; !done && !slot.job->cancelled && !stop_;) {
      lock.unlock();
      done = try_piece(slot);
      lock.lock();
    }
    joining_.push_back(place);
    joined_.notify_one();
  }
}

// What was read joins; what was cancelled ends.
void Flover::join_and_cancel() {
  for (const int place : joining_) table_[size_t(place)].state = Slot::State::live;
  joining_.clear();
  for (auto& slot : table_)
    if (slot.state == Slot::State::live && (slot.job->cancelled || stop_) && !slot.job->finish)
      give_up(*slot.job, "");
}

// Ends what has finished. Its slot is free at once, or stays a hole while live ones surround it and holes are
// computed.
void Flover::retire() {
  bool ended = false;
  for (auto& slot : table_) {
    if (slot.state != Slot::State::live) continue;
    tell(*slot.job);
    if (!slot.job->finish) continue;
    if (slot.job->request.on_end) slot.job->request.on_end(*slot.job->finish, slot.job->error);
    slot.job.reset();
    slot.state = Slot::State::hole;
    ended = true;
  }
  const auto [low, high] = range();
  for (int i = 0; i < options_.slots; ++i) {
    Slot& slot = table_[size_t(i)];
    if (slot.state != Slot::State::hole || (options_.compute_holes && i > low && i < high)) continue;
    slots_.close(i, *slot.cache);
    slot.cache.reset();
    slot.state = Slot::State::free;
  }
  if (ended) queued_.notify_one(), idle_.notify_all();
}

bool Flover::worth_it(size_t moves, int64_t tokens) const {
  if (options_.shuffle != FloverOptions::Shuffle::automatic)
    return options_.shuffle == FloverOptions::Shuffle::always;
  const auto [low, high] = range();
  int64_t live = 0, holes = 0, context = 0, soonest = INT64_MAX;
  for (int i = low; i <= high; ++i) {
    const Slot& slot = table_[size_t(i)];
    live += slot.state == Slot::State::live, holes += slot.state == Slot::State::hole;
    if (slot.cache && slot.state != Slot::State::reading) context += slot.cache->length();
    // A hole lasts until it lies at an end.
    if (slot.state == Slot::State::live && (i == low || i == high))
      soonest = std::min(soonest, slot.job->request.max_tokens - slot.job->answered);
  }
  if (holes == 0 || moves == 0) return false;
  const double with = times_.predict({live + holes, 0, context, 0});
  const double without = times_.predict({live, 0, context * live / (live + holes), 0});
  const double bytes = double(tokens) * double(slots_.slot_bytes()) / double(slots_.slot_tokens());
  return (with - without) * double(soonest) > bytes / bytes_per_second_;
}

// Slots whose prompts are being read stay where they are: the others are shuffled as if these were not there.
void Flover::shuffle() {
  if (options_.shuffle == FloverOptions::Shuffle::never) return;
  if (options_.shuffle == FloverOptions::Shuffle::automatic && !options_.compute_holes) return;
  std::vector<int> places;
  std::vector<uint8_t> live;
  for (int i = 0; i < options_.slots; ++i)
    if (table_[size_t(i)].state != Slot::State::reading)
      places.push_back(i), live.push_back(table_[size_t(i)].state == Slot::State::live);
  const auto plan = kv::plan_shuffle(live);
  if (plan.moves.empty()) return;
  int64_t tokens = 0;
  for (const auto& move : plan.moves) tokens += table_[size_t(places[size_t(move.first)])].cache->length();
  if (!worth_it(plan.moves.size(), tokens)) return;
  const double begin = steady_seconds();
  int64_t bytes = 0;
  for (const auto& move : plan.moves) {
    const int from = places[size_t(move.first)], to = places[size_t(move.second)];
    Slot &source = table_[size_t(from)], &target = table_[size_t(to)];
    if (target.cache) slots_.close(to, *target.cache);
    bytes += slots_.move(from, to, *source.cache);
    target = std::move(source);
    source = {};
  }
  bytes_per_second_ += (double(bytes) / std::max(1e-9, steady_seconds() - begin) - bytes_per_second_) / 4;
  ++stats_.shuffles, stats_.moves += plan.moves.size(), stats_.bytes_moved += uint64_t(bytes);
  retire();  // holes that lie outside now
}

// One token of every live slot.
void Flover::turn() {
  std::vector<backends::SequenceStep> steps;
  std::vector<Job*> jobs;  // like steps; null: a hole
  StepShape shape;
  {
    const std::lock_guard lock(mutex_);
    const auto [low, high] = range();
    for (int i = low; i <= high; ++i) {
      Slot& slot = table_[size_t(i)];
      const bool hole = slot.state == Slot::State::hole && slot.cache->length() < options_.slot_tokens;
      if (slot.state != Slot::State::live && !hole) continue;
      static constexpr int32_t kNothing = 0;
      Job* job = hole ? nullptr : slot.job.get();
      const int64_t most =
          job ? int64_t(job->request.prompt.size()) + job->request.max_tokens : options_.slot_tokens;
      steps.push_back(
          {&*slot.cache, 0, std::span(job ? &job->last : &kNothing, 1), 1, most, backends::RowClass::decode});
      jobs.push_back(job);
      ++shape.decode_rows, shape.context += slot.cache->length() + 1;
      ++stats_.rows, stats_.wasted_rows += hole;
      computing_holes_ |= hole;
    }
    ++stats_.turns;
  }
  const double begin = steady_seconds();
  backends::StepResult result;
  try {
    result = engine_.step(steps);
  } catch (const Error& e) {
    for (Job* job : jobs)
      if (job) give_up(*job, e.what());
    return;
  }
  times_.add(shape, steady_seconds() - begin);
  const auto vocabulary = size_t(engine_.model().vocabulary_size);
  std::atomic<size_t> next{0};
  engine_.pool().run([&](int) {
    for (size_t i = next++; i < jobs.size(); i = next++)
      if (jobs[i]) draw(*jobs[i], {result.logits + i * vocabulary, vocabulary});
  });
}

void Flover::generate() {
  for (;;) {
    int piece = -1;
    bool live = false;
    {
      std::unique_lock lock(mutex_);
      const auto something = [&] {
        if (!side_ && reading_ < 0) reading_ = start_reading();
        const auto [low, high] = range();
        return low <= high || !joining_.empty() || reading_ >= 0 || stop_;
      };
      joined_.wait(lock, something);
      if (computing_holes_) computing_holes_ = false, queued_.notify_one();
      join_and_cancel();
      retire();
      shuffle();
      piece = reading_;
      const auto [low, high] = range();
      live = low <= high;
      if (stop_ && !live && piece < 0 && waiting_.empty() && joining_.empty() &&
          std::none_of(table_.begin(), table_.end(),
                       [](const Slot& s) { return s.state == Slot::State::reading; }))
        return;
      if (stop_ && !live && piece < 0) {  // the reader has something to hand over yet
        joined_.wait_for(lock, std::chrono::milliseconds(1));
        continue;
      }
    }
    if (live) turn();
    if (piece < 0) continue;
    Slot& slot = table_[size_t(piece)];
    bool done = false;
    {
      const std::lock_guard lock(mutex_);
      done = slot.job->cancelled || stop_;
    }
    if (!done) done = try_piece(slot);
    if (!done) continue;
    const std::lock_guard lock(mutex_);
    joining_.push_back(piece);
    reading_ = -1;
  }
}

}  // namespace cairn::engine
