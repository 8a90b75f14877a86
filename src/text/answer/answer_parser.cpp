#include "text/answer/answer_parser.h"

#include <array>

#include "text/answer/call_reader.h"
#include "text/answer/formats.h"
#include "text/answer/prose.h"
#include "text/answer/tag_pattern.h"
#include "text/answer/tool_schema.h"

namespace cairn::text {

using namespace answer;

namespace {

constexpr size_t kMostHeader = 1024;  // bytes between a message's start and its text

// splitmix64 over FNV-1a of the seed: spread out, not secret.
std::string make_id(IdStyle style, std::string_view seed, int index) {
  uint64_t state = 0xcbf29ce484222325u;
  for (char c : seed) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  state ^= uint64_t(index + 1) * 0xd1342543de82ef95u;
  std::string id = style == IdStyle::mistral ? "" : "call_";
  for (size_t length = style == IdStyle::mistral ? 9 : 29; id.size() < length;) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    id += "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(z ^ (z >> 31)) % 62];
  }
  return id;
}

std::string_view word_after(std::string_view text, std::string_view mark) {
  const size_t at = text.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = text.substr(at + mark.size());
  return rest.substr(0, rest.find_first_of(" \n\t<"));
}

}  // namespace

// One state per kind of text. text_ holds what is not decided: from at_ on, or from mark_ on while what was
// read may still turn out to be content.
class AnswerParser::Machine : private CallSink {
 public:
  Machine(const AnswerFormat& format, std::string_view tail, const nlohmann::ordered_json& tools,
          bool parse_reasoning, bool parse_tools, std::string_view id_seed)
      : tools_(parse_tools ? format.tool_row() : nullptr),
        reasoning_(format.reasoning_row()),
        channels_(parse_reasoning || parse_tools ? format.channel_row() : nullptr),
        reasoning_on_(parse_reasoning),
        schemas_(tools),
        id_seed_(id_seed) {
    add_triggers();
    tail = trim(tail);
    if (channels_ != nullptr)
      start_channel(tail);
    else if (reasoning_ != nullptr && tail.ends_with(reasoning_->begin))
      start_reasoning();
    else if (reasoning_ != nullptr && tail.ends_with(reasoning_->end))
      content_.after_tag();
  }

  AnswerDelta run(std::string_view text, bool last) {
    AnswerDelta delta;
    out_ = &delta;
    last_ = last;
    text_ += text;
    while (step()) {
    }
    if (last) end();
    const size_t keep = held_ ? mark_ : at_;
    text_.erase(0, keep);
    at_ -= keep;
    mark_ = 0;
    out_ = nullptr;
    return delta;
  }

  bool in_reasoning() const { return state_ == State::reasoning; }
  bool unfinished() const { return unfinished_; }
  int calls() const { return calls_; }

 private:
  enum class State { content, reasoning, section, call, between, header };
  enum class Action { start_reasoning, end_reasoning, drop, section, end_message, header };
  struct Trigger {
    std::string_view tag;
    Action action;
    bool only_at_start;  // nothing but whitespace and reasoning has come
    bool consumed;
  };
  struct Triggers {
    std::vector<Trigger> list;
    std::array<bool, 256> first{};
    void add(std::string_view tag, Action action, bool only_at_start = false, bool consumed = true) {
      if (tag.empty()) return;
      list.push_back({tag, action, only_at_start, consumed});
      first[static_cast<unsigned char>(tag.front())] = true;
    }
  };

  void add_triggers() {
    if (channels_ != nullptr) {
      for (Triggers* triggers : {&content_triggers_, &reasoning_triggers_}) {
        for (std::string_view end : channels_->ends) triggers->add(end, Action::end_message);
        triggers->add(channels_->header_begin, Action::header);
      }
    } else if (reasoning_ != nullptr) {
      content_triggers_.add(reasoning_->begin, Action::start_reasoning, true);
      reasoning_triggers_.add(reasoning_->end, Action::end_reasoning);
      if (reasoning_on_) {
        content_triggers_.add(reasoning_->end, Action::drop, true);
        for (std::string_view tag : reasoning_->dropped) content_triggers_.add(tag, Action::drop);
      }
    }
    if (tools_ == nullptr) return;
    const auto add_calls = [&](Triggers& triggers) {
      triggers.add(tools_->open, Action::section);
      if (tools_->open.empty())
        for (const CallForm& form : tools_->forms) triggers.add(form.begin, Action::section, false, false);
    };
    add_calls(content_triggers_);
    if (tools_->ends_reasoning) add_calls(reasoning_triggers_);
    if (tools_->bare)
      for (std::string_view start : {"{", "["}) content_triggers_.add(start, Action::section, true, false);
  }

