#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;

std::string render(std::string_view source, const Json& variables = Json::object(),
                   const TemplateLimits& limits = {}) {
  return ChatTemplate(source, "t").render(variables, limits);
}

// The Error's sentence.
std::string failure(std::string_view source, const Json& variables = Json::object(),
                    const TemplateLimits& limits = {}) {
  try {
    return "rendered: " + render(source, variables, limits);
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.what();
  }
}

// Expected values are jinja2 3.1.6's, set up as tools/template_reference.py does.
TEST(ChatTemplate, WritesValuesAsPythonDoes) {
  EXPECT_EQ(render("{{ [1, 2.0, 1e16, 1e-5, true, none, 'a\\'b', \"q\", {'k': (1,)}] }}"),
            "[1, 2.0, 1e+16, 1e-05, True, None, \"a'b\", 'q', {'k': (1,)}]");
  EXPECT_EQ(render("{{ 7 // -2 }} {{ 7 % -2 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 2 ** -1 }} {{ -2 ** 2 }}"),
            "-4 -1 1024 3.5 0.5 4");
  EXPECT_EQ(
      render("{{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ 1 < 2 < 3 }} {{ 3 in [1, 3] }} {{ 'x' not in 'abc' }}"),
      "a1None abab True True True");
  EXPECT_EQ(
      render("{{ '日本語テキスト'[1:4] }} {{ '🦊ab'|length }} {{ 'ß'|upper }} {{ 'abc'[::-1] }} {{ "
             "[1,2,3,4][::-2] }}"),
      "本語テ 3 SS cba [4, 2]");
  EXPECT_EQ(render("{{ {'ab': 'abc'}['abc'[:2]][1:] }}"), "bc");
  EXPECT_EQ(render("{{ 'a' % undef }}{{ [['x' * 40, 'y' * 40], {'b': 1, 'a': 2}]|pprint }}"),
            "a[['" + std::string(40, 'x') + "',\n  '" + std::string(40, 'y') + "'],\n {'a': 2, 'b': 1}]");
  EXPECT_EQ(
      render("{{ (x.y.z is defined) if x.y is defined else 'no' }}{{ missing }}", {{"x", Json::object()}}),
      "no");
}

TEST(ChatTemplate, TrimsWhitespaceAsJinja2Does) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a  {%- if true -%}  b  {%- endif %}  c"), "ab  c");
  EXPECT_EQ(render("  {%+ if true %}x{% endif +%}\ny"), "  x\ny");
  EXPECT_EQ(render("{{ 1 }}\n{# note #}\n{{ 2 }}\n\n"), "1\n2\n");
  EXPECT_EQ(render("{% raw %}{{ x }}{% endraw %}\n{{- '!' -}}\n\n ?"), "{{ x }}!?");
  EXPECT_EQ(render("a\r\nb\rc"), "a\nb\nc");
}

TEST(ChatTemplate, ScopesNamesAsJinja2Does) {
  EXPECT_EQ(render("{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}"),
            "231");
  EXPECT_EQ(
      render(
          "{% set ns = namespace(n=0) %}{% for i in [1,2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"),
      "3");
  EXPECT_EQ(render("{% if true %}{% set x = 5 %}{% endif %}{{ x }}"), "5");
  EXPECT_EQ(render("{% macro m(a, b='d') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ y }}{% endmacro %}{% "
                   "set y = 'Y' %}{{ m(1, 2, 3, k=4) }}"),
            "12(3,){'k': 4}Y");
  EXPECT_EQ(render("{% macro box(t) %}[{{ t }}:{{ caller(2) }}]{% endmacro %}{% call(n) box('q') %}{{ n * 2 "
                   "}}{% endcall %}"),
            "[q:4]");
  EXPECT_EQ(render("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}"), "3False");
  EXPECT_EQ(render("{% set x | upper %}a{{ 1 }}b{% endset %}{{ x }}{% filter replace('l', 'L') %}hello{% "
                   "endfilter %}"),
            "A1BheLLo");
}

