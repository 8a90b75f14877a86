// cairn template: a conversation as a model's own chat template renders it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "api/model_impl.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "command.h"
#include "formats/json_file.h"
#include "input.h"
#include "model_path.h"
#include "output.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace cairn::app {
namespace {

using Json = nlohmann::ordered_json;  // templates print objects in the order of their keys

struct Options {
  std::string model, messages;
  bool generation_prompt = false;
};

Json read_variables(const std::string& file) {
  const std::string name = file == "-" ? "standard input" : file;
  const std::string content = file == "-" ? read_in(size_t{256} << 20) : read_text_file(file);
  Json variables;
  try {
    variables = Json::parse(content);
  } catch (const Json::exception& error) {
    fail(ErrorKind::invalid_file, "{}: {}", name, formats::json_error_text(error));
  }
  if (variables.is_array()) variables = Json{{"messages", std::move(variables)}};
  if (!variables.is_object())
    fail(ErrorKind::invalid_file,
         "{}: holds a JSON {}; expected an object with messages, or a list of messages", name,
         variables.type_name());
  return variables;
}

bool is_template_file(const std::string& argument) {
  const auto suffix = std::filesystem::path(argument).extension();
  return suffix == ".jinja" || suffix == ".jinja2" || suffix == ".j2";
}

int run(const Options& options) {
  // What the file says goes to the template as it is; what a model adds fills only what the file leaves out.
  Json variables = read_variables(options.messages);
  if (options.generation_prompt) variables["add_generation_prompt"] = true;
  std::string source, name = options.model;
  if (is_template_file(options.model)) {
    source = read_text_file(options.model);
  } else {
    const auto path = tokenizer_path(resolve_model(options.model));
    const auto tokenizer = text::load_tokenizer(path);
    const auto own = tokenizer->chat_template();
    if (!own)
      fail(ErrorKind::not_found,
           "{} came without a chat template\nhint: give the template itself, as FILE.jinja", path.string());
    source = *own;
    name = path.string() + ": chat template";
    const auto fill = [&](const char* key, const std::optional<text::TokenId>& id) {
      if (id && !variables.contains(key)) variables[key] = tokenizer->piece(*id);
    };
    fill("bos_token", tokenizer->special().bos);
    fill("eos_token", tokenizer->special().eos);
  }
  write_out(text::ChatTemplate(source, name).render(variables));
  return 0;
}

std::function<int()> setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "a model, or a template in a file called *.jinja")->required();
  app.add_option(
         "--messages", options->messages,
         "JSON file with messages, tools, add_generation_prompt and any other variable; -: standard input")
      ->required();
  app.add_flag("--add-generation-prompt", options->generation_prompt, "end with the start of an answer");
  app.footer("Prints the rendered text and nothing else, not even a line break at its end.");
  return [options] { return run(*options); };
}

const RegisterCommand registered({"template", "render a conversation with a model's chat template", setup});

}  // namespace
}  // namespace cairn::app
