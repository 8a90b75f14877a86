#include "models/families.h"

namespace cairn::models {

std::span<const Family> families() {
  static const Family kFamilies[] = {
      kLlama,   kQwen2,    kQwen3,    kGemma2, kGemma3, kPhi3,       kGpt2,       kOpt,
      kMixtral, kQwen2Moe, kQwen3Moe, kOlmoe,  kBert,   kDistilBert, kModernBert,
  };
  return kFamilies;
}

}  // namespace cairn::models
