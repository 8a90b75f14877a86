#include "serve/api/serving.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "formats/untrusted_text.h"
#include "serve/api/api_error.h"

namespace cairn::serve {

Serving::Serving(engine::Service& the_service, const text::Tokenizer& the_tokenizer, ApiOptions the_options)
    : service(the_service),
      tokenizer(the_tokenizer),
      options(std::move(the_options)),
      created(unix_seconds()),
      special(the_tokenizer),
      grammars(the_tokenizer, int32_t(the_service.engine().model().vocabulary_size)),
      workers(options.worker_threads, options.worker_queue) {
  if (const auto source = tokenizer.chat_template()) {
    const auto token_text = [&](const std::optional<text::TokenId>& id) {
      return id ? tokenizer.piece(*id) : std::string();
    };
    chat_template.emplace(*source, "chat template");
    format = text::AnswerFormat::detect(*source, tokenizer);
    chats.emplace(*chat_template, format, token_text(tokenizer.special().bos),
                  token_text(tokenizer.special().eos));
  }
  workers.post([this] { warm_json_object(); });
}

// Most constrained requests want any JSON object. Its masks are kept with the grammar, and computing the
// first ones takes a while for a large vocabulary.
void Serving::warm_json_object() const {
  constexpr std::string_view kSample =
      R"({"a": "b\n\u00e9", "c": [1, -2.5e+3, true], "d": {"e": null}, "f": [], "g": {}})";
  try {
    text::GrammarMatcher matcher(grammars.json_object());
    std::vector<uint32_t> bits((size_t(service.engine().model().vocabulary_size) + 31) / 32);
    matcher.fill_mask(bits);
    for (const char c : kSample) {
      if (closing || !matcher.accept_text({&c, 1})) return;
      matcher.fill_mask(bits);
    }
  } catch (const Error&) {  // a request will say what is wrong
  }
}

bool Serving::serves(std::string_view model) const {
  return model == options.model_name ||
         std::find(options.aliases.begin(), options.aliases.end(), model) != options.aliases.end();
}

void Serving::check_model(const Json* name) const {
  if (!name || name->is_null()) return;
  const auto& given = name->get_ref<const std::string&>();
  if (!serves(given))
    refuse(404, "model", "model_not_found", "the model '{}' is not served here; this server has '{}'",
           formats::shown(given, 100), options.model_name);
}

std::string make_id(std::string_view prefix) {
  static constexpr std::string_view kLetters =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool flag(const Json& object, const char* name, bool otherwise) {
  const Json* value = member(object, name);
  return value ? value->get<bool>() : otherwise;
}

int64_t whole(const Json& object, const char* name, int64_t otherwise) {
  const Json* value = member(object, name);
  return value ? value->get<int64_t>() : otherwise;
}

double number(const Json& object, const char* name, double otherwise) {
  const Json* value = member(object, name);
  return value ? value->get<double>() : otherwise;
}

std::string text_of(const Json& object, const char* name) {
  const Json* value = member(object, name);
  return value ? value->get<std::string>() : std::string();
}

}  // namespace cairn::serve
