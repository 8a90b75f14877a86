#include "load/calibrate.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "base/error.h"
#include "formats/json_file.h"
#include "formats/untrusted_text.h"

namespace cairn::load {
namespace {

using nlohmann::json;

constexpr int64_t kShortProbe = 40, kLongProbe = 168;  // tokens
constexpr size_t kFewestWords = 32;  // below so many single tokens the prompts would repeat themselves

class Calibration {
 public:
  Calibration(boost::asio::io_context& io, Client& client, const CalibrationOptions& options)
      : io_(io), client_(client), options_(options) {}

  ServerFacts run() {
    facts_.alphabet = uncalibrated_alphabet();
    facts_.tokenizer = "words";
    ask_models();
    if (tokenize_words()) facts_.tokenizer = "tokenize";
    if (options_.token_ids && facts_.alphabet.ids.empty())
      fail(ErrorKind::unsupported,
           "{}: /tokenize gives no ids, so prompts cannot be sent as token ids\nhint: leave --token-ids out",
           client_.target().base.origin());
    probe();
    return std::move(facts_);
  }

 private:
  // The body as JSON when the status is 200 and it is some.
  std::optional<json> ask(const std::string& method, const std::string& path, const json& body) {
    Order order;
    order.method = method;
    order.path = path;
    if (!body.is_null()) order.body = body.dump();
    order.reads_chunks = false;
    order.timeout = std::min(options_.timeout, std::chrono::milliseconds(30'000));
    const Answer answer = exchange(io_, client_, std::move(order));
    if (!answer.server.empty()) facts_.server = formats::shown(answer.server, 80);
    if (answer.fault != Fault::none || answer.status != 200) return std::nullopt;
    try {
      return formats::parse_json(answer.body, path);
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  void ask_models() {
    facts_.model = options_.model;
    const auto models = ask("GET", "/v1/models", nullptr);
    if (!models || !models->is_object() || !models->contains("data") || !(*models)["data"].is_array()) return;
    for (const auto& model : (*models)["data"]) {
      if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
      const auto& id = model["id"].get_ref<const std::string&>();
      if (!facts_.model.empty() && id != facts_.model) continue;
      facts_.model = id;
      if (const auto owner = model.find("owned_by"); owner != model.end() && owner->is_string())
        facts_.owned_by = formats::shown(owner->get_ref<const std::string&>(), 80);
      for (const char* name : {"max_model_len", "context_length"})
        if (const auto most = model.find(name); most != model.end() && most->is_number_unsigned())
          facts_.context = most->get<int64_t>();
      return;
    }
  }

  // The ids of " a b c" without what the server puts before every text; empty when it does not say.
  std::vector<int32_t> tokenize(const std::vector<std::string>& words) {
    std::string text;
    for (const auto& word : words) text += " " + word;
    auto ids = ask_tokenize(text);
    if (ids.size() > begin_.size() && std::equal(begin_.begin(), begin_.end(), ids.begin()))
      ids.erase(ids.begin(), ids.begin() + std::ptrdiff_t(begin_.size()));
    return ids;
  }

  std::vector<int32_t> ask_tokenize(const std::string& text) {
    std::vector<int32_t> ids;
    for (; form_ < 2; ++form_) {
      const auto body = form_ == 0
                            ? json{{"content", text}, {"model", facts_.model}}
                            : json{{"prompt", text}, {"model", facts_.model}, {"add_special_tokens", false}};
      const auto answer = ask("POST", "/tokenize", body);
      if (!answer || !answer->is_object() || !answer->contains("tokens")) continue;
      for (const auto& token : (*answer)["tokens"]) {
        // llama.cpp gives numbers; some forks objects with an id.
        const auto& id = token.is_object() && token.contains("id") ? token["id"] : token;
        if (!id.is_number_unsigned()) return {};
        ids.push_back(id.get<int32_t>());
      }
      return ids;
    }
    return ids;
  }

  // Keeps of `words` those that are one token; halves what is not.
  void sift(const std::vector<std::string>& words, std::vector<std::string>& single,
            std::vector<int32_t>& ids) {
    const auto found = tokenize(words);
    if (found.size() == words.size()) {
      single.insert(single.end(), words.begin(), words.end());
      ids.insert(ids.end(), found.begin(), found.end());
    } else if (words.size() > 1 && !found.empty()) {
      const auto middle = words.begin() + std::ptrdiff_t(words.size() / 2);
      sift({words.begin(), middle}, single, ids);
      sift({middle, words.end()}, single, ids);
    }
  }

  bool tokenize_words() {
    const auto all = facts_.alphabet.words;
    begin_ = ask_tokenize("");
    const auto found = tokenize(all);
    if (found.empty()) return false;
    std::vector<std::string> single;
    std::vector<int32_t> ids;
    if (found.size() <= 2 * all.size()) sift(all, single, ids);
    if (single.size() >= kFewestWords) {
      facts_.alphabet.words = std::move(single);
      facts_.alphabet.ids = std::move(ids);
    } else {  // a small vocabulary: words of several tokens, and ids of those
      const std::set<int32_t> distinct(found.begin(), found.end());
      facts_.alphabet.ids.assign(distinct.begin(), distinct.end());
      facts_.alphabet.tokens_per_word = double(found.size()) / double(all.size());
    }
    return true;
  }

  // The usage of two prompts tells tokens per word and what is added to every prompt.
  void probe() {
    const auto few = probe_tokens(kShortProbe), many = probe_tokens(kLongProbe);
    auto& alphabet = facts_.alphabet;
    if (few < 0 || many < 0 || options_.token_ids) return;
    if (facts_.tokenizer == "words") {
      // Both prompts have as many words as tokens, since the ratio is still 1.
      const double slope = double(many - few) / double(kLongProbe - kShortProbe);
      if (slope < 0.25 || slope > 16) return;
      alphabet.tokens_per_word = std::fabs(slope - 1) < 0.02 ? 1 : slope;
      facts_.tokenizer = "usage";
    }
    alphabet.overhead_tokens = std::clamp<int64_t>(few - kShortProbe, 0, 4096);
    if (facts_.tokenizer == "usage")
      alphabet.overhead_tokens =
          std::clamp<int64_t>(few - int64_t(std::llround(alphabet.tokens_per_word * kShortProbe)), 0, 4096);
  }

  int64_t probe_tokens(int64_t tokens) {
    RequestStyle style;
    style.api = options_.api;
    style.model = facts_.model;
    style.token_ids = options_.token_ids;
    style.stream = false;
    style.extra = options_.extra;
    Session session;
    Turn turn;
    turn.prompt = {{mix(options_.seed, uint64_t(tokens)), tokens}};
    turn.answer_tokens = 1;
    Order order;
    order.path = endpoint(options_.api);
    order.body = Conversation(style, facts_.alphabet, session).body(turn);
    order.timeout = options_.timeout;
    const Answer answer = exchange(io_, client_, std::move(order));
    if (!answer.server.empty()) facts_.server = formats::shown(answer.server, 80);
    if (answer.fault != Fault::none && answer.fault != Fault::empty)
      fail(ErrorKind::network, "{}{}: a request of {} tokens fails{}: {}", client_.target().base.origin(),
           endpoint(options_.api), tokens,
           answer.status != 0 ? fmt::format(" with status {}", answer.status) : std::string(), answer.detail);
    return answer.prompt_tokens;
  }

  boost::asio::io_context& io_;
  Client& client_;
  const CalibrationOptions& options_;
  ServerFacts facts_;
  std::vector<int32_t> begin_;  // what /tokenize gives for no text: mostly nothing, or a begin of text
  int form_ = 0;                // of /tokenize: llama.cpp's, vLLM's, none
};

}  // namespace

ServerFacts calibrate(boost::asio::io_context& io, Client& client, const CalibrationOptions& options) {
  return Calibration(io, client, options).run();
}

}  // namespace cairn::load
