#include "load/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace cairn::load {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, double> kPercentiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}};

Json milliseconds(const Samples& samples) {
  Json json;
  json["count"] = samples.count();
  json["mean"] = samples.mean() * 1e3;
  for (const auto& [name, share] : kPercentiles) json[name] = samples.quantile(share) * 1e3;
  json["max"] = samples.max() * 1e3;
  return json;
}

std::string row(const char* name, const Samples& samples) {
  if (samples.count() == 0) return "";
  std::string text = fmt::format("{:<26}{:>11.2f}", name, samples.mean() * 1e3);
  for (const auto& percentile : kPercentiles)
    text += fmt::format("{:>11.2f}", samples.quantile(percentile.second) * 1e3);
  return text + fmt::format("{:>11.2f}\n", samples.max() * 1e3);
}

std::string line(const char* name, const std::string& value) {
  return fmt::format("{:<26}{}\n", name, value);
}

double limit_of(const std::string& text, const std::string& whole) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, size_t(text.data() + text.size() - end));
  const double scale = unit.empty() || unit == "ms" ? 1e-3 : unit == "s" ? 1 : unit == "us" ? 1e-6 : 0;
  if (error != std::errc() || scale == 0 || !(value > 0) || value > 1e12)
    fail(ErrorKind::invalid_argument, "--slo {}: '{}' is no time; examples: 500, 500ms, 2s", whole, text);
  return value * scale;
}

}  // namespace

Slo parse_slo(const std::string& text) {
  Slo slo;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string item = text.substr(at, comma - at);
    at = comma + 1;
    const size_t equals = item.find('=');
    const std::string name = item.substr(0, equals);
    auto* limit = name == "ttft"   ? &slo.ttft
                  : name == "tpot" ? &slo.tpot
                  : name == "e2e"  ? &slo.latency
                                   : nullptr;
    if (!limit || equals == item.npos)
      fail(ErrorKind::invalid_argument, "--slo {}: '{}' is none of ttft=TIME, tpot=TIME and e2e=TIME", text,
           item);
    *limit = limit_of(item.substr(equals + 1), text);
  }
  return slo;
}

Summary summarise(const Run& run, const Slo& slo, bool ignore_end) {
  Summary summary;
  summary.requests = int64_t(run.requests.size());
  summary.abandoned = run.abandoned;
  summary.seconds = run.seconds;
  summary.itl = run.gaps;
  for (const auto& request : run.requests) {
    summary.late.add(request.sent - request.due);
    if (request.fault != Fault::none) {
      ++summary.failed;
      ++summary.faults[request.fault == Fault::status ? fmt::format("status_{}", request.status)
                                                      : to_string(request.fault)];
      continue;
    }
    const int64_t tokens = request.counted_answer();
    const double ttft = request.first - request.due, latency = request.end - request.due;
    const double tpot = tokens > 1 ? (request.last - request.first) / double(tokens - 1) : 0;
    summary.ttft.add(ttft);
    summary.latency.add(latency);
    if (tokens > 1 && request.events > 1) summary.tpot.add(tpot);  // not of an answer that came in one piece
    summary.answer_tokens += tokens;
    summary.prompt_tokens += request.prompt_tokens >= 0 ? request.prompt_tokens : request.asked_prompt;
    summary.counted_by_server &= request.answer_tokens >= 0;
    if (request.cached_tokens >= 0) {
      summary.cache_reported = true;
      summary.cached_tokens += request.cached_tokens;
    }
    summary.short_answers += ignore_end && tokens < request.asked_answer;
    summary.json_valid += request.json == RequestRecord::Json::valid;
    summary.json_invalid += request.json == RequestRecord::Json::invalid;
    summary.json_cut += request.json == RequestRecord::Json::cut;
    summary.good += (!slo.ttft || ttft <= *slo.ttft) && (!slo.tpot || tpot <= *slo.tpot) &&
                    (!slo.latency || latency <= *slo.latency);
  }
  if (run.events > 0) summary.cpu_microseconds_per_event = 1e6 * run.cpu_seconds / double(run.events);
  if (run.seconds > 0) summary.cpu_share = run.cpu_seconds / run.seconds;
  return summary;
}

std::string table(const Summary& s, const Slo& slo) {
  std::string text;
  const int64_t fine = s.requests - s.failed;
  text += line("requests",
               fmt::format("{} complete, {} failed{} in {:.2f} s", fine, s.failed,
                           s.abandoned > 0 ? fmt::format(", {} abandoned", s.abandoned) : "", s.seconds));
  for (const auto& [kind, count] : s.faults) text += line("", fmt::format("{} x {}", count, kind));
  text += line("requests/s", fmt::format("{:.2f}", s.per_second(fine)));
  text += line("output tokens/s",
               fmt::format("{:.2f}{}", s.per_second(s.answer_tokens),
                           s.counted_by_server ? "" : "  (chunks: the server counts no tokens)"));
  text += line("total tokens/s",
               fmt::format("{:.2f}  ({} prompt, {} answer)", s.per_second(s.prompt_tokens + s.answer_tokens),
                           s.prompt_tokens, s.answer_tokens));
  if (s.cache_reported)
    text +=
        line("cached prompt tokens",
             fmt::format("{} ({:.2f}%)", s.cached_tokens,
                         s.prompt_tokens > 0 ? 100 * double(s.cached_tokens) / double(s.prompt_tokens) : 0));
  if (s.short_answers > 0) text += line("shorter than asked", fmt::format("{} answers", s.short_answers));
  if (s.json_valid + s.json_invalid + s.json_cut > 0)
    text += line("JSON answers", fmt::format("{} valid, {} invalid, {} cut by their length", s.json_valid,
                                             s.json_invalid, s.json_cut));
  if (slo.any())
    text += line("goodput", fmt::format("{:.2f} requests/s ({:.1f}% of all)", s.per_second(s.good),
                                        s.requests > 0 ? 100 * double(s.good) / double(s.requests) : 0));
  text += fmt::format("\n{:<26}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}\n", "milliseconds", "mean", "p50", "p90",
                      "p95", "p99", "max");
  text += row("first token (TTFT)", s.ttft);
  text += row("per token (TPOT)", s.tpot);
  text += row("between chunks (ITL)", s.itl);
  text += row("whole request", s.latency);
  text += row("sent after it was due", s.late);
  text += fmt::format("\nthis client took {:.1f} us per chunk, {:.1f}% of one core\n",
                      s.cpu_microseconds_per_event, 100 * s.cpu_share);
  return text;
}

