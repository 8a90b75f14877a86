// The JSON-Schema-Test-Suite: of every schema that is not refused, each valid instance must be writable and
// each invalid one must not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/testing.h"
#include "text/constrain/constrain_testing.h"
#include "text/constrain/grammar.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;
using testing::PieceTokenizer;

const PieceTokenizer& tokenizer() {
  static const auto made = PieceTokenizer::bytes_and({});
  return made;
}

// As cairn writes numbers: whole ones without a fraction.
Json normal(const Json& value) {
  if (value.is_number_float() && std::abs(value.get<double>()) < 1e15 &&
      value.get<double>() == std::trunc(value.get<double>()))
    return int64_t(value.get<double>());
  if (!value.is_structured()) return value;
  Json out = value;
  for (auto& item : out) item = normal(item);
  return out;
}

// The value with its members in other orders, itself first; at most `limit`.
std::vector<Json> orders(const Json& value, size_t limit) {
  if (!value.is_structured() || value.empty()) return {value};
  std::vector<Json> out = {value.is_object() ? Json::object() : Json::array()};
  if (value.is_array()) {
    for (const auto& item : value) {
      std::vector<Json> longer;
      for (const Json& before : out)
        for (const Json& form : orders(item, limit)) {
          if (longer.size() >= limit) break;
          longer.push_back(before);
          longer.back().push_back(form);
        }
      out = std::move(longer);
    }
    return out;
  }
  std::vector<std::string> names;
  for (const auto& [name, ignored] : value.items()) names.push_back(name);
  std::vector<size_t> order(names.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  out.clear();
  do {
    std::vector<Json> forms = {Json::object()};
    for (const size_t i : order) {
      std::vector<Json> longer;
      for (const Json& before : forms)
        for (const Json& form : orders(value[names[i]], limit)) {
          if (longer.size() >= limit) break;
          longer.push_back(before);
          longer.back()[names[i]] = form;
        }
      forms = std::move(longer);
    }
    out.insert(out.end(), forms.begin(), forms.end());
  } while (out.size() < limit && std::next_permutation(order.begin(), order.end()));
  return out;
}

// Compact, with one space after : and , (Python's json.dumps), indented.
std::vector<std::string> spellings(const Json& value) {
  const std::string compact = value.dump();
  std::string spaced;
  bool quoted = false;
  for (size_t i = 0; i < compact.size(); ++i) {
    spaced += compact[i];
    if (compact[i] == '\\') spaced += compact[++i];
    if (compact[i] == '"' && spaced.size() > 0 && compact[i - (i > 0)] != '\\') quoted = !quoted;
    if (!quoted && (compact[i] == ',' || compact[i] == ':')) spaced += ' ';
  }
  return {compact, spaced, value.dump(2)};
}

struct Totals {
  int accepted = 0, refused = 0, valid = 0, invalid = 0, reordered = 0, strict = 0;
};

void run(const std::filesystem::path& folder, const std::string& name, Totals& totals,
         std::set<std::string>& strict) {
  const auto suite = Json::parse(read_text_file(folder));
  GrammarCompiler compiler(tokenizer(), tokenizer().vocabulary_size());
  for (const auto& group : suite) {
    GrammarPtr grammar;
    const std::string where = name + ": " + group["description"].get<std::string>();
    try {
      grammar = compiler.json_schema(group["schema"]);
      ++totals.accepted;
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_TRUE(what.starts_with("#") || what.starts_with("nothing can match")) << where << ": " << what;
      ++totals.refused;
      // A schema that nothing fits must have no valid instance.
      if (what.find("no value fits") != what.npos || what.starts_with("nothing can match"))
        for (const auto& test : group["tests"]) {
          EXPECT_FALSE(test["valid"].get<bool>()) << where << ": " << what;
        }
      continue;
    }
    for (const auto& test : group["tests"]) {
      const bool valid = test["valid"].get<bool>();
      ++(valid ? totals.valid : totals.invalid);
      const std::string label = where + " / " + test["description"].get<std::string>();
      const auto forms = orders(normal(test["data"]), 200);
      bool written = false;
      for (size_t i = 0; i < forms.size() && !written; ++i) {
        const auto texts = spellings(forms[i]);
        written = testing::matches(grammar, texts[0]);
        for (const auto& text : texts)
          EXPECT_EQ(testing::matches(grammar, text), written) << label << ": " << text;
        if (written && i > 0) ++totals.reordered;
      }
      if (!valid) {
        EXPECT_FALSE(written) << label << ": " << test["data"].dump() << " is invalid";
        // As the suite has it, numbers included.
        EXPECT_FALSE(testing::matches(grammar, test["data"].dump())) << label;
      } else if (!written) {
        ++totals.strict;
        strict.insert(label);
      }
    }
  }
}

TEST(JsonSchemaData, NothingIsMisaccepted) {
  CAIRN_NEED_DATA("conformance/json-schema/tests");
  Totals totals;
  std::set<std::string> strict;
  for (const std::string draft : {"draft2020-12", "draft7"}) {
    const auto root = cairn::testing::data_folder() / "conformance/json-schema/tests" / draft;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
      if (entry.path().extension() == ".json") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    ASSERT_GT(files.size(), 30u);
    for (const auto& file : files)
      run(file, draft + "/" + file.lexically_relative(root).string(), totals, strict);
  }
  std::printf(
      "schemas: %d accepted, %d refused; instances: %d valid (%d in another order, %d not written), %d "
      "invalid\n",
      totals.accepted, totals.refused, totals.valid, totals.reordered, totals.strict, totals.invalid);
  EXPECT_GE(totals.accepted, 430);
  EXPECT_GT(totals.invalid, 1000);
  // What docs/constrained-output.md says is not written although it is valid: formats bind and are subsets,
  // large numbers have no exponent, and three single cases.
  const std::vector<std::string> known = {
      "draft2020-12/format.json: ",
      "/optional/format/",
      "/optional/bignum.json: ",
      "/optional/float-overflow.json: ",
      "/const.json: float and integers are equal up to 64-bit representation limits / float is valid",
      "/vocabulary.json: schema that uses custom metaschema",
      "draft7/ref.json: ref overrides any sibling keywords / ref valid, maxItems ignored"};
  for (const auto& label : strict)
    EXPECT_TRUE(std::any_of(known.begin(), known.end(),
                            [&](const std::string& part) { return label.find(part) != label.npos; }))
        << label << " is valid and not written";
  EXPECT_LE(totals.strict, 87);
}

}  // namespace
}  // namespace cairn::text
