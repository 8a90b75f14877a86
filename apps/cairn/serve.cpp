// cairn serve: many users, one engine, the APIs that existing clients speak.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>

#include "api/model_impl.h"
#include "base/error.h"
#include "base/system_memory.h"
#include "command.h"
#include "engine/serving/service.h"
#include "line_log.h"
#include "model_options.h"
#include "model_path.h"
#include "models/fingerprint.h"
#include "plan/profile.h"
#include "serve/api/api.h"
#include "serve/http/server.h"

namespace cairn::app {
namespace {

struct Options {
  ModelOptions model;
  serve::HttpOptions http;
  engine::ServiceOptions service;
  std::vector<std::string> names, keys;
  std::string key_file;
  int64_t max_sequences = 64;
  double max_token_gap_ms = 100, drain_seconds = 30;
  bool quiet = false, profile = true;
  std::string store;
  double store_gigabytes = 16, spill_gigabytes = 4;
  std::vector<CLI::Option*> tuned;  // the flags that a profile stands in for
};

// What `cairn tune` found for this model on this machine, for the flags that were not given.
void take_profile(Options& options) {
  const auto path = resolve_model(options.model.model);
  options.model.model = path.string();
  // Without any profile the model need not be opened twice.
  if (!options.profile || !std::filesystem::exists(plan::profile_folder())) return;
  const auto file = plan::profile_path(models::fingerprint(models::open_model(path)),
                                       plan::machine_name(options.model.load.device));
  const auto profile = plan::read_profile(file);
  if (!profile) return;
  const auto given = [&](const char* flag) {
    return std::any_of(options.tuned.begin(), options.tuned.end(),
                       [&](const CLI::Option* o) { return o->check_lname(flag) && o->count() > 0; });
  };
  const auto& s = profile->settings;
  if (!given("threads") && s.threads > 0) options.model.load.threads = s.threads;
  if (!given("max-sequences") && s.max_sequences > 0) options.max_sequences = s.max_sequences;
  if (!given("step-tokens") && s.step_tokens > 0) options.model.shape.step_tokens = s.step_tokens;
  if (!given("max-token-gap")) options.max_token_gap_ms = s.max_token_gap * 1000;
  if (!given("page-tokens")) options.model.shape.page_tokens = s.page_tokens;
  if (!given("kv") && !s.kv.empty()) options.model.load.kv = s.kv;
  fmt::print(stderr, "cairn: settings tuned on {} for {} clients, from {} (--no-profile leaves them out)\n",
             profile->when, profile->load.clients, file.string());
}

// "name:key", or a key alone.
serve::ApiKey parse_key(std::string_view text, size_t number) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return {fmt::format("key{}", number), std::string(text)};
  return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

std::vector<serve::ApiKey> read_keys(const Options& options) {
  std::vector<std::string> lines = options.keys;
  if (const char* from_environment = std::getenv("CAIRN_API_KEY"); from_environment && *from_environment)
    lines.emplace_back(from_environment);
  if (!options.key_file.empty()) {
    std::ifstream file(options.key_file);
    if (!file) fail(ErrorKind::not_found, "cannot read the keys in {}", options.key_file);
    const size_t before = lines.size();
    for (std::string line; std::getline(file, line);) {
      while (!line.empty() && (line.back() == ' ' || line.back() == '\r' || line.back() == '\t'))
        line.pop_back();
      if (!line.empty() && line[0] != '#') lines.push_back(line);
    }
    // Meant to protect, an empty file must not open the server to all.
    if (lines.size() == before)
      fail(ErrorKind::invalid_file, "{} holds no key; write one a line, as key or name:key",
           options.key_file);
  }
  std::vector<serve::ApiKey> keys;
  for (const auto& line : lines) keys.push_back(parse_key(line, keys.size() + 1));
  return keys;
}

std::string default_name(const std::filesystem::path& model) {
  auto path = std::filesystem::weakly_canonical(model);
  const auto name = std::filesystem::is_directory(path) ? path.filename() : path.stem();
  return name.empty() ? "model" : name.string();
}

int signal_pipe[2] = {-1, -1};

void on_signal(int) {
  const int before = errno;
  [[maybe_unused]] const auto written = ::write(signal_pipe[1], "s", 1);
  errno = before;
}

// SIGTERM and Ctrl-C: the first one lets running answers end, the second one does not. A third ends the
// program.
class Ending {
 public:
  Ending(std::function<void()> drain, std::function<void()> stop) {
    if (pipe2(signal_pipe, O_CLOEXEC) != 0)
      fail(ErrorKind::io, "cannot make a pipe: {}", std::strerror(errno));
    thread_ = std::thread([drain = std::move(drain), stop = std::move(stop)] {
      int signals = 0;
      for (char c = 0; ::read(signal_pipe[0], &c, 1) == 1 && c == 's';) {
        if (++signals == 2) std::signal(SIGTERM, SIG_DFL), std::signal(SIGINT, SIG_DFL);
        signals == 1 ? drain() : stop();
      }
    });
    std::signal(SIGTERM, on_signal);
    std::signal(SIGINT, on_signal);
  }
  ~Ending() {
    std::signal(SIGTERM, SIG_DFL);
    std::signal(SIGINT, SIG_DFL);
    [[maybe_unused]] const auto written = ::write(signal_pipe[1], "q", 1);
    thread_.join();
    for (const int end : signal_pipe) ::close(end);
  }