TEST(ChatTemplate, Loops) {
  EXPECT_EQ(render("{% for k, v in d.items() %}{{ loop.index }}/{{ loop.length }}{{ k }}={{ v }}{{ ',' if "
                   "not loop.last }}{% endfor %}",
                   {{"d", {{"a", 1}, {"b", 2}}}}),
            "1/2a=1,2/2b=2");
  EXPECT_EQ(
      render("{% for x in [1,2,3,4] if x is even %}{{ loop.previtem }}{{ x }}{% else %}none{% endfor %}"),
      "224");
  EXPECT_EQ(render("{% for x in [] %}{% else %}none{% endfor %}"), "none");
  EXPECT_EQ(render("{% for x in range(9) %}{% if x == 1 %}{% continue %}{% endif %}{% if x > 2 %}{% break "
                   "%}{% endif %}{{ x }}{% endfor %}"),
            "02");
  EXPECT_EQ(render("{% for x in t recursive %}{{ x.n }}{% if x.c %}({{ loop(x.c) }}){% endif %}{% endfor %}",
                   {{"t", {{{"n", 1}, {"c", {{{"n", 2}}}}}, {{"n", 3}}}}}),
            "1(2)3");
}

// The filter of a loop is a function of its own, around which the recursion takes place.
TEST(ChatTemplate, FilteredLoopsSeeTheNamesAroundThem) {
  EXPECT_EQ(render("{% for y in [1, 2] %}{{ loop.index }}{% for x in [[7]] if loop.index recursive %}"
                   "{{ loop(x) if x is iterable else x }}{% endfor %}{% endfor %}"),
            "1727");
  EXPECT_EQ(
      render("{% for a, b in [[1, 2]] if b %}{{ loop.previtem }}{{ loop.nextitem }}{{ a }}{% endfor %}"),
      "1");
  EXPECT_EQ(render("{% for a, b in [[1, 2], [3, 4]] if b %}{{ loop.nextitem }}{% endfor %}"), "(3, 4)");
}

TEST(ChatTemplate, KeepsKeyOrderInJson) {
  EXPECT_EQ(render("{{ d|tojson }} {{ d|tojson(indent=2) }} {{ 'é\"'|tojson(ensure_ascii=true) }}",
                   {{"d", {{"b", 1.5}, {"a", {1, nullptr}}}}}),
            "{\"b\": 1.5, \"a\": [1, null]} {\n  \"b\": 1.5,\n  \"a\": [\n    1,\n    null\n  ]\n} "
            "\"\\u00e9\\\"\"");
  EXPECT_EQ(render("{{ x }}", {{"x", 18446744073709551615ull}}), "18446744073709551615");
}

TEST(ChatTemplate, NamesLineAndConstructOfWhatDoesNotParse) {
  EXPECT_EQ(failure("a\n{% if x %}\nb"),
            "invalid file: t, line 3: unexpected end of template, looking for 'elif'");
  EXPECT_EQ(failure("\n{% frob %}"), "invalid file: t, line 2: unknown tag 'frob'");
  EXPECT_EQ(failure("{{ x | nosuch }}"), "invalid file: t, line 1: No filter named 'nosuch'.");
  EXPECT_EQ(failure("{{ 1 +"), "invalid file: t, line 1: unexpected 'end of template'");
  EXPECT_EQ(failure("{% break %}"), "invalid file: t, line 1: 'break' outside loop");
  EXPECT_EQ(failure("\xff"), "invalid file: t: not valid UTF-8");
  // Odd, but jinja2's grammar: what follows a test's name is its argument.
  EXPECT_EQ(failure("{{ x is defined if y else z }}"),
            "invalid file: t, line 1: expected end of print statement, got 'y'");
  EXPECT_EQ(failure("{{ " + std::string(5000, '(') + std::string(5000, ')') + " }}").substr(0, 13),
            "invalid file:");
}

