#include "text/jinja/scope.h"

#include <algorithm>
#include <map>
#include <set>

#include "text/jinja/filters.h"
#include "text/jinja/lexer.h"

namespace cairn::text::jinja {

namespace {

struct Symbols {
  enum Kind : uint8_t { parameter, resolve, alias, undefined };
  struct Entry {
    std::string name;
    Kind kind;
    int from = 0;  // the level an alias copies from
  };

  Symbols(Symbols* p, int l) : parent(p), level(l) {}

  std::optional<int> find(const std::string& name) const {
    for (const Symbols* s = this; s; s = s->parent)
      if (s->index.contains(name)) return s->level;
    return std::nullopt;
  }

  void define(const std::string& name, Kind kind, int from = 0) {
    const auto [at, fresh] = index.emplace(name, entries.size());
    if (fresh)
      entries.push_back({name, kind, from});
    else
      entries[at->second] = {name, kind, from};
  }

  void load(const std::string& name) {
    if (!find(name)) define(name, resolve);
  }
  void declare(const std::string& name) {
    stores.insert(name);
    define(name, parameter);
  }
  void store(const std::string& name) {
    stores.insert(name);
    if (index.contains(name)) return;
    const auto outer = parent ? parent->find(name) : std::nullopt;
    outer ? define(name, alias, *outer) : define(name, undefined);
  }

  // After an if: a name stored in some branch starts as what it was outside, for the branches that were not
  // taken.
  void merge(const std::vector<Symbols>& branches) {
    std::set<std::string> fresh;
    for (const Symbols& b : branches)
      for (const std::string& name : b.stores)
        if (!stores.contains(name)) fresh.insert(name);
    for (const Symbols& b : branches) {
      for (const Entry& e : b.entries) define(e.name, e.kind, e.from);
      stores.insert(b.stores.begin(), b.stores.end());
    }
    for (const std::string& name : fresh) {
      const auto outer = parent ? parent->find(name) : std::nullopt;
      outer ? define(name, alias, *outer) : define(name, resolve);
    }
  }

  Symbols* parent;
  int level;
  std::map<std::string, size_t> index;
  std::vector<Entry> entries;
  std::set<std::string> stores;
};

// --- which names a scope touches ---

void note(Symbols& symbols, const Expr* e, bool as_parameter = false);

void note(Symbols& symbols, const Arguments& a) {
  for (const auto& p : a.positional) note(symbols, p.get());
  for (const auto& [name, v] : a.named) note(symbols, v.get());
  note(symbols, a.star.get());
  note(symbols, a.double_star.get());
}

void note(Symbols& symbols, const Expr* e, bool as_parameter) {
  if (!e) return;
  if (e->op == Op::name) {
    if (as_parameter || e->parameter)
      symbols.declare(e->text);
    else if (e->store)
      symbols.store(e->text);
    else
      symbols.load(e->text);
    return;
  }
  if (e->op == Op::namespace_attribute) return symbols.load(e->text);
  for (const auto& i : e->items) note(symbols, i.get(), as_parameter);
  if (e->arguments) note(symbols, *e->arguments);
}

void note(Symbols& symbols, const Body& body);

void note_branch(Symbols& symbols, const Body& body, std::vector<Symbols>& branches) {
  branches.push_back(symbols);
  note(branches.back(), body);
}

void note_if(Symbols& symbols, const Stmt& s) {
  note(symbols, s.exprs[0].get());
  std::vector<Symbols> branches;
  branches.reserve(3);
  note_branch(symbols, s.bodies[0], branches);
  branches.push_back(symbols);
  Symbols& others = branches.back();  // all elif parts one after another
  for (size_t i = 1; i < s.exprs.size(); ++i) {
    note(others, s.exprs[i].get());
    std::vector<Symbols> inner;
    note_branch(others, s.bodies[i], inner);
    others.merge(inner);
  }
  note_branch(symbols, s.else_body, branches);
  symbols.merge(branches);
}

void note(Symbols& symbols, const Stmt& s) {
  switch (s.action) {
    case Action::output:
    case Action::with:
      for (const auto& e : s.exprs) note(symbols, e.get());
      return;
    case Action::assign: note(symbols, s.exprs[0].get()); return note(symbols, s.target.get());
    case Action::assign_block: return note(symbols, s.target.get());
    case Action::if_else: return note_if(symbols, s);
    case Action::for_loop:
    case Action::call_block:
    case Action::filter_block: return note(symbols, s.exprs[0].get());
    case Action::macro: return symbols.store(s.text);
    case Action::foreign:
      note(symbols, s.exprs[0].get());
      for (const auto& t : s.targets) note(symbols, t.get());
      return;
    case Action::block:
    case Action::autoescape:
    case Action::break_loop:
    case Action::continue_loop: return;
  }
}

void note(Symbols& symbols, const Body& body) {
  for (const auto& s : body) note(symbols, *s);
}

// --- which special names a body uses without declaring them first ---

class Undeclared {
 public:
  explicit Undeclared(std::set<std::string> names) : names_(std::move(names)) {}
  void visit(const Body& body) {
    for (const auto& s : body) visit(*s);
  }
  std::set<std::string> found;

