#include "formats/hub_files.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/hub_cache.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using testing::message_of;
using testing::TemporaryFolder;
using Names = std::vector<std::string>;

HubSelection select(const Names& names, const std::string& wanted = "", const std::string& index = "") {
  return select_hub_files("org/name", names, wanted, [&](const std::string&) { return index; });
}

std::string refusal(const Names& names, const std::string& wanted = "", const std::string& index = "") {
  return message_of([&] { select(names, wanted, index); });
}

TEST(HubFiles, SafetensorsComeWithConfigAndTokenizer) {
  const auto selection =
      select({".gitattributes", "README.md", "config.json", "generation_config.json", "merges.txt",
              "model.safetensors", "onnx/model.onnx", "original/consolidated.00.pth", "pytorch_model.bin",
              "pytorch_model.bin.index.json", "tokenizer.json", "tokenizer.model", "vocab.json",
              "chat_template.jinja", "modeling.py", "q.gguf"});
  EXPECT_EQ(selection.files,
            (Names{"config.json", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer.model",
                   "vocab.json", "chat_template.jinja", "model.safetensors"}));
  EXPECT_EQ(selection.open, "");
}

TEST(HubFiles, TheIndexSaysWhichShards) {
  const std::string index =
      R"({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-1.safetensors"}})";
  const Names names = {"config.json", "consolidated.safetensors", "m-1.safetensors", "m-2.safetensors",
                       "model.safetensors.index.json"};
  EXPECT_EQ(select(names, "", index).files,
            (Names{"config.json", "model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"}));
  EXPECT_NE(refusal({"model.safetensors.index.json", "m-1.safetensors"}, "", index)
                .find("'m-2.safetensors', which is"),
            std::string::npos);
  EXPECT_NE(refusal(names, "", "[]").find("'weight_map' is missing"), std::string::npos);
  EXPECT_NE(refusal(names, "", R"({"weight_map": {"a": 1}})").find("no file name"), std::string::npos);
  EXPECT_NE(refusal(names, "", R"({"weight_map": {"a": "../x"}})").find("not there"), std::string::npos);
  EXPECT_NE(refusal({"a.safetensors", "b.safetensors"}).find("2 *.safetensors"), std::string::npos);
}

TEST(HubFiles, QuantizationsAreFoundInAnyCase) {
  const Names names = {"m-Q4_K_S.gguf",
                       "m-Q4_K_M.gguf",
                       "m-q8_0.gguf",
                       "mmproj-Q8_0.gguf",
                       "m.f16.gguf",
                       "Q6_K/m-Q6_K-00001-of-00002.gguf",
                       "Q6_K/m-Q6_K-00002-of-00002.gguf",
                       "m_IQ4_XS.gguf"};
  EXPECT_EQ(select(names, "q4_k_m").open, "m-Q4_K_M.gguf");
  EXPECT_EQ(select(names, "Q8_0").open, "m-q8_0.gguf");
  EXPECT_EQ(select(names, "F16").open, "m.f16.gguf");
  EXPECT_EQ(select(names, "iq4_xs").open, "m_IQ4_XS.gguf");
  EXPECT_EQ(select(names, "Q6_K").files,
            (Names{"Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf"}));
  EXPECT_EQ(select(names, "").open, "m-Q4_K_M.gguf");  // the usual one
  EXPECT_EQ(select(names, "m-q8_0.gguf").files, Names{"m-q8_0.gguf"});
  EXPECT_EQ(select(names, "mmproj-Q8_0.gguf").files, Names{"mmproj-Q8_0.gguf"});
  EXPECT_EQ(select(names, "Q6_K/m-Q6_K-00002-of-00002.gguf").files.size(), 2u);
  EXPECT_NE(refusal(names, "Q4_K").find("no file 'Q4_K'"), std::string::npos);  // neither Q4_K_S nor Q4_K_M
  EXPECT_NE(refusal(names, "Q5_0").find("m-Q4_K_M.gguf"), std::string::npos);   // the choice is listed
  EXPECT_NE(refusal({"a-Q8_0.gguf", "b-Q8_0.gguf"}, "Q8_0").find("fits 2 files"), std::string::npos);
  EXPECT_NE(refusal({"a-Q8_0.gguf", "b-Q6_K.gguf"}).find("name one"), std::string::npos);
  EXPECT_NE(refusal({"m-00001-of-00002.gguf"}).find("2 shards, but 1"), std::string::npos);
  EXPECT_EQ(select({"only.gguf"}).open, "only.gguf");
}

