// cairn bench serve: a load against any OpenAI-compatible server, and what its clients would have felt.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/mapped_file.h"
#include "command.h"
#include "exit_code.h"
#include "formats/json_file.h"
#include "interrupt.h"
#include "load/calibrate.h"
#include "load/chaos.h"
#include "load/client.h"
#include "load/load.h"
#include "load/plot.h"
#include "load/report.h"
#include "load/reuse.h"
#include "load/trace_file.h"
#include "output.h"
#include "plan/machine.h"
#include "terminal.h"

namespace cairn::app {
namespace {

using nlohmann::ordered_json;

struct Options {
  std::string url = "http://127.0.0.1:8000";
  std::string api = "chat", model, api_key, json_schema, extra_body, arrivals = "poisson", slo, trace;
  std::string prompt_tokens = "512", answer_tokens = "128", json, plot;
  bool insecure = false, token_ids = false, ignore_end = false, no_stream = false, details = false,
       ideal = false;
  int64_t concurrency = 0, requests = -1, most_in_flight = 0, shared_prefix = 0, groups = 1, turns = 1,
          longest = 0;
  int64_t page_tokens = 16, warm_up = 0, chaos = 0, chaos_idle = 0;
  std::string chaos_kinds;
  double chaos_patience = 2;
  double rate = 0, duration = 0, time_scale = 1, length_scale = 1, trace_start = 0, pause = 0,
         temperature = 0;
  double timeout = 600;
  uint64_t seed = 0;
  bool seed_given = false;
};

// A small object with the usual kinds of members; every string and list is bounded, so that an answer can
// end.
constexpr const char* kSampleSchema = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 40},
    "kind": {"enum": ["person", "place", "thing"]},
    "count": {"type": "integer", "minimum": 0, "maximum": 1000},
    "share": {"type": "number"},
    "known": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4}
  },
  "required": ["name", "kind", "count", "share", "known", "tags"],
  "additionalProperties": false
})";

double burstiness_of(const std::string& arrivals) {
  if (arrivals == "poisson") return 1;
  if (arrivals == "constant") return std::numeric_limits<double>::infinity();
  char* end = nullptr;
  const double shape = arrivals.rfind("gamma:", 0) == 0 ? std::strtod(arrivals.c_str() + 6, &end) : 0;
  if (!(shape > 0) || shape > 1e6 || *end)
    fail(ErrorKind::invalid_argument,
         "--arrivals {}: it is none of poisson, constant and gamma:SHAPE (below 1 is burstier than poisson)",
         arrivals);
  return shape;
}

ordered_json parse_flag_json(const std::string& text, const std::string& flag) {
  try {
    formats::parse_json(text, flag);
  } catch (const Error& error) {
    fail(ErrorKind::invalid_argument, "{}", error.what());
  }
  auto json = ordered_json::parse(text);
  if (!json.is_object()) fail(ErrorKind::invalid_argument, "{}: it must be a JSON object", flag);
  return json;
}

ordered_json response_format(const std::string& json_schema) {
  if (json_schema.empty()) return nullptr;
  const std::string text =
      json_schema == "sample" ? kSampleSchema : read_text_file(json_schema, size_t{16} << 20);
  return {{"type", "json_schema"},
          {"json_schema",
           {{"name", "answer"}, {"strict", true}, {"schema", parse_flag_json(text, "--json-schema")}}}};
}

class BenchServe {
 public:
  explicit BenchServe(const Options& options) : o_(options) {
    // By default another seed each time: one run's prompts must not wait in the caches of the next.
    seed_ = o_.seed_given ? o_.seed
                          : load::mix(uint64_t(std::chrono::system_clock::now().time_since_epoch().count()),
                                      uint64_t(getpid()));
    burstiness_ = burstiness_of(o_.arrivals);
    slo_ = load::parse_slo(o_.slo);
    style_.api = o_.api == "chat" ? load::Api::chat : load::Api::completions;
    style_.token_ids = o_.token_ids;
    style_.stream = !o_.no_stream;
    style_.ignore_end = o_.ignore_end;
    style_.temperature = o_.temperature;
    style_.response_format = response_format(o_.json_schema);
    if (!o_.extra_body.empty()) style_.extra = parse_flag_json(o_.extra_body, "--extra-body");
    if (o_.token_ids && style_.api == load::Api::chat)
      fail(ErrorKind::invalid_argument, "--token-ids needs --api completions: a chat's messages are text");
    if (o_.token_ids && o_.turns > 1)
      fail(ErrorKind::invalid_argument,
           "--token-ids and --turns: the answers between the turns come as text");
    open_loop_ = o_.concurrency == 0 && (o_.rate > 0 || !o_.trace.empty());
  }

