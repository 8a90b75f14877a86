#include "text/decoder.h"

#include <functional>

#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

using Tokens = DecodeStage::Tokens;

// A step that looks at one token at a time, with its position in the sequence.
class EachToken : public DecoderStep {
 public:
  using Function = std::function<std::string(std::string, size_t index)>;
  explicit EachToken(Function f) : f_(std::move(f)) {}
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(f_); }
  std::string piece(std::string text) const override { return f_(std::move(text), 1); }

 private:
  struct Stage : DecodeStage {
    explicit Stage(const Function& function) : f(function) {}
    void add(DecodedToken token, Tokens& next) override {
      next.push_back({token.id, f(std::move(token.text), index++)});
    }
    const Function& f;
    size_t index = 0;
  };
  Function f_;
};

class ByteLevelStep final : public DecoderStep {
 public:
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(); }
  bool joins() const override { return true; }
  std::string piece(std::string text) const override {
    auto bytes = from_visible(text);
    return bytes ? std::move(*bytes) : text;
  }

 private:
  struct Stage : DecodeStage {
    void add(DecodedToken token, Tokens& next) override {
      const auto bytes = from_visible(token.text);
      pending += bytes ? *bytes : token.text;
      const size_t complete = pending.size() - unfinished_utf8(pending);
      if (complete == 0) return;
      next.push_back({-1, replace_invalid_utf8(std::string_view(pending).substr(0, complete))});
      pending.erase(0, complete);
    }
    void finish(Tokens& next) override { next.push_back({-1, replace_invalid_utf8(pending)}); }
    std::string pending;
  };
};

// Neighbouring byte tokens are one run: text if the whole run is valid UTF-8, else one U+FFFD per byte.
class ByteFallbackStep final : public DecoderStep {
 public:
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(); }
  std::string piece(std::string text) const override {
    const int byte = byte_of(text);
    return byte < 0 ? text : std::string(1, char(byte));
  }

 private:
  // The reference parses the two digits as a signed number would be, so "+A" is ten.
  static int byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
    int value = 0;
    for (size_t i = token[3] == '+' ? 4 : 3; i < 5; ++i) {
      const char c = token[i];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  }
  struct Stage : DecodeStage {
    void add(DecodedToken token, Tokens& next) override {
      const int byte = byte_of(token.text);
      if (byte >= 0) {
        run += char(byte);
        return;
      }
      finish(next);
      next.push_back(std::move(token));
    }
    void finish(Tokens& next) override {
      if (run.empty()) return;
      if (is_valid_utf8(run)) {
        next.push_back({-1, run});
      } else {
        for (size_t i = 0; i < run.size(); ++i) next.push_back({-1, std::string(kReplacementUtf8)});
      }
      run.clear();
    }
    std::string run;
  };
};

class FuseStep final : public DecoderStep {
 public:
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(); }
  bool joins() const override { return true; }
  bool takes_fragments() const override { return true; }

 private:
  struct Stage : DecodeStage {
    void add(DecodedToken token, Tokens& next) override { next.push_back({-1, std::move(token.text)}); }
  };
};

// Holds the parts of a joined token back until it is complete.
struct HoldStage final : DecodeStage {
  void add(DecodedToken token, Tokens&) override { held += token.text; }
  void finish(Tokens& next) override { next.push_back({-1, std::move(held)}); }
  std::string held;
};

class StripStep final : public DecoderStep {
 public:
  StripStep(uint32_t content, size_t start, size_t stop) : start_(start), stop_(stop) {
    append_utf8(content_, content);
  }
  std::unique_ptr<DecodeStage> start(bool fragments) const override {
    return std::make_unique<Stage>(*this, fragments);
  }
  bool takes_fragments() const override { return stop_ == 0; }

 private:
  struct Stage : DecodeStage {
    Stage(const StripStep& s, bool f) : step(s), fragments(f), left(s.start_) {}
    void add(DecodedToken token, Tokens& next) override {
      if (!fragments) left = step.start_;
      std::string_view text = token.text;
      while (left > 0 && text.starts_with(step.content_)) text.remove_prefix(step.content_.size()), --left;
      if (!text.empty()) left = 0;
      for (size_t i = 0; i < step.stop_ && text.ends_with(step.content_); ++i)
        text.remove_suffix(step.content_.size());
      next.push_back({token.id, std::string(text)});
    }
    const StripStep& step;
    bool fragments;
    size_t left;
  };
  std::string content_;
  size_t start_, stop_;
};

std::string clean_up(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = replace_all(text, from, to);
  return text;
}

// Each token is followed by a space in place of the suffix, the last one by nothing: it is known only at the
// end.
class BpeStep final : public DecoderStep {
 public:
  explicit BpeStep(std::string suffix) : suffix_(std::move(suffix)) {}
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(suffix_); }
  std::string piece(std::string text) const override { return replace_all(text, suffix_, " "); }

 private:
  struct Stage : DecodeStage {
    explicit Stage(const std::string& s) : suffix(s) {}
    void add(DecodedToken token, Tokens& next) override {
      if (have) next.push_back({held.id, replace_all(held.text, suffix, " ")});
      held = std::move(token);
      have = true;
    }
    void finish(Tokens& next) override {
      if (have) next.push_back({held.id, replace_all(held.text, suffix, "")});
    }
    const std::string& suffix;
    DecodedToken held;
    bool have = false;
  };
  std::string suffix_;
};

