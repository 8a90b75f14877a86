// cairn pull: fetch a model from a hub into the cache that other programs share.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "command.h"
#include "formats/hub.h"
#include "interrupt.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  std::string model, revision;
};

// One bar per file, labelled with its place among the files.
class Progress {
 public:
  void show(const formats::PullProgress& progress) {
    if (!bar_ || progress.index != index_) {
      bar_.reset();  // erases the line
      index_ = progress.index;
      bar_ = std::make_unique<ProgressBar>(
          fmt::format("{} ({}/{})", visible(progress.file), progress.index + 1, progress.count),
          progress.total, ProgressUnit::bytes);
    }
    bar_->update(progress.done, progress.total);
  }

 private:
  std::unique_ptr<ProgressBar> bar_;
  size_t index_ = 0;
};

int run(const Options& options) {
  auto request = formats::parse_model_name(options.model);
  if (!options.revision.empty()) request.revision = options.revision;
  const Interruptible interruptible;
  auto pull_options = formats::pull_options_from_environment();
  pull_options.http.cancel =
      &Interruptible::flag();  // what was fetched stays; the next pull goes on from there
  Progress progress;
  const auto path =
      formats::pull(request, pull_options, [&](const formats::PullProgress& state) { progress.show(state); });
  write_out(path.string() + "\n");
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model,
                 "org/name: what it takes to run the model; org/name:FILE or org/name:Q4_K_M: one GGUF file")
      ->required();
  app.add_option("--revision", options->revision, "branch, tag or commit (default: main)");
  app.footer(
      "Prints where the model lies. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE are obeyed.\n"
      "A pull that was cut off goes on where it stopped; sizes and checksums are verified.");
  return [options] { return run(*options); };
}

const RegisterCommand registered({"pull", "fetch a model from a hub", setup});

}  // namespace
}  // namespace cairn::app
