// One line per family's file.
#pragma once

#include "models/model.h"

namespace cairn::models {

extern const Family kLlama;  // llama.cpp: Llama 1 to 3.x, Mistral

}  // namespace cairn::models
