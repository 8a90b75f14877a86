#include "load/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/json_fields.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"
#include "load/lines.h"
#include "load/servegen.h"

namespace cairn::load {
namespace {

constexpr int64_t kMostTokens = 1'000'000'000;
constexpr double kMostSeconds = 1e9;
constexpr int64_t kMooncakeBlock = 512;
constexpr size_t kLongestLine = size_t{16} << 20;

std::string_view text_of(const MappedFile& file) {
  const auto bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The place of the first of `names` among the columns; columns.size() when it is not there.
size_t column_of(const std::vector<std::string_view>& header, std::initializer_list<std::string_view> names) {
  for (const auto name : names)
    for (size_t i = 0; i < header.size(); ++i)
      if (header[i] == name) return i;
  return header.size();
}

Trace read_csv(std::string_view text, const std::string& name) {
  Trace trace{"csv", 0, {}};
  size_t time = 0, prompt = 0, answer = 0, width = 0;
  each_line(text, [&](std::string_view line, size_t number) {
    if (line.empty()) return;
    if (number == 1 && line.substr(0, 3) == "\xef\xbb\xbf") line.remove_prefix(3);
    const auto fields = columns(line);
    if (width == 0) {
      time = column_of(fields, {"TIMESTAMP", "Timestamp", "timestamp", "arrived_at", "arrival_time"});
      prompt = column_of(fields, {"ContextTokens", "Request tokens", "num_prefill_tokens", "input_length",
                                  "prompt_tokens", "input_tokens"});
      answer = column_of(fields, {"GeneratedTokens", "Response tokens", "num_decode_tokens", "output_length",
                                  "completion_tokens", "output_tokens"});
      width = fields.size();
      if (prompt == width || answer == width)
        fail(ErrorKind::invalid_file,
             "{}: its first line is '{}', which names no column of prompt and answer lengths that is known "
             "(such as ContextTokens,GeneratedTokens or num_prefill_tokens,num_decode_tokens)",
             name, formats::shown(line, 80));
      return;
    }
    const std::string where = fmt::format("{}: line {}", name, number);
    if (fields.size() < width)
      fail(ErrorKind::invalid_file, "{}: it has {} columns, the first line {}", where, fields.size(), width);
    TraceRow row;
    if (time < width) row.at = read_time(fields[time], where, "the time");
    row.prompt_tokens = int64_t(read_number(fields[prompt], 0, kMostTokens, where, "the prompt's length"));
    row.answer_tokens = int64_t(read_number(fields[answer], 0, kMostTokens, where, "the answer's length"));
    trace.rows.push_back(std::move(row));
  });
  return trace;
}

TraceRow mooncake_row(const nlohmann::json& object, const std::string& where) {
  TraceRow row;
  row.at = formats::require_number(object, "timestamp", 0, kMostSeconds * 1e3, where) / 1e3;
  row.prompt_tokens = formats::require_int(object, "input_length", 0, kMostTokens, where);
  row.answer_tokens = formats::require_int(object, "output_length", 0, kMostTokens, where);
  const auto blocks = formats::optional_ints(object, "hash_ids", 0, INT64_MAX, where);
  if (!blocks) fail(ErrorKind::invalid_file, "{}: it has no hash_ids", where);
  const int64_t expected = ceil_div(row.prompt_tokens, kMooncakeBlock);
  if (int64_t(blocks->size()) != expected)
    fail(ErrorKind::invalid_file, "{}: it has {} hash_ids; {} tokens in blocks of {} make {}", where,
         blocks->size(), row.prompt_tokens, kMooncakeBlock, expected);
  row.blocks.assign(blocks->begin(), blocks->end());
  return row;
}

TraceRow llmservingsim_row(const nlohmann::json& object, const std::string& where) {
  TraceRow row;
  row.at = formats::require_number(object, "arrival_time_ns", 0, kMostSeconds * 1e9, where) / 1e9;
  row.prompt_tokens = formats::require_int(object, "input_toks", 0, kMostTokens, where);
  row.answer_tokens = formats::require_int(object, "output_toks", 0, kMostTokens, where);
  return row;
}

Trace read_json_lines(std::string_view text, const std::string& name) {
  Trace trace;
  each_line(text, [&](std::string_view line, size_t number) {
    if (line.find_first_not_of(" \t") == line.npos) return;
    const std::string where = fmt::format("{}: line {}", name, number);
    if (line.size() > kLongestLine)
      fail(ErrorKind::invalid_file, "{}: it is {} bytes long, more than {}", where, line.size(),
           kLongestLine);
    const auto object = formats::parse_json(line, where);
    if (!object.is_object()) fail(ErrorKind::invalid_file, "{}: it is no JSON object", where);
    if (trace.format.empty()) {
      if (object.contains("input_length"))
        trace.format = "mooncake";
      else if (object.contains("input_toks"))
        trace.format = "llmservingsim";
      else
        fail(ErrorKind::invalid_file, "{}: it has neither input_length nor input_toks; no known trace format",
             where);
      if (trace.format == "mooncake") trace.block_tokens = kMooncakeBlock;
    }
    trace.rows.push_back(trace.block_tokens > 0 ? mooncake_row(object, where)
                                                : llmservingsim_row(object, where));
  });
  return trace;
}

class TraceSessions final : public SessionSource {
 public:
  TraceSessions(Trace trace, TraceOptions options, std::shared_ptr<TraceLoad> load)
      : trace_(std::move(trace)), options_(options), load_(load) {}

  std::optional<Session> next() override {
    while (row_ < trace_.rows.size()) {
      const auto& row = trace_.rows[row_++];
      if (row.at < options_.start) continue;
      Session session = session_of(row);
      if (total_tokens(session.turns[0].prompt) + session.turns[0].answer_tokens > limit()) {
        if (const auto load = load_.lock()) ++load->left_out;
        continue;
      }
      return session;
    }
    return std::nullopt;
  }

 private:
  int64_t limit() const { return options_.longest > 0 ? options_.longest : INT64_MAX; }
  int64_t scaled(int64_t tokens) const {
    return std::max<int64_t>(1, int64_t(std::llround(double(tokens) * options_.length_scale)));
  }

  Session session_of(const TraceRow& row) const {
    Session session;
    session.key = mix(options_.seed, row_);
    session.at = (row.at - options_.start) * options_.time_scale;
    Turn turn;
    turn.answer_tokens = scaled(row.answer_tokens);
    if (row.blocks.empty()) {
      turn.prompt = {{mix(session.key), scaled(row.prompt_tokens)}};
    } else {
      const int64_t block = scaled(trace_.block_tokens);
      const auto last = int64_t(row.blocks.size()) - 1;
      for (int64_t i = 0; i <= last; ++i) {
        const int64_t left = row.prompt_tokens - i * trace_.block_tokens;
        turn.prompt.push_back({mix(mix(options_.seed, 5), row.blocks[size_t(i)]),
                               i < last ? block : std::min(block, scaled(left))});
      }
    }
    session.turns.push_back(std::move(turn));
    return session;
  }

  Trace trace_;
  TraceOptions options_;
  std::weak_ptr<TraceLoad> load_;
  size_t row_ = 0;
};

// Scales, bounds and counts what another source makes.
class Scaled final : public SessionSource {
 public:
  Scaled(std::unique_ptr<SessionSource> from, TraceOptions options, std::shared_ptr<TraceLoad> load)
      : from_(std::move(from)), options_(options), load_(load) {}

  std::optional<Session> next() override {
    while (auto session = from_->next()) {
      session->at *= options_.time_scale;
      int64_t total = 0;
      for (auto& turn : session->turns) {
        for (auto& part : turn.prompt) total += part.tokens = scaled(part.tokens);
        total += turn.answer_tokens = scaled(turn.answer_tokens);
      }
      if (options_.longest <= 0 || total <= options_.longest) return session;
      if (const auto load = load_.lock()) ++load->left_out;
    }
    return std::nullopt;
  }

 private:
  int64_t scaled(int64_t tokens) const {
    return std::max<int64_t>(1, int64_t(std::llround(double(tokens) * options_.length_scale)));
  }

  std::unique_ptr<SessionSource> from_;
  TraceOptions options_;
  std::weak_ptr<TraceLoad> load_;
};

class Limited final : public SessionSource {
 public:
  Limited(std::unique_ptr<SessionSource> from, int64_t most) : from_(std::move(from)), left_(most) {}
  std::optional<Session> next() override { return left_ == 0 ? std::nullopt : (--left_, from_->next()); }

 private:
  std::unique_ptr<SessionSource> from_;
  int64_t left_;
};

}  // namespace

Trace read_trace(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string_view text = text_of(file);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos) fail(ErrorKind::invalid_file, "{}: it is empty", path.string());
  Trace trace = text[first] == '{' ? read_json_lines(text, path.string()) : read_csv(text, path.string());
  if (trace.rows.empty()) fail(ErrorKind::invalid_file, "{}: it holds no request", path.string());
  std::stable_sort(trace.rows.begin(), trace.rows.end(),
                   [](const TraceRow& a, const TraceRow& b) { return a.at < b.at; });
  const double begin = trace.rows.front().at;
  for (auto& row : trace.rows) row.at -= begin;
  return trace;
}

std::shared_ptr<TraceLoad> open_trace(const std::filesystem::path& path, const TraceOptions& options) {
  auto load = std::make_shared<TraceLoad>();
  if (is_servegen(path)) {
    load->format = "servegen";
    load->sessions =
        std::make_unique<Scaled>(servegen_sessions(path, options.start, options.seed), options, load);
  } else {
    Trace trace = read_trace(path);
    load->format = trace.format;
    if (trace.block_tokens > 0)
      load->block_tokens =
          std::max<int64_t>(1, int64_t(std::llround(double(trace.block_tokens) * options.length_scale)));
    load->sessions = std::make_unique<TraceSessions>(std::move(trace), options, load);
  }
  if (options.sessions >= 0)
    load->sessions = std::make_unique<Limited>(std::move(load->sessions), options.sessions);
  return load;
}

}  // namespace cairn::load
