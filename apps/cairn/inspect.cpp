// cairn inspect: header facts, tensors, codecs and sizes of a model's files. Reads headers only.
#include "inspect.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>

#include "backends/cpu/weights.h"
#include "base/error.h"
#include "codecs/codec.h"
#include "command.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"
#include "inspect_plan.h"
#include "inspect_program.h"
#include "model_options.h"
#include "model_path.h"
#include "models/model.h"
#include "output.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct CodecShare {
  int64_t tensors = 0, elements = 0;
  uint64_t bytes = 0;
};

struct Totals {
  CodecShare all;
  std::map<codecs::CodecId, CodecShare> by_codec;
};

Totals add_up(const formats::Checkpoint& checkpoint) {
  Totals totals;
  for (const auto& tensor : checkpoint.tensors)
    for (auto* share : {&totals.all, &totals.by_codec[tensor.codec]}) {
      ++share->tensors;
      share->elements += tensor.elements();
      share->bytes += tensor.bytes.size();
    }
  return totals;
}

// The codec that holds the most bytes comes first.
std::vector<std::pair<codecs::CodecId, CodecShare>> by_size(const Totals& totals) {
  std::vector<std::pair<codecs::CodecId, CodecShare>> shares(totals.by_codec.begin(), totals.by_codec.end());
  std::stable_sort(shares.begin(), shares.end(),
                   [](const auto& a, const auto& b) { return a.second.bytes > b.second.bytes; });
  return shares;
}

std::string shape_text(const formats::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.shape, ", "));
}

// A value of the config on one line of at most `columns`.
std::string brief(const nlohmann::json& value, size_t columns) {
  std::string text = visible(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  if (text.size() <= columns) return text;
  const std::string rest =
      value.is_string() || value.is_structured()
          ? fmt::format("... ({} {})", value.is_string() ? text.size() - 2 : value.size(),
                        value.is_string() ? "bytes" : "entries")
          : "...";
  size_t keep = columns > rest.size() ? columns - rest.size() : 0;
  while (keep > 0 && (static_cast<unsigned char>(text[keep]) & 0xc0) == 0x80) --keep;  // at a character
  return text.substr(0, keep) + rest;
}

// Whether a start would find the weights packed for this processor.
std::string packed_text(formats::Checkpoint checkpoint) {
  const auto folder = cpu::PackedFolder::from_environment();
  if (folder.path.empty()) return {};
  try {
    const auto model = models::open_model(std::move(checkpoint));
    const auto plans = cpu::plan_matrices(model.program, model.weights);
    if (cpu::packed_file_bytes(plans) < folder.least_bytes) return {};
    const auto file = folder.path / cpu::packed_key(plans, model.weights).file_name();
    if (!std::filesystem::exists(file)) return "\npacked weights: none kept for this processor\n";
    return fmt::format("\npacked weights for this processor: {}, {}\n", visible(file.string()),
                       readable_bytes(cpu::packed_file_bytes(plans)));
  } catch (const Error&) {
    return {};  // what cannot run can still be looked at
  }
}

struct Options {
  std::string model;
  bool json = false, tensors = false, program = false, cost = false, plan = false;
  int64_t tokens = 1, context = 0;
  LoadOptions load;
};

int run(const Options& options) {
  const auto path = resolve_model(options.model);
  if (options.program || options.cost) {
    const auto model = models::open_model(path);
    if (options.program) write_out(program::print(model.program));
    if (options.cost) write_out(cost_text(model, options.tokens, options.context));
    return 0;
  }
  if (options.plan) {
    write_out(plan_text(models::open_model(path), options.load));
    return 0;
  }
  auto checkpoint = formats::open_checkpoint(path);
  if (options.json) {
    write_out(inspection_json(checkpoint).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
              "\n");
  } else {
    write_out(inspection_text(checkpoint, options.tensors));
    write_out(packed_text(std::move(checkpoint)));
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, kModelHelp);
  app.add_flag("--json", options->json, "print everything, every tensor included, as JSON");
  app.add_flag("--tensors", options->tensors, "list every tensor");
  app.add_flag("--program", options->program, "print the model's program, instruction by instruction");
  app.add_flag("--cost", options->cost, "print the work of every instruction in one step");
  app.add_option("--tokens", options->tokens, "with --cost: rows of the step")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  app.add_option("--context", options->context, "with --cost: tokens already in the cache")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 32));
  app.add_flag("--plan", options->plan,
               "print where weights and cache would lie, and how many bytes they are");
  app.add_option("-c,--ctx", options->load.context, "with --plan: tokens of context")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--device", options->load.device, "with --plan: cpu, cuda or auto")->capture_default_str();
  app.add_option("--kv", options->load.kv, "with --plan: how keys and values are kept");
  app.add_option("--memory", options->load.memory_limit, "with --plan: host memory to use, e.g. 16GB")
      ->transform(byte_size());
  add_split_options(app, options->load);
  return [options] { return run(*options); };
}

