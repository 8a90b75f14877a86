// cairn tune: which server settings give the most on this machine under a stated load; the result is kept in
// a profile that `cairn serve` takes up.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/cache_folder.h"
#include "base/error.h"
#include "base/steady_seconds.h"
#include "command.h"
#include "interrupt.h"
#include "model_options.h"
#include "model_path.h"
#include "models/fingerprint.h"
#include "output.h"
#include "plan/landscape.h"
#include "plan/profile.h"
#include "plan/tune.h"
#include "terminal.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  plan::Load load;
  std::vector<std::string> space;
  std::string method = "tpe", plot, cells;
  double budget = 180, most_first_token = 0, most_gap = 0;
  uint64_t seed = 1;
  bool json = false, keep = true;
};

// "threads=1,2": the values of one dimension.
plan::Dimension parse_dimension(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    fail(ErrorKind::invalid_argument, "'{}' is no dimension; write it like sequences=8,16,32", text);
  plan::Dimension dimension{text.substr(0, equals), {}};
  plan::ServerSettings checked;
  for (size_t at = equals + 1; at <= text.size();) {
    const auto comma = std::min(text.find(',', at), text.size());
    dimension.values.push_back(text.substr(at, comma - at));
    plan::set(checked, dimension.name, dimension.values.back());
    at = comma + 1;
  }
  dimension.ordered = dimension.name != "kv";
  return dimension;
}

// What is worth trying when the user names nothing: powers of two around the load and the machine.
std::vector<plan::Dimension> usual_space(int threads, int clients) {
  plan::Dimension teams{"threads", {}}, sequences{"sequences", {}};
  for (int t = 1; t < threads; t *= 2) teams.values.push_back(std::to_string(t));
  teams.values.push_back(std::to_string(threads));
  for (int s = std::max(1, clients / 8); s < clients; s *= 2) sequences.values.push_back(std::to_string(s));
  sequences.values.push_back(std::to_string(clients));
  return {teams,
          sequences,
          {"step", {"64", "128", "256", "512", "1024"}},
          {"gap", {"25", "50", "100", "200", "400"}},
          {"page", {"16", "32", "64"}},
          {"kv", {"f16", "bf16", "q8_0"}, false}};
}

nlohmann::ordered_json to_json(const plan::Search& search, const plan::Point& point,
                               const plan::Measured& m) {
  nlohmann::ordered_json cell;
  for (size_t d = 0; d < point.size(); ++d)
    cell["settings"][search.dimensions()[d].name] = search.dimensions()[d].values[size_t(point[d])];
  if (!m.refused.empty()) {
    cell["refused"] = m.refused;
    return cell;
  }
  cell["answer_tokens_per_second"] = m.answer_tokens_per_second;
  cell["quartiles"] = {m.quartile_low, m.quartile_high};
  cell["prompt_tokens_per_second"] = m.prompt_tokens_per_second;
  cell["first_token_p95"] = m.first_token_p95;
  cell["between_tokens_p50"] = m.between_tokens_p50;
  cell["between_tokens_p95"] = m.between_tokens_p95;
  cell["mean_rows"] = m.mean_rows;
  cell["planned_bytes"] = m.planned_bytes;
  return cell;
}

plan::Measured from_json(const nlohmann::json& cell) {
  plan::Measured m;
  m.refused = cell.value("refused", "");
  m.answer_tokens_per_second = cell.value("answer_tokens_per_second", 0.0);
  if (cell.contains("quartiles"))
    m.quartile_low = cell["quartiles"][0], m.quartile_high = cell["quartiles"][1];
  m.prompt_tokens_per_second = cell.value("prompt_tokens_per_second", 0.0);
  m.first_token_p95 = cell.value("first_token_p95", 0.0);
  m.between_tokens_p50 = cell.value("between_tokens_p50", 0.0);
  m.between_tokens_p95 = cell.value("between_tokens_p95", 0.0);
  m.mean_rows = cell.value("mean_rows", 0.0);
  m.planned_bytes = cell.value("planned_bytes", uint64_t{0});
  return m;
}

// Cells of an earlier run with the same model, machine and load: measured once, used again.
class KeptCells {
 public:
  KeptCells(std::string path, std::string key) : path_(std::move(path)), key_(std::move(key)) {
    std::ifstream in(path_);
    for (std::string line; std::getline(in, line);) {
      const auto cell = nlohmann::json::parse(line, nullptr, false);
      if (!cell.is_object())
        fail(ErrorKind::invalid_file, "{} is no file of cells (a line is not JSON); name another one", path_);
      if (cell.value("key", "") == key_) cells_.push_back(cell);
    }
  }
  void add(nlohmann::ordered_json cell) {
    if (path_.empty()) return;
    cell["key"] = key_;
    std::ofstream out(path_, std::ios::app);
    if (!(out << cell.dump() << "\n" << std::flush)) fail(ErrorKind::io, "{} could not be written", path_);
  }
  const std::vector<nlohmann::json>& cells() const { return cells_; }

