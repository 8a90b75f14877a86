#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

namespace {

struct Macro final : Callable, Fields {
  Macro(Interpreter& i, const Stmt& s, ActivationPtr c)
      : Callable(0, 1), interpreter(i), stmt(s), closure(std::move(c)) {}
  const char* type_name() const override { return "jinja2.runtime.Macro"; }
  std::string printed() const override {
    return stmt.action == Action::macro ? "<Macro " + repr_text(stmt.text) + ">" : "<Macro anonymous>";
  }
  Value call(Runtime&, Args& args) override { return interpreter.call_macro(stmt, closure, args); }
  std::optional<Value> field(const Value&, const std::string& name) override {
    if (name == "name") return stmt.action == Action::macro ? Value::string(stmt.text) : Value();
    if (name == "caller") return Value::boolean(stmt.takes_caller);
    if (name == "catch_kwargs") return Value::boolean(stmt.takes_kwargs);
    if (name == "catch_varargs") return Value::boolean(stmt.takes_varargs);
    if (name == "arguments") {
      std::vector<Value> names;
      for (const auto& t : stmt.targets) names.push_back(Value::string(t->text));
      return Value::tuple(std::move(names));
    }
    if (name == "explicit_caller")
      return Value::boolean(std::any_of(stmt.targets.begin(), stmt.targets.end(),
                                        [](const auto& t) { return t->text == "caller"; }));
    return std::nullopt;
  }
  Interpreter& interpreter;
  const Stmt& stmt;
  ActivationPtr closure;
};

// {{ self.name() }}
struct BlockReference final : Callable {
  BlockReference(Interpreter& i, const Stmt& s) : Callable(0, 1), interpreter(i), stmt(s) {}
  Value call(Runtime&, Args& args) override {
    Bound("block", args, {});
    return interpreter.call_block(stmt);
  }
  Interpreter& interpreter;
  const Stmt& stmt;
};

struct SelfReference final : Object, Fields {
  explicit SelfReference(Interpreter& i) : Object(0, 1), interpreter(i) {}
  const char* type_name() const override { return "jinja2.runtime.TemplateReference"; }
  std::optional<Value> field(const Value&, const std::string& name) override {
    const Stmt* block = interpreter.find_block(name);
    if (!block) return std::nullopt;
    return Value::object(std::make_shared<BlockReference>(interpreter, *block));
  }
  Interpreter& interpreter;
};

}  // namespace

// The `loop` of a for statement.
struct Loop final : Callable, Fields, Sized, Mutable {
  Loop(Interpreter& i, const Stmt& s, Value v, std::shared_ptr<Iterator> it, ActivationPtr c, int depth)
      : Callable(0, 1),
        interpreter(i),
        stmt(s),
        values(std::move(v)),
        iterator(std::move(it)),
        closure(std::move(c)),
        depth0(depth) {}

  const char* type_name() const override { return "jinja2.runtime.LoopContext"; }
  std::string printed() const override {
    return fmt::format("<LoopContext {}/{}>", index0 + 1, const_cast<Loop*>(this)->length());
  }
  void clear() override {
    values = before = current = last_changed = Value();
    after.reset();
    iterator = iterate_vector({});
    closure.reset();
  }

  int64_t length() override {
    if (known_length) return *known_length;
    known_length = jinja::length(values);
    if (!known_length) {
      std::vector<Value> rest;
      while (auto v = iterator->next(interpreter.runtime_))
        interpreter.runtime_.step(), rest.push_back(std::move(*v));
      known_length = int64_t(rest.size()) + index0 + 1 + (after ? 1 : 0);
      iterator = iterate_vector(std::move(rest));
    }
    return *known_length;
  }

  const std::optional<Value>& peek() {
    if (!after) after = iterator->next(interpreter.runtime_);
    return after;
  }

  std::optional<Value> next() {
    auto v = after ? std::exchange(after, std::nullopt) : iterator->next(interpreter.runtime_);
    if (!v) return v;
    ++index0;
    before = std::move(current);
    current = *v;
    return v;
  }

