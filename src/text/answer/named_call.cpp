// Calls whose name stands outside of the arguments: one JSON object, tagged parameters, or Python's notation.
#include "text/answer/call_reader.h"
#include "text/answer/literal_reader.h"

namespace cairn::text::answer {

namespace {

// The tag and the name, which all of them start with. Nothing is consumed before both are complete.
class NamedCall : public CallReader {
 public:
  NamedCall(const CallForm& form, const CallContext& context) : form_(form), context_(context) {}

  Progress read(Cursor& in, CallSink& sink) override {
    if (!named_) {
      const Progress progress = read_name(in);
      if (progress != Progress::done) return progress;
      named_ = true;
    }
    return read_arguments(in, sink);
  }

 protected:
  virtual Progress read_arguments(Cursor& in, CallSink& sink) = 0;
  virtual Progress check_name() { return is_name(name_.name) ? Progress::done : Progress::failed; }

  void begin(CallSink& sink) {
    sink.begin(name_.name, name_.id);
    begun_ = true;
  }

  // Whether the call, or the section it is in, ends at the cursor. The call's end is consumed.
  Match at_end(Cursor& in) {
    const Match end = take_tag(form_.end, in);
    if (end == Match::yes) return end;
    size_t at = in.at;
    Cursor ahead{in.text, at, in.last};
    const Match close = take_tag(context_.row.close, ahead);
    return close == Match::no ? end : close;
  }

  const CallForm& form_;
  const CallContext context_;
  CallName name_;
  bool begun_ = false;

 private:
  static bool ends_name(char c) {
    return is_space(c) || std::string_view("<>{}()[]\"'`,;=").find(c) != std::string_view::npos;
  }

  // Moves over a name; false when its end is not there yet or it is none.
  static bool name_at(Cursor& in, Progress& progress) {
    const size_t from = in.at;
    while (in.at < in.text.size() && !ends_name(in.text[in.at]) && in.at - from <= kMostName) ++in.at;
    progress = in.at == from || in.at - from > kMostName || in.last ? Progress::failed : Progress::more;
    return in.at < in.text.size() && in.at > from && in.at - from <= kMostName;
  }

  Progress read_name(Cursor& in) {
    size_t at = in.at;
    Cursor ahead{in.text, at, in.last};
    if (!form_.begin.empty()) {
      const Match begin = take_tag(form_.begin, ahead);
      if (begin != Match::yes) return begin == Match::more ? Progress::more : Progress::failed;
    }
    const size_t behind_begin = at;
    const bool something = skip_space(ahead);
    if (at - behind_begin > kMostSpace) return Progress::failed;
    if (!something) return in.last ? Progress::failed : Progress::more;
    size_t from = at;
    Progress progress = Progress::failed;
    if (!name_at(ahead, progress)) return at == in.text.size() && !in.last ? Progress::more : progress;
    name_ = call_name(in.text.substr(from, at - from), form_, context_.row);
    if (!form_.id_mark.empty()) {
      const Match mark = take_tag(form_.id_mark, ahead);
      if (mark == Match::more) return Progress::more;
      if (mark == Match::yes) {
        from = at;
        if (!name_at(ahead, progress)) return at == in.text.size() && !in.last ? Progress::more : progress;
        name_.id = in.text.substr(from, at - from);
      }
    }
    if (!form_.name_end.empty() && form_.kind != CallKind::python) {
      const Match end =
          take_tag(form_.name_end.front() == '~' ? form_.name_end.substr(1) : form_.name_end, ahead);
      if (end != Match::yes) return end == Match::more ? Progress::more : Progress::failed;
    }
    const Progress checked = check_name();
    if (checked == Progress::done) in.at = at;
    return checked;
  }

  bool named_ = false;
};

class ValueCall : public NamedCall {
 public:
  using NamedCall::NamedCall;

 private:
  enum class State { before, object, text, behind };

  Progress read_arguments(Cursor& in, CallSink& sink) override {
    if (state_ == State::before) {
      if (!skip_space(in)) return in.last ? Progress::failed : Progress::more;
      const char c = in.text[in.at];
      if (c != '{' && c != '"') {
        const Match end = at_end(in);
        if (end == Match::more) return Progress::more;
        if (end == Match::no) return Progress::failed;
        begin(sink);
        sink.arguments("{}");
        return Progress::done;
      }
      begin(sink);
      state_ = c == '{' ? State::object : State::text;
    }
    if (state_ != State::behind) {
      std::string json;
      const bool complete = state_ == State::object ? literal_.read(in, json) : decoder_.read(in, json);
      if (!json.empty()) sink.arguments(json);
      if (!complete) return Progress::more;
      state_ = State::behind;
    }
    if (form_.end.empty()) return Progress::done;
    skip_space(in);
    return take_tag(form_.end, in) == Match::more ? Progress::more : Progress::done;
  }

  State state_ = State::before;
  LiteralReader literal_;
  StringDecoder decoder_;
};

class ParameterCall : public NamedCall {
 public:
  using NamedCall::NamedCall;

