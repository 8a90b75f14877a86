// Constrained output on one core: compile time, and the time of one mask over the vocabulary at every token
// of a sample answer.
//   constrain_bench TOKENIZER [--rounds N] [--schema FILE.json --sample FILE]...
// Prints the machine, then per grammar: compile time (the first of this kind of grammar, then the median of
// new compilers), tokens of the sample, mask time of the first answer (nothing cached: p50 and the longest)
// and of later ones (p50, p99, longest), time to accept a token, memory, and a hash of all masks. Links:
// cairn_text
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "text/constrain/grammar.h"
#include "text/tokenizer.h"

namespace {

using cairn::text::GrammarCompiler;
using cairn::text::GrammarMatcher;
using cairn::text::GrammarPtr;
using cairn::text::GrammarSource;
using Clock = std::chrono::steady_clock;

struct Case {
  std::string name;
  GrammarSource source;
  std::string sample;
};

std::vector<Case> cases() {
  using Kind = GrammarSource::Kind;
  const char* person =
      R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"email":{"type":"string"},
      "city":{"type":"string"},"active":{"type":"boolean"}},"required":["name","age","email","city","active"],
      "additionalProperties":false})";
  const char* person_sample =
      R"({"name": "Margaret Hamilton", "age": 87, "email": "margaret@example.org", "city": "Cambridge, Massachusetts", "active": true})";
  const char* order =
      R"({"type":"object","properties":{"id":{"type":"string","format":"uuid"},"created":{"type":"string","format":"date-time"},
      "customer":{"$ref":"#/$defs/customer"},"lines":{"type":"array","items":{"$ref":"#/$defs/line"},"minItems":1,"maxItems":20},
      "note":{"type":["string","null"],"maxLength":200},"status":{"enum":["new","paid","shipped","cancelled"]}},
      "required":["id","created","customer","lines","status"],"additionalProperties":false,
      "$defs":{"customer":{"type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":60},
      "vat":{"type":"string","pattern":"^[A-Z]{2}[0-9]{8,10}$"}},"required":["name"],"additionalProperties":false},
      "line":{"type":"object","properties":{"sku":{"type":"string","pattern":"^[A-Z]{3}-[0-9]{4}$"},
      "quantity":{"type":"integer","minimum":1,"maximum":1000},"price":{"type":"number","minimum":0,"multipleOf":0.01},
      "kind":{"anyOf":[{"const":"goods"},{"const":"service"}]}},"required":["sku","quantity","price"],"additionalProperties":false}}})";
  const char* order_sample =
      R"({"id": "123e4567-e89b-12d3-a456-426614174000", "created": "2026-11-23T13:16:00Z", "customer": {"name": "Grete Hermann", "vat": "DE123456789"}, "lines": [{"sku": "ABC-1234", "quantity": 12, "price": 19.99, "kind": "goods"}, {"sku": "XYZ-0001", "quantity": 1, "price": 250}], "note": "Please ring twice, then leave it with the neighbour on the left.", "status": "paid"})";
  const char* open =
      R"({"type":"object","properties":{"title":{"type":"string"},"tags":{"type":"array","items":{"type":"string"}},
      "body":{"type":"object"}},"required":["title"]})";
  const char* open_sample =
      R"({"title": "On masks", "tags": ["grammar", "vocabulary"], "body": {"text": "A longer text, with \"quotes\" and\nlines.", "pages": [1, 2, 3]}, "extra": null})";
  const char* tree =
      R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"value":{"type":"string"},
      "children":{"type":"array","items":{"$ref":"#/$defs/node"}}},"required":["value","children"],"additionalProperties":false}}})";
  const char* tree_sample =
      R"({"value": "root", "children": [{"value": "left", "children": [{"value": "leaf one", "children": []}]}, {"value": "right", "children": []}]})";
  const char* object_sample =
      R"({"query": "SELECT name FROM users WHERE age > 30;", "limit": 10, "nested": {"a": [true, false, null], "b": {"c": "d"}}})";
  const char* json_gbnf =
      "root ::= object\nvalue ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
      "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
      "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
      "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}))* "
      "\"\\\"\" ws\n"
      "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n"
      "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";
  return {{"schema, flat object", {Kind::json_schema, person}, person_sample},
          {"schema, order", {Kind::json_schema, order}, order_sample},
          {"schema, open object", {Kind::json_schema, open}, open_sample},
          {"schema, recursive", {Kind::json_schema, tree}, tree_sample},
          {"any JSON object", {Kind::json_object, ""}, object_sample},
          {"GBNF, JSON", {Kind::gbnf, json_gbnf}, object_sample},
          {"regex, e-mail",
           {Kind::regex, "[a-z0-9.]{1,64}@[a-z0-9-]+(?:\\.[a-z]{2,})+"},
           "margaret.hamilton@mit-lincoln.example.org"},
          {"regex, prose",
           {Kind::regex, "(?:[A-Z][a-z]*(?: [a-z]+)*\\. )+"},
           "The quick brown fox jumps. It then sleeps under the lazy dog. "}};
}

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double at(std::vector<double>& values, double quantile) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, size_t(quantile * double(values.size())))];
}

}  // namespace

