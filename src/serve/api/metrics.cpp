#include "serve/api/metrics.h"

#include <fmt/format.h>

namespace cairn::serve {
namespace {

class Writer {
 public:
  void head(std::string_view name, std::string_view type, std::string_view help) {
    fmt::format_to(std::back_inserter(text_), "# HELP cairn_{} {}\n# TYPE cairn_{} {}\n", name, help, name,
                   type);
  }
  template <typename T>
  void gauge(std::string_view name, T value, std::string_view help) {
    head(name, "gauge", help);
    fmt::format_to(std::back_inserter(text_), "cairn_{} {}\n", name, value);
  }
  void counter(std::string_view name, uint64_t value, std::string_view help) {
    head(name, "counter", help);
    fmt::format_to(std::back_inserter(text_), "cairn_{} {}\n", name, value);
  }
  template <typename T>
  void labelled(std::string_view name, std::string_view label, std::string_view which, T value) {
    fmt::format_to(std::back_inserter(text_), "cairn_{}{{{}=\"{}\"}} {}\n", name, label, which, value);
  }
  void histogram(std::string_view name, const Histogram& h, std::string_view help) {
    head(name, "histogram", help);
    uint64_t below = 0;
    for (size_t i = 0; i < Histogram::kBounds.size(); ++i) {
      below += h.counts()[i];
      fmt::format_to(std::back_inserter(text_), "cairn_{}_bucket{{le=\"{}\"}} {}\n", name,
                     Histogram::kBounds[i], below);
    }
    fmt::format_to(std::back_inserter(text_),
                   "cairn_{}_bucket{{le=\"+Inf\"}} {}\ncairn_{}_sum {}\ncairn_{}_count {}\n", name, h.count(),
                   name, h.sum(), name, h.count());
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

}  // namespace

std::string metrics_text(const Serving& serving, const HttpStats& http) {
  const auto s = serving.service.stats();
  Writer w;
  w.gauge("answers_running", s.running, "Answers that hold pages of the KV cache.");
  w.gauge("answers_waiting", s.waiting, "Answers that wait for their first or next step.");
  w.gauge("requests_reading", serving.workers.queued(), "Requests received that wait to be tokenised.");
  w.gauge("kv_pages", s.pages, "Pages of the KV cache.");
  w.gauge("kv_pages_free", s.free_pages, "Pages that hold nothing.");
  w.gauge("kv_pages_cached", s.prefixes.pages,
          "Pages kept for prompts that begin alike, used ones included.");
  w.gauge("kv_pages_host", s.spilled_pages, "Pages of preempted answers in host memory.");
  w.gauge("kv_pages_disk", s.store.files, "Pages on disk.");
  w.counter("prefix_pages_evicted_total", s.prefixes.evicted_pages,
            "Cached pages that made room for others.");
  w.counter("prompt_tokens_total", s.prompt_tokens, "Tokens of prompts.");
  w.counter("prompt_tokens_reused_total", s.reused_tokens, "Of them, found computed in the prefix cache.");
  w.counter("tokens_computed_total", s.computed_tokens, "Tokens that steps computed, prompts and answers.");
  w.counter("answer_tokens_total", s.answer_tokens, "Tokens of answers.");
  w.counter("steps_total", s.steps, "Steps of the engine.");
  w.counter("preemptions_total", s.preemptions,
            "Answers that gave up their pages for others, to come back later.");
  w.counter("tokens_spilled_total", s.spilled_tokens, "Tokens whose pages were copied to host memory.");
  w.counter("tokens_restored_total", s.restored_tokens, "Of them, taken back instead of computed again.");
  w.counter("refused_total", s.refused, "Requests refused because too many waited.");
  w.head("answers_total", "counter", "Answers that ended, by how.");
  constexpr std::string_view kNames[] = {"end_of_turn", "stop_string", "length", "cancelled"};
  for (size_t i = 0; i < 4; ++i) w.labelled("answers_total", "finish", kNames[i], s.ended[i]);
  w.labelled("answers_total", "finish", "failed", s.failed);
  w.histogram("queue_seconds", s.queued, "From a request's arrival to its first step.");
  w.histogram("first_token_seconds", s.first_token, "From a request's arrival to its first token (TTFT).");
  w.histogram("between_tokens_seconds", s.between_tokens, "Between two tokens of an answer (ITL).");
  w.histogram("request_seconds", s.whole, "From arrival to the end of an answer.");
  w.histogram("step_seconds", s.step, "Steps, as they took.");
  w.histogram("step_predicted_seconds", s.predicted_step, "Steps, as the scheduler expected them.");
  w.head("engine_seconds_total", "counter", "Seconds of the engine's thread, by what it did; step: in all.");
  w.labelled("engine_seconds_total", "in", "step", s.step.sum());
  w.labelled("engine_seconds_total", "in", "step_prepare", s.device.prepare);
  w.labelled("engine_seconds_total", "in", "step_launch", s.device.launch);
  w.labelled("engine_seconds_total", "in", "drawing", s.drawing);
  w.labelled("engine_seconds_total", "in", "planning", s.planning);
  w.gauge("step_running_seconds", s.step_running_for, "How long the running step has run; 0: none runs.");
  w.gauge("http_connections", http.connections, "Open connections.");
  w.gauge("http_requests_running", http.running, "Requests being answered.");
  w.gauge("http_body_bytes", http.body_bytes, "Bytes of request bodies held.");
  w.counter("http_connections_total", http.accepted, "Connections accepted.");
  w.counter("http_connections_refused_total", http.refused_connections, "Connections refused: too many.");
  w.counter("http_requests_total", http.requests, "Requests whose head was read.");
  w.head("http_responses_total", "counter", "Responses by the first digit of their status.");
  constexpr std::string_view kClasses[] = {"0xx", "1xx", "2xx", "3xx", "4xx", "5xx"};
  for (size_t i = 1; i < 6; ++i) w.labelled("http_responses_total", "class", kClasses[i], http.answered[i]);
  w.counter("http_malformed_total", http.malformed, "Requests that were no HTTP or past a limit.");
  w.counter("http_denied_total", http.denied, "Requests without a valid key, host or origin.");
  w.counter("http_gone_total", http.gone, "Clients that left before the end of their answer.");
  w.counter("http_overflowed_total", http.overflowed, "Streams cut because the client read too slowly.");
  w.counter("http_timeouts_total", http.timeouts, "Connections ended by a timeout.");
  w.histogram("http_delivery_seconds", http.delivered,
              "From a step's end to when the socket took the events of its tokens: the server's overhead.");
  w.counter("http_delivery_late_total", http.late, "Of them, those that took more than 2 ms.");
  w.counter("http_bytes_in_total", http.bytes_in, "Bytes received.");
  w.counter("http_bytes_out_total", http.bytes_out, "Bytes sent.");
  return w.take();
}

}  // namespace cairn::serve