const RegisterCommand registered({"inspect", "show what a model's files hold", setup});

}  // namespace

nlohmann::ordered_json inspection_json(const formats::Checkpoint& checkpoint) {
  using formats::valid_utf8;
  const Totals totals = add_up(checkpoint);
  nlohmann::ordered_json json{{"path", valid_utf8(checkpoint.path.string())},
                              {"format", to_string(checkpoint.format)},
                              {"parameters", totals.all.elements},
                              {"tensor_bytes", totals.all.bytes}};
  json["files"] = nlohmann::ordered_json::array();
  for (const auto& file : checkpoint.files)
    json["files"].push_back({{"path", valid_utf8(file.path().string())}, {"bytes", file.bytes().size()}});
  json["codecs"] = nlohmann::ordered_json::array();
  for (const auto& [id, share] : by_size(totals))
    json["codecs"].push_back({{"name", codecs::codec(id).name},
                              {"bits_per_weight", codecs::codec(id).bits_per_weight()},
                              {"tensors", share.tensors},
                              {"parameters", share.elements},
                              {"bytes", share.bytes}});
  json["config"] = *checkpoint.config;
  json["tensors"] = nlohmann::ordered_json::array();
  for (const auto& tensor : checkpoint.tensors)
    json["tensors"].push_back({{"name", valid_utf8(tensor.name)},
                               {"shape", tensor.shape},
                               {"codec", codecs::codec(tensor.codec).name},
                               {"bytes", tensor.bytes.size()},
                               {"file", tensor.file}});
  json["unreadable"] = nlohmann::ordered_json::object();
  for (const auto& [name, type] : checkpoint.unreadable)
    json["unreadable"][valid_utf8(name)] = valid_utf8(type);
  return json;
}

std::string inspection_text(const formats::Checkpoint& checkpoint, bool all_tensors) {
  const Totals totals = add_up(checkpoint);
  const size_t columns = is_terminal(1) ? size_t(std::max(40, terminal_columns(1))) : 110;
  uint64_t file_bytes = 0;
  for (const auto& file : checkpoint.files) file_bytes += file.bytes().size();
  std::string text = fmt::format("{}\n{}, {} {}, {}\n", visible(checkpoint.path.string()),
                                 to_string(checkpoint.format), checkpoint.files.size(),
                                 checkpoint.files.size() == 1 ? "file" : "files", readable_bytes(file_bytes));
  text += fmt::format("{} {}, {:.1f} M parameters\n", totals.all.tensors,
                      totals.all.tensors == 1 ? "tensor" : "tensors", double(totals.all.elements) / 1e6);

  if (!totals.by_codec.empty()) text += "\ncodec     bits/weight   tensors   M parameters        size\n";
  for (const auto& [id, share] : by_size(totals))
    text += fmt::format("{:<9} {:>11.4g} {:>9} {:>14.1f} {:>11}\n", codecs::codec(id).name,
                        codecs::codec(id).bits_per_weight(), share.tensors, double(share.elements) / 1e6,
                        readable_bytes(share.bytes));
  for (const auto& [name, type] : checkpoint.unreadable)
    text += fmt::format("not readable: {} ({})\n", visible(name), visible(type));

  text += "\nconfig\n";
  size_t width = 0;
  for (const auto& [key, value] : checkpoint.config->items())
    width = std::max(width, std::min<size_t>(key.size(), 44));
  for (const auto& [key, value] : checkpoint.config->items())
    text += fmt::format("  {:{}}  {}\n", visible(key), width,
                        brief(value, std::max<size_t>(columns - width - 4, 20)));

  if (!all_tensors) return text + "\n--tensors lists the tensors, --json prints everything\n";
  text += "\ntensors\n";
  width = 0;
  for (const auto& tensor : checkpoint.tensors)
    width = std::max(width, std::min<size_t>(tensor.name.size(), 60));
  for (const auto& tensor : checkpoint.tensors)
    text += fmt::format("  {:{}}  {:<7} {:>10}  {}\n", visible(tensor.name), width,
                        codecs::codec(tensor.codec).name, readable_bytes(tensor.bytes.size()),
                        shape_text(tensor));
  return text;
}

}  // namespace cairn::app
