// What the service's own files know of requests and their answers.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/serving/service.h"
#include "kv/spill.h"
#include "text/constrain/grammar_mask.h"

namespace cairn::engine {

// One request: what its answers share.
struct Service::Job {
  RequestId id = 0;
  GenerateRequest request;
  std::shared_ptr<Listener> listener;
  double submitted = 0;
  int64_t max_answer = 0;  // tokens of each answer
  // The first answer has read the prompt, or ended: the others need not read it again, and wait no longer.
  bool prompt_read = false;
};

// One answer, or a prompt to embed.
struct Service::Sequence {
  Sequence(kv::KvPool& pool, std::shared_ptr<Job> of, int index, const text::Tokenizer& tokenizer,
           int32_t vocabulary, Workers& masks)
      : job(std::move(of)),
        answer(index),
        cache(pool),
        known(job->request.prompt),
        writer(tokenizer, job->request.sampling, vocabulary, index,
               {job->max_answer, job->request.ignore_end, job->request.visible_special}) {
    if (job->request.grammar) {
      mask.emplace(job->request.grammar, vocabulary);
      writer.set_mask(&*mask);
      prepare_mask(masks);  // while the prompt is read
    }
    if (job->request.reasoning) {
      budget.emplace(tokenizer, *job->request.reasoning, mask ? &*mask : nullptr);
      writer.set_mask(&*budget);
    }
  }
  ~Sequence() {
    if (mask_ready.valid()) mask_ready.wait();
  }

  // The mask is not used until mask_ready is, which carries what prepare() throws.
  void prepare_mask(Workers& masks) {
    auto task = std::make_shared<std::packaged_task<void()>>([this] { mask->prepare(); });
    mask_ready = task->get_future();
    masks.post([task] { (*task)(); });
  }

  int64_t prompt_tokens() const { return int64_t(job->request.prompt.size()); }
  int64_t max_tokens() const { return prompt_tokens() + job->max_answer; }
  int64_t left() const { return int64_t(known.size()) - cache.length(); }

  // Keys that depend on the length can only be shared by sequences of the same.
  std::string variant(bool length_matters) const {
    return length_matters ? std::to_string(max_tokens()) : std::string();
  }

  SequenceId id = 0;
  std::shared_ptr<Job> job;
  int answer = 0;
  kv::Sequence cache;
  std::vector<text::TokenId> known;  // the prompt and what has been answered
  std::optional<text::GrammarMask> mask;
  std::optional<text::ReasoningBudget> budget;
  std::future<void> mask_ready;  // of the next token; invalid: nobody computes it
  AnswerWriter writer;
  models::PooledRows pooled;  // embeddings
  double admitted = 0, first_token = 0, last_token = 0;
  int64_t reused = 0;
  int64_t exact = 0;  // leading tokens that were computed as a prompt's, or whose bits are the same
  int preemptions = 0;
  int64_t fed_ahead = 0;   // tokens in `cache` of a step behind the one that is looked at
  kv::Spill::Kept kept;    // its pages in host memory, while it waits after a preemption
  int64_t kept_exact = 0;  // what `exact` was
  int64_t reusable = 0;    // tokens that need not be computed if it is admitted, as looked up lately
  uint64_t looked_up = 0;  // the step before which that was; 0: never

  // Of the step that has just run.
  std::optional<Finish> finish;
  std::optional<Error> error;
  bool ended = false;                  // and told so by the step that saw it
  double gap = -1, waited_first = -1;  // for the histograms; negative: none
};

// One whose pages come from the disk; it runs when they are there.
struct Service::Loading {
  std::unique_ptr<Sequence> sequence;
  uint64_t ticket = 0;
  kv::PrefixTree::Match match;  // what was in memory
  std::vector<int32_t> pages;   // what is read, one reference each
  int64_t exact_pages = 0;      // of these
};

}  // namespace cairn::engine
