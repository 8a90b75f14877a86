#include "text/constrain/grammar.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "text/constrain/compiled_grammar.h"
#include "text/constrain/notations.h"

namespace cairn::text {

namespace {

using namespace constrain;
using nlohmann::ordered_json;

// A leaf rule's machine as bytes: rules that have it in common read the same texts.
std::string content_of(const Automaton& automaton, const Automaton::Rule& rule) {
  std::string out;
  const auto put = [&](const auto&... values) {
    ((out.append(reinterpret_cast<const char*>(&values), sizeof values)), ...);
  };
  for (uint32_t s = rule.first_state; s < rule.first_state + rule.states; ++s) {
    const auto& state = automaton.states[s];
    put(state.bytes_end - state.bytes, state.jumps_end - state.jumps, state.final);
    for (const auto& edge : automaton.bytes_of(state)) put(edge.low, edge.high, edge.to - rule.first_state);
    for (const auto& jump : automaton.jumps_of(state)) {
      const bool counted = jump.kind == Machine::Kind::enter || jump.kind == Machine::Kind::again ||
                           jump.kind == Machine::Kind::leave;
      put(jump.kind, jump.to - rule.first_state);
      if (counted)
        put(automaton.loops[size_t(jump.what)].minimum, automaton.loops[size_t(jump.what)].maximum);
      else
        put(jump.what);
    }
  }
  return out;
}

void check_source(std::string_view text) {
  if (text.size() > kMostSourceBytes)
    fail(ErrorKind::invalid_argument, "the grammar has {} bytes; at most {} are read", text.size(),
         kMostSourceBytes);
}

}  // namespace

struct GrammarCompiler::Impl {
  Impl(const Tokenizer& tokenizer, int32_t vocabulary_size, size_t cache_bytes)
      : vocabulary(std::make_shared<Vocabulary>(tokenizer, vocabulary_size)),
        budget(std::make_shared<MaskBudget>()) {
    budget->limit = cache_bytes;
  }

  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<MaskBudget> budget;
  struct Entry {
    std::string key;
    GrammarPtr grammar;
  };
  mutable std::mutex mutex;
  std::list<Entry> entries;  // latest use first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> known;
  std::unordered_map<std::string, std::weak_ptr<MaskTable>> tables;  // of leaf rules, by content
  size_t tables_checked = 64;
  uint64_t compiled = 0, reused = 0;

  std::shared_ptr<MaskTable> table_for(const Automaton& automaton, const Automaton::Rule& rule) {
    constexpr size_t kMostStates = 2000;  // long ones are rarely met twice, and comparing them costs
    if (!rule.leaf || rule.states > kMostStates) return std::make_shared<MaskTable>(budget);
    auto& slot = tables[content_of(automaton, rule)];
    auto table = slot.lock();
    if (!table) slot = table = std::make_shared<MaskTable>(budget);
    return table;
  }

  template <typename MakeSyntax>
  GrammarPtr get(std::string key, MakeSyntax&& make_syntax) {
    {
      const std::lock_guard lock(mutex);
      if (const auto found = known.find(key); found != known.end()) {
        entries.splice(entries.begin(), entries, found->second);
        ++reused;
        return entries.front().grammar;
      }
    }
    Syntax syntax;
    syntax.root = make_syntax(syntax);
    auto grammar = std::make_shared<Grammar>();
    grammar->vocabulary = vocabulary;
    grammar->automaton = constrain::compile(std::move(syntax));
    const std::lock_guard lock(mutex);
    ++compiled;
    if (const auto found = known.find(key); found != known.end()) return found->second->grammar;
    for (const auto& rule : grammar->automaton.rules)
      grammar->masks.push_back(rule.states == 0 ? nullptr : table_for(grammar->automaton, rule));
    constexpr size_t kTable = 400;  // an empty mask table and its place in the list of known ones
    grammar->own_bytes =
        sizeof(Grammar) + grammar->automaton.size_bytes() + grammar->masks.size() * kTable + 2 * key.size();
    grammar->budget = budget;
    budget->used += grammar->own_bytes;
    entries.push_front({std::move(key), grammar});
    known[entries.front().key] = entries.begin();
    while (budget->used > budget->limit && entries.size() > 1) {
      known.erase(entries.back().key);
      entries.pop_back();
    }
    if (tables.size() > tables_checked) {
      std::erase_if(tables, [](const auto& entry) { return entry.second.expired(); });
      tables_checked = std::max<size_t>(64, 2 * tables.size());
    }
    return grammar;
  }
};

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer, int32_t vocabulary_size, size_t cache_bytes)
    : impl_(std::make_unique<Impl>(tokenizer, vocabulary_size, cache_bytes)) {}