  // True when something was decided, so that there may be more to decide.
  bool step() {
    switch (state_) {
      case State::content: return prose(content_triggers_);
      case State::reasoning: return prose(reasoning_triggers_);
      case State::section: return section();
      case State::call: return call();
      case State::between: return between();
      case State::header: return header();
    }
    return false;
  }

  Cursor cursor() { return {text_, at_, last_}; }
  std::string_view from(size_t at) const { return std::string_view(text_).substr(at); }
  std::string_view part(size_t begin, size_t end) const {
    return std::string_view(text_).substr(begin, end - begin);
  }

  void say(std::string_view text) {
    if (state_ == State::reasoning && reasoning_on_)
      reasoning_text_.add(text, out_->reasoning);
    else
      content_.add(text, out_->content);
  }

  bool prose(const Triggers& triggers) {
    if (triggers.list.empty() && !content_.holds()) {
      out_->content += from(at_);
      at_ = text_.size();
      return false;
    }
    bool blank = content_.blank() && calls_ == 0;
    for (size_t i = at_; i < text_.size(); ++i) {
      if (triggers.first[static_cast<unsigned char>(text_[i])]) {
        const Trigger* found = nullptr;
        size_t length = 0;
        for (const Trigger& trigger : triggers.list) {
          size_t matched = 0;
          if (trigger.only_at_start && !blank) continue;
          const Match match = match_tag(trigger.tag, from(i), last_, matched);
          if (match == Match::more) {
            say(part(at_, i));
            at_ = i;
            return false;
          }
          if (match == Match::yes && matched > length) {
            found = &trigger;
            length = matched;
          }
        }
        if (found != nullptr) {
          say(part(at_, i));
          at_ = i;
          act(*found, length);
          return true;
        }
      }
      blank = blank && is_space(text_[i]);
    }
    say(from(at_));
    at_ = text_.size();
    return false;
  }

  void act(const Trigger& trigger, size_t length) {
    const std::string_view tag = part(at_, at_ + length);
    switch (trigger.action) {
      case Action::start_reasoning:
        if (!reasoning_on_) say(tag);
        start_reasoning();
        break;
      case Action::end_reasoning:
        state_ = State::content;
        if (reasoning_on_)
          content_.after_tag();
        else
          say(tag);
        break;
      case Action::drop: content_.after_tag(); break;
      case Action::section: start_section(); break;
      case Action::end_message:
        if (state_ == State::content) content_.after_tag();
        state_ = State::between;
        break;
      case Action::header:
        if (state_ == State::content) content_.after_tag();
        start_header();
        break;
    }
    if (trigger.consumed) at_ += length;
  }

  void start_reasoning() {
    if (reasoning_on_) content_.after_tag();
    reasoning_text_.after_tag();
    state_ = State::reasoning;
  }

  // ---- calls ----

  void start_section() {
    state_ = State::section;
    mark_ = at_;
    held_ = true;
    section_calls_ = 0;
    in_list_ = tools_->open.ends_with('[');
    list_ended_ = false;
    bare_ = tools_->bare && (text_[at_] == '{' || text_[at_] == '[');
  }

  bool section() {
    Cursor in = cursor();
    while (skip_space(in)) {
      const char c = text_[at_];
      const bool separator = section_calls_ > 0 && !list_ended_ && (c == ',' || c == ';');
      if (c == '[' && section_calls_ == 0 && !in_list_ && !list_ended_)
        in_list_ = true;
      else if (c == ']' && in_list_) {
        in_list_ = false;
        list_ended_ = true;
      } else if (!separator)
        break;
      ++at_;
    }
    if (at_ == text_.size()) return false;
    const Match close = take_tag(tools_->close, in);
    if (close == Match::yes) {
      leave_section();
      return true;
    }
    if (close == Match::more) return false;
    const CallForm* form = nullptr;
    if (!list_ended_) {
      const Match match = choose_form(form);
      if (match == Match::more) return false;
    }
    if (form == nullptr) {
      leave_section();
      return true;
    }
    if (section_calls_ > 0) mark_ = at_;
    held_ = true;
    call_begun_ = false;
    reader_ = make_reader(*form, {*tools_, schemas_, bare_});
    state_ = State::call;
    return true;
  }

