// The flags of every command that loads a model.
#pragma once

#include <memory>
#include <string>

#include "api/model_impl.h"

namespace CLI {
class App;
class Validator;
}  // namespace CLI

namespace cairn::app {

struct ModelOptions {
  std::string model;  // path, org/name, or empty: the shipped one
  LoadOptions load;
  EngineShape shape;
};

void add_model_options(CLI::App&, ModelOptions&);
// Of these, what says how a model larger than the GPU is split.
void add_split_options(CLI::App&, LoadOptions&);
// Turns what people write for sizes into bytes.
CLI::Validator byte_size();

// Resolves the name and loads, with a progress bar on a terminal.
std::unique_ptr<Model::Impl> load_model(const ModelOptions&);

}  // namespace cairn::app
