// The flags of every command that loads a model.
#pragma once

#include <memory>
#include <string>

#include "api/model_impl.h"

namespace CLI {
class App;
}

namespace cairn::app {

struct ModelOptions {
  std::string model;  // path, org/name, or empty: the shipped one
  LoadOptions load;
  EngineShape shape;
};

void add_model_options(CLI::App&, ModelOptions&);

// Resolves the name and loads, with a progress bar on a terminal.
std::unique_ptr<Model::Impl> load_model(const ModelOptions&);

}  // namespace cairn::app
