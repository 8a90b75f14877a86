// Expressions and assignment targets of jinja2's grammar; the statements derive from it (parser.cpp).
#pragma once

#include <algorithm>
#include <initializer_list>
#include <set>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"

namespace cairn::text::jinja {

using Names = std::initializer_list<std::string_view>;

class ExpressionParser {
 protected:
  explicit ExpressionParser(std::string_view source) : tokens_(tokenize(source)) {}

  // --- tokens ---

  const Token& current() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return current().type == Lexeme::end ? tokens_[at_] : tokens_[at_++]; }
  bool at(Lexeme type) const { return current().type == type; }
  static bool is_name(const Token& t, std::string_view name) {
    return t.type == Lexeme::name && t.text == name;
  }
  bool at_name(std::string_view name) const { return is_name(current(), name); }
  bool at_op(std::string_view op) const { return at(Lexeme::op) && current().text == op; }
  bool at_any_name(Names names) const {
    return at(Lexeme::name) && std::find(names.begin(), names.end(), current().text) != names.end();
  }
  bool skip_name(std::string_view name) { return at_name(name) && (take(), true); }
  bool skip_op(std::string_view op) { return at_op(op) && (take(), true); }

  static std::string describe(const Token& t) {
    switch (t.type) {
      case Lexeme::data: return "template data";
      case Lexeme::variable_begin: return "begin of print statement";
      case Lexeme::variable_end: return "end of print statement";
      case Lexeme::block_begin: return "begin of statement block";
      case Lexeme::block_end: return "end of statement block";
      case Lexeme::name:
      case Lexeme::op: return t.text;
      case Lexeme::string: return "string '" + t.text + "'";
      case Lexeme::integer: return to_string(t.integer);
      case Lexeme::real: return std::to_string(t.real);
      case Lexeme::end: return "end of template";
    }
    return "token";
  }

