#include "models/families.h"

namespace cairn::models {

std::span<const Family> families() {
  static const Family kFamilies[] = {
      kLlama,
  };
  return kFamilies;
}

}  // namespace cairn::models