class CtcStep final : public DecoderStep {
 public:
  CtcStep(std::string pad, std::string delimiter, bool cleanup)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), cleanup_(cleanup) {}
  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(*this); }
  std::string piece(std::string text) const override {
    text = replace_all(text, pad_, "");
    return cleanup_ ? replace_all(clean_up(std::move(text)), delimiter_, " ") : text;
  }

 private:
  struct Stage : DecodeStage {
    explicit Stage(const CtcStep& s) : step(s) {}
    void add(DecodedToken token, Tokens& next) override {
      if (have && token.text == previous) return;
      have = true;
      previous = token.text;
      std::string text = step.piece(std::move(token.text));
      if (!text.empty()) next.push_back({token.id, std::move(text)});
    }
    const CtcStep& step;
    std::string previous;
    bool have = false;
  };
  std::string pad_, delimiter_;
  bool cleanup_;
};

}  // namespace

DecoderChain::Run::Run(const DecoderChain& chain) : spaces_(chain.empty()) {
  bool fragments = false;
  for (const auto& step : chain.steps_) {
    if (fragments && !step->takes_fragments()) {
      stages_.push_back(std::make_unique<HoldStage>());
      fragments = false;
    }
    stages_.push_back(step->start(fragments));
    fragments = fragments || step->joins();
  }
}

void DecoderChain::Run::pass(size_t stage, DecodeStage::Tokens tokens, std::string& out) {
  for (; stage < stages_.size() && !tokens.empty(); ++stage) {
    DecodeStage::Tokens next;
    for (DecodedToken& token : tokens) stages_[stage]->add(std::move(token), next);
    tokens = std::move(next);
  }
  for (const DecodedToken& token : tokens) {
    if (spaces_ && !first_) out += ' ';
    first_ = false;
    out += token.text;
  }
}

std::string DecoderChain::Run::add(TokenId id, std::string text) {
  std::string out;
  DecodeStage::Tokens tokens;
  tokens.push_back({id, std::move(text)});
  pass(0, std::move(tokens), out);
  return out;
}

std::string DecoderChain::Run::skip() {
  std::string out;
  if (stages_.empty()) return out;
  DecodeStage::Tokens tokens;
  stages_[0]->skip(tokens);
  pass(1, std::move(tokens), out);
  return out;
}

std::string DecoderChain::Run::finish() {
  std::string out;
  for (size_t i = 0; i < stages_.size(); ++i) {
    DecodeStage::Tokens tokens;
    stages_[i]->finish(tokens);
    pass(i + 1, std::move(tokens), out);
  }
  return out;
}

std::string DecoderChain::piece(std::string text) const {
  for (const auto& step : steps_) text = step->piece(std::move(text));
  return text;
}

std::unique_ptr<DecoderStep> byte_level_decoder() { return std::make_unique<ByteLevelStep>(); }
std::unique_ptr<DecoderStep> byte_fallback_decoder() { return std::make_unique<ByteFallbackStep>(); }
std::unique_ptr<DecoderStep> fuse_decoder() { return std::make_unique<FuseStep>(); }

std::unique_ptr<DecoderStep> strip_decoder(uint32_t content, size_t start, size_t stop) {
  return std::make_unique<StripStep>(content, start, stop);
}

std::unique_ptr<DecoderStep> replace_decoder(std::string from, std::string to) {
  return std::make_unique<EachToken>([from = std::move(from), to = std::move(to)](std::string text, size_t) {
    return replace_all(text, from, to);
  });
}

std::unique_ptr<DecoderStep> metaspace_decoder(uint32_t replacement, bool drops_first) {
  std::string mark;
  append_utf8(mark, replacement);
  return std::make_unique<EachToken>([mark, drops_first](std::string text, size_t index) {
    return replace_all(text, mark, index == 0 && drops_first ? "" : " ");
  });
}

std::unique_ptr<DecoderStep> word_piece_decoder(std::string prefix, bool cleanup) {
  return std::make_unique<EachToken>([prefix = std::move(prefix), cleanup](std::string text, size_t index) {
    if (index > 0) {
      if (text.starts_with(prefix))
        text.erase(0, prefix.size());
      else
        text.insert(text.begin(), ' ');
    }
    return cleanup ? clean_up(std::move(text)) : text;
  });
}

std::unique_ptr<DecoderStep> bpe_decoder(std::string suffix) {
  return std::make_unique<BpeStep>(std::move(suffix));
}

std::unique_ptr<DecoderStep> ctc_decoder(std::string pad, std::string word_delimiter, bool cleanup) {
  return std::make_unique<CtcStep>(std::move(pad), std::move(word_delimiter), cleanup);
}

}  // namespace cairn::text
