#include "text/jinja/parser.h"

#include "text/jinja/expression_parser.h"

namespace cairn::text::jinja {

namespace {

class Parser : ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(source) {}

  Tree run() {
    Tree tree;
    tree.body = statements_until({});
    tree.blocks = std::move(blocks_);
    return tree;
  }

 private:
  // --- statements ---

  // Up to the block whose first name is one of `ends`; that name is then the current token.
  Body statements_until(Names ends) {
    const Nested nested(*this);
    Body body;
    std::unique_ptr<Stmt> output;
    const auto flush = [&] {
      if (output) body.push_back(std::move(output));
    };
    const auto print = [&](ExprPtr e) {
      if (!output) output = make_stmt(Action::output, e->line);
      output->exprs.push_back(std::move(e));
    };
    for (;;) {
      if (at(Lexeme::data)) {
        print(named(Op::data, current().text, current().line));
        take();
      } else if (at(Lexeme::variable_begin)) {
        take();
        print(tuple());
        expect(Lexeme::variable_end, "end of print statement");
      } else if (at(Lexeme::block_begin)) {
        flush();
        take();
        if (ends.size() && at_any_name(ends)) return body;
        if (auto s = statement(ends)) body.push_back(std::move(s));
        expect(Lexeme::block_end, "end of statement block");
      } else {
        flush();
        if (ends.size()) error(fmt::format("unexpected end of template, looking for '{}'", *ends.begin()));
        return body;
      }
    }
  }

  // The body of a statement, from its "%}" to the end tag.
  Body block_body(Names ends) {
    skip_op(":");
    expect(Lexeme::block_end, "end of statement block");
    return statements_until(ends);
  }

  Body whole_body(Names ends) {
    Body body = block_body(ends);
    take();
    return body;
  }

  std::unique_ptr<Stmt> statement(Names ends) {
    if (!at(Lexeme::name)) error("tag name expected");
    const std::string tag = current().text;
    const int line = current().line;
    if (tag == "for") return for_loop();
    if (tag == "if") return if_else();
    if (tag == "set") return set();
    if (tag == "macro") return macro();
    if (tag == "call") return call_block();
    if (tag == "filter") return filter_block();
    if (tag == "with") return with();
    if (tag == "generation") return generation();
    if (tag == "print") return print();
    if (tag == "block") return block();
    if (tag == "autoescape") return autoescape();
    if (tag == "break" || tag == "continue") {
      take();
      return make_stmt(tag == "break" ? Action::break_loop : Action::continue_loop, line);
    }
    if (tag == "include" || tag == "extends" || tag == "import" || tag == "from") return foreign();
    error(ends.size() ? fmt::format("unknown tag '{}', looking for '{}'", tag, *ends.begin())
                      : fmt::format("unknown tag '{}'", tag));
  }

  std::unique_ptr<Stmt> for_loop() {
    auto s = make_stmt(Action::for_loop, take().line);
    s->target = assign_target({"in"}, false);
    expect_name("in");
    s->exprs.push_back(tuple(false, {"recursive"}));
    if (skip_name("if")) s->test = expression();
    s->recursive = skip_name("recursive");
    s->bodies.push_back(block_body({"endfor", "else"}));
    if (take().text == "else") {
      s->else_body = whole_body({"endfor"});
      s->has_else = !s->else_body.empty();
    }
    return s;
  }

  std::unique_ptr<Stmt> if_else() {
    auto s = make_stmt(Action::if_else, take().line);
    for (;;) {
      s->exprs.push_back(tuple(false));
      s->bodies.push_back(block_body({"elif", "else", "endif"}));
      const std::string end = take().text;
      if (end == "elif") continue;
      if (end == "else") s->else_body = whole_body({"endif"});
      return s;
    }
  }

  std::unique_ptr<Stmt> set() {
    const int line = take().line;
    auto target = assign_target({}, true);
    if (skip_op("=")) {
      auto s = make_stmt(Action::assign, line);
      s->target = std::move(target);
      s->exprs.push_back(tuple());
      return s;
    }
    auto s = make_stmt(Action::assign_block, line);
    s->target = std::move(target);
    s->exprs.push_back(at_op("|") ? filters(nullptr) : nullptr);
    s->bodies.push_back(whole_body({"endset"}));
    return s;
  }

