// What a program does with each of its weights: how backends decide in which form to hold them.
#pragma once

#include <vector>

#include "program/program.h"

namespace cairn::program {

struct WeightRoles {
  bool matrix = false;  // a factor of a product
  bool table = false;   // rows are looked up
  bool vector = false;  // a gain, bias or list of numbers per channel or head
};
// One per weight of the program.
std::vector<WeightRoles> weight_roles(const Program&);

}  // namespace cairn::program