std::string comparison(const Summary& before, const Summary& during) {
  std::string text =
      fmt::format("{:<30}{:>14}{:>14}{:>9}\n", "well-behaved clients", "alone", "with chaos", "ratio");
  const auto add = [&](const char* name, double a, double b, int digits) {
    text += fmt::format("{:<30}{:>14.{}f}{:>14.{}f}{:>9}\n", name, a, digits, b, digits,
                        a > 0 ? fmt::format("{:.2f}", b / a) : std::string());
  };
  add("requests complete", double(before.requests - before.failed), double(during.requests - during.failed),
      0);
  add("requests failed", double(before.failed), double(during.failed), 0);
  add("output tokens/s", before.per_second(before.answer_tokens), during.per_second(during.answer_tokens), 2);
  const std::pair<const char*, Samples Summary::*> rows[] = {{"first token", &Summary::ttft},
                                                             {"per token", &Summary::tpot},
                                                             {"between chunks", &Summary::itl},
                                                             {"whole request", &Summary::latency}};
  for (const auto& [name, samples] : rows)
    for (const auto& [label, share] : {std::pair("p50", 0.5), std::pair("p99", 0.99), std::pair("max", 1.0)})
      add(fmt::format("{}, {} ms", name, label).c_str(), (before.*samples).quantile(share) * 1e3,
          (during.*samples).quantile(share) * 1e3, 2);
  return text;
}

Json to_json(const Summary& s, const Slo& slo) {
  Json json;
  json["seconds"] = s.seconds;
  json["requests"] = {{"complete", s.requests - s.failed}, {"failed", s.failed}, {"abandoned", s.abandoned}};
  json["faults"] = Json::object();
  for (const auto& [kind, count] : s.faults) json["faults"][kind] = count;
  json["tokens"] = {{"prompt", s.prompt_tokens},
                    {"answer", s.answer_tokens},
                    {"cached", s.cache_reported ? Json(s.cached_tokens) : Json(nullptr)},
                    {"counted_by_server", s.counted_by_server}};
  json["per_second"] = {{"requests", s.per_second(s.requests - s.failed)},
                        {"output_tokens", s.per_second(s.answer_tokens)},
                        {"total_tokens", s.per_second(s.prompt_tokens + s.answer_tokens)}};
  json["milliseconds"] = {{"ttft", milliseconds(s.ttft)},
                          {"tpot", milliseconds(s.tpot)},
                          {"itl", milliseconds(s.itl)},
                          {"latency", milliseconds(s.latency)},
                          {"sent_after_due", milliseconds(s.late)}};
  if (slo.any()) {
    Json limits = Json::object();
    if (slo.ttft) limits["ttft_ms"] = *slo.ttft * 1e3;
    if (slo.tpot) limits["tpot_ms"] = *slo.tpot * 1e3;
    if (slo.latency) limits["latency_ms"] = *slo.latency * 1e3;
    json["goodput"] = {
        {"limits", limits}, {"requests", s.good}, {"requests_per_second", s.per_second(s.good)}};
  }
  json["short_answers"] = s.short_answers;
  if (s.json_valid + s.json_invalid + s.json_cut > 0)
    json["json_answers"] = {{"valid", s.json_valid}, {"invalid", s.json_invalid}, {"cut", s.json_cut}};
  json["client"] = {{"microseconds_per_chunk", s.cpu_microseconds_per_event},
                    {"share_of_one_core", s.cpu_share}};
  return json;
}

Json requests_json(const Run& run) {
  Json json;
  Json& requests = json["requests"] = Json::array();
  for (const auto& r : run.requests)
    requests.push_back({{"due", r.due},
                        {"sent", r.sent},
                        {"first", r.first},
                        {"last", r.last},
                        {"end", r.end},
                        {"turn", r.turn},
                        {"prompt_tokens", r.prompt_tokens},
                        {"answer_tokens", r.answer_tokens},
                        {"cached_tokens", r.cached_tokens},
                        {"chunks", r.events},
                        {"finish_reason", r.finish_reason},
                        {"fault", to_string(r.fault)},
                        {"status", r.status}});
  Json& ticks = json["ticks"] = Json::array();
  for (const auto& tick : run.ticks) ticks.push_back({tick.at, tick.in_flight, tick.events});
  return json;
}

}  // namespace cairn::load