  void signature(Stmt& s) {
    expect_op("(");
    while (!at_op(")")) {
      if (!s.targets.empty()) expect_op(",");
      auto parameter = name_target();
      parameter->store = false;
      parameter->parameter = true;
      for (const auto& other : s.targets)
        if (other->text == parameter->text) error(fmt::format("duplicate argument '{}'", parameter->text));
      if (skip_op("="))
        s.defaults.push_back(expression());
      else if (!s.defaults.empty())
        error("non-default argument follows default argument");
      s.targets.push_back(std::move(parameter));
    }
    expect_op(")");
  }

  std::unique_ptr<Stmt> macro() {
    auto s = make_stmt(Action::macro, take().line);
    s->text = name_target()->text;
    signature(*s);
    s->bodies.push_back(whole_body({"endmacro"}));
    return s;
  }

  std::unique_ptr<Stmt> call_block() {
    auto s = make_stmt(Action::call_block, take().line);
    if (at_op("(")) signature(*s);
    s->exprs.push_back(expression());
    if (s->exprs[0]->op != Op::call) error("expected call", s->line);
    s->bodies.push_back(whole_body({"endcall"}));
    return s;
  }

  // transformers' AssistantTracker: the body as it is, in a scope of its own.
  std::unique_ptr<Stmt> generation() {
    auto s = make_stmt(Action::call_block, take().line);
    s->exprs.push_back(make(Op::generation, s->line));
    s->bodies.push_back(whole_body({"endgeneration"}));
    return s;
  }

  std::unique_ptr<Stmt> filter_block() {
    auto s = make_stmt(Action::filter_block, take().line);
    s->exprs.push_back(filters(nullptr, true));
    s->bodies.push_back(whole_body({"endfilter"}));
    return s;
  }

  std::unique_ptr<Stmt> with() {
    auto s = make_stmt(Action::with, take().line);
    while (!at(Lexeme::block_end)) {
      if (!s->targets.empty()) expect_op(",");
      auto target = assign_target({}, false);
      as_parameter(*target);
      s->targets.push_back(std::move(target));
      expect_op("=");
      s->exprs.push_back(expression());
    }
    s->bodies.push_back(whole_body({"endwith"}));
    return s;
  }

  std::unique_ptr<Stmt> print() {
    auto s = make_stmt(Action::output, take().line);
    while (!at(Lexeme::block_end)) {
      if (!s->exprs.empty()) expect_op(",");
      s->exprs.push_back(expression());
    }
    return s;
  }

  std::unique_ptr<Stmt> autoescape() {
    auto s = make_stmt(Action::autoescape, take().line);
    s->exprs.push_back(expression());
    s->bodies.push_back(whole_body({"endautoescape"}));
    return s;
  }

  std::unique_ptr<Stmt> block() {
    auto s = make_stmt(Action::block, take().line);
    s->text = expect_any_name();
    s->scoped = skip_name("scoped");
    s->required = skip_name("required");
    if (at_op("-")) error("block names may not contain hyphens, use an underscore instead");
    if (!block_names_.insert(s->text).second)
      error(fmt::format("block '{}' defined twice", s->text), s->line);
    s->bodies.push_back(whole_body({"endblock"}));
    skip_name(s->text);
    blocks_.push_back(s.get());
    return s;
  }

  // include, import, from and extends need other templates, and a model has only one: they fail when they
  // run.
  std::unique_ptr<Stmt> foreign() {
    auto s = make_stmt(Action::foreign, current().line);
    s->text = take().text;
    s->exprs.push_back(expression());
    if (s->text == "include") {
      if (at_name("ignore") && is_name(look(), "missing")) take(), take();
      import_context();
    } else if (s->text == "import") {
      expect_name("as");
      s->targets.push_back(name_target());
      import_context();
    } else if (s->text == "from") {
      expect_name("import");
      bool first = true;
      for (;;) {
        if (!first) expect_op(",");
        first = false;
        if (!at(Lexeme::name)) unexpected("a name");
        if (import_context()) break;
        auto target = name_target();
        if (target->text.starts_with('_')) error("names starting with an underline can not be imported");
        if (skip_name("as")) target = name_target();
        s->targets.push_back(std::move(target));
        if (import_context() || !at_op(",")) break;
      }
    }
    return s;
  }

  bool import_context() {
    if (!(at_name("with") || at_name("without")) || !is_name(look(), "context")) return false;
    take(), take();
    return true;
  }

  std::vector<const Stmt*> blocks_;
  std::set<std::string> block_names_;
};

}  // namespace

Tree parse(std::string_view source) { return Parser(source).run(); }

}  // namespace cairn::text::jinja
