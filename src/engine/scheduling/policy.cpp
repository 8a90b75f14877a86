#include "engine/scheduling/policy.h"

#include "base/error.h"
#include "engine/scheduling/first_come.h"

namespace cairn::engine {
namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<Policy> (*make)(const PolicyOptions&);
};

constexpr Row kPolicies[] = {
    {"first-come",
     [](const PolicyOptions&) -> std::unique_ptr<Policy> { return std::make_unique<FirstCome>(); }},
};

}  // namespace

std::unique_ptr<Policy> make_policy(std::string_view name, const PolicyOptions& options) {
  if (!(options.max_token_gap > 0))
    fail(ErrorKind::invalid_argument, "max_token_gap is {} seconds; it must be above 0",
         options.max_token_gap);
  std::string known;
  for (const Row& row : kPolicies) {
    if (row.name == name) return row.make(options);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorKind::invalid_argument, "there is no scheduler \"{}\"; there are {}", name, known);
}

}  // namespace cairn::engine
