// {"name": "f", "arguments": {...}}: keys in any order, others ignored, also wrapped in {"function": ...}.
#include "text/answer/call_reader.h"
#include "text/answer/literal_reader.h"

namespace cairn::text::answer {

namespace {

class JsonCall : public CallReader {
 public:
  explicit JsonCall(const CallContext& context) : context_(context) {}

  Progress read(Cursor& in, CallSink& sink) override {
    while (true) {
      const Progress progress = step(in, sink);
      if (progress == Progress::failed && begun_) return Progress::done;
      if (progress != Progress::more || waiting_) return progress;
    }
  }

 private:
  enum class State { open, key, colon, value, name, arguments, text, skipped, comma };

  // One piece; waiting_ when it needs more text.
  Progress step(Cursor& in, CallSink& sink) {
    waiting_ = false;
    if (state_ != State::skipped && state_ != State::arguments && state_ != State::text && !skip_space(in))
      return wait();
    switch (state_) {
      case State::open:
        if (in.text[in.at] != '{') return Progress::failed;
        ++in.at;
        ++depth_;
        state_ = State::key;
        return Progress::more;
      case State::key:
        if (in.text[in.at] == '}') return close(in, sink);
        if (!read_string(in)) return string_failed_ ? Progress::failed : wait();
        key_ = string_;
        state_ = State::colon;
        return Progress::more;
      case State::colon:
        if (in.text[in.at] != ':') return Progress::failed;
        ++in.at;
        state_ = State::value;
        return Progress::more;
      case State::value: return start_value(in, sink);
      case State::name:
        if (!read_string(in)) return string_failed_ ? Progress::failed : wait();
        if (!is_name(string_) || (context_.only_known && !context_.tools.known(string_)))
          return Progress::failed;
        name_ = string_;
        state_ = State::comma;
        if (arguments_seen_) begin(sink);
        return Progress::more;
      case State::arguments: {
        std::string json;
        const bool complete = literal_.read(in, json);
        give(json, sink);
        if (!complete) return wait();
        state_ = State::comma;
        return Progress::more;
      }
      case State::text: {
        std::string json;
        const bool complete = decoder_.read(in, json);
        give(json, sink);
        if (!complete) return wait();
        state_ = State::comma;
        return Progress::more;
      }
      case State::skipped: {
        const bool complete = skip_.read(in, skipped_);
        if (skipped_.size() > kMostName) skipped_.resize(kMostName);
        if (!complete) return wait();
        if (key_ == "id" && skipped_.size() > 2 && skipped_[0] == '"' && skipped_.size() < kMostName)
          id_ = skipped_.substr(1, skipped_.size() - 2);
        state_ = State::comma;
        return Progress::more;
      }
      case State::comma:
        if (in.text[in.at] == '}') return close(in, sink);
        if (in.text[in.at] != ',') return Progress::failed;
        ++in.at;
        state_ = State::key;
        return Progress::more;
    }
    return Progress::failed;
  }

  Progress wait() {
    waiting_ = true;
    return Progress::more;
  }

  Progress start_value(Cursor& in, CallSink& sink) {
    const char c = in.text[in.at];
    if (key_ == "name" || key_ == "tool_name") {
      if (c != '"') return Progress::failed;
      state_ = State::name;
    } else if ((key_ == "arguments" || key_ == "parameters") && !arguments_seen_) {
      arguments_seen_ = true;
      if (c == 'n') {  // null
        give("{}", sink);
        skip_value();
      } else {
        literal_ = {};
        decoder_ = {};
        state_ = c == '"' ? State::text : State::arguments;
      }
      if (!name_.empty()) begin(sink);
    } else if (key_ == "function" && c == '{') {
      state_ = State::open;
    } else if (key_ == "function" && c == '"') {
      state_ = State::name;
    } else {
      // A bare object is held back while it may be a call, so it has to look like one from its first key on.
      if (context_.only_known && name_.empty() && key_ != "type" && key_ != "id") return Progress::failed;
      skip_value();
    }
    return Progress::more;
  }

  void skip_value() {
    skip_ = {};
    skipped_.clear();
    state_ = State::skipped;
  }

  // A string of bounded length at the cursor, without moving before it is complete.
  bool read_string(Cursor& in) {
    string_failed_ = in.text[in.at] != '"';
    if (string_failed_) return false;
    size_t at = in.at;
    Cursor rest{in.text.substr(0, std::min(in.text.size(), in.at + kMostName)), at, in.last};
    string_.clear();
    if (StringDecoder().read(rest, string_)) {
      in.at = at;
      return true;
    }
    string_failed_ = in.text.size() - in.at >= kMostName;
    return false;
  }

  void begin(CallSink& sink) {
    sink.begin(name_, context_.row.ids == IdStyle::mistral ? std::string_view(id_) : std::string_view());
    begun_ = true;
    if (!pending_.empty()) sink.arguments(pending_);
    pending_.clear();
  }

  void give(std::string_view json, CallSink& sink) {
    if (json.empty()) return;
    if (begun_)
      sink.arguments(json);
    else
      pending_ += json;
  }

  Progress close(Cursor& in, CallSink& sink) {
    ++in.at;
    if (--depth_ > 0) {
      state_ = State::comma;
      return Progress::more;
    }
    if (name_.empty()) return Progress::failed;
    if (!begun_) {
      begin(sink);
      if (!arguments_seen_) sink.arguments("{}");
    }
    return Progress::done;
  }

  CallContext context_;
  State state_ = State::open;
  bool waiting_ = false, begun_ = false, arguments_seen_ = false, string_failed_ = false;
  int depth_ = 0;
  std::string key_, string_, name_, id_, pending_, skipped_;
  LiteralReader literal_, skip_;
  StringDecoder decoder_;
};

class ArgumentsOnly : public CallReader {
 public:
  explicit ArgumentsOnly(std::string name) : name_(std::move(name)) {}

  Progress read(Cursor& in, CallSink& sink) override {
    if (!begun_) {
      if (!skip_space(in)) return Progress::more;
      if (in.text[in.at] != '{') return Progress::failed;
      sink.begin(name_, "");
      begun_ = true;
    }
    std::string json;
    const bool complete = literal_.read(in, json);
    if (!json.empty()) sink.arguments(json);
    return complete ? Progress::done : Progress::more;
  }

 private:
  std::string name_;
  bool begun_ = false;
  LiteralReader literal_;
};

}  // namespace

std::unique_ptr<CallReader> json_call(const CallContext& context) {
  return std::make_unique<JsonCall>(context);
}

std::unique_ptr<CallReader> arguments_only(std::string name) {
  return std::make_unique<ArgumentsOnly>(std::move(name));
}

}  // namespace cairn::text::answer