  int run() {
    if (o_.ideal) return print_ideal();
    load::Target target = load::parse_target(o_.url);
    target.api_key = o_.api_key;
    target.verify_certificate = !o_.insecure;
    load::raise_open_files();
    load::Client client(io_, target);
    facts_ = load::calibrate(
        io_, client, {style_.api, o_.model, o_.token_ids, load::mix(seed_, 11), timeout(), style_.extra});
    style_.model = facts_.model;
    if (o_.warm_up > 0) warm_up(client);

    const Interruptible interruptible;
    if (o_.chaos > 0 || o_.chaos_idle > 0) return run_chaos(client);
    const auto sessions = open_sessions();
    auto options = load_options();
    ProgressBar bar("requests", uint64_t(std::max<int64_t>(0, sessions_ * o_.turns)), ProgressUnit::items);
    options.progress = [&](int64_t done, int64_t) { bar.update(uint64_t(done)); };
    options.stop = &Interruptible::flag();
    const load::Run run = load::run_load(io_, client, *sessions, facts_.alphabet, options);
    bar.finish();
    const auto summary = load::summarise(run, slo_, o_.ignore_end);
    report(run, summary);
    if (run.stopped) return kExitCancelled;
    return summary.failed > 0 ? exit_code(ErrorKind::network) : kExitOk;
  }

 private:
  std::chrono::milliseconds timeout() const { return std::chrono::milliseconds(int64_t(o_.timeout * 1e3)); }

  load::LoadOptions load_options() const {
    load::LoadOptions options;
    options.concurrency = open_loop_ ? 0 : o_.concurrency > 0 ? o_.concurrency : 8;
    options.most_in_flight = o_.most_in_flight;
    options.duration = o_.duration;
    options.timeout = timeout();
    options.style = style_;
    return options;
  }

  std::unique_ptr<load::SessionSource> open_sessions(uint64_t variant = 0) {
    const uint64_t seed = variant == 0 ? seed_ : load::mix(seed_, variant);
    if (!o_.trace.empty()) {
      load::TraceOptions options;
      options.start = o_.trace_start;
      options.time_scale = o_.time_scale;
      options.length_scale = o_.length_scale;
      options.longest = o_.longest;
      options.sessions = o_.requests;
      options.seed = seed;
      trace_ = load::open_trace(o_.trace, options);
      if (trace_->format == "servegen" && o_.requests < 0 && (o_.duration <= 0 || o_.ideal))
        fail(ErrorKind::invalid_argument,
             "{}: ServeGen describes weeks of requests; say how many with --requests", o_.trace);
      sessions_ = o_.requests;
      return std::move(trace_->sessions);
    }
    load::SyntheticOptions options;
    // A duration without a number of requests means as many as fit.
    sessions_ = o_.requests >= 0 ? o_.requests : o_.duration > 0 ? -1 : 100;
    options.sessions = sessions_;
    options.prompt = load::Length::parse(o_.prompt_tokens, "--prompt-tokens");
    options.answer = load::Length::parse(o_.answer_tokens, "--answer-tokens");
    options.shared_prefix = o_.shared_prefix;
    options.groups = o_.groups;
    options.turns = o_.turns;
    options.pause = o_.pause;
    options.rate = open_loop_ ? o_.rate : 0;
    options.burstiness = burstiness_;
    options.seed = seed;
    return load::synthetic_sessions(options);
  }

