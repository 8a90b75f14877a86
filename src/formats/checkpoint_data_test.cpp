// Files written by others: vocabularies from llama.cpp, safetensors from the Python library.
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/testing.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace cairn::formats {
namespace {

TEST(CheckpointData, OpensVocabularyFilesOfLlamaCpp) {
  const std::filesystem::path folder = "tokenizers/llama.cpp-vocab";
  for (const auto& [file, architecture, tokens] : std::vector<std::tuple<const char*, const char*, uint64_t>>{
           {"ggml-vocab-phi-3.gguf", "phi3", 32064},
           {"ggml-vocab-gpt-2.gguf", "gpt2", 50257},
           {"ggml-vocab-deepseek-coder.gguf", "llama", 32256},
           {"ggml-vocab-llama-spm.gguf", "llama", 32000},
           {"ggml-vocab-bert-bge.gguf", "bert", 30522}}) {
    CAIRN_NEED_DATA(folder / file);
    const Gguf gguf = read_gguf(testing::data_folder() / folder / file);
    EXPECT_EQ(gguf.string("general.architecture"), architecture) << file;
    EXPECT_EQ(gguf.strings("tokenizer.ggml.tokens")->count, tokens) << file;
    EXPECT_EQ(gguf.integers("tokenizer.ggml.token_type")->count, tokens) << file;
    EXPECT_EQ(open_checkpoint(testing::data_folder() / folder / file).config->count("tokenizer.ggml.tokens"),
              0u);
  }
}

TEST(CheckpointData, OpensSafetensorsOfThePythonLibrary) {
  const std::filesystem::path folder = "weights/model2vec";
  for (const auto& [name, codec] :
       std::vector<std::pair<const char*, codecs::CodecId>>{{"test-model-float16", codecs::CodecId::f16},
                                                            {"test-model-float32", codecs::CodecId::f32},
                                                            {"test-model-int8", codecs::CodecId::i8}}) {
    CAIRN_NEED_DATA(folder / name / "model.safetensors");
    const Safetensors file = read_safetensors(testing::data_folder() / folder / name / "model.safetensors");
    ASSERT_EQ(file.tensors.size(), 1u) << name;
    EXPECT_EQ(file.tensors[0].codec, codec) << name;
  }
}

}  // namespace
}  // namespace cairn::formats
