// cairn kernels: the GPU kernels in this binary, and a pack of them compiled ahead.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/pack.h"
#include "backends/cuda/registry.h"
#include "base/error.h"
#include "command.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  std::vector<std::string> architectures;
  std::string out;
};

// "sm_90a" -> 90
int capability_of(const std::string& architecture) {
  int number = 0;
  const char* end = architecture.data() + architecture.size();
  const auto parsed = architecture.starts_with("sm_")
                          ? std::from_chars(architecture.data() + 3, end, number)
                          : std::from_chars_result{end, std::errc::invalid_argument};
  if (parsed.ec != std::errc() || number < 80)
    fail(ErrorKind::invalid_argument, "--arch has '{}'; name architectures as sm_80,sm_86,sm_89,sm_90a",
         architecture);
  return number;
}

int run(const Options& options) {
  if (options.architectures.empty()) {
    if (!options.out.empty()) fail(ErrorKind::invalid_argument, "--out needs --arch: what to compile for");
    for (const auto& family : cuda::kernel_families())
      write_out(fmt::format("{:<26} {:>3} variants for sm_90a  {}; reference: {}\n", family.source,
                            family.stock(90).size(), family.what, family.reference));
    return 0;
  }
  if (options.out.empty())
    fail(ErrorKind::invalid_argument, "--arch needs --out: the folder to write the pack into");
  std::vector<std::pair<std::string, std::vector<cuda::Variant>>> packs;
  uint64_t total = 0, done = 0, bytes = 0;
  for (const auto& architecture : options.architectures) {
    auto variants = cuda::pack_variants(capability_of(architecture));
    total += variants.size();
    packs.emplace_back(architecture, std::move(variants));
  }
  ProgressBar bar("compiling", total, ProgressUnit::items);
  for (const auto& [architecture, variants] : packs) {
    bytes += cuda::write_pack(variants, architecture, options.out,
                              [&](int of_this, int) { bar.update(done + uint64_t(of_this)); });
    done += variants.size();
  }
  bar.finish();
  write_out(fmt::format(
      "{} modules, {}, in {}; cairn reads them from `kernels` beside the program or from $CAIRN_KERNELS\n",
      done, readable_bytes(bytes), options.out));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("--arch", options->architectures, "compile for these, e.g. sm_80,sm_86,sm_89,sm_90a")
      ->delimiter(',');
  app.add_option("-o,--out", options->out, "folder for the compiled kernels");
  return [options] { return run(*options); };
}

const RegisterCommand registered({"kernels", "list the GPU kernels, or compile them ahead into a pack",
                                  setup});

}  // namespace
}  // namespace cairn::app