  void warm_up(load::Client& client) {
    load::SyntheticOptions few;
    few.sessions = o_.warm_up;
    few.prompt = load::Length::parse(o_.prompt_tokens, "--prompt-tokens");
    few.answer = load::Length::parse(o_.answer_tokens, "--answer-tokens");
    few.seed = load::mix(seed_, 12);
    auto options = load_options();
    options.concurrency = std::max<int64_t>(1, options.concurrency);
    options.duration = 0;
    load::run_load(io_, client, *load::synthetic_sessions(few), facts_.alphabet, options);
  }

  // The load alone, then again beside clients that misbehave: the well-behaved ones should not notice.
  int run_chaos(load::Client& client) {
    load::Chaos chaos(io_, client, style_, facts_.alphabet,
                      {o_.chaos, o_.chaos_idle, load::parse_mischiefs(o_.chaos_kinds), o_.chaos_patience,
                       load::mix(seed_, 13)});
    auto options = load_options();
    options.stop = &Interruptible::flag();
    const auto play = [&](const char* label, uint64_t variant) {
      ProgressBar bar(label, uint64_t(std::max<int64_t>(0, sessions_ * o_.turns)), ProgressUnit::items);
      options.progress = [&](int64_t done, int64_t) { bar.update(uint64_t(done)); };
      const auto sessions = open_sessions(variant);
      return load::run_load(io_, client, *sessions, facts_.alphabet, options);
    };
    const load::Run alone = play("alone", 0);
    if (alone.stopped) return kExitCancelled;
    chaos.start();
    const load::Run beside = play("with chaos", 1);
    if (beside.stopped) return kExitCancelled;
    const int64_t idle_open = chaos.idle_open();
    chaos.stop();
    load::Order order;
    order.method = "GET";
    order.path = "/v1/models";
    order.reads_chunks = false;
    const bool answers = load::exchange(io_, client, order).status == 200;

    const auto before = load::summarise(alone, slo_, o_.ignore_end),
               during = load::summarise(beside, slo_, o_.ignore_end);
    write_out(fmt::format("{:<26}{}\n{:<26}{}, seed {}\n\n", "server", visible(describe_server()), "load",
                          describe_load(), seed_));
    write_out(load::comparison(before, during));
    for (const auto* run : {&alone, &beside})
      for (const auto& [fault, count] : run->faults)
        write_out(fmt::format("{:>6} x {}\n", count, visible(fault)));
    ordered_json kinds;
    write_out(fmt::format("\n{:<12}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}\n", "misbehaved", "tried", "2xx",
                          "4xx", "5xx", "closed", "left", "refused"));
    for (int i = 0; i < load::kMischiefs; ++i) {
      const auto kind = load::Mischief(i);
      const auto& t = chaos.tally(kind);
      if (t.tried == 0) continue;
      write_out(fmt::format("{:<12}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>9}\n", to_string(kind), t.tried,
                            t.answered[2], t.answered[4], t.answered[5], t.closed, t.left, t.refused));
      kinds[to_string(kind)] = {{"tried", t.tried},     {"2xx", t.answered[2]}, {"4xx", t.answered[4]},
                                {"5xx", t.answered[5]}, {"closed", t.closed},   {"left", t.left},
                                {"refused", t.refused}};
    }
    if (o_.chaos_idle > 0)
      write_out(fmt::format("idle connections: {} of {} opened, {} still open at the end\n",
                            chaos.idle_opened(), o_.chaos_idle, idle_open));
    for (const auto& error : chaos.server_errors())
      write_out(fmt::format("answered with {}\n", visible(error)));
    const bool fine = before.failed == 0 && during.failed == 0 && chaos.server_errors().empty() && answers;
    write_out(fmt::format("\n{}\n", fine      ? "no well-behaved request failed, and the server answers"
                                    : answers ? "not all went well"
                                              : "the server does not answer any more"));
    if (!o_.json.empty()) {
      auto json = result_json(beside, during);
      json["alone"] = load::to_json(before, slo_);
      json["chaos"] = {
          {"clients", o_.chaos},
          {"kinds", kinds},
          {"idle", {{"asked", o_.chaos_idle}, {"opened", chaos.idle_opened()}, {"open_at_end", idle_open}}},
          {"server_errors", chaos.server_errors()},
          {"answers_afterwards", answers}};
      write_json(json);
    }
    return fine ? kExitOk : exit_code(ErrorKind::network);
  }

