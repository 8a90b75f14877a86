#include "serve/api/block_facade.h"

namespace cairn::serve {

Block& BlockFacade::enter(Block::Kind kind, int call) {
  if (open_ && blocks_.back().kind == kind && call_ == call) return blocks_.back();
  leave();
  Block block;
  block.kind = kind;
  name_block(block);
  blocks_.push_back(std::move(block));
  open_ = true;
  call_ = call;
  return blocks_.back();
}

void BlockFacade::leave() {
  if (!open_) return;
  open_ = false;
  if (stream_) closed(blocks_.back());
}

void BlockFacade::append(Block::Kind kind, int call, std::string_view text) {
  const bool is_new = !open_ || blocks_.back().kind != kind || call_ != call;
  Block& block = enter(kind, call);
  if (is_new && stream_) opened(block);
  block.text += text;
  std::string logprobs;
  if (kind == Block::Kind::text) logprobs.swap(logprobs_);
  if (!logprobs.empty()) block.logprobs += (block.logprobs.empty() ? "" : ",") + logprobs;
  if (stream_) grew(block, text, logprobs);
}

void BlockFacade::delta(int, const AnswerDelta& delta, const TokenLogprobs* logprobs) {
  if (logprobs) logprobs_ += (logprobs_.empty() ? "" : ",") + logprobs_json(*logprobs);
  if (!delta.reasoning.empty()) {
    append(Block::Kind::reasoning, -1, delta.reasoning);
    if (delta.content.empty()) logprobs_.clear();  // they were of the reasoning
  }
  if (!delta.content.empty()) append(Block::Kind::text, -1, delta.content);
  if (!delta.tool_calls.empty()) logprobs_.clear();
  for (const auto& call : delta.tool_calls) {
    if (!call.name.empty()) {
      Block& block = enter(Block::Kind::call, call.index);
      block.call_id = call.id;
      block.name = call.name;
      if (stream_) opened(block);
    }
    if (!call.arguments.empty()) append(Block::Kind::call, call.index, call.arguments);
  }
}

void BlockFacade::choice_ended(int, ChoiceEnd end) {
  leave();
  end_ = std::move(end);
}

}  // namespace cairn::serve