TEST(HubFiles, PicklesAreNoModel) {
  EXPECT_NE(refusal({"config.json", "pytorch_model.bin"}).find("pickles"), std::string::npos);
  EXPECT_NE(refusal({"README.md"}).find("neither"), std::string::npos);
}

TEST(HubCache, NamesThatLeaveTheFolderAreRefused) {
  for (const std::string bad : {"", ".", "..", "../x", "a/../b", "a/..", "/x", "a//b", "a/", "a\\b"})
    EXPECT_NE(message_of([&] { check_hub_file(bad); }), "") << bad;
  EXPECT_NE(message_of([&] { check_hub_file(std::string("a\0b", 3)); }), "");
  EXPECT_NE(message_of([&] { check_hub_file("a\nb"); }), "");
  EXPECT_NE(message_of([&] { check_hub_file(std::string(256, 'x')); }), "");
  EXPECT_NE(message_of([&] { check_hub_file(std::string(200, 'x') + "/" + std::string(900, 'y')); }), "");
  for (const std::string good : {"config.json", "a/b c/d.gguf", "ünï.txt", ".gitattributes", "..a"})
    EXPECT_EQ(message_of([&] { check_hub_file(good); }), "") << good;
  for (const std::string bad :
       {"", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a b/c", "a/b\n", "-a/b", ".a/b", "a--b/c"})
    EXPECT_NE(message_of([&] { check_repo(bad); }), "") << bad;
  EXPECT_NE(message_of([&] { check_repo(std::string(97, 'x') + "/b"); }), "");
  EXPECT_EQ(message_of([&] { check_repo("meta-llama/Llama-3.2-1B"); }), "");
  for (const std::string& bad :
       {std::string(), std::string("main"), std::string(39, 'a'), std::string(40, 'A'),
        std::string("../../../../../../../../../../etc/passwd0"), std::string(40, '.')})
    EXPECT_NE(message_of([&] { check_commit(bad); }), "") << bad;
  for (const std::string& bad :
       {std::string(), std::string(63, 'a'), std::string(64, 'g'), "../" + std::string(61, 'a')})
    EXPECT_NE(message_of([&] { check_etag(bad); }), "") << bad;
  TemporaryFolder folder;
  EXPECT_NE(message_of([&] { HubCache(folder.path(), "../x"); }), "");
  const HubCache cache(folder.path(), "org/name");
  const std::string commit(40, 'c'), etag(64, 'e');
  EXPECT_NE(message_of([&] { cache.link(commit, "../../../x", etag); }), "");
  EXPECT_NE(message_of([&] { cache.set_ref("../../x", commit); }), "");
  EXPECT_NE(message_of([&] { cache.commit_of("../x"); }), "");
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(HubCache, LinksLeadToBlobs) {
  TemporaryFolder folder;
  const HubCache cache(folder.path(), "org/name");
  const std::string commit(40, 'c'), etag(64, 'e');
  folder.write("models--org--name/blobs/" + etag, "hello");
  cache.link(commit, "deep/in/x.txt", etag);
  EXPECT_EQ(std::filesystem::read_symlink(cache.snapshot(commit) / "deep/in/x.txt"),
            "../../../../blobs/" + etag);
  EXPECT_TRUE(cache.has(commit, "deep/in/x.txt", etag, 5));
  EXPECT_FALSE(cache.has(commit, "deep/in/x.txt", etag, 6));
  EXPECT_FALSE(cache.has(commit, "other.txt", etag, 5));
  EXPECT_EQ(cache.files_of(commit), Names{"deep/in/x.txt"});
  cache.set_ref("refs/pr/1", commit);
  EXPECT_EQ(cache.commit_of("refs/pr/1"), commit);
  EXPECT_EQ(cache.commit_of("main"), std::nullopt);
  folder.write("models--org--name/refs/main", "../../../etc");
  EXPECT_EQ(cache.commit_of("main"), std::nullopt);
}

}  // namespace
}  // namespace cairn::formats