 private:
  std::string path_, key_;
  std::vector<nlohmann::json> cells_;
};

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

int run(Options options) {
  if (options.load.clients < 1 || options.load.prompt_tokens < 1 || options.load.answer_tokens < 1 ||
      !(options.load.seconds > 0))
    fail(ErrorKind::invalid_argument, "clients, prompt, answer and seconds must all be above 0");
  if (options.load.shared_tokens > options.load.prompt_tokens)
    fail(ErrorKind::invalid_argument, "{} shared tokens are more than the prompt's {}",
         options.load.shared_tokens, options.load.prompt_tokens);
  const auto path = resolve_model(options.model.model);
  engine::EngineOptions base;
  base.place = parse_place(options.model.load.device);
  base.memory_limit = options.model.load.memory_limit;
  if (options.model.load.weight_cache) base.packed = cpu::PackedFolder::from_environment();
  std::string fingerprint, file;
  {
    const auto model = models::open_model(path);
    fingerprint = models::fingerprint(model), file = path.filename().string();
    if (const int64_t needed = options.load.prompt_tokens + options.load.answer_tokens;
        needed > model.context_length)
      fail(ErrorKind::invalid_argument, "prompts and answers of {} tokens together; {} was made for {}",
           needed, file, model.context_length);
  }
  std::vector<plan::Dimension> dimensions;
  for (const auto& text : options.space) dimensions.push_back(parse_dimension(text));
  const int threads =
      options.model.load.threads > 0 ? options.model.load.threads : ThreadPool::available_cores();
  if (dimensions.empty()) dimensions = usual_space(threads, options.load.clients);
  plan::Search search(dimensions, plan::parse_search_method(options.method), options.seed);

  const std::string machine = plan::machine_name(options.model.load.device);
  const auto& l = options.load;
  KeptCells kept(options.cells,
                 fmt::format("{} {} {} {} {} {} {} {}", CAIRN_VERSION, fingerprint, machine, l.clients,
                             l.prompt_tokens, l.answer_tokens, l.shared_tokens, l.seconds));
  std::map<plan::Point, plan::Measured> measured;
  // Whether a setting is good: its speed, unless it breaks a limit or cannot run.
  const auto value = [&](const plan::Measured& m) -> std::optional<double> {
    if (!m.refused.empty()) return std::nullopt;
    if (options.most_first_token > 0 && m.first_token_p95 * 1000 > options.most_first_token)
      return std::nullopt;
    if (options.most_gap > 0 && m.between_tokens_p95 * 1000 > options.most_gap) return std::nullopt;
    return m.answer_tokens_per_second;
  };
  for (const auto& cell : kept.cells()) {
    plan::Point point;
    for (const auto& d : dimensions) {
      const auto text = cell.contains("settings") ? cell["settings"].value(d.name, "") : "";
      const auto found = std::find(d.values.begin(), d.values.end(), text);
      if (found != d.values.end()) point.push_back(int(found - d.values.begin()));
    }
    if (point.size() != dimensions.size() ||
        cell.value("settings", nlohmann::json::object()).size() != dimensions.size())
      continue;
    measured[point] = from_json(cell);
    search.tell(point, value(measured[point]));
  }

  const Interruptible interruptible;
  ProgressBar bar("measuring", uint64_t(options.budget), ProgressUnit::items, 0);
  const double start = steady_seconds();
  double longest = 0;
  while (!interruptible.requested() && steady_seconds() - start + longest <= options.budget) {
    const auto point = search.next();
    if (!point) break;
    const double begun = steady_seconds();
    const auto m = plan::measure(path, plan::settings_at(search, *point), options.load, base);
    longest = std::max(longest, steady_seconds() - begun);
    measured[*point] = m;
    search.tell(*point, value(m));
    kept.add(to_json(search, *point, m));
    bar.update(uint64_t(steady_seconds() - start));
  }
  bar.finish();
  const double spent = steady_seconds() - start;
  if (search.trials().empty())
    fail(ErrorKind::invalid_argument, "a budget of {} s is too short to measure one setting", options.budget);

  auto order = search.trials();
  std::stable_sort(order.begin(), order.end(), [](const plan::Trial& a, const plan::Trial& b) {
    return a.value.value_or(-1) > b.value.value_or(-1);
  });
  const std::string load_text = fmt::format("{} clients, {} prompt tokens ({} shared), {} answer tokens",
                                            l.clients, l.prompt_tokens, l.shared_tokens, l.answer_tokens);
  if (options.json) {
    nlohmann::ordered_json json;
    json["model"] = file, json["machine"] = machine, json["load"] = load_text;
    json["method"] = options.method, json["points"] = search.points(), json["seconds"] = spent;
    for (const auto& t : order) json["cells"].push_back(to_json(search, t.point, measured[t.point]));
    write_out(json.dump(2) + "\n");
  } else {
    std::string out =
        fmt::format("{}\n{}; {}\n{} of {} settings measured in {}\n\n", file, machine, load_text,
                    search.trials().size(), search.points(), readable_duration(spent));
    for (const auto& d : dimensions) out += fmt::format("{:>10}", d.name);
    out +=
        fmt::format("{:>12}{:>18}{:>14}{:>12}{:>8}\n", "tok/s", "quartiles", "first p95", "gap p95", "rows");
    for (size_t i = 0; i < order.size() && i < 12; ++i) {
      const auto& m = measured[order[i].point];
      for (size_t d = 0; d < dimensions.size(); ++d)
        out += fmt::format("{:>10}", dimensions[d].values[size_t(order[i].point[d])]);
      if (!m.refused.empty())
        out += "  " + m.refused + "\n";
      else
        out += fmt::format("{:>12.1f}{:>18}{:>11.0f} ms{:>9.1f} ms{:>8.1f}{}\n", m.answer_tokens_per_second,
                           fmt::format("{:.1f} - {:.1f}", m.quartile_low, m.quartile_high),
                           m.first_token_p95 * 1000, m.between_tokens_p95 * 1000, m.mean_rows,
                           order[i].value ? "" : "  over a limit");
    }
    write_out(out);
  }
  if (!options.plot.empty()) {
    if (!write_cache_file(options.plot, plan::landscape(search, "cairn tune: " + file,
                                                        machine + "; " + load_text, "answer tok/s")))
      fail(ErrorKind::io, "{} could not be written", options.plot);
    fmt::print(stderr, "wrote {}\n", options.plot);
  }
  const auto* best = search.best();
  if (!best)
    fail(ErrorKind::invalid_argument, "no setting that was measured runs within the limits; widen the space");
  if (options.keep) {
    plan::Profile profile;
    profile.model = file, profile.fingerprint = fingerprint, profile.machine = machine,
    profile.when = today();
    profile.settings = plan::settings_at(search, best->point), profile.load = options.load;
    profile.answer_tokens_per_second = *best->value;
    const auto where = plan::profile_path(fingerprint, machine);
    if (where.empty())
      fail(ErrorKind::io,
           "there is no folder for profiles: neither CAIRN_PROFILES, XDG_CONFIG_HOME nor HOME is set");
    write_profile(where, profile);
    fmt::print(stderr, "kept the best in {}; cairn serve takes it up\n", where.string());
  }
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  app.add_option("--clients", o->load.clients, "clients that each wait for an answer and ask again")
      ->capture_default_str();
  app.add_option("--prompt", o->load.prompt_tokens, "tokens of a prompt")->capture_default_str();
  app.add_option("--answer", o->load.answer_tokens, "tokens of an answer")->capture_default_str();
  app.add_option("--shared", o->load.shared_tokens, "leading tokens that all prompts share")
      ->capture_default_str();
  app.add_option(
      "--space", o->space,
      "what to try, repeatable: threads=1,2 sequences=8,16 step=128,512 gap=50,100 (ms) page=16,32 "
      "kv=f16,q8_0 (default: a usual space)");
  app.add_option("--method", o->method, "tpe, random or grid")->capture_default_str();
  app.add_option("--budget", o->budget, "seconds to spend")->capture_default_str();
  app.add_option("--seconds", o->load.seconds, "seconds to measure each setting")->capture_default_str();
  app.add_option("--max-first-token", o->most_first_token, "limit of the 95th percentile, ms (0: none)");
  app.add_option("--max-gap", o->most_gap, "limit of the 95th percentile between tokens, ms (0: none)");
  app.add_option("--cells", o->cells, "a file that keeps what was measured; a later run goes on from it");
  app.add_option("--plot", o->plot, "draw the landscape into this SVG file");
  app.add_option("--seed", o->seed, "of the search")->capture_default_str();
  app.add_flag("!--no-profile", o->keep, "do not keep the best setting for cairn serve");
  app.add_flag("--json", o->json, "machine-readable output");
  return [o] { return run(*o); };
}

const RegisterCommand registered({"tune", "find the best server settings for this machine and load", setup});

}  // namespace
}  // namespace cairn::app
