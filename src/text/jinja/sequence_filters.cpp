#include <algorithm>
#include <unordered_map>

#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/printing.h"
#include "text/jinja/unicode.h"

namespace cairn::text::jinja {

AttributeGetter::AttributeGetter(const Value& attribute, Value otherwise) : default_(std::move(otherwise)) {
  if (attribute.is(Kind::none)) return;
  if (!attribute.is(Kind::string)) {
    parts_.push_back(attribute);
    return;
  }
  const std::string& text = attribute.text();
  for (size_t at = 0;;) {
    const size_t end = std::min(text.find('.', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool number =
        !part.empty() && part.size() < 19 && part.find_first_not_of("0123456789") == std::string::npos;
    parts_.push_back(number ? Value::integer(std::stoll(part)) : Value::string(part));
    if (end == text.size()) return;
    at = end + 1;
  }
}

Value AttributeGetter::operator()(Runtime& runtime, Value v) const {
  for (const Value& part : parts_) {
    v = item(runtime, v, part);
    if (!default_.is(Kind::none) && v.is(Kind::undefined)) v = default_;
  }
  return v;
}

namespace {

Value lowered(const Value& v, bool case_sensitive) {
  return case_sensitive || !v.is(Kind::string) ? v : Value::string(lower(v.text()), v.is_safe());
}

Value generator_value(int nesting, std::function<std::optional<Value>(Runtime&)> step) {
  return Value::object(generator(nesting, std::move(step)));
}

// sorted(values, key=...): stable, also in reverse.
std::vector<Value> sorted(Runtime& runtime, const std::vector<Value>& values, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    runtime.step();
    return reverse ? less(keys[b], keys[a]) : less(keys[a], keys[b]);
  });
  std::vector<Value> out;
  out.reserve(values.size());
  for (size_t i : order) out.push_back(values[i]);
  return out;
}

Value attr(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("attr", args, {"name"}, 1);
  if (!b.at(0).is(Kind::string))
    raise(Fault::type, "attribute name must be string, not '{}'", b.at(0).type_name());
  if (value.is(Kind::undefined)) value.undefined().fail();
  auto found = python_attribute(runtime, value, b.at(0).text());
  return found ? *found : Value::undefined_of(value, b.at(0));
}

Value count(Runtime&, const Value& value, Args& args) {
  Bound("len", args, {});
  return Value::integer(length_or_raise(value));
}

Value default_filter(Runtime&, const Value& value, Args& args) {
  const Bound b("default", args, {"default_value", "boolean"});
  if (value.is(Kind::undefined) || (b.flag(1, false) && !truth(value))) return b.get(0, Value::string(""));
  return value;
}

Value batch(Runtime&, const Value& value, Args& args) {
  const Bound b("batch", args, {"linecount", "fill_with"}, 1);
  const Value size = b.at(0), fill = b.get(1, Value());
  return generator_value(value.nesting() + 2,
                         [value, size, fill, source = std::shared_ptr<Iterator>(),
                          pending = std::optional<Value>()](Runtime& r) mutable -> std::optional<Value> {
                           if (!source) source = iterate(value);
                           std::vector<Value> row;
                           if (pending) row.push_back(*std::exchange(pending, std::nullopt));
                           while (auto v = source->next(r)) {
                             r.step();
                             if (equal(Value::integer(int64_t(row.size())), size)) {
                               pending = std::move(v);
                               return Value::list(std::move(row));
                             }
                             row.push_back(std::move(*v));
                           }
                           if (row.empty()) return std::nullopt;
                           if (!fill.is(Kind::none) && less(Value::integer(int64_t(row.size())), size)) {
                             const int64_t wanted = as_index(size, "can't multiply sequence by non-int");
                             r.step(size_t(wanted));
                             if (size_t(wanted) > r.limits.output_bytes / sizeof(Value))
                               raise(Fault::limit, "a batch of {}", wanted);
                             row.resize(size_t(wanted), fill);
                           }
                           return Value::list(std::move(row));
                         });
}

Value slice_filter(Runtime&, const Value& value, Args& args) {
  const Bound b("slice", args, {"slices", "fill_with"}, 1);
  const Value slices = b.at(0), fill = b.get(1, Value());
  return generator_value(
      value.nesting() + 2,
      [value, slices, fill, items = std::optional<std::vector<Value>>(), number = int64_t{0},
       offset = int64_t{0}](Runtime& r) mutable -> std::optional<Value> {
        if (!items) items = to_vector(r, value);
        const auto n = int64_t(items->size());
        const int64_t k = as_index(slices, "slice");
        if (k == 0) raise(Fault::zero_division, "integer division or modulo by zero");
        if (number >= k) return std::nullopt;
        r.step();
        const int64_t each = n / k, longer = n % k;
        const int64_t from = offset + number * each;
        if (number < longer) ++offset;
        const int64_t to = offset + (number + 1) * each;
        std::vector<Value> part(items->begin() + from, items->begin() + to);
        if (!fill.is(Kind::none) && number >= longer) part.push_back(fill);
        ++number;
        return Value::list(std::move(part));
      });
}

Value dictsort(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("dictsort", args, {"case_sensitive", "by", "reverse"});
  const std::string by = b.given(1) ? print(b.at(1)) : "key";
  if (by != "key" && by != "value") raise(Fault::runtime, "You can only sort by either \"key\" or \"value\"");
  if (value.is(Kind::undefined)) value.undefined().fail();
  if (!value.is(Kind::dict)) raise(Fault::type, "'{}' object has no attribute 'items'", value.type_name());
  std::vector<Value> pairs, keys;
  for (const auto& [k, v] : value.dict().items) {
    pairs.push_back(Value::tuple({k, v}));
    keys.push_back(lowered(by == "key" ? k : v, b.flag(0, false)));
  }
  return Value::list(sorted(runtime, pairs, keys, b.flag(2, false)));
}

Value first(Runtime& runtime, const Value& value, Args& args) {
  Bound("first", args, {});
  const auto v = iterate(value)->next(runtime);
  return v ? *v : Value::undefined_hint("No first item, sequence was empty.");
}

bool is_reversible(const Value& v) {
  return v.is(Kind::string) || v.is_sequence() || v.is(Kind::dict) || v.is(Kind::undefined) ||
         v.as<Range>() || v.as<DictView>();
}

Value last(Runtime& runtime, const Value& value, Args& args) {
  Bound("last", args, {});
  if (!is_reversible(value)) raise(Fault::type, "'{}' object is not reversible", value.type_name());
  const int64_t n = *length(value);
  if (n == 0) return Value::undefined_hint("No last item, sequence was empty.");
  if (value.is_sequence()) return value.items().back();
  if (value.is(Kind::string))
    return slice(runtime, Value::string(value.text()), Value::integer(-1), Value(), Value());
  return to_vector(runtime, value).back();
}

Value reverse(Runtime& runtime, const Value& value, Args& args) {
  Bound("reverse", args, {});
  if (value.is(Kind::string)) return slice(runtime, value, Value(), Value(), Value::integer(-1));
  if (!is_iterable(value)) raise(Fault::runtime, "argument must be iterable");
  auto items = to_vector(runtime, value);
  std::reverse(items.begin(), items.end());
  if (!is_reversible(value)) return Value::list(std::move(items));
  return Value::object(iterate_vector(std::move(items)));
}

Value items(Runtime&, const Value& value, Args& args) {
  Bound("items", args, {});
  return generator_value(value.nesting() + 2,
                         [value, at = size_t{0}](Runtime&) mutable -> std::optional<Value> {
                           if (value.is(Kind::undefined)) return std::nullopt;
                           if (!value.is(Kind::dict))
                             raise(Fault::type, "Can only get item pairs from a mapping.");
                           if (at >= value.dict().items.size()) return std::nullopt;
                           const auto& [k, v] = value.dict().items[at++];
                           return Value::tuple({k, v});
                         });
}

Value join(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("join", args, {"d", "attribute"});
  const AttributeGetter get(b.get(1, Value()));
  const std::string separator = b.given(0) ? print(b.at(0)) : "";
  std::string out;
  bool begun = false;
  for_each(runtime, value, [&](const Value& v) {
    if (begun) out += separator;
    begun = true;
    out += print(get(runtime, v));
    if (out.size() > runtime.limits.output_bytes)
      raise(Fault::limit, "joining to more than {} bytes", runtime.limits.output_bytes);
  });
  runtime.bytes(out.size());
  return Value::string(std::move(out));
}

Value list(Runtime& runtime, const Value& value, Args& args) {
  Bound("list", args, {});
  return Value::list(to_vector(runtime, value));
}

Value map(Runtime&, const Value& value, Args& args) {
  struct State {
    Value value;
    Args args;
    std::shared_ptr<Iterator> source;
    std::optional<AttributeGetter> get;
    std::string filter;
  };
  auto state = std::make_shared<State>();
  state->value = value;
  state->args = args;
  return generator_value(value.nesting() + 2, [state](Runtime& r) -> std::optional<Value> {
    State& s = *state;
    if (!s.source) {
      if (!truth(s.value)) return std::nullopt;
      if (s.args.positional.empty() && std::any_of(s.args.named.begin(), s.args.named.end(),
                                                   [](const auto& n) { return n.first == "attribute"; })) {
        const Bound b("map", s.args, {"attribute", "default"});
        s.get.emplace(b.at(0), b.get(1, Value()));
      } else {
        if (s.args.positional.empty()) raise(Fault::runtime, "map requires a filter argument");
        s.filter = print(s.args.positional[0]);
        s.args.positional.erase(s.args.positional.begin());
      }
      s.source = iterate(s.value);
    }
    auto v = s.source->next(r);
    if (!v) return v;
    r.step();
    if (s.get) return (*s.get)(r, *v);
    return apply_filter(r, s.filter, *v, s.args);
  });
}

template <bool wanted, bool of_attribute>
Value select(Runtime&, const Value& value, Args& args) {
  struct State {
    Value value;
    Args args;
    std::shared_ptr<Iterator> source;
    std::optional<AttributeGetter> get;
    std::optional<std::string> test;
  };
  auto state = std::make_shared<State>();
  state->value = value;
  state->args = args;
  return generator_value(value.nesting() + 2, [state](Runtime& r) -> std::optional<Value> {
    State& s = *state;
    if (!s.source) {
      if (!truth(s.value)) return std::nullopt;
      auto& positional = s.args.positional;
      if (of_attribute) {
        if (positional.empty()) raise(Fault::runtime, "Missing parameter for attribute name");
        s.get.emplace(positional[0]);
        positional.erase(positional.begin());
      }
      if (!positional.empty()) {
        s.test = print(positional[0]);
        positional.erase(positional.begin());
      }
      s.source = iterate(s.value);
    }
    while (auto v = s.source->next(r)) {
      r.step();
      const Value probe = s.get ? (*s.get)(r, *v) : *v;
      if ((s.test ? apply_test(r, *s.test, probe, s.args) : truth(probe)) == wanted) return v;
    }
    return std::nullopt;
  });
}

template <bool greatest>
Value extreme(Runtime& runtime, const Value& value, Args& args) {
  const Bound b(greatest ? "max" : "min", args, {"case_sensitive", "attribute"});
  const AttributeGetter get(b.get(1, Value()));
  const bool case_sensitive = b.flag(0, false);
  std::optional<Value> best, best_key;
  for_each(runtime, value, [&](const Value& v) {
    Value key = lowered(get(runtime, v), case_sensitive);
    if (!best || (greatest ? less(*best_key, key) : less(key, *best_key)))
      best = v, best_key = std::move(key);
  });
  return best ? *best : Value::undefined_hint("No aggregated item, sequence was empty.");
}

Value sort(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = b.flag(1, false);
  std::vector<AttributeGetter> getters;
  if (b.given(2) && b.at(2).is(Kind::string)) {
    const std::string& text = b.at(2).text();
    for (size_t at = 0;;) {
      const size_t end = std::min(text.find(',', at), text.size());
      getters.emplace_back(Value::string(text.substr(at, end - at)));
      if (end == text.size()) break;
      at = end + 1;
    }
  } else {
    getters.emplace_back(b.get(2, Value()));
  }
  const auto values = to_vector(runtime, value);
  std::vector<Value> keys;
  for (const Value& v : values) {
    std::vector<Value> key;
    for (const auto& get : getters) key.push_back(lowered(get(runtime, v), case_sensitive));
    keys.push_back(Value::list(std::move(key)));
  }
  return Value::list(sorted(runtime, values, keys, b.flag(0, false)));
}

Value unique(Runtime&, const Value& value, Args& args) {
  const Bound b("unique", args, {"case_sensitive", "attribute"});
  struct State {
    Value value;
    AttributeGetter get;
    bool case_sensitive;
    std::shared_ptr<Iterator> source;
    std::unordered_multimap<size_t, Value> seen;
  };
  auto state = std::make_shared<State>(
      State{value, AttributeGetter(b.get(1, Value())), b.flag(0, false), nullptr, {}});
  return generator_value(value.nesting() + 2, [state](Runtime& r) -> std::optional<Value> {
    State& s = *state;
    if (!s.source) s.source = iterate(s.value);
    while (auto v = s.source->next(r)) {
      r.step();
      const Value key = lowered(s.get(r, *v), s.case_sensitive);
      const size_t h = hash(key);
      auto [at, end] = s.seen.equal_range(h);
      while (at != end && !equal(at->second, key)) ++at;
      if (at != end) continue;
      s.seen.emplace(h, key);
      return v;
    }
    return std::nullopt;
  });
}

Value groupby(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const AttributeGetter get(b.at(0), b.get(1, Value()));
  const bool case_sensitive = b.flag(2, false);
  const auto values = to_vector(runtime, value);
  std::vector<Value> keys;
  for (const Value& v : values) keys.push_back(lowered(get(runtime, v), case_sensitive));
  const auto ordered = sorted(runtime, values, keys, false);
  std::vector<Value> groups, members;
  std::optional<Value> key;
  const auto close = [&] {
    if (members.empty()) return;
    Value grouper = case_sensitive ? *key : get(runtime, members[0]);
    groups.push_back(Value::group(std::move(grouper), Value::list(std::exchange(members, {}))));
  };
  for (const Value& v : ordered) {
    Value k = lowered(get(runtime, v), case_sensitive);
    if (!key || !equal(*key, k)) close(), key = std::move(k);
    members.push_back(v);
  }
  close();
  return Value::list(std::move(groups));
}

Value sum(Runtime& runtime, const Value& value, Args& args) {
  const Bound b("sum", args, {"attribute", "start"});
  const AttributeGetter get(b.get(0, Value()));
  Value total = b.get(1, Value::integer(0));
  if (total.is(Kind::string)) raise(Fault::type, "sum() can't sum strings [use ''.join(seq) instead]");
  for_each(runtime, value, [&](const Value& v) { total = add(runtime, total, get(runtime, v)); });
  return total;
}

Value random(Runtime&, const Value&, Args&) { raise(Fault::unsupported, "the filter 'random'"); }

}  // namespace

const std::vector<NamedFilter> kSequenceFilters = {
    {"attr", {attr}},
    {"batch", {batch}},
    {"count", {count}},
    {"d", {default_filter}},
    {"default", {default_filter}},
    {"dictsort", {dictsort}},
    {"first", {first}},
    {"groupby", {groupby}},
    {"items", {items}},
    {"join", {join}},
    {"last", {last}},
    {"length", {count}},
    {"list", {list}},
    {"map", {map}},
    {"max", {extreme<true>}},
    {"min", {extreme<false>}},
    {"random", {random}},
    {"reject", {select<false, false>}},
    {"rejectattr", {select<false, true>}},
    {"reverse", {reverse}},
    {"select", {select<true, false>}},
    {"selectattr", {select<true, true>}},
    {"slice", {slice_filter}},
    {"sort", {sort}},
    {"sum", {sum}},
    {"unique", {unique}},
};

}  // namespace cairn::text::jinja