  Match choose_form(const CallForm*& form) const {
    for (const CallForm& candidate : tools_->forms) {
      if (candidate.kind == CallKind::none) continue;
      size_t length = 0;
      Match match = Match::no;
      if (candidate.kind == CallKind::json)
        match = text_[at_] == '{' ? Match::yes : Match::no;
      else if (candidate.begin.empty())
        match = (section_calls_ == 0 || in_list_) && text_[at_] != '{' ? Match::yes : Match::no;
      else
        match = match_tag(candidate.begin, from(at_), last_, length);
      // A bare list of other things is an answer.
      if (bare_ && candidate.kind != CallKind::json) match = Match::no;
      if (match == Match::more) return match;
      if (match == Match::no) continue;
      form = &candidate;
      return match;
    }
    return Match::no;
  }

  void leave_section() {
    state_ = State::content;
    if (section_calls_ == 0) give_back();
    held_ = false;
  }

  // What was read since mark_ is content after all.
  void give_back() {
    state_ = State::content;
    held_ = false;
    if (at_ == mark_ && at_ < text_.size()) ++at_;
    content_.add(part(mark_, at_), out_->content);
  }

  bool call() {
    Cursor in = cursor();
    switch (reader_->read(in, *this)) {
      case Progress::more: return false;
      case Progress::failed:
        if (channels_ != nullptr && channels_->header_names_tool) mark_ = at_;  // the text of the message
        if (mark_ == at_ && channels_ != nullptr) {
          state_ = State::content;
          held_ = false;
        } else {
          give_back();
        }
        break;
      case Progress::done:
        ++section_calls_;
        held_ = false;
        state_ = tools_->open.empty() || (channels_ != nullptr && channels_->header_names_tool)
                     ? State::content
                     : State::section;
        break;
    }
    reader_.reset();
    return true;
  }

  void begin(std::string_view name, std::string_view id) override {
    call_begun_ = true;
    held_ = false;
    content_.after_tag();
    suppressed_ = !tools_->no_call.empty() && (name == tools_->no_call || name == "directly_answer");
    if (suppressed_) return;
    AnswerDelta::ToolCall call;
    call.index = calls_++;
    call.name = name;
    call.id = id.empty() ? make_id(tools_->ids, id_seed_, call.index) : std::string(id);
    out_->tool_calls.push_back(std::move(call));
  }

  void arguments(std::string_view json) override {
    if (suppressed_) return;
    auto& calls = out_->tool_calls;
    if (calls.empty() || calls.back().index != calls_ - 1) calls.push_back({calls_ - 1, "", "", ""});
    calls.back().arguments += json;
  }

  // ---- channels ----

  void start_channel(std::string_view tail) {
    const size_t at = tail.rfind(channels_->header_begin);
    const std::string_view open =
        at == std::string_view::npos ? "" : tail.substr(at + channels_->header_begin.size());
    const size_t message = open.find(channels_->message_begin);
    if (at == std::string_view::npos) {
      state_ = State::between;
    } else if (message == std::string_view::npos) {
      header_start_ = open;
      start_header();
    } else {
      start_message(open.substr(0, message));
    }
  }

  void start_header() {
    state_ = State::header;
    mark_ = at_;
    held_ = true;
  }

  bool between() {
    Cursor in = cursor();
    if (!skip_space(in)) return false;
    size_t length = 0;
    bool more = false;
    for (std::string_view end : channels_->ends) {
      const Match match = end.empty() ? Match::no : match_tag(end, from(at_), last_, length);
      if (match == Match::yes) {
        at_ += length;
        return true;
      }
      more |= match == Match::more;
    }
    const Match begin = match_tag(channels_->header_begin, from(at_), last_, length);
    if (begin == Match::yes) {
      start_header();
      at_ += length;
      return true;
    }
    const Match also = channels_->also_begin.empty()
                           ? Match::no
                           : match_tag(channels_->also_begin, from(at_), last_, length);
    if (also == Match::yes) {
      start_header();
      return true;
    }
    if (more || begin == Match::more || also == Match::more) return false;
    state_ = State::content;
    return true;
  }

