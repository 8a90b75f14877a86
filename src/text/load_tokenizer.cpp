#include "base/error.h"
#include "base/mapped_file.h"
#include "text/loaders.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> finish(Pipeline pipeline) {
  complete_special_tokens(pipeline);
  return std::make_unique<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  fs::path file = path;
  if (fs::is_directory(path)) {
    file.clear();
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer.bin"})
      if (fs::exists(path / name)) {
        file = path / name;
        break;
      }
    if (file.empty())
      fail(ErrorKind::not_found,
           "{}: no tokenizer here (looked for tokenizer.json, tokenizer.model, tokenizer.bin)",
           path.string());
  }
  const std::string name = file.string();
  if (!fs::exists(file)) fail(ErrorKind::not_found, "{}: no such file", name);
  if (file.extension() == ".json") {
    Pipeline pipeline = parse_tokenizer_json(read_text_file(file), name);
    apply_side_files(pipeline, file.parent_path());
    return finish(std::move(pipeline));
  }
  if (file.extension() == ".bin") {
    Pipeline pipeline = parse_llama2c_tokenizer(read_text_file(file), name);
    return finish(std::move(pipeline));
  }
  fail(ErrorKind::unsupported, "{}: not a tokenizer file known here (tokenizer.json, tokenizer.bin)", name);
}

}  // namespace cairn::text