 private:
  enum class State { between, value_start, value };
  static constexpr std::string_view kCdata = "<![CDATA[", kCdataEnd = "]]>";

  Progress read_arguments(Cursor& in, CallSink& sink) override {
    while (true) {
      if (state_ == State::between) {
        skip_space(in);
        Cursor open{in.text, in.at, false};  // what is cut here stays a cut call
        const Match parameter = read_key(open, sink);
        if (parameter == Match::more) return Progress::more;
        if (parameter == Match::yes) continue;
        const Match end = at_end(open);
        if (end == Match::more) return Progress::more;
        if (!begun_) {
          if (end == Match::no) return Progress::failed;
          begin(sink);
          sink.arguments("{}");
          return Progress::done;
        }
        sink.arguments("}");
        return Progress::done;
      }
      if (state_ == State::value_start && !start_value(in)) return Progress::more;
      if (!read_value(in, sink)) return Progress::more;
    }
  }

  // Parameter tag, key and the end of the key; all or nothing.
  Match read_key(Cursor& in, CallSink& sink) {
    size_t at = in.at;
    Cursor ahead{in.text, at, in.last};
    const Match tag = take_tag(form_.parameter, ahead);
    if (tag != Match::yes) return tag;
    const size_t from = at;
    for (; at <= in.text.size() && at - from <= kMostName; ++at) {
      bool more = at == in.text.size() && !in.last;
      const std::string_view rest = in.text.substr(at);
      unsigned types = 0;
      bool found = false;
      size_t length = 0;
      for (const std::string_view end : {form_.string_key_end, form_.json_key_end, form_.key_end}) {
        if (end.empty() || found) continue;
        const Match match = match_tag(end, rest, in.last, length);
        more |= match == Match::more;
        found = match == Match::yes;
        if (found && end == form_.string_key_end) types = kString;
        if (found && end == form_.json_key_end) types = ~unsigned{kString};
        if (found && end == form_.key_end) types = kAskSchema;
      }
      if (more) return Match::more;
      if (!found) continue;
      const std::string_view key = trim(in.text.substr(from, at - from));
      if (key.empty() || key.find('\n') != std::string_view::npos) return Match::no;
      start_parameter(key, types, sink);
      in.at = at + length;
      return Match::yes;
    }
    return Match::no;
  }

  void start_parameter(std::string_view key, unsigned types, CallSink& sink) {
    types_ = types == kAskSchema ? context_.tools.types(name_.name, key) : types;
    std::string json = begun_ ? ", \"" : "{\"";
    if (!begun_) begin(sink);
    append_escaped(key, json);
    json += "\": ";
    sink.arguments(json);
    value_.clear();
    state_ = State::value_start;
    cdata_ = false;
  }

  bool start_value(Cursor& in) {
    if (form_.cdata) {
      size_t length = 0;
      const Match match = match_tag(kCdata, in.text.substr(in.at), in.last, length);
      if (match == Match::more) return false;
      cdata_ = match == Match::yes;
      in.at += cdata_ ? length : 0;
      if (cdata_) types_ = kString;
    }
    if (form_.line_values) {
      if (in.at == in.text.size() && !in.last) return false;
      if (in.at < in.text.size() && in.text[in.at] == '\n') ++in.at;
    }
    opened_ = false;
    state_ = State::value;
    return true;
  }

  // True when the value is complete and the cursor behind its end tag.
  bool read_value(Cursor& in, CallSink& sink) {
    size_t at = in.at;
    while (true) {
      size_t length = 0;
      const Match end = value_ends(in, at, length);
      if (end == Match::no && at < in.text.size()) {
        ++at;
        continue;
      }
      size_t certain = at;
      const bool layout = form_.line_values && certain > in.at && in.text[certain - 1] == '\n';
      if (layout && !(end == Match::no && in.last)) --certain;
      give(in.text.substr(in.at, certain - in.at), sink);
      if (end != Match::yes) {
        in.at = certain;
        if (in.last && types_ != kString) sink.arguments(value_);
        return false;
      }
      in.at = at + length;
      if (types_ == kString) {
        sink.arguments(opened_ ? "\"" : "\"\"");
      } else {
        sink.arguments(json_value(value_, types_));
      }
      state_ = State::between;
      return true;
    }
  }

  // An end tag counts when another parameter, the call's end or the section's end follows, so that a value
  // may contain it.
  Match value_ends(const Cursor& in, size_t at, size_t& length) {
    if (at == in.text.size()) return Match::no;
    const char first = cdata_ ? kCdataEnd.front() : form_.value_end.front();
    if (in.text[at] != first) return Match::no;
    size_t skipped = 0, tag = 0;
    if (cdata_) {
      const Match cdata = match_tag(kCdataEnd, in.text.substr(at), in.last, skipped);
      if (cdata != Match::yes) return cdata;
    }
    const Match end = match_tag(form_.value_end, in.text.substr(at + skipped), in.last, tag);
    if (end != Match::yes) return end;
    length = skipped + tag;
    Match follows = Match::no;
    for (const std::string_view next : {form_.parameter, form_.end, context_.row.close}) {
      size_t behind = at + length;
      Cursor ahead{in.text, behind, false};
      const Match match = take_tag(next, ahead);
      if (match == Match::yes) return match;
      if (match == Match::more) follows = in.last ? Match::yes : Match::more;
    }
    return follows;
  }