  bool header() {
    const Found message = find_tag(channels_->message_begin, text_, at_, false);
    const size_t end = message.match == Match::no ? text_.size() : message.at;
    std::string whole = header_start_;
    whole += part(at_, end);
    if (!looks_like_header(trim(whole), message.match != Match::yes) || whole.size() > kMostHeader) {
      header_start_.clear();
      give_back();
      return true;
    }
    if (message.match != Match::yes) return false;
    header_start_.clear();
    at_ = message.at + message.length;
    held_ = false;
    start_message(whole);
    return true;
  }

  bool looks_like_header(std::string_view header, bool unfinished) const {
    if (header.starts_with("assistant")) header = trim(header.substr(9));
    if (header.empty()) return true;
    for (std::string_view start :
         {std::string_view("assistant"), std::string_view("to="), channels_->also_begin}) {
      size_t length = 0;
      if (start.empty()) continue;
      const Match match = match_tag(start, header, false, length);
      if (match == Match::yes || (match == Match::more && unfinished)) return true;
    }
    size_t length = 0;
    return unfinished && match_tag(channels_->message_begin, header, false, length) != Match::no;
  }

  void start_message(std::string_view header) {
    const std::string_view recipient = word_after(header, "to=");
    const std::string_view channel = word_after(header, "<|channel|>");
    const bool to_tool = !recipient.empty() && recipient != "self" && recipient != "user" &&
                         recipient != "assistant" && recipient != "all";
    if (to_tool && channels_->header_names_tool && tools_ != nullptr) {
      std::string_view name = recipient;
      if (name.starts_with(channels_->tool_prefix)) name.remove_prefix(channels_->tool_prefix.size());
      reader_ = arguments_only(std::string(name));
      call_begun_ = false;
      state_ = State::call;
      mark_ = at_;
      held_ = true;
    } else if (!to_tool && (recipient == "self" || channel == "analysis")) {
      start_reasoning();
    } else {
      content_.after_tag();
      state_ = State::content;
    }
  }

  // ---- the end ----

  void end() {
    switch (state_) {
      case State::content:
      case State::reasoning:
      case State::between: break;
      case State::section:
        at_ = text_.size();
        if (section_calls_ == 0) give_back();
        break;
      case State::call:
        unfinished_ = call_begun_;
        at_ = text_.size();
        if (!call_begun_ && mark_ < at_) give_back();
        break;
      case State::header: {
        const bool markup = from(at_).find("<|") != std::string_view::npos ||
                            trim(from(at_)).starts_with("to=") || mark_ < at_;
        at_ = text_.size();
        if (!markup && mark_ < at_) give_back();
        break;
      }
    }
    if (state_ == State::between) say(from(at_));
    at_ = text_.size();
    held_ = false;
    content_.finish(out_->content);
  }

  const ToolRow* tools_;
  const ReasoningRow* reasoning_;
  const ChannelRow* channels_;
  bool reasoning_on_;
  ToolSchemas schemas_;
  std::string id_seed_;
  Triggers content_triggers_, reasoning_triggers_;

  State state_ = State::content;
  std::string text_;
  size_t at_ = 0, mark_ = 0;
  bool held_ = false, last_ = false;
  Prose content_, reasoning_text_;
  AnswerDelta* out_ = nullptr;

  std::unique_ptr<CallReader> reader_;
  int calls_ = 0, section_calls_ = 0;
  bool in_list_ = false, list_ended_ = false, bare_ = false;
  bool call_begun_ = false, suppressed_ = false, unfinished_ = false;
  std::string header_start_;
};

AnswerParser::AnswerParser(const AnswerFormat& format, std::string_view prompt_tail,
                           const nlohmann::ordered_json& tools, bool parse_reasoning, bool parse_tools,
                           std::string_view id_seed)
    : machine_(std::make_unique<Machine>(format, prompt_tail, tools, parse_reasoning, parse_tools, id_seed)) {
}
AnswerParser::~AnswerParser() = default;
AnswerParser::AnswerParser(AnswerParser&&) noexcept = default;

AnswerDelta AnswerParser::add(std::string_view text) { return machine_->run(text, false); }
AnswerDelta AnswerParser::finish() { return machine_->run("", true); }
bool AnswerParser::in_reasoning() const { return machine_->in_reasoning(); }
bool AnswerParser::unfinished_call() const { return machine_->unfinished(); }
int AnswerParser::tool_calls() const { return machine_->calls(); }

}  // namespace cairn::text