  Value call(Runtime&, Args& args) override {
    const Bound b("loop", args, {"iterable"}, 1);
    if (!stmt.recursive)
      raise(Fault::type, "The loop must have the 'recursive' marker to be called recursively.");
    return interpreter.call_loop(stmt, closure, b.at(0), depth0 + 1);
  }

  struct Part final : Callable {
    Part(Value l, bool c) : Callable(0, 1), loop(std::move(l)), cycle(c) {}
    Value call(Runtime&, Args& args) override {
      if (!args.named.empty())
        raise(Fault::type, "got an unexpected keyword argument '{}'", args.named[0].first);
      const auto owner = std::dynamic_pointer_cast<Loop>(loop.object());
      if (cycle) {
        if (args.positional.empty()) raise(Fault::type, "no items for cycling given");
        return args.positional[size_t(owner->index0) % args.positional.size()];
      }
      Value now = Value::tuple(args.positional);
      if (owner->changed_before && equal(owner->last_changed, now)) return Value::boolean(false);
      owner->changed_before = true;
      owner->last_changed = std::move(now);
      return Value::boolean(true);
    }
    Value loop;
    bool cycle;
  };

  std::optional<Value> field(const Value& self, const std::string& name) override {
    if (name == "index") return Value::integer(index0 + 1);
    if (name == "index0") return Value::integer(index0);
    if (name == "first") return Value::boolean(index0 == 0);
    if (name == "last") return Value::boolean(!peek());
    if (name == "length") return Value::integer(length());
    if (name == "revindex") return Value::integer(length() - index0);
    if (name == "revindex0") return Value::integer(length() - index0 - 1);
    if (name == "depth") return Value::integer(depth0 + 1);
    if (name == "depth0") return Value::integer(depth0);
    if (name == "previtem") return index0 == 0 ? Value::undefined_hint("there is no previous item") : before;
    if (name == "nextitem") return peek() ? *peek() : Value::undefined_hint("there is no next item");
    if (name == "cycle" || name == "changed")
      return Value::object(std::make_shared<Part>(self, name == "cycle"));
    if (name.starts_with('_')) return Value::unsafe(self, name);
    return std::nullopt;
  }

  Interpreter& interpreter;
  const Stmt& stmt;
  Value values, before, current, last_changed;
  std::shared_ptr<Iterator> iterator;
  ActivationPtr closure;
  int depth0;
  int64_t index0 = -1;
  std::optional<int64_t> known_length;
  std::optional<Value> after;
  bool changed_before = false;
};

using Flow = Interpreter::Flow;

std::string Interpreter::run() {
  std::string out;
  out_ = &out;
  activation_ = std::make_shared<Activation>(tree_.slots, nullptr);
  runtime_.keep(activation_);
  if (tree_.self.index >= 0) slot(tree_.self) = Value::object(std::make_shared<SelfReference>(*this));
  enter(tree_.scope);
  exec(tree_.body);
  return out;
}

void Interpreter::write(std::string_view text) {
  if (text.size() > runtime_.limits.output_bytes || buffered_ + text.size() > runtime_.limits.output_bytes)
    raise(Fault::limit, "output longer than {} bytes", runtime_.limits.output_bytes);
  buffered_ += text.size();
  out_->append(text);
}

void Interpreter::write_string(const Value& v, const char* what) {
  if (!v.is(Kind::string)) raise(Fault::type, "{} gave {} where text is needed", what, v.type_name());
  write(v.text());
}

void Interpreter::enter(const Scope& scope) {
  for (const Load& l : scope.enter) {
    Value v = l.source == Load::resolve ? resolve(l.name)
              : l.source == Load::alias ? slot(l.from)
                                        : Value::missing();
    slot(l.slot) = std::move(v);
  }
}

void Interpreter::leave(const Scope& scope) {
  for (const Slot& s : scope.leave) slot(s) = Value::missing();
}