  // How much of the prompts an unlimited prefix cache would spare. Traces with blocks have one answer; drawn
  // loads are drawn several times.
  int print_ideal() {
    constexpr int kDraws = 8;
    std::vector<load::Reuse> draws;
    for (uint64_t i = 0; i < kDraws; ++i) {
      const auto sessions = open_sessions(i);
      draws.push_back(load::ideal_reuse(*sessions, o_.page_tokens));
      if (trace_ && trace_->format != "servegen") break;  // nothing in it is drawn
    }
    const auto& first = draws.front();
    double mean = 0, square = 0;
    for (const auto& draw : draws) mean += draw.token_rate() / double(draws.size());
    for (const auto& draw : draws) square += std::pow(draw.token_rate() - mean, 2);
    const double deviation = draws.size() > 1 ? std::sqrt(square / double(draws.size() - 1)) : 0;
    if (!o_.json.empty()) {
      ordered_json json{{"requests", first.requests},
                        {"prompt_tokens", first.prompt_tokens},
                        {"page_tokens", o_.page_tokens},
                        {"reusable_tokens", first.reusable_tokens},
                        {"token_rate", mean},
                        {"token_rate_deviation", deviation},
                        {"draws", draws.size()},
                        {"blocks", first.parts},
                        {"reusable_blocks", first.reusable_parts},
                        {"block_rate", first.part_rate()}};
      write_json(json);
    }
    write_out(fmt::format("requests                  {}\nprompt tokens             {}\n", first.requests,
                          first.prompt_tokens));
    write_out(fmt::format(
        "in pages of {:<13} {} tokens reusable, {:.2f}%{}\n", o_.page_tokens, first.reusable_tokens,
        100 * mean,
        draws.size() > 1 ? fmt::format(" (+- {:.2f} over {} draws)", 100 * deviation, draws.size()) : ""));
    if (trace_ && trace_->block_tokens > 0)
      write_out(fmt::format("in blocks of {:<12} {} of {} reusable, {:.2f}%\n", trace_->block_tokens,
                            first.reusable_parts, first.parts, 100 * first.part_rate()));
    return kExitOk;
  }

  std::string describe_load() const {
    std::string text = open_loop_ ? o_.trace.empty()
                                        ? fmt::format("open loop, {}/s {}", o_.rate, o_.arrivals)
                                        : fmt::format("{} trace, times x {}", trace_->format, o_.time_scale)
                                  : fmt::format("closed loop, {} at a time", load_options().concurrency);
    if (o_.trace.empty()) {
      text += fmt::format(", prompts {} tokens, answers {}", o_.prompt_tokens, o_.answer_tokens);
      if (o_.shared_prefix > 0) text += fmt::format(", shared prefix {} x {}", o_.groups, o_.shared_prefix);
      if (o_.turns > 1) text += fmt::format(", {} turns", o_.turns);
    } else if (o_.length_scale != 1) {
      text += fmt::format(", lengths x {}", o_.length_scale);
    }
    if (!o_.json_schema.empty()) text += ", JSON schema";
    return text;
  }

  std::string describe_server() const {
    std::string text = o_.url;
    if (!facts_.model.empty()) text += ", " + facts_.model;
    if (!facts_.server.empty() || !facts_.owned_by.empty())
      text += fmt::format(" ({}{}{})", facts_.server,
                          !facts_.server.empty() && !facts_.owned_by.empty() ? ", " : "", facts_.owned_by);
    return text;
  }

  void report(const load::Run& run, const load::Summary& summary) {
    write_out(fmt::format("{:<26}{}\n", "server", visible(describe_server())));
    write_out(fmt::format("{:<26}{}, seed {}\n", "load", describe_load(), seed_));
    if (trace_ && trace_->left_out > 0)
      write_out(
          fmt::format("{:<26}{} requests longer than {} tokens\n", "left out", trace_->left_out, o_.longest));
    write_out(load::table(summary, slo_));
    for (const auto& [fault, count] : run.faults)
      write_out(fmt::format("{:>6} x {}\n", count, visible(fault)));
    if (!o_.json.empty()) write_json(result_json(run, summary));
    if (!o_.plot.empty()) {
      const auto svg = load::plot(run, summary, describe_server(), describe_load() + ", " + run.started);
      write_file_atomically(o_.plot, std::as_bytes(std::span(svg)));
    }
  }

