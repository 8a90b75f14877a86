#include "serve/api/generation.h"

#include <algorithm>
#include <optional>

namespace cairn::serve {
namespace {

std::string_view finish_name(engine::Finish finish) {
  switch (finish) {
    case engine::Finish::end_of_turn: return "stop";
    case engine::Finish::stop_string: return "stop";
    case engine::Finish::length: return "length";
    case engine::Finish::cancelled: break;
  }
  return "cancelled";
}

class Generation {
 public:
  Generation(Serving& serving, GenerationPlan plan, std::unique_ptr<Facade> facade)
      : serving_(serving), plan_(std::move(plan)), facade_(std::move(facade)) {}

  static void start(const std::shared_ptr<Generation>&, const std::shared_ptr<Reply>&);

 private:
  struct Choice {
    std::optional<text::AnswerParser> parser;
    int64_t reasoning_tokens = 0;
    std::vector<text::TokenId> tokens;  // with name_stop only
    size_t text_bytes = 0;
  };
  class PromptListener;

  void piece(int choice, const engine::Piece&);
  void end(int choice, size_t prompt, const engine::Ended&);
  void make_parsers();
  std::string matched_stop(const Choice&) const;
  void gone();
  void fail_all(const ApiError&);
  void log() const;

  Serving& serving_;
  GenerationPlan plan_;
  const std::unique_ptr<Facade> facade_;

  std::mutex mutex_;
  std::vector<engine::RequestId> ids_;
  std::vector<Choice> choices_;
  std::vector<std::string> stops_;
  bool gone_ = false, over_ = false;  // over: the façade has heard its last
  int open_ = 0;                      // choices not ended
  Usage usage_;
  std::vector<bool> prompt_counted_;
  std::string finish_ = "stop";
  double queued_ = 0, first_token_ = 0, seconds_ = 0;
  int preemptions_ = 0;
};

// Numbers the answers of one prompt among the choices of all.
class Generation::PromptListener : public engine::Listener {
 public:
  PromptListener(std::shared_ptr<Generation> generation, size_t prompt, int first)
      : generation_(std::move(generation)), prompt_(prompt), first_(first) {}
  void on_piece(const engine::Piece& piece) override { generation_->piece(first_ + piece.answer, piece); }
  void on_end(const engine::Ended& ended) override {
    generation_->end(first_ + ended.answer, prompt_, ended);
  }