 private:
  std::thread thread_;
};

int run(Options options) {
  options.http.api_keys = read_keys(options);
  take_profile(options);
  options.service.scheduling.max_token_gap = options.max_token_gap_ms / 1000;
  options.service.max_running = options.max_sequences;
  options.model.shape.step_logits = options.max_sequences;
  options.model.shape.sequences = options.max_sequences;
  options.model.shape.encoders = true;

  options.service.store.folder = options.store;
  options.service.store.bytes = uint64_t(options.store_gigabytes * 1e9);

  LineLog log;
  const auto write_line = [&log](std::string_view line) { log.write(line); };
  options.http.refusal_body = serve::Api::refusal;
  options.http.on_fault = [&](std::string_view id, std::string_view what) {
    log.write(fmt::format("request={} fault: {}", id, what));
  };
  options.service.store.log = [&](const std::string& line) { log.write(line); };
  if (!options.quiet)
    options.http.on_access = [&](const serve::AccessRecord& r) {
      log.write(fmt::format("{} {} {} status={} bytes={} ms={:.1f} request={} client={} peer={}", "http",
                            r.method, r.path, r.status, r.bytes, r.ms, r.id,
                            r.client.empty() ? "-" : r.client, r.peer));
    };
  // Before the model is loaded: a port that is taken shows at once.
  serve::HttpServer server(options.http);
  const auto model = load_model(options.model);
  const auto recommended = recommended_parameters(*model);
  // Where the CPU computes, its threads are on all cores; an event waits for none of them when they send it.
  server.write_through(model->engine.memory().place == engine::Place::cpu);

  // Of host memory that others use too; where the pages lie in it already, a copy there would gain nothing.
  if (model->engine.memory().place == engine::Place::cuda)
    options.service.spill_bytes =
        std::min(uint64_t(options.spill_gigabytes * 1e9), system_memory().available / 4);
  engine::Service service(model->engine, *model->tokenizer, options.service);
  serve::ApiOptions api_options;
  api_options.model_name = options.names.empty() ? default_name(model->path) : options.names[0];
  if (options.names.size() > 1) api_options.aliases.assign(options.names.begin() + 1, options.names.end());
  if (recommended.temperature > 0) {
    api_options.temperature = recommended.temperature;
    api_options.top_p = recommended.top_p;
  }
  api_options.worker_threads = std::clamp(int(std::thread::hardware_concurrency()) / 4, 1, 8);
  if (!options.quiet) api_options.log = write_line;
  serve::Api api(service, *model->tokenizer, api_options);
  api.add_routes(server, !options.http.api_keys.empty());
  const uint16_t port = server.listen();
  const auto& kv = model->engine.kv().config();
  // One printf, so that whoever waits for the line sees it whole. stdout: this is the result of the command.
  const bool v6 = options.http.host.find(':') != std::string::npos;
  fmt::print(
      "{} serves {} at {}://{}{}{}:{}\ncontext {} tokens, cache {} pages of {} tokens, {} sequences at once, "
      "{}\n",
      "cairn", api_options.model_name, options.http.tls_certificate.empty() ? "http" : "https", v6 ? "[" : "",
      options.http.host, v6 ? "]" : "", port, model->engine.context(), kv.pages, kv.page_tokens,
      options.max_sequences, model->engine.device_name());
  std::fflush(stdout);
  const auto deadline = std::chrono::milliseconds(int64_t(options.drain_seconds * 1000));
  {
    const Ending ending(
        [&] {
          api.close();
          server.drain(deadline);
        },
        [&] { server.stop(); });
    server.run();
  }
  service.drain(0);
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_model_options(app, o->model);
  app.add_option("--tokenizer", o->model.shape.tokenizer,
                 "folder or GGUF file whose tokenizer and chat template to use, for models without one");
  app.add_option("--host", o->http.host, "address to listen at; one that others reach needs a key")
      ->capture_default_str();
  o->http.port = 8000;
  app.add_option("--port", o->http.port, "port; 0: any free one")->capture_default_str();
  app.add_option("--api-key", o->keys,
                 "key, or name:key, that clients must present (repeatable; also CAIRN_API_KEY)");
  app.add_option("--api-key-file", o->key_file, "file of keys, one a line, as key or name:key");
  app.add_option(
      "--model-name", o->names,
      "name that clients use for the model, further ones are aliases (repeatable; default: the file's)");
  app.add_option("--max-sequences", o->max_sequences, "answers that run at once; more wait")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--cache-tokens", o->model.shape.cache_tokens,
                 "tokens of all sequences together that the KV cache holds (default: what fits)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-waiting", o->service.max_waiting, "answers that may wait; more are refused with 429")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--max-token-gap", o->max_token_gap_ms,
                 "milliseconds that reading prompts may put between two tokens of an answer")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  app.add_option("--sched", o->service.policy, "scheduling policy")->capture_default_str();
  app.add_option("--step-tokens", o->model.shape.step_tokens,
                 "the most tokens of a step (default: 512, GPU 2048)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--page-tokens", o->model.shape.page_tokens, "tokens of a page of the KV cache")
      ->capture_default_str();
  app.add_option("--kv-store", o->store,
                 "folder where computed pages are kept across restarts; they hold the prompts' tokens "
                 "(default: nowhere)");
  app.add_option("--kv-store-gb", o->store_gigabytes, "the most that all its files may take")
      ->check(CLI::Range(0.001, 1e6))
      ->capture_default_str();
  app.add_option("--spill-gb", o->spill_gigabytes,
                 "GPU: host memory for pages of answers that had to make room (0: they are computed again)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_flag("!--no-reuse", o->service.reuse_prefixes, "compute every prompt anew: for comparisons");
  app.add_flag("!--no-profile", o->profile, "leave out what cairn tune found for this model and machine");
  app.add_option("--tls-cert", o->http.tls_certificate, "certificate chain, PEM: serve https");
  app.add_option("--tls-key", o->http.tls_key, "its private key, PEM");
  app.add_option(
      "--allow-host", o->http.allowed_hosts,
      "name by which clients may call this server, besides addresses and localhost (repeatable; '*': any)");
  app.add_option("--allow-origin", o->http.allowed_origins,
                 "web page that may call, as https://chat.example (repeatable; '*': any)");
  app.add_option("--io-threads", o->http.io_threads, "threads that read and write sockets")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--connections", o->http.connections, "the most open connections")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--drain-seconds", o->drain_seconds, "after SIGTERM or Ctrl-C: how long answers may go on")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.add_flag("-q,--quiet", o->quiet, "no line per request on stderr");
  for (const char* name :
       {"--threads", "--max-sequences", "--step-tokens", "--max-token-gap", "--page-tokens", "--kv"})
    o->tuned.push_back(app.get_option(name));
  return [o] { return run(*o); };
}

const RegisterCommand registered({"serve", "serve a model over HTTP: OpenAI's and Anthropic's APIs", setup});

}  // namespace
}  // namespace cairn::app