Flow Interpreter::exec(const Body& body) {
  for (const auto& s : body)
    if (const Flow flow = exec(*s); flow != Flow::normal) return flow;
  return Flow::normal;
}

Flow Interpreter::exec(const Stmt& s) {
  runtime_.step();
  runtime_.check_stack();
  line_ = s.line;
  switch (s.action) {
    case Action::output:
      for (const auto& e : s.exprs) {
        if (e->op == Op::data)
          write(e->constant.text());
        else
          write(print(eval(*e)));
      }
      return Flow::normal;
    case Action::assign: return exec_assign(s), Flow::normal;
    case Action::assign_block: return exec_assign_block(s);
    case Action::if_else: return exec_if(s);
    case Action::for_loop: {
      const Value items = eval(*s.exprs[0]);
      if (!s.recursive) return exec_for(s, items, activation_, 0);
      write_string(call_loop(s, activation_, items, 0), "loop");
      return Flow::normal;
    }
    case Action::macro: {
      const Value macro = make_macro(s);
      slot(s.self) = macro;
      if (s.top_level && !tree_.blocks.empty()) export_name(s.text, macro);
      return Flow::normal;
    }
    case Action::call_block: return exec_call_block(s), Flow::normal;
    case Action::filter_block: return exec_filter_block(s);
    case Action::with: return exec_with(s);
    case Action::autoescape: return exec_autoescape(s);
    case Action::block: return exec_block(s), Flow::normal;
    case Action::break_loop: return Flow::break_loop;
    case Action::continue_loop: return Flow::continue_loop;
    case Action::foreign:
      eval(*s.exprs[0]);
      line_ = s.line;
      raise(Fault::unsupported, "the statement '{}': a chat template has no other templates to load", s.text);
  }
  return Flow::normal;
}

Flow Interpreter::exec_if(const Stmt& s) {
  for (size_t i = 0; i < s.exprs.size(); ++i)
    if (truth(eval(*s.exprs[i]))) return exec(s.bodies[i]);
  return exec(s.else_body);
}

std::shared_ptr<Iterator> Interpreter::filtered(const Stmt& s, const Value& items,
                                                const ActivationPtr& outer) {
  // A Python generator: its scope is entered when the first item is asked for.
  const auto activation = std::make_shared<Activation>(s.test_slots, outer);
  runtime_.keep(activation);
  const auto source = iterate(items);
  return generator(1,
                   [this, &s, activation, source, entered = false](Runtime&) mutable -> std::optional<Value> {
                     std::optional<Value> found;
                     within(activation, [&] {
                       if (!std::exchange(entered, true)) enter(s.test_scope);
                       while (auto v = source->next(runtime_)) {
                         runtime_.step();
                         assign(*s.test_target, *v);
                         if (truth(eval(*s.test))) {
                           found = read_target(*s.test_target);  // of a, b: a tuple, whatever the item was
                           break;
                         }
                       }
                     });
                     return found;
                   });
}

Flow Interpreter::exec_for(const Stmt& s, const Value& items, ActivationPtr outer, int depth) {
  const auto iterator = s.test ? filtered(s, items, outer) : iterate(items);
  std::shared_ptr<Loop> loop;
  if (s.extended) {
    // len() of what was filtered is not known beforehand.
    loop = std::make_shared<Loop>(*this, s, s.test ? Value::object(iterator) : items, iterator, outer, depth);
  }
  bool untouched = true;
  for (;;) {
    runtime_.step();
    line_ = s.line;
    const auto v = loop ? loop->next() : iterator->next(runtime_);
    if (!v) break;
    assign(*s.target, *v);
    if (loop) slot(s.loop) = Value::object(loop);
    enter(s.scope);
    const Flow flow = exec(s.bodies[0]);
    if (flow == Flow::break_loop) break;
    if (flow == Flow::normal) untouched = false;  // as there, a turn cut short does not count for else
  }
  leave(s.scope);
  if (loop && loop.use_count() > 1) runtime_.keep(loop);
  if (!s.has_else || !untouched) return Flow::normal;
  enter(s.else_scope);
  const Flow flow = exec(s.else_body);
  leave(s.else_scope);
  return flow;
}