 private:
  void visit(const Expr* e) {
    if (!e) return;
    if (e->op == Op::name) {
      if (!e->store && !e->parameter && names_.contains(e->text))
        found.insert(e->text);
      else
        names_.erase(e->text);
      return;
    }
    for (const auto& i : e->items) visit(i.get());
    if (!e->arguments) return;
    for (const auto& p : e->arguments->positional) visit(p.get());
    for (const auto& [name, v] : e->arguments->named) visit(v.get());
    visit(e->arguments->star.get());
    visit(e->arguments->double_star.get());
  }
  void visit(const std::vector<ExprPtr>& all) {
    for (const auto& e : all) visit(e.get());
  }
  void visit(const Stmt& s) {
    switch (s.action) {
      case Action::block: return;
      case Action::if_else:
        for (size_t i = 0; i < s.exprs.size(); ++i) visit(s.exprs[i].get()), visit(s.bodies[i]);
        return visit(s.else_body);
      case Action::for_loop:
        visit(s.target.get());
        visit(s.exprs);
        visit(s.bodies[0]);
        visit(s.else_body);
        return visit(s.test.get());
      case Action::macro:
        visit(s.targets);
        visit(s.defaults);
        return visit(s.bodies[0]);
      case Action::call_block:
        visit(s.exprs);
        visit(s.targets);
        visit(s.defaults);
        return visit(s.bodies[0]);
      case Action::filter_block: visit(s.bodies[0]); return visit(s.exprs);
      default:
        visit(s.target.get());
        visit(s.targets);
        visit(s.exprs);
        for (const Body& b : s.bodies) visit(b);
    }
  }
  std::set<std::string> names_;
};

bool holds_scoped_block(const Body& body) {
  return std::any_of(body.begin(), body.end(), [](const auto& s) {
    if (s->action == Action::block && s->scoped) return true;
    return std::any_of(s->bodies.begin(), s->bodies.end(), holds_scoped_block) ||
           holds_scoped_block(s->else_body);
  });
}

ExprPtr clone_target(const Expr& e) {
  auto copy = std::make_unique<Expr>();
  copy->op = e.op;
  copy->line = e.line;
  copy->text = e.text;
  copy->constant = e.constant;
  copy->store = e.store;
  for (const auto& i : e.items) copy->items.push_back(clone_target(*i));
  return copy;
}

// --- the pass ---

struct Function {
  int base_level;
  Function* parent;
  std::map<std::pair<int, std::string>, int> slots;
};

struct Frame {
  Symbols* symbols;
  Function* function;
  bool top_level = false, soft = false, loop = false, block = false;
  int loops = 0;  // loops of the same function around, which break and continue may leave
};

class Resolver {
 public:
  explicit Resolver(Tree& t) : tree_(t) {}