  void give(std::string_view text, CallSink& sink) {
    if (text.empty()) return;
    if (types_ != kString) {
      value_ += text;
      return;
    }
    std::string json = opened_ ? "" : "\"";
    opened_ = true;
    append_escaped(text, json);
    sink.arguments(json);
  }

  static constexpr unsigned kAskSchema = 1u << 30;

  State state_ = State::between;
  unsigned types_ = 0;
  bool cdata_ = false, opened_ = false;
  std::string value_;  // of a value that is not a string: its type shows at its end
};

// name(key=value, ...); with name_end ".call(" only name.call(...).
class PythonCall : public NamedCall {
 public:
  using NamedCall::NamedCall;

 private:
  enum class State { open, key, value, comma };

  Progress check_name() override {
    if (form_.name_end != "(") {
      const std::string_view suffix = form_.name_end.substr(0, form_.name_end.size() - 1);
      if (!name_.name.ends_with(suffix)) return Progress::failed;
      name_.name.resize(name_.name.size() - suffix.size());
    }
    return is_name(name_.name) ? Progress::done : Progress::failed;
  }

  Progress read_arguments(Cursor& in, CallSink& sink) override {
    while (true) {
      if (state_ == State::value) {
        std::string json;
        const bool complete = literal_.read(in, json);
        empty_ = empty_ && trim(json).empty();
        if (complete && empty_) json += "null";
        if (!json.empty()) sink.arguments(json);
        if (!complete) return Progress::more;
        state_ = State::comma;
      }
      if (!skip_space(in)) return Progress::more;
      const size_t at = in.at;
      const char c = in.text[at];
      if (state_ == State::open) {
        if (c != '(') return Progress::failed;
        in.at = at + 1;
        state_ = State::key;
      } else if (c == ')') {
        in.at = at + 1;
        if (!begun_) begin(sink);
        sink.arguments(keys_ == 0 ? "{}" : "}");
        return Progress::done;
      } else if (state_ == State::comma) {
        if (c != ',') return broken(sink);
        in.at = at + 1;
        state_ = State::key;
      } else {
        const std::string_view near = in.text.substr(at, kMostName);
        const size_t length = std::min(near.find('='), near.size());
        const std::string_view key = trim(near.substr(0, length));
        if (length == kMostName || (!key.empty() && !is_name(key))) return broken(sink);
        if (length == near.size()) return Progress::more;
        if (key.empty()) return broken(sink);
        std::string json = keys_++ == 0 ? "{\"" : ", \"";
        if (!begun_) begin(sink);
        append_escaped(key, json);
        json += "\": ";
        sink.arguments(json);
        in.at = at + length + 1;
        literal_ = {};
        empty_ = true;
        state_ = State::value;
      }
    }
  }

  Progress broken(CallSink& sink) {
    if (!begun_) return Progress::failed;
    sink.arguments("}");
    return Progress::done;
  }

  State state_ = State::open;
  LiteralReader literal_;
  bool empty_ = true;  // nothing of the value has come
  int keys_ = 0;
};

}  // namespace

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > kMostName) return false;
  for (char c : name)
    if (static_cast<unsigned char>(c) <= ' ' ||
        std::string_view("<>{}()[]\"'`,;=").find(c) != std::string_view::npos)
      return false;
  return true;
}

CallName call_name(std::string_view written, const CallForm&, const ToolRow& row) {
  if (row.ids != IdStyle::kimi) return {std::string(written), ""};
  std::string_view name = written;
  if (name.starts_with("functions.")) name.remove_prefix(std::string_view("functions.").size());
  const size_t colon = name.rfind(':');
  if (colon == std::string_view::npos) return {std::string(name), ""};
  return {std::string(name.substr(0, colon)), std::string(written)};
}

std::unique_ptr<CallReader> value_call(const CallForm& form, const CallContext& context) {
  return std::make_unique<ValueCall>(form, context);
}
std::unique_ptr<CallReader> parameter_call(const CallForm& form, const CallContext& context) {
  return std::make_unique<ParameterCall>(form, context);
}
std::unique_ptr<CallReader> python_call(const CallForm& form, const CallContext& context) {
  return std::make_unique<PythonCall>(form, context);
}

std::unique_ptr<CallReader> make_reader(const CallForm& form, const CallContext& context) {
  switch (form.kind) {
    case CallKind::value: return value_call(form, context);
    case CallKind::parameters: return parameter_call(form, context);
    case CallKind::python: return python_call(form, context);
    case CallKind::json:
    case CallKind::none: break;
  }
  return json_call(context);
}

}  // namespace cairn::text::answer