Value Interpreter::call_loop(const Stmt& s, ActivationPtr closure, const Value& items, int depth) {
  const Runtime::Deeper deeper(runtime_);
  return Value::string(capture([&] {
    within_fresh(std::make_shared<Activation>(s.slots, closure), [&] { exec_for(s, items, closure, depth); });
  }));
}

Value Interpreter::make_macro(const Stmt& s) {
  return Value::object(std::make_shared<Macro>(*this, s, activation_));
}

Value Interpreter::call_macro(const Stmt& s, ActivationPtr closure, Args& args) {
  const Runtime::Deeper deeper(runtime_);
  const auto activation = std::make_shared<Activation>(s.slots, closure);
  auto& named = args.named;
  const auto pop = [&](const std::string& name) -> std::optional<Value> {
    for (auto it = named.begin(); it != named.end(); ++it)
      if (it->first == name) {
        Value v = std::move(it->second);
        named.erase(it);
        return v;
      }
    return std::nullopt;
  };
  const std::string title = s.action == Action::macro ? repr_text(s.text) : "None";
  const size_t count = s.targets.size();
  bool explicit_caller = false;
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = s.targets[i]->text;
    explicit_caller |= name == "caller";
    Value& at = activation->slots[size_t(s.targets[i]->slot.index)];
    if (i < args.positional.size())
      at = args.positional[i];
    else if (auto v = pop(name))
      at = std::move(*v);
  }
  if (s.takes_caller && !explicit_caller) {
    auto caller = pop("caller");
    activation->slots[size_t(s.caller.index)] =
        caller && !caller->is(Kind::none) ? *caller : Value::undefined_hint("No caller defined");
  }
  if (s.takes_kwargs) {
    std::vector<std::pair<Value, Value>> pairs;
    for (auto& [name, v] : named) pairs.emplace_back(Value::string(name), std::move(v));
    activation->slots[size_t(s.kwargs.index)] = Dict::of(std::move(pairs));
  } else if (!named.empty()) {
    if (named[0].first == "caller")
      raise(
          Fault::type,
          "macro {} was invoked with two values for the special caller argument. This is most likely a bug.",
          title);
    raise(Fault::type, "macro {} takes no keyword argument '{}'", title, named[0].first);
  }
  if (s.takes_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    activation->slots[size_t(s.varargs.index)] = Value::tuple(std::move(rest));
  } else if (args.positional.size() > count) {
    raise(Fault::type, "macro {} takes not more than {} argument(s)", title, count);
  }
  return Value::string(capture([&] {
    within_fresh(activation, [&] {
      enter(s.scope);
      for (size_t i = 0; i < count; ++i) {
        Value& at = slot(s.targets[i]->slot);
        if (!at.is(Kind::missing)) continue;
        const size_t without = count - s.defaults.size();
        Value v =
            i >= without
                ? eval(*s.defaults[i - without])
                : Value::undefined_hint(fmt::format("parameter '{}' was not provided", s.targets[i]->text));
        slot(s.targets[i]->slot) = std::move(v);
      }
      exec(s.bodies[0]);
    });
  }));
}

void Interpreter::exec_call_block(const Stmt& s) {
  const Value caller = make_macro(s);
  const Expr& e = *s.exprs[0];
  if (e.op == Op::generation) {
    Args none;
    return write_string(call_macro(s, activation_, none), "generation");
  }
  write_string(eval_call(e, &caller), "call block");
}

Flow Interpreter::exec_filter_block(const Stmt& s) {
  enter(s.scope);
  Flow flow = Flow::normal;
  const Value text = Value::string(capture([&] { flow = exec(s.bodies[0]); }));
  if (flow != Flow::normal) return flow;
  const Value* outer = std::exchange(filter_input_, &text);
  const Value result = eval(*s.exprs[0]);
  filter_input_ = outer;
  write_string(result, "filter block");
  leave(s.scope);
  return flow;
}

