#include "serve/api/sampling.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"

namespace cairn::serve {
namespace {

std::vector<std::pair<text::TokenId, float>> read_logit_bias(const Json* bias, int64_t vocabulary) {
  std::vector<std::pair<text::TokenId, float>> result;
  if (!bias) return result;
  for (const auto& [key, value] : bias->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocabulary)
      refuse(400, "logit_bias", "invalid_value",
             "'logit_bias' names the token '{}'; it must be a number from 0 to {}", formats::shown(key, 40),
             vocabulary - 1);
    if (value.is_null()) continue;
    result.emplace_back(text::TokenId(id), value.get<float>());
  }
  return result;
}

uint64_t any_seed() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

}  // namespace

std::vector<std::string> read_stop(const Json* stop) {
  if (!stop) return {};
  if (stop->is_string()) return {stop->get<std::string>()};
  return stop->get<std::vector<std::string>>();
}

void read_sampling(const Json& body, const Serving& serving, engine::GenerateRequest& request) {
  auto& s = request.sampling;
  s.temperature = float(number(body, "temperature", serving.options.temperature.value_or(1)));
  // A model's recommended top_p belongs to its recommended temperature, but a request that names one keeps
  // the other: as generation_config.json works in the reference.
  s.top_p = float(number(body, "top_p", serving.options.top_p.value_or(1)));
  s.top_k = int(std::max<int64_t>(0, whole(body, "top_k", 0)));
  s.min_p = float(number(body, "min_p", 0));
  s.typical_p = float(number(body, "typical_p", 1));
  s.repetition_penalty = float(number(body, "repetition_penalty", 1));
  s.frequency_penalty = float(number(body, "frequency_penalty", 0));
  s.presence_penalty = float(number(body, "presence_penalty", 0));
  s.logit_bias = read_logit_bias(member(body, "logit_bias"), serving.tokenizer.vocabulary_size());
  const Json* seed = member(body, "seed");
  s.seed = seed ? uint64_t(seed->get<int64_t>()) : any_seed();
  s.stop = read_stop(member(body, "stop"));
  s.n = int(whole(body, "n", 1));
  request.priority = int(whole(body, "priority", 0));
  request.ignore_end = flag(body, "ignore_eos", false);
  request.reuse = flag(body, "cache_prompt", true);
  // Values that are in range as doubles but not as floats: a top_p of 1e-60.
  try {
    s.validate(serving.tokenizer.vocabulary_size());
  } catch (const Error& error) {
    throw api_error(error);
  }
}

}  // namespace cairn::serve
