#include "engine/scheduling/policy.h"

#include "base/error.h"
#include "engine/scheduling/continuous.h"
#include "engine/scheduling/first_come.h"
#include "engine/scheduling/flover_policy.h"

namespace cairn::engine {
namespace {

struct Row {
  std::string_view name;
  std::unique_ptr<Policy> (*make)(const PolicyOptions&);
};

constexpr Row kPolicies[] = {
    {"first-come",
     [](const PolicyOptions&) -> std::unique_ptr<Policy> { return std::make_unique<FirstCome>(); }},
    {"continuous",
     [](const PolicyOptions& o) -> std::unique_ptr<Policy> { return std::make_unique<Continuous>(o); }},
    {"flover",
     [](const PolicyOptions&) -> std::unique_ptr<Policy> { return std::make_unique<FloverPolicy>(); }},
};

}  // namespace

std::unique_ptr<Policy> make_policy(std::string_view name, const PolicyOptions& options) {
  if (!(options.max_token_gap > 0))
    fail(ErrorKind::invalid_argument, "max_token_gap is {} seconds; it must be above 0",
         options.max_token_gap);
  if (!(options.ageing >= 0))
    fail(ErrorKind::invalid_argument, "ageing is {} seconds; it must be 0 or more", options.ageing);
  std::string known;
  for (const Row& row : kPolicies) {
    if (row.name == name) return row.make(options);
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(ErrorKind::invalid_argument, "there is no scheduler \"{}\"; there are {}", name, known);
}

}  // namespace cairn::engine