GrammarCompiler::~GrammarCompiler() = default;

GrammarPtr GrammarCompiler::json_schema(const ordered_json& schema) {
  std::string text;
  try {
    text = schema.dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorKind::invalid_argument, "#: the schema holds text that is not valid UTF-8");
  }
  check_source(text);
  return impl_->get("schema " + text, [&](Syntax& syntax) { return add_json_schema(syntax, schema); });
}

GrammarPtr GrammarCompiler::json_object() {
  return impl_->get("object", [](Syntax& syntax) { return add_json_object(syntax); });
}

GrammarPtr GrammarCompiler::regex(std::string_view pattern) {
  return compile({GrammarSource::Kind::regex, std::string(pattern)});
}
GrammarPtr GrammarCompiler::gbnf(std::string_view grammar) {
  return compile({GrammarSource::Kind::gbnf, std::string(grammar)});
}
GrammarPtr GrammarCompiler::lark(std::string_view grammar) {
  return compile({GrammarSource::Kind::lark, std::string(grammar)});
}

GrammarPtr GrammarCompiler::compile(const GrammarSource& source) {
  static constexpr const char* kNames[] = {"schema ", "object", "regex ", "gbnf ", "lark "};
  check_source(source.text);
  return impl_->get(kNames[size_t(source.kind)] + source.text,
                    [&](Syntax& syntax) { return add_source(syntax, source); });
}

GrammarPtr GrammarCompiler::tagged(const std::vector<Tagged>& tags, bool must_start_with_one,
                                   bool may_repeat) {
  std::string key = "tagged";
  key += char('0' + must_start_with_one + 2 * may_repeat);
  for (const Tagged& tag : tags)
    for (const std::string* part : {&tag.begin, &tag.body.text, &tag.end})
      key += char('0' + int(tag.body.kind)) + std::to_string(part->size()) + ":" + *part;
  check_source(key);
  return impl_->get(std::move(key), [&](Syntax& syntax) {
    return add_tagged(syntax, impl_->vocabulary->tokenizer, tags, must_start_with_one, may_repeat);
  });
}

GrammarCompiler::Stats GrammarCompiler::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return {impl_->entries.size(), impl_->budget->used, impl_->compiled, impl_->reused};
}

namespace constrain {

RuleId add_source(Syntax& syntax, const GrammarSource& source) {
  switch (source.kind) {
    case GrammarSource::Kind::json_object: return add_json_object(syntax);
    case GrammarSource::Kind::regex: return add_regex(syntax, source.text);
    case GrammarSource::Kind::gbnf: return add_gbnf(syntax, source.text);
    case GrammarSource::Kind::lark: return add_lark(syntax, source.text);
    case GrammarSource::Kind::json_schema: break;
  }
  // Depth first: the parser builds its values by recursion only when they are destroyed, but schemas nested
  // deeper than any is read are refused before that.
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < source.text.size(); ++i) {
    const char c = source.text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > 4 * kDeepest)
        fail(ErrorKind::invalid_argument, "#: the schema is nested deeper than {} levels", 4 * kDeepest);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  const auto schema = ordered_json::parse(source.text, nullptr, false);
  if (schema.is_discarded()) fail(ErrorKind::invalid_argument, "#: the schema is not JSON");
  return add_json_schema(syntax, schema);
}

}  // namespace constrain

}  // namespace cairn::text
