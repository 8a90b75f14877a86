#include "text/normalizer.h"

#include <functional>

namespace cairn::text {
namespace {

class FunctionNormalizer final : public Normalizer {
 public:
  using Function = std::function<std::string(std::string_view)>;
  explicit FunctionNormalizer(Function f) : f_(std::move(f)) {}
  std::string apply(std::string_view text) const override { return f_(text); }

 private:
  Function f_;
};

std::unique_ptr<Normalizer> make(FunctionNormalizer::Function f) {
  return std::make_unique<FunctionNormalizer>(std::move(f));
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  if (from.empty()) return std::string(text);
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found == text.npos ? text.npos : found - at);
    if (found == text.npos) return out;
    out += to;
    at = found + from.size();
  }
}

}  // namespace

std::unique_ptr<Normalizer> replace_normalizer(std::string from, std::string to) {
  return make([from = std::move(from), to = std::move(to)](std::string_view text) {
    return replace_all(text, from, to);
  });
}

std::unique_ptr<Normalizer> prepend_normalizer(std::string prefix) {
  return make([prefix = std::move(prefix)](std::string_view text) {
    return text.empty() ? std::string() : prefix + std::string(text);
  });
}

std::unique_ptr<Normalizer> sequence_normalizer(std::vector<std::unique_ptr<Normalizer>> steps) {
  auto shared = std::make_shared<std::vector<std::unique_ptr<Normalizer>>>(std::move(steps));
  return make([shared](std::string_view text) {
    std::string out(text);
    for (const auto& step : *shared) out = step->apply(out);
    return out;
  });
}

std::unique_ptr<Normalizer> parse_normalizer(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    const JsonView list = json.at("normalizers");
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (size_t i = 0; i < list.size(); ++i) steps.push_back(parse_normalizer(list[i]));
    return sequence_normalizer(std::move(steps));
  }
  if (type == "Prepend") return prepend_normalizer(json.at("prepend").string());
  if (type == "Replace" && json.at("pattern").find("String"))
    return replace_normalizer(json.at("pattern").at("String").string(), json.at("content").string());
  json.unsupported("normalizer", type);
}

}  // namespace cairn::text
