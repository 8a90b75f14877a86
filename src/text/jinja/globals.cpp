// The global functions: jinja2's, with dict and namespace restricted as transformers restricts them, and
// transformers' raise_exception and strftime_now.
#include <unordered_map>

#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"

namespace cairn::text::jinja {

namespace {

struct Function final : Callable {
  Function(const char* n, Value (*f)(Runtime&, Args&)) : Callable(0, 0), name(n), function(f) {}
  const char* type_name() const override { return "function"; }
  Value call(Runtime& runtime, Args& args) override { return function(runtime, args); }
  const char* name;
  Value (*function)(Runtime&, Args&);
};

Value range(Runtime&, Args& args) {
  const Bound b("range", args, {"start", "stop", "step"}, 1, 3);
  const int64_t first = b.integer(0, 0);
  const int64_t step = b.integer(2, 1);
  if (step == 0) raise(Fault::value, "range() arg 3 must not be zero");
  if (!b.given(1)) return Value::object(std::make_shared<Range>(0, first, 1));
  return Value::object(std::make_shared<Range>(first, b.integer(1, 0), step));
}

// dict(mapping or pairs, **more)
std::vector<std::pair<Value, Value>> pairs_of(Runtime& runtime, const char* function, Args& args) {
  std::vector<std::pair<Value, Value>> pairs;
  if (args.positional.size() > 1)
    raise(Fault::type, "{} expected at most 1 argument, got {}", function, args.positional.size());
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is(Kind::dict)) {
      pairs = from.dict().items;
    } else {
      for_each(runtime, from, [&](const Value& pair) {
        auto parts = to_vector(runtime, pair);
        if (parts.size() != 2)
          raise(Fault::value, "dictionary update sequence element has length {}; 2 is required",
                parts.size());
        pairs.emplace_back(std::move(parts[0]), std::move(parts[1]));
      });
    }
  }
  for (auto& [name, v] : args.named) pairs.emplace_back(Value::string(name), std::move(v));
  return pairs;
}

Value fromkeys(Runtime& runtime, Args& args) {
  const Bound b("fromkeys", args, {"iterable", "value"}, 1, 2);
  std::vector<std::pair<Value, Value>> pairs;
  for_each(runtime, b.at(0), [&](const Value& key) { pairs.emplace_back(key, b.get(1, Value())); });
  return Dict::of(std::move(pairs));
}

struct DictFunction final : Callable, Fields {
  DictFunction() : Callable(0, 0) {}
  const char* type_name() const override { return "TemplateDict"; }
  Value call(Runtime& runtime, Args& args) override { return Dict::of(pairs_of(runtime, "dict", args)); }
  std::optional<Value> field(const Value&, const std::string& name) override {
    if (name != "fromkeys") return std::nullopt;
    return Value::object(std::make_shared<Function>("fromkeys", fromkeys));
  }
};

Value make_namespace(Runtime& runtime, Args& args) {
  const auto names = std::make_shared<Namespace>();
  for (auto& [key, v] : pairs_of(runtime, "namespace", args)) {
    if (!key.is(Kind::string)) raise(Fault::unsupported, "a namespace with a name that is not a string");
    names->set(key.text(), std::move(v));
  }
  runtime.keep(names);
  return Value::object(names);
}

struct Cycler final : Object, Fields {
  explicit Cycler(std::vector<Value> v) : Object(0, 1), items(Value::tuple(std::move(v))) {}
  const char* type_name() const override { return "jinja2.utils.Cycler"; }
  struct Step final : Callable {
    Step(std::shared_ptr<Object> c, bool r) : Callable(0, 1), cycler(std::move(c)), reset(r) {}
    Value call(Runtime&, Args& args) override {
      Bound("next", args, {});
      auto& c = static_cast<Cycler&>(*cycler);
      if (reset) return c.position = 0, Value();
      const Value v = c.items.items()[c.position];
      c.position = (c.position + 1) % c.items.items().size();
      return v;
    }
    std::shared_ptr<Object> cycler;
    bool reset;
  };
  std::optional<Value> field(const Value& self, const std::string& name) override {
    if (name == "current") return items.items()[position];
    if (name == "pos") return Value::integer(int64_t(position));
    if (name == "items") return items;
    if (name == "next" || name == "reset")
      return Value::object(std::make_shared<Step>(self.object(), name == "reset"));
    return std::nullopt;
  }
  Value items;
  size_t position = 0;
};

Value make_cycler(Runtime&, Args& args) {
  if (!args.named.empty())
    raise(Fault::type, "cycler() got an unexpected keyword argument '{}'", args.named[0].first);
  if (args.positional.empty()) raise(Fault::runtime, "at least one item has to be provided");
  int nesting = 0;
  for (const Value& v : args.positional) nesting = std::max(nesting, v.nesting());
  if (nesting > kMaxNesting / 2) raise(Fault::limit, "values nest deeper than {}", kMaxNesting / 2);
  return Value::object(std::make_shared<Cycler>(args.positional));
}

struct Joiner final : Callable, Fields {
  explicit Joiner(Value s) : Callable(0, s.nesting() + 1), separator(std::move(s)) {}
  const char* type_name() const override { return "jinja2.utils.Joiner"; }
  Value call(Runtime&, Args& args) override {
    Bound("joiner", args, {});
    return std::exchange(used, true) ? separator : Value::string("");
  }
  std::optional<Value> field(const Value&, const std::string& name) override {
    if (name == "sep") return separator;
    if (name == "used") return Value::boolean(used);
    return std::nullopt;
  }
  Value separator;
  bool used = false;
};

Value make_joiner(Runtime&, Args& args) {
  const Bound b("joiner", args, {"sep"});
  return Value::object(std::make_shared<Joiner>(b.get(0, Value::string(", "))));
}

Value raise_exception(Runtime&, Args& args) {
  const Bound b("raise_exception", args, {"message"}, 1);
  throw Raise{Fault::raised, print(b.at(0))};
}

Value strftime_now(Runtime& runtime, Args& args) {
  const Bound b("strftime_now", args, {"format"}, 1);
  if (!b.at(0).is(Kind::string))
    raise(Fault::type, "strftime() argument 1 must be str, not {}", b.at(0).type_name());
  // A datetime without zone: %z and %Z are empty there, %f are microseconds, which this clock does not have.
  std::string format;
  const std::string& text = b.at(0).text();
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '%' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == 'z' || next == 'Z')
      ++i;
    else if (next == 'f')
      format += "000000", ++i;
    else if (next)
      format += text[i], format += next, ++i;
    else
      format += text[i];
  }
  if (format.size() > 4096) raise(Fault::limit, "a date format longer than 4096 bytes");
  const std::tm now = runtime.local_time();
  std::string out(format.size() * 64 + 64, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &now));
  return Value::string(std::move(out));
}

Value lipsum(Runtime&, Args&) { raise(Fault::unsupported, "the function 'lipsum'"); }

}  // namespace

std::optional<Value> find_global(const std::string& name) {
  static const std::unordered_map<std::string, Value (*)(Runtime&, Args&)> functions = {
      {"range", range},
      {"namespace", make_namespace},
      {"cycler", make_cycler},
      {"joiner", make_joiner},
      {"lipsum", lipsum},
      {"raise_exception", raise_exception},
      {"strftime_now", strftime_now},
  };
  if (name == "dict") return Value::object(std::make_shared<DictFunction>());
  const auto found = functions.find(name);
  if (found == functions.end()) return std::nullopt;
  return Value::object(std::make_shared<Function>(found->first.c_str(), found->second));
}

}  // namespace cairn::text::jinja