  void run() {
    Frame root = make_function(nullptr, 0, nullptr);
    tree_.self = declare_self(root, tree_.body);
    note(*root.symbols, tree_.body);
    root.top_level = true;
    tree_.scope = scope(root);
    body(tree_.body, root);
    tree_.slots = int(root.function->slots.size());
    for (const Stmt* b : tree_.blocks) block(const_cast<Stmt&>(*b));
  }

 private:
  [[noreturn]] static void error(int line, std::string message) {
    throw SyntaxError{line, std::move(message)};
  }

  Frame make_function(Symbols* parent, int level, Function* outer) {
    symbols_.push_back(std::make_unique<Symbols>(parent, level));
    functions_.push_back(std::make_unique<Function>(Function{level, outer, {}}));
    Frame f{symbols_.back().get(), functions_.back().get()};
    return f;
  }

  Frame inner(const Frame& f) {
    symbols_.push_back(std::make_unique<Symbols>(f.symbols, f.symbols->level + 1));
    Frame g{symbols_.back().get(), f.function};
    g.loops = f.loops;
    return g;
  }

  Frame inner_function(const Frame& f) {
    functions_.push_back(std::make_unique<Function>(Function{f.symbols->level + 1, f.function, {}}));
    Frame g = inner(f);
    g.function = functions_.back().get();
    g.loops = 0;
    return g;
  }

  static Slot slot(const Frame& f, int level, const std::string& name) {
    Slot s;
    Function* owner = f.function;
    for (; owner->base_level > level; owner = owner->parent) ++s.hops;
    s.index = owner->slots.emplace(std::pair(level, name), int(owner->slots.size())).first->second;
    return s;
  }

  static Slot slot(const Frame& f, const std::string& name, int line) {
    const auto level = f.symbols->find(name);
    if (!level) error(line, fmt::format("the name '{}' is used where jinja2 cannot resolve it", name));
    return slot(f, *level, name);
  }

  static Scope scope(const Frame& f) {
    Scope s;
    for (const auto& e : f.symbols->entries) {
      const Slot own = slot(f, f.symbols->level, e.name);
      s.leave.push_back(own);
      if (e.kind == Symbols::resolve) s.enter.push_back({Load::resolve, own, {}, e.name});
      if (e.kind == Symbols::alias) s.enter.push_back({Load::alias, own, slot(f, e.from, e.name), e.name});
      if (e.kind == Symbols::undefined) s.enter.push_back({Load::undefined, own, {}, e.name});
    }
    return s;
  }

  static Slot declare_self(Frame& f, const Body& b) {
    Undeclared undeclared({"self"});
    undeclared.visit(b);
    if (undeclared.found.empty()) return {};
    f.symbols->declare("self");
    return slot(f, f.symbols->level, "self");
  }

  // --- expressions ---

  void expr(Expr* e, const Frame& f) {
    if (!e) return;
    switch (e->op) {
      case Op::name:
      case Op::namespace_attribute: e->slot = slot(f, e->text, e->line); return;
      case Op::filter:
        e->filter = find_filter(e->text);
        if (!e->filter && !f.soft) error(e->line, fmt::format("No filter named '{}'.", e->text));
        break;
      case Op::test:
        e->test = find_test(e->text);
        if (!e->test && !f.soft) error(e->line, fmt::format("No test named '{}'.", e->text));
        break;
      default: break;
    }
    Frame g = f;
    if (e->op == Op::conditional) g.soft = true;
    for (auto& i : e->items) expr(i.get(), g);
    if (!e->arguments) return;
    for (auto& p : e->arguments->positional) expr(p.get(), g);
    for (auto& [name, v] : e->arguments->named) expr(v.get(), g);
    expr(e->arguments->star.get(), g);
    expr(e->arguments->double_star.get(), g);
  }