Flow Interpreter::exec_assign_block(const Stmt& s) {
  enter(s.scope);
  Flow flow = Flow::normal;
  Value value = Value::string(capture([&] { flow = exec(s.bodies[0]); }));
  if (flow != Flow::normal) return flow;
  if (s.exprs[0]) {
    const Value text = value;
    const Value* outer = std::exchange(filter_input_, &text);
    value = eval(*s.exprs[0]);
    filter_input_ = outer;
  }
  check_namespaces(*s.target);
  assign(*s.target, value);
  export_names(s);
  leave(s.scope);
  return flow;
}

void Interpreter::exec_assign(const Stmt& s) {
  check_namespaces(*s.target);
  assign(*s.target, eval(*s.exprs[0]));
  export_names(s);
}

void Interpreter::export_name(const std::string& name, Value v) {
  std::erase_if(exported_, [&](const auto& e) { return e.first == name; });
  exported_.emplace_back(name, std::move(v));
}

void Interpreter::export_names(const Stmt& s) {
  if (!s.top_level || tree_.blocks.empty()) return;
  for (const auto& [name, at] : s.visible) {
    export_name(name, slot(at));
  }
}

Flow Interpreter::exec_with(const Stmt& s) {
  enter(s.scope);
  for (size_t i = 0; i < s.targets.size(); ++i) assign(*s.targets[i], eval(*s.exprs[i]));
  const Flow flow = exec(s.bodies[0]);
  if (flow == Flow::normal) leave(s.scope);
  return flow;
}

Flow Interpreter::exec_autoescape(const Stmt& s) {
  enter(s.scope);
  if (truth(eval(*s.exprs[0]))) {
    line_ = s.line;
    raise(Fault::unsupported, "the statement 'autoescape' switched on");
  }
  const Flow flow = exec(s.bodies[0]);
  if (flow == Flow::normal) leave(s.scope);
  return flow;
}

const Stmt* Interpreter::find_block(const std::string& name) const {
  for (const Stmt* b : tree_.blocks)
    if (b->text == name) return b;
  return nullptr;
}

Value Interpreter::call_block(const Stmt& s) {
  const Runtime::Deeper deeper(runtime_);
  if (s.required) raise(Fault::runtime, "Required block '{}' not found", s.text);
  return Value::string(capture([&] {
    within_fresh(std::make_shared<Activation>(s.slots, nullptr), [&] {
      if (s.self.index >= 0) slot(s.self) = Value::object(std::make_shared<SelfReference>(*this));
      enter(s.scope);
      exec(s.bodies[0]);
    });
  }));
}

void Interpreter::exec_block(const Stmt& s) {
  const auto outer = exported_;
  for (const auto& [name, at] : s.visible) {
    const Value v = slot(at);
    if (v.is(Kind::missing)) continue;
    export_name(name, v);
  }
  write_string(call_block(s), "block");
  exported_ = outer;
}

Value from_json(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxNesting) raise(Fault::limit, "variables nest deeper than {}", kMaxNesting);
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::null: return Value();
    case Type::boolean: return Value::boolean(json.get<bool>());
    case Type::number_integer: return Value::integer(json.get<int64_t>());
    case Type::number_unsigned: return Value::integer(Int(json.get<uint64_t>()));
    case Type::number_float: return Value::real(json.get<double>());
    case Type::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (!is_valid_utf8(text)) raise(Fault::value, "a variable holds text that is not valid UTF-8");
      return Value::string(text);
    }
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return Value::list(std::move(items));
    }
    case Type::object: {
      std::vector<std::pair<Value, Value>> items;
      items.reserve(json.size());
      for (const auto& [key, item] : json.items())
        items.emplace_back(Value::string(key), from_json(item, depth + 1));
      return Dict::of(std::move(items));
    }
    default:
      raise(Fault::type, "a variable of a JSON type that templates do not have ({})", json.type_name());
  }
}

}  // namespace cairn::text::jinja
