// Scores of given tokens as raw f32, for comparisons with other implementations.
// usage: dump_logits MODEL IDS.txt OUT.f32 DEVICE [PROMPT [KV]]: the first PROMPT ids (default: all) go in as
// a prompt, the others one by one as an answer would, with keys and values kept as KV; OUT gets [ids,
// vocabulary].
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/engine.h"

int main(int argc, char** argv) try {
  if (argc < 5) {
    fmt::print(stderr, "usage: dump_logits MODEL IDS.txt OUT.f32 cpu|cuda [PROMPT [KV]]\n");
    return 2;
  }
  std::ifstream text(argv[2]);
  std::vector<int32_t> ids;
  for (int32_t id; text >> id;) ids.push_back(id);
  const size_t prompt = argc > 5 ? size_t(std::atoll(argv[5])) : ids.size();
  cairn::engine::EngineOptions options;
  options.place = std::string(argv[4]) == "cuda" ? cairn::engine::Place::cuda : cairn::engine::Place::cpu;
  using cairn::kv::KvForm;
  for (const auto form : {KvForm::f32, KvForm::f16, KvForm::bf16, KvForm::q8_0, KvForm::e4m3})
    if (argc > 6 && to_string(form) == argv[6]) options.kv_form = form;
  if (argc > 6 && !options.kv_form) throw std::invalid_argument("no such form of keys and values");
  options.step_logits = int64_t(prompt);
  options.context = int64_t(ids.size());
  cairn::engine::Engine engine(cairn::models::open_model(argv[1]), options);
  cairn::kv::Sequence sequence(engine.kv());
  std::ofstream out(argv[3], std::ios::binary);
  const auto write = [&](const cairn::backends::StepResult& r) {
    out.write(reinterpret_cast<const char*>(r.logits),
              std::streamsize(r.rows * engine.model().vocabulary_size * int64_t(sizeof(float))));
  };
  for (size_t done = 0; done < prompt;) {
    const size_t count = std::min(prompt - done, size_t(engine.bounds().tokens));
    write(engine.feed(sequence, {ids.data() + done, count}, int64_t(count), int64_t(ids.size())));
    done += count;
  }
  for (size_t i = prompt; i < ids.size(); ++i)
    write(engine.feed(sequence, {&ids[i], 1}, 1, int64_t(ids.size()), {}, nullptr,
                      cairn::backends::RowClass::decode));
  return out ? 0 : 1;
} catch (const std::exception& e) {
  fmt::print(stderr, "dump_logits: {}\n", e.what());
  return 1;
}