  static void stored_names(const Expr& e, std::vector<std::pair<std::string, Slot>>& names) {
    if (e.op == Op::name) names.emplace_back(e.text, e.slot);
    for (const auto& i : e.items) stored_names(*i, names);
  }

  // --- statements ---

  void body(Body& b, const Frame& f) {
    for (auto& s : b) statement(*s, f);
  }

  void statement(Stmt& s, const Frame& f) {
    switch (s.action) {
      case Action::output:
        for (auto& e : s.exprs) expr(e.get(), f);
        return;
      case Action::assign:
        expr(s.target.get(), f);
        expr(s.exprs[0].get(), f);
        return top_level(s, f);
      case Action::assign_block: {
        Frame g = inner(f);
        note(*g.symbols, s.bodies[0]);
        s.scope = scope(g);
        body(s.bodies[0], g);
        expr(s.target.get(), f);
        expr(s.exprs[0].get(), g);
        return top_level(s, f);
      }
      case Action::if_else: {
        Frame g = f;
        g.soft = true;
        for (auto& e : s.exprs) expr(e.get(), g);
        for (Body& b : s.bodies) body(b, g);
        return body(s.else_body, g);
      }
      case Action::for_loop: return for_loop(s, f);
      case Action::macro:
        macro(s, f);
        s.self = slot(f, s.text, s.line);
        s.top_level = f.top_level;
        return;
      case Action::call_block: macro(s, f); return expr(s.exprs[0].get(), f);
      case Action::filter_block: {
        Frame g = inner(f);
        note(*g.symbols, s.bodies[0]);
        note(*g.symbols, s.exprs[0].get());
        s.scope = scope(g);
        body(s.bodies[0], g);
        return expr(s.exprs[0].get(), g);
      }
      case Action::with: {
        Frame g = inner(f);
        for (const auto& t : s.targets) note(*g.symbols, t.get());
        note(*g.symbols, s.bodies[0]);
        s.scope = scope(g);
        for (size_t i = 0; i < s.targets.size(); ++i) expr(s.targets[i].get(), g), expr(s.exprs[i].get(), f);
        return body(s.bodies[0], g);
      }
      case Action::autoescape: {
        Frame g = inner(f);
        note(*g.symbols, s.exprs[0].get());
        note(*g.symbols, s.bodies[0]);
        s.scope = scope(g);
        expr(s.exprs[0].get(), g);
        return body(s.bodies[0], g);
      }
      case Action::block:
        if (s.scoped)
          for (const Symbols* symbols = f.symbols; symbols; symbols = symbols->parent)
            for (const std::string& name : symbols->stores)
              if (std::none_of(s.visible.begin(), s.visible.end(),
                               [&](const auto& v) { return v.first == name; }))
                s.visible.emplace_back(name, slot(f, name, s.line));
        return;
      case Action::break_loop:
      case Action::continue_loop:
        if (f.loops == 0)
          error(s.line, s.action == Action::break_loop ? "'break' outside loop" : "'continue' outside loop");
        return;
      case Action::foreign:
        expr(s.exprs[0].get(), f);
        for (auto& t : s.targets) expr(t.get(), f);
        return;
    }
  }

  void top_level(Stmt& s, const Frame& f) {
    s.top_level = f.top_level && !f.loop && !f.block;
    if (s.top_level) stored_names(*s.target, s.visible);
  }

  static void refuse_loop_target(const Expr* e) {
    if (!e) return;
    if (e->op == Op::name && e->store && e->text == "loop")
      error(e->line, "Can't assign to special loop variable in for-loop target");
    for (const auto& i : e->items) refuse_loop_target(i.get());
  }
  static void refuse_loop_target(const Body& b) {
    for (const auto& s : b) {
      refuse_loop_target(s->target.get());
      for (const Body& inner_body : s->bodies) refuse_loop_target(inner_body);
      refuse_loop_target(s->else_body);
    }
  }

