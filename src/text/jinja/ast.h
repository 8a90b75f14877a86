// The template as a tree. Names are resolved to slots before it runs (scope.h).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace cairn::text::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;

// A variable of an activation: `hops` closures out, then the index there.
struct Slot {
  int hops = 0;
  int index = -1;
};

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;
};

enum class Op : uint8_t {
  constant,
  data,
  name,
  namespace_attribute,
  tuple,
  list,
  dict,
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  negate,
  positive,
  logical_not,
  logical_and,
  logical_or,
  concatenate,
  compare,
  conditional,
  attribute,
  item,
  slice,
  call,
  filter,
  test,
  generation,
};

enum class Comparison : uint8_t { eq, ne, lt, lteq, gt, gteq, in, not_in };

struct Filter;
struct Test;

struct Expr {
  Op op;
  int line;
  std::string text;  // name, attribute, filter or test
  Value constant;    // also the text of name and attribute as a value
  std::vector<ExprPtr>
      items;  // operands in order; null where one is left out (slice parts, else, filter of a block)
  std::vector<Comparison> comparisons;
  std::unique_ptr<Arguments> arguments;
  bool store = false, parameter = false;  // of a name
  Slot slot;
  const Filter* filter = nullptr;
  const Test* test = nullptr;
  int height = 1;
};

enum class Action : uint8_t {
  output,
  assign,
  assign_block,
  if_else,
  for_loop,
  macro,
  call_block,
  filter_block,
  with,
  block,
  autoescape,
  break_loop,
  continue_loop,
  foreign
};

// What entering a scope does to a variable.
struct Load {
  enum Source : uint8_t { resolve, alias, undefined } source;
  Slot slot, from;   // from: what an alias copies
  std::string name;  // what resolve looks up among the variables
};

struct Scope {
  std::vector<Load> enter;
  std::vector<Slot> leave;
};

struct Stmt {
  Action action;
  int line;
  std::string text;              // macro, block; include, import ... of a foreign statement
  std::vector<ExprPtr> exprs;    // output: what to print; with: values; if: tests; others: the one expression
  ExprPtr target;                // of assign, for
  std::vector<ExprPtr> targets;  // of with; parameters of macro and call
  std::vector<ExprPtr> defaults;
  ExprPtr test, test_target;  // of for: the filter, and its target as the filter's own function sees it
  std::vector<Body> bodies;   // if: one per test; others: one
  Body else_body;
  bool recursive = false, extended = false, has_else = false, scoped = false, required = false,
       top_level = false;
  Scope scope, else_scope, test_scope;
  Slot loop;                      // the loop variable of an extended loop
  int slots = 0, test_slots = 0;  // of the function that a macro, call, recursive loop or block makes
  Slot self;                      // where a macro is stored
  std::vector<Slot> stored;       // slots of names that the target stores (for the top level)
  Slot caller, kwargs, varargs;
  bool takes_caller = false, takes_kwargs = false, takes_varargs = false;
  std::vector<std::pair<std::string, Slot>> visible;  // what a scoped block sees
};

struct Tree {
  Body body;
  std::vector<const Stmt*> blocks;
  Scope scope;
  int slots = 0;
  Slot self;
};

}  // namespace cairn::text::jinja
