// One line per family's file.
#pragma once

#include "models/model.h"

namespace cairn::models {

extern const Family kLlama;       // llama.cpp: Llama 1 to 3.x, Mistral
extern const Family kQwen2;       // qwen2.cpp: Qwen 2 and 2.5
extern const Family kQwen3;       // qwen2.cpp
extern const Family kGemma2;      // gemma.cpp
extern const Family kGemma3;      // gemma.cpp: the text model, alone or inside the multimodal one
extern const Family kPhi3;        // phi3.cpp: Phi-3, 3.5, 4, 4-mini
extern const Family kGpt2;        // gpt2.cpp
extern const Family kOpt;         // opt.cpp
extern const Family kMixtral;     // mixtral.cpp
extern const Family kQwen2Moe;    // qwen_moe.cpp
extern const Family kQwen3Moe;    // qwen_moe.cpp
extern const Family kOlmoe;       // olmoe.cpp
extern const Family kBert;        // bert.cpp: BERT, RoBERTa, XLM-R, CamemBERT; encoders
extern const Family kDistilBert;  // bert.cpp
extern const Family kModernBert;  // modernbert.cpp

}  // namespace cairn::models
