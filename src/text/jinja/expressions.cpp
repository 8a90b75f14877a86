#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/printing.h"

namespace cairn::text::jinja {

Value& Interpreter::slot(const Slot& s) {
  Activation* a = activation_.get();
  for (int i = 0; i < s.hops; ++i) a = a->parent.get();
  return a->slots[size_t(s.index)];
}

Value Interpreter::resolve(const std::string& name) {
  for (const auto& [n, v] : exported_)
    if (n == name) return v;
  if (const Value* found = variables_.dict().find(std::string_view(name))) return *found;
  if (auto global = find_global(name)) return *global;
  return Value::missing();
}

Value Interpreter::eval(const Expr& e) {
  runtime_.step();
  runtime_.check_stack();
  line_ = e.line;
  switch (e.op) {
    case Op::constant:
    case Op::data: return e.constant;
    case Op::name: {
      const Value& v = slot(e.slot);
      return v.is(Kind::missing) ? Value::undefined_name(e.text) : v;
    }
    case Op::attribute: {
      const Value owner = eval(*e.items[0]);
      line_ = e.line;
      return attribute(runtime_, owner, e.text);
    }
    case Op::item: {
      const Value owner = eval(*e.items[0]), key = eval(*e.items[1]);
      line_ = e.line;
      return item(runtime_, owner, key);
    }
    case Op::logical_and: {
      Value left = eval(*e.items[0]);
      return truth(left) ? eval(*e.items[1]) : left;
    }
    case Op::logical_or: {
      Value left = eval(*e.items[0]);
      return truth(left) ? left : eval(*e.items[1]);
    }
    case Op::logical_not: return Value::boolean(!truth(eval(*e.items[0])));
    case Op::compare: return eval_compare(e);
    case Op::conditional: return eval_conditional(e);
    case Op::slice: return eval_slice(e);
    case Op::call: return eval_call(e, nullptr);
    case Op::filter: return eval_filter(e);
    case Op::test: return eval_test(e);
    case Op::tuple:
    case Op::list:
    case Op::dict:
    case Op::concatenate: return eval_collection(e);
    case Op::namespace_attribute:
    case Op::generation: break;
    default: return eval_operator(e);
  }
  return Value();
}

Value Interpreter::eval_operator(const Expr& e) {
  const Value a = eval(*e.items[0]);
  if (e.op == Op::negate) return negate(a);
  if (e.op == Op::positive) return positive(a);
  const Value b = eval(*e.items[1]);
  line_ = e.line;
  switch (e.op) {
    case Op::add: return add(runtime_, a, b);
    case Op::subtract: return subtract(a, b);
    case Op::multiply: return multiply(runtime_, a, b);
    case Op::divide: return divide(a, b);
    case Op::floor_divide: return floor_divide(a, b);
    case Op::modulo: return modulo(runtime_, a, b);
    default: return power(a, b);
  }
}

Value Interpreter::eval_compare(const Expr& e) {
  Value left = eval(*e.items[0]);
  for (size_t i = 0; i < e.comparisons.size(); ++i) {
    Value right = eval(*e.items[i + 1]);
    line_ = e.line;
    bool holds = false;
    switch (e.comparisons[i]) {
      case Comparison::eq: holds = equal(left, right); break;
      case Comparison::ne: holds = !equal(left, right); break;
      case Comparison::lt: holds = less(left, right); break;
      case Comparison::lteq: holds = less(left, right) || equal(left, right); break;
      case Comparison::gt: holds = less(right, left); break;
      case Comparison::gteq: holds = less(right, left) || equal(left, right); break;
      case Comparison::in: holds = contains(runtime_, right, left); break;
      case Comparison::not_in: holds = !contains(runtime_, right, left); break;
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_conditional(const Expr& e) {
  if (truth(eval(*e.items[0]))) return eval(*e.items[1]);
  if (e.items[2]) return eval(*e.items[2]);
  return Value::undefined_hint(fmt::format(
      "the inline if-expression on line {} evaluated to false and no else section was defined.", e.line));
}

Value Interpreter::eval_slice(const Expr& e) {
  const Value owner = eval(*e.items[0]);
  const auto part = [&](size_t i) { return e.items[i] ? eval(*e.items[i]) : Value(); };
  const Value start = part(1), stop = part(2), step = part(3);
  line_ = e.line;
  return slice(runtime_, owner, start, stop, step);
}

Value Interpreter::eval_collection(const Expr& e) {
  if (e.op == Op::concatenate) {
    std::string text;
    for (const auto& i : e.items) {
      text += print(eval(*i));
      if (text.size() > runtime_.limits.output_bytes)
        raise(Fault::limit, "text longer than {} bytes", runtime_.limits.output_bytes);
    }
    runtime_.bytes(text.size());
    return Value::string(std::move(text));
  }
  std::vector<Value> values;
  values.reserve(e.items.size());
  for (const auto& i : e.items) values.push_back(eval(*i));
  line_ = e.line;
  if (e.op == Op::tuple) return Value::tuple(std::move(values));
  if (e.op == Op::list) return Value::list(std::move(values));
  std::vector<std::pair<Value, Value>> pairs;
  for (size_t i = 0; i < values.size(); i += 2)
    pairs.emplace_back(std::move(values[i]), std::move(values[i + 1]));
  return Dict::of(std::move(pairs));
}

void Interpreter::arguments(const Arguments& a, Args& args) {
  args.positional.reserve(a.positional.size());
  for (const auto& p : a.positional) args.positional.push_back(eval(*p));
  if (a.star) for_each(runtime_, eval(*a.star), [&](const Value& v) { args.positional.push_back(v); });
  for (const auto& [name, v] : a.named) args.named.emplace_back(name, eval(*v));
  if (!a.double_star) return;
  const Value mapping = eval(*a.double_star);
  if (!mapping.is(Kind::dict))
    raise(Fault::type, "argument after ** must be a mapping, not {}", mapping.type_name());
  for (const auto& [key, v] : mapping.dict().items) {
    if (!key.is(Kind::string)) raise(Fault::type, "keywords must be strings");
    for (const auto& [name, other] : args.named)
      if (name == key.text()) raise(Fault::type, "got multiple values for keyword argument '{}'", name);
    args.named.emplace_back(key.text(), v);
  }
}

Value Interpreter::eval_call(const Expr& e, const Value* caller) {
  const Value callee = eval(*e.items[0]);
  Args args;
  arguments(*e.arguments, args);
  if (caller) {
    for (const auto& [name, v] : args.named)
      if (name == "caller") raise(Fault::type, "got multiple values for keyword argument 'caller'");
    args.named.emplace_back("caller", *caller);
  }
  line_ = e.line;
  return call(runtime_, callee, args);
}

Value Interpreter::eval_filter(const Expr& e) {
  const Value value = e.items[0] ? eval(*e.items[0]) : *filter_input_;
  Args args;
  arguments(*e.arguments, args);
  line_ = e.line;
  if (!e.filter) raise(Fault::runtime, "No filter named '{}' found.", e.text);
  return e.filter->apply(runtime_, value, args);
}

Value Interpreter::eval_test(const Expr& e) {
  const Value value = eval(*e.items[0]);
  Args args;
  arguments(*e.arguments, args);
  line_ = e.line;
  if (!e.test) raise(Fault::runtime, "No test named '{}' found.", e.text);
  return Value::boolean(e.test->holds(runtime_, value, args));
}

void Interpreter::check_namespaces(const Expr& target) {
  if (target.op == Op::namespace_attribute && !slot(target.slot).as<Namespace>())
    raise(Fault::runtime, "cannot assign attribute on non-namespace object '{}'", target.text);
  for (const auto& i : target.items) check_namespaces(*i);
}

Value Interpreter::read_target(const Expr& target) {
  if (target.op == Op::name) return slot(target.slot);
  std::vector<Value> parts;
  for (const auto& i : target.items) parts.push_back(read_target(*i));
  return Value::tuple(std::move(parts));
}

void Interpreter::assign(const Expr& target, const Value& v) {
  if (target.op == Op::name) {
    slot(target.slot) = v;
    return;
  }
  if (target.op == Op::namespace_attribute) {
    slot(target.slot).as<Namespace>()->set(target.constant.text(), v);
    return;
  }
  const size_t n = target.items.size();
  const auto it = iterate(v);
  std::vector<Value> parts;
  while (auto part = it->next(runtime_)) {
    if (parts.size() == n) raise(Fault::value, "too many values to unpack (expected {})", n);
    parts.push_back(std::move(*part));
  }
  if (parts.size() < n)
    raise(Fault::value, "not enough values to unpack (expected {}, got {})", n, parts.size());
  for (size_t i = 0; i < n; ++i) assign(*target.items[i], parts[i]);
}

}  // namespace cairn::text::jinja