int main(int count, char** arguments) {
  int rounds = 20;
  std::string path, schema;
  std::vector<Case> all = cases();
  for (int i = 1; i < count; ++i) {
    if (!std::strcmp(arguments[i], "--rounds") && i + 1 < count)
      rounds = std::atoi(arguments[++i]);
    else if (!std::strcmp(arguments[i], "--schema") && i + 1 < count)
      schema = arguments[++i];
    else if (!std::strcmp(arguments[i], "--sample") && i + 1 < count)
      all.push_back({schema,
                     {GrammarSource::Kind::json_schema, cairn::read_text_file(schema)},
                     cairn::read_text_file(arguments[++i])});
    else
      path = arguments[i];
  }
  if (path.empty()) {
    std::fprintf(stderr,
                 "usage: constrain_bench TOKENIZER [--rounds N] [--schema FILE.json --sample FILE]...\n");
    return 2;
  }
  try {
    const auto tokenizer = cairn::text::load_tokenizer(path);
    const int32_t size = tokenizer->vocabulary_size();
    auto start = Clock::now();
    auto compiler = std::make_unique<GrammarCompiler>(*tokenizer, size);
    std::printf("%s, one thread; %s, %d tokens; vocabulary read in %.0f ms\n", processor().c_str(),
                path.c_str(), size, us_since(start) / 1e3);
    std::printf(
        "%-22s %9s %7s | first answer, us | later answers, us     | accept |  memory  | hash of masks\n", "",
        "compile", "tokens");
    std::printf("%-22s %9s %7s |   p50   longest  |  p50   p99   longest  |  p50   |  KiB     |\n", "", "us",
                "");
    std::vector<double> every_later, every_first;
    for (const Case& c : all) {
      std::vector<double> compiles;
      for (int i = 0; i < 5; ++i) {
        compiler = std::make_unique<GrammarCompiler>(*tokenizer, size);
        start = Clock::now();
        compiler->compile(c.source);
        compiles.push_back(us_since(start));
      }
      const auto grammar = compiler->compile(c.source);
      const auto ids = tokenizer->encode(c.sample, {.add_special = false, .parse_special = false});
      std::vector<uint32_t> bits((size_t(size) + 31) / 32);
      std::vector<double> first, later, accepts;
      uint64_t hash = 0xcbf29ce484222325;
      for (int round = 0; round <= rounds; ++round) {
        GrammarMatcher matcher(grammar);
        for (size_t i = 0; i <= ids.size(); ++i) {
          start = Clock::now();
          matcher.fill_mask(bits);
          (round == 0 ? first : later).push_back(us_since(start));
          if (round == 0)
            for (const uint32_t word : bits) hash = (hash ^ word) * 0x100000001b3;
          if (i == ids.size()) break;
          start = Clock::now();
          const bool fits = matcher.accept(ids[i]);
          accepts.push_back(us_since(start));
          if (!fits) {
            std::fprintf(stderr, "constrain_bench: %s: the sample does not fit at token %zu\n",
                         c.name.c_str(), i);
            return 1;
          }
        }
      }
      every_later.insert(every_later.end(), later.begin(), later.end());
      every_first.insert(every_first.end(), first.begin(), first.end());
      std::printf("%-22s %9.0f %7zu | %6.1f %9.1f | %5.1f %6.1f %8.1f | %6.2f | %8zu | %016llx\n",
                  c.name.c_str(), at(compiles, 0.5), ids.size(), at(first, 0.5), at(first, 1), at(later, 0.5),
                  at(later, 0.99), at(later, 1), at(accepts, 0.5), compiler->stats().bytes >> 10,
                  static_cast<unsigned long long>(hash));
    }
    std::printf(
        "all: first answers p50 %.1f us, longest %.1f us; later p50 %.1f us, p99 %.1f us, longest %.1f us\n",
        at(every_first, 0.5), at(every_first, 1), at(every_later, 0.5), at(every_later, 0.99),
        at(every_later, 1));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "constrain_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
