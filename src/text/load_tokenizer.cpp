#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/gguf.h"
#include "text/loaders.h"
#include "text/sentencepiece.h"

namespace cairn::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLargestFile = size_t{256} << 20;

std::unique_ptr<Tokenizer> finish(Pipeline pipeline) {
  complete_special_tokens(pipeline);
  return std::make_unique<PipelineTokenizer>(std::move(pipeline));
}

// The file of a folder that holds the vocabulary. tokenizer.json says more than the others, so it comes
// first.
fs::path find_in_folder(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
                           "tiktoken.model", "vocab.json", "vocab.txt", "tokenizer.bin"})
    if (fs::exists(folder / name)) return folder / name;
  for (const char* extension : {".tiktoken", ".gguf"})
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == extension) return entry.path();
  fail(ErrorKind::not_found,
       "{}: no tokenizer here (looked for tokenizer.json, tokenizer.model, spiece.model, tiktoken.model, "
       "*.tiktoken, "
       "tokenizer.bin, *.gguf)",
       folder.string());
}

// tiktoken's lines begin with base64 and a space; protocol buffers and JSON do not.
bool looks_like_tiktoken(std::string_view bytes) {
  const size_t space = bytes.substr(0, 1024).find(' ');
  if (space == bytes.npos || space == 0) return false;
  for (char c : bytes.substr(0, space))
    if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
          c == '/' || c == '='))
      return false;
  return true;
}

// What SentencePiece models leave to the code around them: whether <s> and </s> are added.
void add_sequence_ends(Pipeline& pipeline) {
  pipeline.special.bos = find_token(pipeline, "<s>");
  pipeline.special.eos = find_token(pipeline, "</s>");
  if (!pipeline.special.bos) pipeline.special.bos = find_token(pipeline, "<bos>");
  if (!pipeline.special.eos) pipeline.special.eos = find_token(pipeline, "<eos>");
  pipeline.special.pad = find_token(pipeline, "<pad>");
}

Pipeline load_pipeline(const fs::path& file) {
  const std::string name = file.string();
  const fs::path folder = file.parent_path();
  const std::string extension = file.extension().string();
  Pipeline pipeline;
  if (extension == ".gguf") {
    pipeline = gguf_pipeline(formats::read_gguf(file), name);
    if (fs::exists(folder / "chat_template.jinja"))
      pipeline.chat_template = read_text_file(folder / "chat_template.jinja", size_t{16} << 20);
    return pipeline;
  }
  if (file.filename() == "vocab.json") {
    if (!fs::exists(folder / "merges.txt"))
      fail(ErrorKind::not_found, "{}: merges.txt is not beside it", name);
    return load_vocab_and_merges(folder);
  }
  if (file.filename() == "vocab.txt") return load_word_list(folder);
  const std::string bytes = read_text_file(file, kLargestFile);
  if (extension == ".json") {
    pipeline = parse_tokenizer_json(bytes, name);
    apply_side_files(pipeline, folder);
  } else if (extension == ".bin") {
    pipeline = parse_llama2c_tokenizer(bytes, name);
  } else if (extension == ".tiktoken" || looks_like_tiktoken(bytes)) {
    pipeline = parse_tiktoken(bytes, name, folder);
    apply_side_files(pipeline, folder);
  } else if (extension == ".model" || extension == ".spm") {
    SentencePieceModel model = parse_sentencepiece_model(bytes, name);
    const bool bpe = model.kind == SentencePieceModel::Kind::bpe;
    pipeline = sentencepiece_pipeline(std::move(model), name);
    add_sequence_ends(pipeline);
    apply_side_files(pipeline, folder);
    // Llama, Mistral and Gemma begin with <s>; the unigram models (T5, ALBERT, ...) are used without.
    if (bpe && pipeline.special.bos) pipeline.post.before = {*pipeline.special.bos};
  } else {
    fail(ErrorKind::unsupported,
         "{}: not a tokenizer file known here (tokenizer.json, *.model, *.tiktoken, tokenizer.bin, *.gguf)",
         name);
  }
  return pipeline;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  if (!fs::exists(path)) fail(ErrorKind::not_found, "{}: no such file or folder", path.string());
  return finish(load_pipeline(fs::is_directory(path) ? find_in_folder(path) : path));
}

std::unique_ptr<Tokenizer> load_tokenizer(const formats::Gguf& gguf, const std::string& name) {
  return finish(gguf_pipeline(gguf, name));
}

}  // namespace cairn::text