  void for_loop(Stmt& s, const Frame& f) {
    Undeclared undeclared({"loop"});
    undeclared.visit(s.bodies[0]);
    s.extended = s.recursive || !undeclared.found.empty() || holds_scoped_block(s.bodies[0]) ||
                 holds_scoped_block(s.else_body);
    refuse_loop_target(s.target.get());
    refuse_loop_target(s.bodies[0]);
    refuse_loop_target(s.else_body);

    Frame loop = s.recursive ? inner_function(f) : inner(f);
    loop.loop = true;
    if (s.extended) loop.symbols->declare("loop");
    note(*loop.symbols, s.target.get(), true);
    note(*loop.symbols, s.bodies[0]);
    if (s.extended) s.loop = slot(loop, loop.symbols->level, "loop");

    if (s.test) {
      Frame test = inner_function(f);
      note(*test.symbols, s.target.get(), true);
      note(*test.symbols, s.test.get());
      s.test_scope = scope(test);
      s.test_target = clone_target(*s.target);
      expr(s.test_target.get(), test);
      expr(s.test.get(), test);
      s.test_slots = int(test.function->slots.size());
    }

    expr(s.target.get(), loop);
    expr(s.exprs[0].get(), f);
    s.scope = scope(loop);
    ++loop.loops;
    body(s.bodies[0], loop);

    if (s.has_else) {
      Frame otherwise = inner(f);
      otherwise.function = loop.function;
      otherwise.loops = s.recursive ? 0 : f.loops;
      note(*otherwise.symbols, s.else_body);
      s.else_scope = scope(otherwise);
      body(s.else_body, otherwise);
    }
    if (s.recursive) s.slots = int(loop.function->slots.size());
  }

  void macro(Stmt& s, const Frame& f) {
    Frame g = inner_function(f);
    const auto analyze = [&] {
      for (const auto& t : s.targets) note(*g.symbols, t.get());
      for (const auto& d : s.defaults) note(*g.symbols, d.get());
      note(*g.symbols, s.bodies[0]);
    };
    analyze();
    Undeclared undeclared({"caller", "kwargs", "varargs"});
    undeclared.visit(s.bodies[0]);
    const auto is_argument = [&](const char* name) {
      return std::any_of(s.targets.begin(), s.targets.end(), [&](const auto& t) { return t->text == name; });
    };
    const auto special = [&](const char* name, Slot& at) {
      if (!undeclared.found.contains(name) || is_argument(name)) return false;
      g.symbols->declare(name);
      at = slot(g, g.symbols->level, name);
      return true;
    };
    if (undeclared.found.contains("caller") && is_argument("caller")) {
      // A parameter named caller needs a default.
      for (size_t i = 0; i + s.defaults.size() < s.targets.size(); ++i)
        if (s.targets[i]->text == "caller")
          error(s.line,
                "When defining macros or call blocks the special \"caller\" argument must be omitted or be "
                "given a default.");
      s.takes_caller = true;
    }
    if (special("caller", s.caller)) s.takes_caller = true;
    s.takes_kwargs = special("kwargs", s.kwargs);
    s.takes_varargs = special("varargs", s.varargs);
    analyze();
    s.scope = scope(g);
    for (auto& t : s.targets) expr(t.get(), g);
    for (auto& d : s.defaults) expr(d.get(), g);
    body(s.bodies[0], g);
    s.slots = int(g.function->slots.size());
  }

  void block(Stmt& s) {
    Frame g = make_function(nullptr, 0, nullptr);
    g.block = true;
    s.self = declare_self(g, s.bodies[0]);
    note(*g.symbols, s.bodies[0]);
    s.scope = scope(g);
    body(s.bodies[0], g);
    s.slots = int(g.function->slots.size());
  }

  Tree& tree_;
  std::vector<std::unique_ptr<Symbols>> symbols_;
  std::vector<std::unique_ptr<Function>> functions_;
};

}  // namespace

void resolve_names(Tree& tree) { Resolver(tree).run(); }

}  // namespace cairn::text::jinja