 private:
  const std::shared_ptr<Generation> generation_;
  const size_t prompt_;
  const int first_;
};

void Generation::start(const std::shared_ptr<Generation>& self, const std::shared_ptr<Reply>& reply) {
  {
    // Held until all are in, so that no answer is heard before the façade has started.
    const std::lock_guard lock(self->mutex_);
    int first = 0;
    self->prompt_counted_.resize(self->plan_.prompts.size());
    if (self->plan_.name_stop) self->stops_ = self->plan_.prompts.front().sampling.stop;
    try {
      for (size_t i = 0; i < self->plan_.prompts.size(); ++i) {
        auto& request = self->plan_.prompts[i];
        const int answers = request.embed ? 1 : request.sampling.n;
        self->open_ += answers;
        self->choices_.resize(size_t(self->open_));
        auto listener = std::make_shared<PromptListener>(self, i, first);
        first += answers;
        self->ids_.push_back(self->serving_.service.submit(std::move(request), std::move(listener)));
      }
    } catch (const Error& error) {
      self->over_ = true;
      for (const auto id : self->ids_) self->serving_.service.cancel(id);
      throw api_error(error, error.kind() == ErrorKind::invalid_argument ? "prompt" : "",
                      self->serving_.closing);
    }
    self->plan_.prompts.clear();
    if (self->plan_.parse) self->make_parsers();
    self->facade_->started();
  }
  reply->on_gone([weak = std::weak_ptr(self)] {
    if (const auto generation = weak.lock()) generation->gone();
  });
}

void Generation::make_parsers() {
  for (size_t i = 0; i < choices_.size(); ++i) {
    auto& parser = choices_[i].parser;
    parser.emplace(serving_.format, plan_.prompt_tail, plan_.tools, true, plan_.parse_tools,
                   fmt::format("{}/{}", plan_.id, i));
    if (!plan_.beginning.empty()) (void)parser->add(plan_.beginning);
  }
  plan_.tools = nullptr;
}

void Generation::gone() {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  gone_ = true;
  finish_ = "gone";
  for (const auto id : ids_) serving_.service.cancel(id);
}

void Generation::piece(int choice, const engine::Piece& piece) {
  const std::lock_guard lock(mutex_);
  if (over_ || gone_) return;
  if (stops_.size() > 1) {
    auto& c = choices_[size_t(choice)];
    c.tokens.insert(c.tokens.end(), piece.tokens.begin(), piece.tokens.end());
    c.text_bytes += piece.text.size();
  }
  TokenLogprobs logprobs;
  const bool with_logprobs = plan_.logprobs && !piece.tokens.empty();
  if (with_logprobs) logprobs = {piece.tokens.back(), piece.logprobs};
  auto& state = choices_[size_t(choice)];
  AnswerDelta delta;
  if (state.parser) {
    const bool before = state.parser->in_reasoning();
    delta = state.parser->add(piece.text);
    // The tags belong to the reasoning.
    if (before || state.parser->in_reasoning()) state.reasoning_tokens += int64_t(piece.tokens.size());
  } else {
    delta.content = piece.text;
  }
  facade_->computed = piece.computed;
  if (!delta.empty() || with_logprobs) facade_->delta(choice, delta, with_logprobs ? &logprobs : nullptr);
}

void Generation::end(int choice, size_t prompt, const engine::Ended& ended) {
  const std::lock_guard lock(mutex_);
  --open_;
  queued_ = std::max(queued_, ended.queued_seconds);
  first_token_ = std::max(first_token_, ended.first_token_seconds);
  seconds_ = std::max(seconds_, ended.seconds);
  preemptions_ += ended.preemptions;
  ChoiceEnd end;
  end.finish = ended.finish;
  auto& state = choices_[size_t(choice)];
  end.usage = {ended.prompt_tokens, ended.reused_tokens, ended.answer_tokens, state.reasoning_tokens};
  end.embedding = ended.embedding;
  if (ended.finish == engine::Finish::stop_string && plan_.name_stop) end.stop = matched_stop(state);
  // Answers to one prompt share its computation, so it is counted once, with what the first of them found
  // cached.
  if (!prompt_counted_[prompt]) {
    prompt_counted_[prompt] = true;
    usage_.prompt_tokens += ended.prompt_tokens;
    usage_.cached_tokens += ended.reused_tokens;
  }
  usage_.answer_tokens += ended.answer_tokens;
  usage_.reasoning_tokens += state.reasoning_tokens;
  if (!over_ && !gone_) {
    if (ended.error) {
      fail_all(api_error(Error(*ended.error, ended.message), "", serving_.closing));
      if (serving_.options.log)
        serving_.options.log(fmt::format("request={} error: {}", plan_.id, ended.message));
    } else if (ended.finish == engine::Finish::cancelled) {
      fail_all({503, "", "cancelled", "the server is closing and ended this answer"});
    } else {
      if (finish_ != "length") finish_ = finish_name(ended.finish);
      if (state.parser) {
        if (const auto rest = state.parser->finish(); !rest.empty()) facade_->delta(choice, rest, nullptr);
        end.tool_calls = state.parser->tool_calls();
        end.unfinished_call = state.parser->unfinished_call();
      }
      facade_->choice_ended(choice, std::move(end));
      if (open_ == 0) {
        over_ = true;
        facade_->all_ended(usage_);
      }
    }
  }
  if (open_ == 0) log();
}

// The engine cuts the answer before the stop string; decoding the tokens again shows what stood there.
std::string Generation::matched_stop(const Choice& choice) const {
  if (stops_.size() == 1) return stops_[0];
  const std::string whole = serving_.tokenizer.decode(choice.tokens);
  const auto rest = std::string_view(whole).substr(std::min(whole.size(), choice.text_bytes));
  std::string longest;
  for (const auto& stop : stops_)
    if (rest.starts_with(stop) && stop.size() > longest.size()) longest = stop;
  return longest;
}

void Generation::fail_all(const ApiError& error) {
  over_ = true;
  finish_ = error.code;
  for (const auto id : ids_) serving_.service.cancel(id);
  facade_->failed(error);
}

void Generation::log() const {
  if (!serving_.options.log) return;
  serving_.options.log(fmt::format(
      "request={} path={} prompt={} cached={} answer={} reasoning={} finish={} preempted={} queued_ms={:.1f} "
      "first_ms={:.1f} "
      "ms={:.1f}",
      plan_.id, plan_.path, usage_.prompt_tokens, usage_.cached_tokens, usage_.answer_tokens,
      usage_.reasoning_tokens, finish_, preemptions_, queued_ * 1e3, first_token_ * 1e3, seconds_ * 1e3));
}

}  // namespace

void generate(Serving& serving, GenerationPlan plan, std::unique_ptr<Facade> facade,
              const std::shared_ptr<Reply>& reply) {
  Generation::start(std::make_shared<Generation>(serving, std::move(plan), std::move(facade)), reply);
}

}  // namespace cairn::serve