TEST(ChatTemplate, NamesLineAndConstructOfWhatItCannotRender) {
  EXPECT_EQ(failure("\n{% include 'x' %}"),
            "unsupported: t, line 2: cannot render the statement 'include': a chat template has no other "
            "templates to load");
  EXPECT_EQ(failure("{{ [1]|random }}"), "unsupported: t, line 1: cannot render the filter 'random'");
  EXPECT_EQ(failure("{{ [1]|map('upper') }}").substr(0, 60),
            "unsupported: t, line 1: cannot render printing a generator: ");
  EXPECT_EQ(failure("\n\n{{ raise_exception('no ' ~ 1) }}"),
            "invalid argument: t, line 3: the template refuses: no 1");
  EXPECT_EQ(failure("{{ x.y.z }}", {{"x", Json::object()}}),
            "invalid argument: t, line 1: UndefinedError: 'dict object' has no attribute 'y'");
  EXPECT_EQ(failure("{{ 1 + 'a' }}"),
            "invalid argument: t, line 1: TypeError: unsupported operand type(s) for +: 'int' and 'str'");
}

TEST(ChatTemplate, OffersNoWayOutOfTheSandbox) {
  EXPECT_EQ(render("{{ ''.__class__ }}|{{ m.append is defined }}|{{ m['__len__'] }}", {{"m", {1}}}),
            "|False|");
  EXPECT_NE(failure("{{ ''.__class__.__mro__ }}").find("SecurityError"), std::string::npos);
  EXPECT_NE(failure("{{ m.append(2) }}", {{"m", {1}}}).find("SecurityError"), std::string::npos);
  EXPECT_NE(failure("{{ '{0.__class__.x}'.format(1) }}").find("SecurityError"), std::string::npos);
  EXPECT_NE(failure("{% set ns = namespace(_a=1) %}").find("SecurityError"), std::string::npos);
}

TEST(ChatTemplate, StopsAtItsLimits) {
  TemplateLimits small;
  small.steps = 10'000;
  EXPECT_NE(
      failure("{% for i in range(99999) %}{% endfor %}", Json::object(), small).find("more than 10000 steps"),
      std::string::npos);
  TemplateLimits brief;
  brief.seconds = 0.02;
  EXPECT_NE(failure("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
                    Json::object(), brief)
                .find("seconds"),
            std::string::npos);
  TemplateLimits narrow;
  narrow.output_bytes = 1000;
  EXPECT_NE(failure("{% for i in range(999) %}xx{% endfor %}", Json::object(), narrow)
                .find("output longer than 1000"),
            std::string::npos);
  EXPECT_NE(failure("{{ 'x' * 99999999999 }}").find("rendering stopped"), std::string::npos);
  EXPECT_NE(failure("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("calls nest deeper than 200"),
            std::string::npos);
  TemplateLimits little;
  little.value_bytes = 1 << 20;
  EXPECT_NE(
      failure(
          "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
          Json::object(), little)
          .find("values need more than 1048576 bytes"),
      std::string::npos);
  EXPECT_NE(
      failure("{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}")
          .find("nest deeper"),
      std::string::npos);
}

// Closures, loops and namespaces that hold one another are freed with the render (the leak checker of the
// asan preset sees to it), also when it fails.
TEST(ChatTemplate, FreesCyclesOfValues) {
  EXPECT_EQ(
      render(
          "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{{ ns.f is defined }}{% endmacro %}"
          "{% set ns.f = m %}{% for i in [1] %}{% set ns.l = loop %}{% endfor %}{{ m() }}"),
      "True");
  EXPECT_NE(failure("{% set ns = namespace() %}{% set ns.me = [ns] %}{{ 1 / 0 }}").find("ZeroDivisionError"),
            std::string::npos);
}

TEST(ChatTemplate, TellsTheTimeItIsGiven) {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  EXPECT_EQ(ChatTemplate("{{ strftime_now('%d %B %Y') }}").render(Json::object(), {}, [&] { return now; }),
            "26 July 2024");
  EXPECT_EQ(ChatTemplate("{{ strftime_now('%Y')|length }}").render(Json::object()), "4");
}

}  // namespace
}  // namespace cairn::text