  ordered_json result_json(const load::Run& run, const load::Summary& summary) const {
    const auto machine = plan::describe_machine();
    ordered_json json;
    json["tool"] = "cairn bench serve " CAIRN_VERSION;
    json["started"] = run.started;
    json["machine"] = {{"cpu", machine.cpu}, {"logical_cores", machine.logical_cores}};
    json["server"] = {{"url", o_.url},
                      {"model", facts_.model},
                      {"server", facts_.server},
                      {"owned_by", facts_.owned_by},
                      {"context", facts_.context}};
    json["load"] = {{"description", describe_load()},
                    {"api", o_.api},
                    {"stream", style_.stream},
                    {"token_ids", o_.token_ids},
                    {"ignore_end", o_.ignore_end},
                    {"temperature", o_.temperature},
                    {"turns", o_.turns},
                    {"pause", o_.pause},
                    {"shared_prefix", o_.shared_prefix},
                    {"groups", o_.groups},
                    {"trace", std::filesystem::path(o_.trace).filename().string()},
                    {"trace_start", o_.trace_start},
                    {"time_scale", o_.time_scale},
                    {"length_scale", o_.length_scale},
                    {"most_in_flight", o_.most_in_flight},
                    {"warm_up", o_.warm_up},
                    {"duration", o_.duration},
                    {"left_out", trace_ ? trace_->left_out : 0},
                    {"seed", seed_},
                    {"lengths_by", facts_.tokenizer},
                    {"tokens_per_word", facts_.alphabet.tokens_per_word},
                    {"overhead_tokens", facts_.alphabet.overhead_tokens}};
    json["results"] = load::to_json(summary, slo_);
    json["results"]["connections"] = run.connections;
    json["results"]["fault_messages"] = run.faults;
    if (o_.details) json["details"] = load::requests_json(run);
    return json;
  }

  void write_json(const ordered_json& json) const {
    const std::string text = json.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
    write_file_atomically(o_.json, std::as_bytes(std::span(text)));
  }

