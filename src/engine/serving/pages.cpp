// Where a sequence's pages come from and go to besides steps: the prefix tree, the disk, host memory.
#include <algorithm>

#include "base/steady_seconds.h"
#include "engine/serving/sequence.h"

namespace cairn::engine {

// The tokens whose rows may be taken from elsewhere. Where a prompt's rows have other bits than an answer's,
// another request may have computed this one's answer as its prompt: those are not the rows it would have.
std::span<const text::TokenId> Service::findable(const Sequence& s) const {
  const std::span<const text::TokenId> known(s.known);
  return rows_alike_ ? known : known.first(std::min(known.size(), size_t(s.prompt_tokens()) + 1));
}

// Takes what is known of its tokens; the rest is computed. False: it is being read from the disk and was
// moved to loading_.
bool Service::admit(std::unique_ptr<Sequence>& waiting) {
  Sequence& s = *waiting;
  const bool first = s.admitted == 0;
  if (first) {
    s.admitted = steady_seconds();
    s.writer.prompt(s.job->request.prompt);
  }
  s.exact = 0;
  bool ready = true;
  if (restore_spilled(s)) {
  } else if (prefixes_ && s.job->request.reuse && !s.job->request.embed) {
    const auto variant = s.variant(length_matters_);
    auto found = prefixes_->match(findable(s), {variant, rows_alike_});
    ready = !load_stored(waiting, found);
    if (ready) s.cache.adopt(found.pages, found.tokens), s.exact = found.exact_tokens;
    if (first) s.reused = found.tokens;
  }
  if (first) {
    const std::lock_guard lock(stats_mutex_);
    stats_.queued.add(s.admitted - s.job->submitted);
    stats_.prompt_tokens += uint64_t(s.prompt_tokens());
    if (ready) stats_.reused_tokens += uint64_t(s.reused);
  }
  return ready;
}

// Copies the pages of one that is preempted to host memory, when there is room and copying both ways is
// expected to take less time than computing them again.
void Service::spill(Sequence& s) {
  if (!spill_ || s.job->request.embed || s.cache.length() == 0) return;
  StepShape shape;
  shape.prompt_tokens = shape.context = s.cache.length();
  shape.prompt_pairs = shape.prompt_tokens * shape.prompt_tokens / 2;
  const double computing = policy_->predict(shape);
  if (computing > 0 && 2 * spill_->seconds(int64_t(s.cache.block_table().size())) >= computing) return;
  try {
    s.kept = spill_->store(s.cache);
  } catch (const Error&) {  // the device's trouble shows in the next step
  }
  if (!s.kept) return;
  s.kept_exact = s.exact;
  const std::lock_guard lock(stats_mutex_);
  stats_.spilled_tokens += uint64_t(s.kept.tokens());
}

// True: the sequence has all the rows that it had. What the prefix tree still holds of them is not copied.
bool Service::restore_spilled(Sequence& s) {
  if (!s.kept) return false;
  kv::PrefixTree::Match found;
  const auto variant = s.variant(length_matters_);
  if (prefixes_ && s.job->request.reuse) {
    const auto rows = findable(s);
    found =
        prefixes_->match(rows.first(std::min(rows.size(), size_t(s.kept.tokens()))), {variant, rows_alike_});
    prefixes_->drop(found, found.whole_pages);
  }
  auto& pool = engine_.kv();
  const int64_t missing = s.kept.pages() - int64_t(found.pages.size());
  if (missing > pages_at_hand() - pages_taken_) {  // the policy looked for fewer; computed again, it may fit
    if (prefixes_) prefixes_->drop(found);
    s.kept.clear();
    return false;
  }
  if (pool.free_pages() < missing) prefixes_->reclaim(missing - pool.free_pages());
  try {
    spill_->restore(s.kept, found.pages, s.cache);
  } catch (const Error&) {
    s.cache.release();
    s.kept.clear();
    return false;
  }
  s.exact = s.kept_exact;
  const std::lock_guard lock(stats_mutex_);
  stats_.restored_tokens += uint64_t(s.cache.length());
  return true;
}

// Whether the pages after a match are on disk and sooner read than computed; then that has begun.
bool Service::load_stored(std::unique_ptr<Sequence>& waiting, kv::PrefixTree::Match& match) {
  if (!store_) return false;
  Sequence& s = *waiting;
  const auto variant = s.variant(length_matters_);
  const auto stored = store_->lookup(match, findable(s), {variant, rows_alike_});
  const int64_t pages = stored.pages();
  if (pages == 0 || pages > pages_at_hand() - pages_taken_) return false;
  StepShape shape;
  shape.prompt_tokens = int64_t(stored.tokens.size());
  const double computing = policy_->predict(shape);
  if (computing > 0 && store_->load_seconds(pages) >= computing) return false;
  Loading l;
  prefixes_->drop(match, match.whole_pages);  // a part of a page is in the way
  auto& pool = engine_.kv();
  if (pool.free_pages() < pages) prefixes_->reclaim(pages - pool.free_pages());
  pool.allocate(pages, l.pages);
  l.ticket = store_->load(stored, l.pages);
  l.exact_pages = stored.exact_pages;
  l.match = std::move(match);
  l.sequence = std::move(waiting);
  loading_.push_back(std::move(l));
  return true;
}

// Those whose pages have come go on as if these had been in memory.
void Service::take_loaded() {
  if (!store_) return;
  auto& pool = engine_.kv();
  for (const auto& done : store_->poll()) {
    const auto place = std::find_if(loading_.begin(), loading_.end(),
                                    [&](const Loading& l) { return l.ticket == done.ticket; });
    if (place == loading_.end()) continue;
    Loading l = std::move(*place);
    loading_.erase(place);
    Sequence& s = *l.sequence;
    auto& pages = l.match.pages;
    for (size_t i = 0; i < l.pages.size(); ++i) {
      if (int64_t(i) < done.pages)
        pages.push_back(l.pages[i]);
      else
        pool.release(l.pages[i]);
    }
    const int64_t page_tokens = pool.config().page_tokens;
    s.cache.adopt(pages, int64_t(pages.size()) * page_tokens);
    s.exact = l.match.exact_tokens;
    if (s.exact == l.match.whole_pages * page_tokens)
      s.exact += std::min(done.pages, l.exact_pages) * page_tokens;
    if (s.finish) {  // cancelled meanwhile
      s.cache.release();
      const std::lock_guard lock(mutex_);
      if (--alive_ == 0) idle_.notify_all();
      continue;
    }
    if (s.preemptions == 0) s.reused = s.cache.length();
    {
      const std::lock_guard lock(stats_mutex_);
      stats_.reused_tokens += uint64_t(s.cache.length());
    }
    remember(s, false);
    running_.push_back(std::move(l.sequence));
  }
}

// Lets later prompts find what this sequence has computed.
void Service::remember(Sequence& s, bool ends) {
  if (!prefixes_ || !s.job->request.reuse || s.job->request.embed || s.cache.length() == 0) return;
  const auto variant = s.variant(length_matters_);
  const int64_t all = s.cache.length() - s.fed_ahead, exact = rows_alike_ ? all : s.exact;
  // Where only exact rows are taken, others would lie there for nobody.
  prefixes_->insert(std::span(s.known).first(size_t(rows_alike_ ? all : exact)), s.cache,
                    {variant, exact, ends && rows_alike_});
  if (store_) store_->put(*prefixes_, s.cache.block_table());
}

void Service::release(Sequence& s) {
  remember(s, true);
  s.cache.release();
}

// How many tokens of a waiting sequence need not be computed. Looking takes a walk through the tree, so that
// of a long queue each is asked now and then: what is stale costs the policy a worse plan and nothing else.
int64_t Service::reusable(Sequence& s, bool soon) {
  constexpr uint64_t kStale = 64;  // steps
  if (s.kept) return s.kept.tokens();
  if (!prefixes_ || !s.job->request.reuse || s.job->request.embed) return 0;
  if (soon || s.looked_up == 0 || stats_.steps + 1 - s.looked_up > kStale) {
    s.looked_up = stats_.steps + 1;
    const auto variant = s.variant(length_matters_);
    s.reusable = prefixes_->peek(findable(s), {variant, rows_alike_});
  }
  return s.reusable;
}

// Leading pages that others hold too. Whoever shares a page shares those before it, so that the first own one
// is found by halving.
int64_t Service::shared_pages(const Sequence& s) const {
  const auto pages = s.cache.block_table();
  const auto own = std::partition_point(pages.begin(), pages.end(), [&](int32_t page) {
    return engine_.kv().references(page) > (prefixes_ && prefixes_->contains(page) ? 2 : 1);
  });
  return own - pages.begin();
}

int64_t Service::pages_at_hand() const {
  return engine_.kv().free_pages() + (prefixes_ ? prefixes_->reclaimable() : 0);
}

}  // namespace cairn::engine