  [[noreturn]] void error(std::string message, int line = 0) const {
    throw SyntaxError{line ? line : current().line, std::move(message)};
  }
  [[noreturn]] void unexpected(std::string_view wanted) const {
    error(fmt::format("expected {}, got '{}'", wanted, describe(current())));
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) unexpected(fmt::format("'{}'", op));
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) unexpected(fmt::format("'{}'", name));
  }
  std::string expect_any_name() {
    if (!at(Lexeme::name)) unexpected("a name");
    return take().text;
  }
  void expect(Lexeme type, std::string_view what) {
    if (!at(type)) unexpected(what);
    take();
  }

  // --- nodes ---

  static ExprPtr make(Op op, int line) {
    auto e = std::make_unique<Expr>();
    e->op = op;
    e->line = line;
    return e;
  }

  void grow(Expr& e, const Expr* child) const {
    if (!child) return;
    e.height = std::max(e.height, child->height + 1);
    if (e.height > kMaxHeight) error(fmt::format("expressions nest deeper than {}", kMaxHeight), e.line);
  }

  void put(Expr& e, ExprPtr child) const {
    grow(e, child.get());
    e.items.push_back(std::move(child));
  }

  ExprPtr make(Op op, int line, ExprPtr a) const {
    auto e = make(op, line);
    put(*e, std::move(a));
    return e;
  }

  ExprPtr make(Op op, int line, ExprPtr a, ExprPtr b) const {
    auto e = make(op, line, std::move(a));
    put(*e, std::move(b));
    return e;
  }

  static ExprPtr constant(Value v, int line) {
    auto e = make(Op::constant, line);
    e->constant = std::move(v);
    return e;
  }

  static ExprPtr named(Op op, std::string text, int line) {
    auto e = make(op, line);
    e->constant = Value::string(text);
    e->text = std::move(text);
    return e;
  }

  static std::unique_ptr<Stmt> make_stmt(Action action, int line) {
    auto s = std::make_unique<Stmt>();
    s->action = action;
    s->line = line;
    return s;
  }

  struct Nested {
    explicit Nested(ExpressionParser& p) : parser(p) {
      if (++parser.depth_ > kMaxHeight)
        parser.error(fmt::format("the template nests deeper than {}", kMaxHeight));
    }
    ~Nested() { --parser.depth_; }
    ExpressionParser& parser;
  };

  // --- targets ---

  ExprPtr name_target() {
    const int line = current().line;
    auto target = named(Op::name, expect_any_name(), line);
    as_target(*target);
    return target;
  }

  ExprPtr assign_target(Names ends, bool with_namespace) {
    auto target = tuple(true, ends, false, true, with_namespace);
    as_target(*target);
    return target;
  }

  void as_target(Expr& e) const {
    static const std::set<std::string_view> kConstants = {"true", "false", "none", "True", "False", "None"};
    switch (e.op) {
      case Op::name:
        if (kConstants.contains(e.text)) break;
        e.store = true;
        return;
      case Op::namespace_attribute: return;
      case Op::tuple:
        for (auto& i : e.items) as_target(*i);
        return;
      default: break;
    }
    error("can't assign to this expression", e.line);
  }

  static void as_parameter(Expr& e) {
    if (e.op == Op::name) e.store = false, e.parameter = true;
    for (auto& i : e.items) as_parameter(*i);
  }

  // --- expressions ---

  bool at_tuple_end(Names ends) const {
    return at(Lexeme::variable_end) || at(Lexeme::block_end) || at_op(")") || at_any_name(ends);
  }

  ExprPtr tuple(bool with_condition = true, Names ends = {}, bool parenthesized = false, bool simple = false,
                bool with_namespace = false) {
    int line = current().line;
    std::vector<ExprPtr> items;
    bool is_tuple = false;
    for (;;) {
      if (!items.empty()) expect_op(",");
      if (at_tuple_end(ends)) break;
      items.push_back(simple ? primary(with_namespace) : expression(with_condition));
      if (!at_op(",")) break;
      is_tuple = true;
      line = current().line;
    }
    if (!is_tuple) {
      if (!items.empty()) return std::move(items[0]);
      if (!parenthesized) unexpected("an expression");
    }
    auto e = make(Op::tuple, line);
    for (auto& i : items) put(*e, std::move(i));
    return e;
  }

  ExprPtr expression(bool with_condition = true) {
    const Nested nested(*this);
    return with_condition ? conditional() : logical_or();
  }

  ExprPtr conditional() {
    int line = current().line;
    auto e = logical_or();
    while (skip_name("if")) {
      auto test = logical_or();
      auto otherwise = skip_name("else") ? conditional() : nullptr;
      e = make(Op::conditional, line, std::move(test), std::move(e));
      put(*e, std::move(otherwise));
      line = current().line;
    }
    return e;
  }

  ExprPtr logical_or() {
    int line = current().line;
    auto left = logical_and();
    while (skip_name("or")) {
      left = make(Op::logical_or, line, std::move(left), logical_and());
      line = current().line;
    }
    return left;
  }

  ExprPtr logical_and() {
    int line = current().line;
    auto left = logical_not();
    while (skip_name("and")) {
      left = make(Op::logical_and, line, std::move(left), logical_not());
      line = current().line;
    }
    return left;
  }

  ExprPtr logical_not() {
    if (!at_name("not")) return comparison();
    const Nested nested(*this);
    const int line = take().line;
    return make(Op::logical_not, line, logical_not());
  }

  ExprPtr comparison() {
    const int line = current().line;
    auto left = sum();
    auto e = make(Op::compare, line);
    for (;;) {
      Comparison c;
      if (skip_op("=="))
        c = Comparison::eq;
      else if (skip_op("!="))
        c = Comparison::ne;
      else if (skip_op("<"))
        c = Comparison::lt;
      else if (skip_op("<="))
        c = Comparison::lteq;
      else if (skip_op(">"))
        c = Comparison::gt;
      else if (skip_op(">="))
        c = Comparison::gteq;
      else if (skip_name("in"))
        c = Comparison::in;
      else if (at_name("not") && is_name(look(), "in"))
        take(), take(), c = Comparison::not_in;
      else
        break;
      if (left) put(*e, std::move(left));
      e->comparisons.push_back(c);
      put(*e, sum());
    }
    return left ? std::move(left) : std::move(e);
  }

  ExprPtr sum() {
    int line = current().line;
    auto left = concatenation();
    while (at_op("+") || at_op("-")) {
      const Op op = take().text == "+" ? Op::add : Op::subtract;
      left = make(op, line, std::move(left), concatenation());
      line = current().line;
    }
    return left;
  }

  ExprPtr concatenation() {
    const int line = current().line;
    auto first = product();
    if (!at_op("~")) return first;
    auto e = make(Op::concatenate, line, std::move(first));
    while (skip_op("~")) put(*e, product());
    return e;
  }

  ExprPtr product() {
    int line = current().line;
    auto left = power();
    while (at_op("*") || at_op("/") || at_op("//") || at_op("%")) {
      const std::string op = take().text;
      left = make(op == "*"    ? Op::multiply
                  : op == "/"  ? Op::divide
                  : op == "//" ? Op::floor_divide
                               : Op::modulo,
                  line, std::move(left), power());
      line = current().line;
    }
    return left;
  }

  ExprPtr power() {
    int line = current().line;
    auto left = unary();
    while (skip_op("**")) {
      left = make(Op::power, line, std::move(left), unary());
      line = current().line;
    }
    return left;
  }

  ExprPtr unary(bool with_filter = true) {
    const Nested nested(*this);
    const int line = current().line;
    ExprPtr e;
    if (skip_op("-"))
      e = make(Op::negate, line, unary(false));
    else if (skip_op("+"))
      e = make(Op::positive, line, unary(false));
    else
      e = primary();
    e = postfix(std::move(e));
    if (!with_filter) return e;
    for (;;) {
      if (at_op("|"))
        e = filters(std::move(e));
      else if (at_name("is"))
        e = test(std::move(e));
      else if (at_op("("))
        e = call(std::move(e));
      else
        return e;
    }
  }

  ExprPtr primary(bool with_namespace = false) {
    const Token& token = current();
    const int line = token.line;
    switch (token.type) {
      case Lexeme::name: {
        const std::string name = take().text;
        if (name == "true" || name == "True") return constant(Value::boolean(true), line);
        if (name == "false" || name == "False") return constant(Value::boolean(false), line);
        if (name == "none" || name == "None") return constant(Value(), line);
        if (with_namespace && skip_op(".")) {
          auto e = named(Op::namespace_attribute, name, line);
          e->constant = Value::string(expect_any_name());
          return e;
        }
        return named(Op::name, name, line);
      }
      case Lexeme::string: {
        std::string text;
        while (at(Lexeme::string)) text += take().text;
        return constant(Value::string(std::move(text)), line);
      }
      case Lexeme::integer: return constant(Value::integer(take().integer), line);
      case Lexeme::real: return constant(Value::real(take().real), line);
      case Lexeme::op:
        if (skip_op("(")) {
          const Nested nested(*this);
          auto e = tuple(true, {}, true);
          expect_op(")");
          return e;
        }
        if (at_op("[")) return list();
        if (at_op("{")) return dict();
        break;
      default: break;
    }
    error(fmt::format("unexpected '{}'", describe(token)));
  }

  ExprPtr list() {
    auto e = make(Op::list, take().line);
    while (!at_op("]")) {
      if (!e->items.empty()) expect_op(",");
      if (at_op("]")) break;
      put(*e, expression());
    }
    expect_op("]");
    return e;
  }

  ExprPtr dict() {
    auto e = make(Op::dict, take().line);
    while (!at_op("}")) {
      if (!e->items.empty()) expect_op(",");
      if (at_op("}")) break;
      put(*e, expression());
      expect_op(":");
      put(*e, expression());
    }
    expect_op("}");
    return e;
  }

  ExprPtr postfix(ExprPtr e) {
    for (;;) {
      if (at_op(".") || at_op("["))
        e = subscript(std::move(e));
      else if (at_op("("))
        e = call(std::move(e));
      else
        return e;
    }
  }

  ExprPtr subscript(ExprPtr owner) {
    const int line = current().line;
    if (skip_op(".")) {
      if (at(Lexeme::integer))
        return make(Op::item, line, std::move(owner), constant(Value::integer(take().integer), line));
      if (!at(Lexeme::name)) unexpected("a name or number");
      auto e = named(Op::attribute, take().text, line);
      put(*e, std::move(owner));
      return e;
    }
    take();
    std::vector<ExprPtr> keys;
    while (!at_op("]")) {
      if (!keys.empty()) expect_op(",");
      keys.push_back(subscribed());
    }
    expect_op("]");
    // A slice without its owner yet has three parts; b[:] in a[b[:]] has four.
    const auto is_bare_slice = [](const Expr& k) { return k.op == Op::slice && k.items.size() == 3; };
    if (keys.size() == 1 && is_bare_slice(*keys[0])) {
      auto e = std::move(keys[0]);
      e->items.insert(e->items.begin(), std::move(owner));
      for (const auto& i : e->items) grow(*e, i.get());
      return e;
    }
    if (keys.size() == 1) return make(Op::item, line, std::move(owner), std::move(keys[0]));
    auto all = make(Op::tuple, line);
    for (auto& k : keys) {
      if (is_bare_slice(*k)) error("a slice among several subscripts", line);
      put(*all, std::move(k));
    }
    return make(Op::item, line, std::move(owner), std::move(all));
  }

  // An index, or a slice of three parts whose owner is put in front later.
  ExprPtr subscribed() {
    const int line = current().line;
    ExprPtr first;
    if (!at_op(":")) {
      first = expression();
      if (!at_op(":")) return first;
    }
    take();
    auto e = make(Op::slice, line, std::move(first));
    const auto part_ends = [&] { return at_op("]") || at_op(","); };
    put(*e, at_op(":") || part_ends() ? nullptr : expression());
    put(*e, skip_op(":") && !part_ends() ? expression() : nullptr);
    return e;
  }

  std::unique_ptr<Arguments> arguments() {
    auto a = std::make_unique<Arguments>();
    const int line = current().line;
    expect_op("(");
    const auto ensure = [&](bool holds) {
      if (!holds) error("invalid syntax for function call expression", line);
    };
    bool comma = false;
    while (!at_op(")")) {
      if (comma) {
        expect_op(",");
        if (at_op(")")) break;
      }
      if (at_op("*")) {
        ensure(!a->star && !a->double_star);
        take();
        a->star = expression();
      } else if (at_op("**")) {
        ensure(!a->double_star);
        take();
        a->double_star = expression();
      } else if (at(Lexeme::name) && look().type == Lexeme::op && look().text == "=") {
        ensure(!a->double_star);
        const std::string name = take().text;
        take();
        for (const auto& other : a->named)
          if (other.first == name) error(fmt::format("keyword argument repeated: {}", name));
        a->named.emplace_back(name, expression());
      } else {
        ensure(!a->star && !a->double_star && a->named.empty());
        a->positional.push_back(expression());
      }
      comma = true;
    }
    expect_op(")");
    return a;
  }

  void set_arguments(Expr& e, std::unique_ptr<Arguments> a) const {
    for (const auto& p : a->positional) grow(e, p.get());
    for (const auto& [name, v] : a->named) grow(e, v.get());
    grow(e, a->star.get());
    grow(e, a->double_star.get());
    e.arguments = std::move(a);
  }

  ExprPtr call(ExprPtr callee) {
    auto e = make(Op::call, current().line, std::move(callee));
    set_arguments(*e, arguments());
    return e;
  }

  std::string dotted_name() {
    std::string name = expect_any_name();
    while (skip_op(".")) name += "." + expect_any_name();
    return name;
  }

  ExprPtr filters(ExprPtr value, bool inline_start = false) {
    while (at_op("|") || inline_start) {
      if (!inline_start) take();
      const int line = current().line;
      auto e = named(Op::filter, dotted_name(), line);
      put(*e, std::move(value));
      set_arguments(*e, at_op("(") ? arguments() : std::make_unique<Arguments>());
      value = std::move(e);
      inline_start = false;
    }
    return value;
  }

  ExprPtr test(ExprPtr value) {
    const int line = take().line;
    const bool negated = skip_name("not");
    auto e = named(Op::test, dotted_name(), line);
    put(*e, std::move(value));
    if (at_op("(")) {
      set_arguments(*e, arguments());
    } else {
      auto a = std::make_unique<Arguments>();
      const bool primary_follows = at(Lexeme::name) || at(Lexeme::string) || at(Lexeme::integer) ||
                                   at(Lexeme::real) || at_op("[") || at_op("{");
      if (primary_follows && !at_any_name({"else", "or", "and"})) {
        if (at_name("is")) error("You cannot chain multiple tests with is");
        a->positional.push_back(postfix(primary()));
      }
      set_arguments(*e, std::move(a));
    }
    return negated ? make(Op::logical_not, line, std::move(e)) : std::move(e);
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace cairn::text::jinja
