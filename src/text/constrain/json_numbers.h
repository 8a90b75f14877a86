// Numbers between bounds and multiples of a step, as machines over their decimal digits. Exact: bounds are
// compared as decimal texts, never as floating point.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "text/constrain/machine.h"

namespace cairn::text::constrain {

// (-1)^negative * whole.fraction, without needless zeros: zero is "0" and "", and not negative.
struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction;
  bool operator==(const Decimal&) const = default;
};
// nullopt: not a number, or one of more than 400 digits.
std::optional<Decimal> decimal(const nlohmann::ordered_json&);
std::optional<Decimal> parse_decimal(std::string_view);
int compare(const Decimal&, const Decimal&);

struct NumberRange {
  std::optional<Decimal> least, most;
  bool above_least = false, below_most = false;  // the bound itself is out
  bool whole = false;                            // integers only, written without a fraction
  std::vector<Decimal> steps;                    // multiples of each; positive
};

bool holds(const NumberRange&, const Decimal&);

// Texts without an exponent, and without "-0". nullopt: more than max_states.
std::optional<Machine> number_machine(const NumberRange&, size_t max_states);

}  // namespace cairn::text::constrain
