// Walks a resolved template.
#pragma once

#include <nlohmann/json.hpp>

#include "text/jinja/ast.h"
#include "text/jinja/operators.h"
#include "text/jinja/runtime.h"

namespace cairn::text::jinja {

// The local variables of one run of a macro, a recursive loop, a loop's filter, a block or the whole
// template.
struct Activation final : Object, Mutable {
  Activation(int count, std::shared_ptr<Activation> p)
      : Object(size_t(count) * sizeof(Value), 0),
        slots(size_t(count), Value::missing()),
        parent(std::move(p)) {}
  const char* type_name() const override { return "function"; }
  void clear() override {
    for (Value& v : slots) v = Value::missing();
  }
  std::vector<Value> slots;
  std::shared_ptr<Activation> parent;
};
using ActivationPtr = std::shared_ptr<Activation>;

Value from_json(const nlohmann::ordered_json&, int depth = 0);

class Interpreter {
 public:
  Interpreter(Runtime& r, const Tree& t, Value variables)
      : runtime_(r), tree_(t), variables_(std::move(variables)) {}

  std::string run();
  int line() const { return line_; }  // of what ran last

  enum class Flow : uint8_t { normal, break_loop, continue_loop };

  // closure by value: activation_ itself is passed, and changes meanwhile.
  Value call_macro(const Stmt&, ActivationPtr closure, Args&);
  Value call_loop(const Stmt&, ActivationPtr closure, const Value& items, int depth);
  Value call_block(const Stmt&);

  const Stmt* find_block(const std::string& name) const;

 private:
  friend struct Loop;

  // expressions.cpp
  Value eval(const Expr&);
  Value eval_operator(const Expr&);
  Value eval_compare(const Expr&);
  Value eval_collection(const Expr&);
  Value eval_call(const Expr&, const Value* caller);
  Value eval_filter(const Expr&);
  Value eval_test(const Expr&);
  Value eval_slice(const Expr&);
  Value eval_conditional(const Expr&);
  void arguments(const Arguments&, Args&);
  Value& slot(const Slot&);
  Value resolve(const std::string& name);
  void assign(const Expr& target, const Value&);
  void check_namespaces(const Expr& target);
  Value read_target(const Expr& target);

  // statements.cpp
  Flow exec(const Body&);
  Flow exec(const Stmt&);
  Flow exec_if(const Stmt&);
  Flow exec_for(const Stmt&, const Value& items, ActivationPtr outer, int depth);
  Flow exec_filter_block(const Stmt&);
  Flow exec_assign_block(const Stmt&);
  Flow exec_with(const Stmt&);
  Flow exec_autoescape(const Stmt&);
  void exec_assign(const Stmt&);
  void exec_call_block(const Stmt&);
  void exec_block(const Stmt&);
  void export_name(const std::string&, Value);
  void export_names(const Stmt&);
  Value make_macro(const Stmt&);
  std::shared_ptr<Iterator> filtered(const Stmt&, const Value& items, const ActivationPtr& outer);
  void enter(const Scope&);
  void leave(const Scope&);
  void write(std::string_view);
  void write_string(const Value&, const char* what);

  // Runs something that writes into a buffer of its own.
  template <typename F>
  std::string capture(F&& body) {
    std::string buffer;
    std::string* outer = out_;
    out_ = &buffer;
    body();
    out_ = outer;
    buffered_ -= buffer.size();
    return buffer;
  }

  template <typename F>
  void within(ActivationPtr activation, F&& body) {
    activation_.swap(activation);
    body();
    activation_.swap(activation);
  }

  // The same with an activation of its own, which is kept if a closure still needs it afterwards.
  template <typename F>
  void within_fresh(const ActivationPtr& activation, F&& body) {
    within(activation, body);
    if (activation.use_count() > 1) runtime_.keep(activation);
  }

  Runtime& runtime_;
  const Tree& tree_;
  Value variables_;
  std::vector<std::pair<std::string, Value>> exported_;  // top-level assignments, for blocks
  ActivationPtr activation_;
  std::string* out_ = nullptr;
  size_t buffered_ = 0;
  const Value* filter_input_ = nullptr;
  const Value* caller_ = nullptr;
  int line_ = 1;
};

}  // namespace cairn::text::jinja
