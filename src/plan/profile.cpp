#include "plan/profile.h"

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/cache_folder.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"
#include "plan/machine.h"

namespace cairn::plan {

std::string machine_name(const std::string& device) {
  const auto machine = describe_machine();
  return fmt::format("{}, {} cores, {}, {}", machine.cpu, machine.logical_cores, to_string(machine.isa),
                     device);
}

std::filesystem::path profile_folder() {
  const auto from = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const auto own = from("CAIRN_PROFILES"); !own.empty()) return own;
  if (const auto config = from("XDG_CONFIG_HOME"); !config.empty()) return config / "cairn" / "profiles";
  if (const auto home = from("HOME"); !home.empty()) return home / ".config" / "cairn" / "profiles";
  return {};
}

std::filesystem::path profile_path(const std::string& fingerprint, const std::string& machine) {
  const auto folder = profile_folder();
  if (folder.empty()) return {};
  return folder /
         fmt::format("{}-{:016x}.json", fingerprint, content_hash(std::as_bytes(std::span(machine))));
}

void write_profile(const std::filesystem::path& path, const Profile& p) {
  nlohmann::ordered_json json;
  json["cairn"] = CAIRN_VERSION;
  json["model"] = p.model;
  json["fingerprint"] = p.fingerprint;
  json["machine"] = p.machine;
  json["when"] = p.when;
  json["settings"] = {{"threads", p.settings.threads},  {"sequences", p.settings.max_sequences},
                      {"step", p.settings.step_tokens}, {"gap_ms", p.settings.max_token_gap * 1000},
                      {"page", p.settings.page_tokens}, {"kv", p.settings.kv}};
  json["load"] = {{"clients", p.load.clients},
                  {"prompt_tokens", p.load.prompt_tokens},
                  {"answer_tokens", p.load.answer_tokens},
                  {"shared_tokens", p.load.shared_tokens}};
  json["answer_tokens_per_second"] = p.answer_tokens_per_second;
  if (!write_cache_file(path, json.dump(2) + "\n"))
    fail(ErrorKind::io, "{} could not be written; is the folder writable and the disk not full?",
         path.string());
}

std::optional<Profile> read_profile(const std::filesystem::path& path) {
  if (path.empty() || !std::filesystem::exists(path)) return std::nullopt;
  const std::string file = path.string();
  const auto json = formats::read_json_file(path);
  const auto* settings = formats::optional_object(json, "settings", file);
  if (!settings) fail(ErrorKind::invalid_file, "{} has no settings; delete it or tune again", file);
  Profile p;
  p.model = formats::optional_string(json, "model", file).value_or("");
  p.fingerprint = formats::optional_string(json, "fingerprint", file).value_or("");
  p.machine = formats::optional_string(json, "machine", file).value_or("");
  p.when = formats::optional_string(json, "when", file).value_or("");
  const auto apply = [&](const char* dimension, const std::string& value) {
    try {
      set(p.settings, dimension, value);
    } catch (const Error& e) {
      fail(ErrorKind::invalid_file, "{}: {}; delete the file or tune again", file, e.what());
    }
  };
  const auto number = [&](const char* name, const char* dimension) {
    if (const auto value = formats::optional_number(*settings, name, 0, 1e9, file); value && *value > 0)
      apply(dimension, fmt::format("{:.15g}", *value));
  };
  number("threads", "threads");
  number("sequences", "sequences");
  number("step", "step");
  number("page", "page");
  number("gap_ms", "gap");
  if (const auto kv = formats::optional_string(*settings, "kv", file); kv && !kv->empty()) apply("kv", *kv);
  if (const auto* load = formats::optional_object(json, "load", file)) {
    p.load.clients =
        int(formats::optional_int(*load, "clients", 1, 1'000'000, file).value_or(p.load.clients));
    const auto tokens = [&](const char* name, int64_t& value) {
      value = formats::optional_int(*load, name, 0, int64_t{1} << 40, file).value_or(value);
    };
    tokens("prompt_tokens", p.load.prompt_tokens);
    tokens("answer_tokens", p.load.answer_tokens);
    tokens("shared_tokens", p.load.shared_tokens);
  }
  p.answer_tokens_per_second =
      formats::optional_number(json, "answer_tokens_per_second", 0, 1e12, file).value_or(0);
  return p;
}

}  // namespace cairn::plan