  const Options& o_;
  uint64_t seed_ = 0;
  double burstiness_ = 1;
  load::Slo slo_;
  load::RequestStyle style_;
  bool open_loop_ = false;
  int64_t sessions_ = 0;
  load::ServerFacts facts_;
  std::shared_ptr<load::TraceLoad> trace_;
  boost::asio::io_context io_;
};

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  const auto number = [&](const char* name, auto& value, const char* help, double low, double high) {
    return app.add_option(name, value, help)->check(CLI::Range(low, high))->capture_default_str();
  };
  app.add_option("url", o->url, "the server, with or without /v1")->capture_default_str();
  app.add_option("--api", o->api, "chat or completions")
      ->check(CLI::IsMember({"chat", "completions"}))
      ->capture_default_str();
  app.add_option("-m,--model", o->model, "name of the model (default: the first of /v1/models)");
  app.add_option("--api-key", o->api_key, "sent as a bearer token")->envname("CAIRN_API_KEY");
  app.add_flag("--insecure", o->insecure, "https without checking the certificate");

  number("-c,--concurrency", o->concurrency,
         "closed loop: conversations at a time (default 8, without --rate and --trace)", 1, 1e6)
      ->default_str("");
  number("-n,--requests", o->requests, "requests in all, or conversations with --turns (default 100)", 0, 1e9)
      ->default_str("");
  number("--rate", o->rate, "open loop: conversations per second; latencies count from when they were due",
         1e-6, 1e6)
      ->default_str("");
  app.add_option("--arrivals", o->arrivals, "poisson, constant or gamma:SHAPE (below 1: bursts)")
      ->capture_default_str();
  number("--most-in-flight", o->most_in_flight, "open loop: more than these wait here (default: no bound)", 1,
         1e6)
      ->default_str("");
  number("--duration", o->duration, "seconds after which nothing more is started", 0.1, 1e7)->default_str("");
  app.add_option(
      "--trace", o->trace,
      "play a recording: Azure or Vidur csv, Mooncake or LLMServingSim JSON lines, a ServeGen folder");
  number("--time-scale", o->time_scale, "a trace's gaps times this: 0.1 is ten times as fast", 1e-6, 1e6);
  number("--length-scale", o->length_scale, "a trace's lengths and shared blocks times this", 1e-4, 1e3);
  number("--trace-start", o->trace_start, "seconds of a trace to pass over", 0, 1e9);
  number("--longest", o->longest, "leave a trace's requests of more tokens out", 1, 1e9)->default_str("");

  app.add_option("-p,--prompt-tokens", o->prompt_tokens,
                 "200, 100-400, normal:MEAN,DEV, lognormal:MEDIAN,SIGMA, exponential:MEAN")
      ->capture_default_str();
  app.add_option("-a,--answer-tokens", o->answer_tokens, "likewise")->capture_default_str();
  number("--shared-prefix", o->shared_prefix, "tokens of a system message that conversations share", 0, 1e7);
  number("--groups", o->groups, "different shared prefixes", 1, 1e6);
  number("--turns", o->turns, "turns of each conversation; each adds a prompt of --prompt-tokens", 1, 1e4);
  number("--pause", o->pause, "mean seconds between an answer and the next turn", 0, 1e5);
  app.add_flag("--token-ids", o->token_ids,
               "prompts as token ids of exactly the asked length (completions only)");
  app.add_flag("--ignore-end", o->ignore_end, "ask for answers of full length (the extension ignore_eos)");
  app.add_flag("--no-stream", o->no_stream, "whole answers instead of streams");
  number("--temperature", o->temperature, "of sampling", 0, 100);
  app.add_option("--json-schema", o->json_schema, "file with a schema that answers must keep, or \"sample\"");
  app.add_option("--extra-body", o->extra_body, "JSON object whose members go into every request");
  number("--warm-up", o->warm_up, "requests before the measurement", 0, 1e6);
  number("--timeout", o->timeout, "seconds for one request", 0.01, 1e6);
  const auto* seed = app.add_option("--seed", o->seed, "of everything drawn (default: another in each run)");

  app.add_option("--slo", o->slo, "limits for goodput: ttft=500ms,tpot=50ms,e2e=10s");
  app.add_option("--json", o->json, "write the results to this file");
  app.add_flag("--details", o->details, "every request and tick in it, too");
  app.add_option("--plot", o->plot, "draw the results into this SVG file");
  number("--chaos", o->chaos,
         "play the load twice, the second time beside so many clients that misbehave, and compare", 1, 1e5)
      ->default_str("");
  app.add_option("--chaos-kinds", o->chaos_kinds,
                 "of leave, half_head, half_body, malformed, garbage and slow (default: all)");
  number("--chaos-idle", o->chaos_idle, "connections besides that never send anything", 0, 1e6);
  number("--chaos-patience", o->chaos_patience, "seconds that half requests wait before they go away", 0.01,
         1e4);
  app.add_flag("--ideal", o->ideal,
               "no server: how much of the prompts an unlimited prefix cache would spare");
  number("--page-tokens", o->page_tokens, "tokens of the whole pages that --ideal counts", 1, 1e6);
  app.footer(
      "Prompts are words of known length in tokens: by the server's /tokenize, else by the usage of two "
      "test\n"
      "requests. Exit code 8 when a request failed.\n\n"
      "Examples:\n"
      "  cairn bench serve http://127.0.0.1:8000 -c 8 -n 64 -p 200 -a 128 --ignore-end --plot load.svg\n"
      "  cairn bench serve --rate 5 --arrivals gamma:0.5 --duration 60 --slo ttft=1s,tpot=50ms\n"
      "  cairn bench serve --trace conversation_trace.jsonl --length-scale 0.0625 --time-scale 0.1 -n 500");
  return [o, seed] {
    o->seed_given = seed->count() > 0;
    return BenchServe(*o).run();
  };
}

const RegisterCommand registered({"bench serve", "load a running server and measure what its clients feel",
                                  setup});

}  // namespace
}  // namespace cairn::app
