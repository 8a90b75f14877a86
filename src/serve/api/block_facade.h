// Answers as a sequence of blocks, reasoning, text and tool calls: what Anthropic's messages and OpenAI's
// responses have in common.
#pragma once

#include <string>
#include <vector>

#include "serve/api/facade.h"

namespace cairn::serve {

struct Block {
  enum class Kind { reasoning, text, call };
  Kind kind = Kind::text;
  std::string id;             // of the block where a dialect has one
  std::string text;           // or a call's arguments
  std::string call_id, name;  // of a call
  std::string logprobs;       // JSON, joined by commas
};

class BlockFacade : public ReplyFacade {
 public:
  using ReplyFacade::ReplyFacade;

  void delta(int choice, const AnswerDelta&, const TokenLogprobs*) final;
  void choice_ended(int choice, ChoiceEnd) final;

 protected:
  // Of the last block. Only called for a stream.
  virtual void opened(const Block&) = 0;
  virtual void grew(const Block&, std::string_view text, std::string_view logprobs) = 0;
  virtual void closed(const Block&) = 0;
  virtual void name_block(Block&) {}  // gives it an id

  // As JSON; tokens whose text comes later wait for it.
  virtual std::string logprobs_json(const TokenLogprobs&) { return {}; }

  size_t last() const { return blocks_.size() - 1; }  // the index of the last block

  std::vector<Block> blocks_;
  ChoiceEnd end_;

 private:
  Block& enter(Block::Kind, int call);
  void leave();
  void append(Block::Kind, int call, std::string_view text);

  std::string logprobs_;  // of text to come
  bool open_ = false;
  int call_ = -1;  // the open block's, when it is a call
};

}  // namespace cairn::serve
