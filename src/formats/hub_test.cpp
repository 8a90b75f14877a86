#include "formats/hub.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <thread>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/checkpoint.h"
#include "formats/loopback_testing.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::http_answer;
using testing::kSmallHeader;
using testing::LoopbackAnswer;
using testing::LoopbackRequest;
using testing::LoopbackServer;
using testing::message_of;
using testing::safetensors_bytes;
using testing::small_gguf;
using testing::TemporaryFolder;

const std::string kCommit(40, 'c');

std::string digest(const EVP_MD* kind, std::string_view bytes) {
  unsigned char out[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), out, &size, kind, nullptr);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", out[i]);
  return text;
}

std::string sha256(std::string_view bytes) { return digest(EVP_sha256(), bytes); }

std::string git_sha1(const std::string& bytes) {
  return digest(EVP_sha1(), fmt::format("blob {}", bytes.size()) + std::string(1, '\0') + bytes);
}

std::string pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = char(i * 31 + i / 251);
  return text;
}

// A hub as Hugging Face answers: small files itself, large ones by a redirect to a second server. Every
// answer can be replaced by a test.
class HubTest : public ::testing::Test {
 protected:
  using Override = std::function<std::optional<LoopbackAnswer>(const LoopbackRequest&)>;

  HubTest()
      : cdn_([this](const LoopbackRequest& request) { return cdn_answer(request); }),
        hub_([this](const LoopbackRequest& request) { return hub_answer(request); }) {
    options_.endpoint = hub_.address();
    options_.token = "hf_secret";
    options_.cache = folder_.path() / "hub";
    options_.backoff = 5ms;
  }

  LoopbackAnswer hub_answer(const LoopbackRequest& request) {
    if (hub_override_)
      if (auto answer = hub_override_(request)) return *answer;
    if (request.target.starts_with("/api/models/org/name/revision/")) return http_answer(200, {}, listing());
    const std::string prefix = "/org/name/resolve/" + kCommit + "/";
    if (!request.target.starts_with(prefix)) return http_answer(404, {"X-Error-Message: Entry not found"});
    const std::string name = request.target.substr(prefix.size());
    if (const auto small = small_.find(name); small != small_.end())
      return http_answer(200, {"ETag: \"" + git_sha1(small->second) + "\"", "X-Repo-Commit: " + kCommit},
                         small->second);
    const auto large = large_.find(name);
    if (large == large_.end()) return http_answer(404, {});
    return http_answer(
        302,
        {"Location: " + cdn_.address("/blob/" + name), "X-Linked-Etag: \"" + sha256(large->second) + "\"",
         "X-Linked-Size: " + std::to_string(large->second.size()), "ETag: \"unrelated\""});
  }

  LoopbackAnswer cdn_answer(const LoopbackRequest& request) {
    if (cdn_override_)
      if (auto answer = cdn_override_(request)) return *answer;
    const std::string& content = large_.at(request.target.substr(6));
    const std::string range = request.field("range");
    if (range.empty()) return http_answer(200, {}, content);
    const size_t from = std::stoul(range.substr(6));
    return http_answer(
        206, {fmt::format("Content-Range: bytes {}-{}/{}", from, content.size() - 1, content.size())},
        content.substr(from));
  }

  std::string listing() const {
    std::string siblings;
    for (const auto& name : listed_)
      siblings += (siblings.empty() ? "" : ",") + fmt::format(R"({{"rfilename":"{}"}})", name);
    for (const auto& files : {small_, large_})
      for (const auto& [name, content] : files)
        siblings += (siblings.empty() ? "" : ",") + fmt::format(R"({{"rfilename":"{}"}})", name);
    return fmt::format(R"({{"id":"org/name","sha":"{}","siblings":[{}]}})", kCommit, siblings);
  }

  void one_gguf(size_t size = 100'000) { large_["m.gguf"] = pattern(size); }
  std::string pull_error(const PullRequest& request) {
    return message_of([&] { pull(request, options_); });
  }
  std::string pull_error() { return pull_error(request_); }
  fs::path model_folder() const { return options_.cache / "models--org--name"; }
  size_t blobs() const {
    if (!fs::exists(model_folder() / "blobs")) return 0;
    return size_t(std::distance(fs::directory_iterator(model_folder() / "blobs"), fs::directory_iterator()));
  }
  static bool has(const std::string& message, std::string_view part) {
    return message.find(part) != std::string::npos;
  }

  TemporaryFolder folder_;
  std::map<std::string, std::string> small_, large_;
  std::vector<std::string> listed_;  // names in the listing without content
  Override hub_override_, cdn_override_;
  LoopbackServer cdn_, hub_;
  PullOptions options_;
  PullRequest request_{.repo = "org/name", .file = ""};
};

TEST_F(HubTest, PullsAFolderIntoTheStandardLayout) {
  small_["config.json"] = R"({"architectures": ["LlamaForCausalLM"]})";
  small_["tokenizer.json"] = "{}";
  small_["README.md"] = "not needed";
  large_["model.safetensors"] = safetensors_bytes(kSmallHeader, 32);
  std::map<std::string, uint64_t> done;
  const fs::path path = pull(request_, options_, [&](const PullProgress& progress) {
    EXPECT_GE(progress.done, done[std::string(progress.file)]);
    EXPECT_LE(progress.done, progress.total);
    EXPECT_EQ(progress.count, 3u);
    done[std::string(progress.file)] = progress.done;
  });
  EXPECT_EQ(path, model_folder() / "snapshots" / kCommit);
  EXPECT_EQ(open_checkpoint(path).tensors.size(), 2u);
  EXPECT_EQ(read_text_file(model_folder() / "refs/main"), kCommit);
  EXPECT_EQ(fs::read_symlink(path / "config.json"), "../../blobs/" + git_sha1(small_["config.json"]));
  EXPECT_EQ(fs::read_symlink(path / "model.safetensors"),
            "../../blobs/" + sha256(large_["model.safetensors"]));
  EXPECT_FALSE(fs::exists(path / "README.md"));
  EXPECT_EQ(done.size(), 3u);
  EXPECT_EQ(done["model.safetensors"], large_["model.safetensors"].size());

  // The token went to the hub, and never to the other server.
  for (const auto& request : hub_.requests()) EXPECT_EQ(request.field("authorization"), "Bearer hf_secret");
  EXPECT_FALSE(cdn_.requests().empty());
  for (const auto& request : cdn_.requests()) {
    EXPECT_EQ(request.field("authorization"), "");
    EXPECT_EQ(request.field("accept-encoding"), "identity");
  }

  const size_t downloads = hub_.count("GET", "/resolve/");
  EXPECT_EQ(pull(request_, options_), path);
  EXPECT_EQ(hub_.count("GET", "/resolve/"), downloads);  // nothing a second time
  EXPECT_EQ(find_cached(request_, options_), path);
  options_.offline = true;
  EXPECT_EQ(pull(request_, options_), path);
  EXPECT_EQ(find_cached({.repo = "org/name", .file = "config.json"}, options_), path / "config.json");
  EXPECT_EQ(find_cached({.repo = "org/other", .file = ""}, options_), std::nullopt);
  EXPECT_EQ(find_cached({.repo = "org/name", .file = "", .revision = kCommit}, options_), path);
  fs::remove(path / "model.safetensors");
  EXPECT_EQ(find_cached(request_, options_), std::nullopt);
  EXPECT_TRUE(has(pull_error(), "HF_HUB_OFFLINE"));
}

TEST_F(HubTest, PullsShardsOfTheIndex) {
  small_["config.json"] = "{}";
  small_["model.safetensors.index.json"] = R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})";
  large_["1.safetensors"] = "one";
  large_["2.safetensors"] = "two";
  large_["3.safetensors"] = "three";
  const fs::path path = pull(request_, options_);
  EXPECT_EQ(read_text_file(path / "2.safetensors"), "two");
  EXPECT_FALSE(fs::exists(path / "3.safetensors"));
  EXPECT_EQ(find_cached(request_, options_), path);
}

TEST_F(HubTest, PullsAGgufByItsQuantization) {
  large_["sub/m-Q4_K_M.gguf"] = small_gguf().bytes();
  large_["sub/m-Q8_0.gguf"] = "other";
  const PullRequest request{.repo = "org/name", .file = "q4_k_m"};
  const fs::path path = pull(request, options_);
  EXPECT_EQ(path.filename(), "m-Q4_K_M.gguf");
  EXPECT_EQ(open_checkpoint(path).tensors.size(), 2u);
  EXPECT_EQ(fs::read_symlink(path), "../../../blobs/" + sha256(large_["sub/m-Q4_K_M.gguf"]));
  EXPECT_EQ(find_cached(request, options_), path);
  EXPECT_EQ(cdn_.requests().size(), 1u);
  EXPECT_TRUE(has(pull_error({.repo = "org/name", .file = "Q2_K"}), "no such GGUF quantization"));
}

TEST_F(HubTest, EmptyFilesAreFiles) {
  small_["config.json"] = "";
  large_["model.safetensors"] = "x";
  EXPECT_EQ(fs::file_size(pull(request_, options_) / "config.json"), 0u);
}

TEST_F(HubTest, ResumesAfterACut) {
  one_gguf();
  const std::string& content = large_["m.gguf"];
  std::atomic<int> cuts{0};
  cdn_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (++cuts > 3) return std::nullopt;
    const std::string whole = http_answer(200, {}, content);
    if (request.field("range").empty()) return whole.substr(0, whole.size() - 60'000);
    const size_t from = std::stoul(request.field("range").substr(6));
    const std::string rest = http_answer(
        206, {fmt::format("Content-Range: bytes {}-{}/{}", from, content.size() - 1, content.size())},
        content.substr(from));
    return rest.substr(0, rest.size() - (content.size() - from) + 1000);  // 1000 more bytes, then cut again
  };
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);
  const auto requests = cdn_.requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_EQ(requests[1].field("range"), "bytes=40000-");
  EXPECT_EQ(requests[2].field("range"), "bytes=41000-");
  EXPECT_EQ(requests[3].field("range"), "bytes=42000-");
}

TEST_F(HubTest, ALaterPullResumes) {
  one_gguf();
  const std::string& content = large_["m.gguf"];
  cdn_override_ = [&](const LoopbackRequest&) { return http_answer(200, {}, content).substr(0, 50'000); };
  options_.attempts = 1;
  EXPECT_TRUE(has(pull_error(), "before its answer was complete"));
  EXPECT_EQ(find_cached(request_, options_), std::nullopt);
  EXPECT_EQ(blobs(), 1u);
  cdn_override_ = nullptr;
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);
  EXPECT_NE(cdn_.requests().back().field("range"), "");
  EXPECT_EQ(blobs(), 1u);
}

TEST_F(HubTest, StartsOverWhereResumingIsNotPossible) {
  one_gguf();
  const std::string& content = large_["m.gguf"];
  const auto incomplete = "hub/models--org--name/blobs/" + sha256(content) + ".incomplete";
  folder_.write(incomplete, "something else");  // the hub ignores the range: all bytes come again
  cdn_override_ = [&](const LoopbackRequest&) { return http_answer(200, {}, content); };
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);

  fs::remove_all(options_.cache);
  folder_.write(incomplete, "something else");
  cdn_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.field("range").empty()) return std::nullopt;
    return http_answer(416, {});
  };
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);

  fs::remove_all(options_.cache);
  folder_.write(incomplete, content + "longer than promised");
  cdn_override_ = nullptr;
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);

  fs::remove_all(options_.cache);  // resumed on top of other bytes: the checksum tells, and they are removed
  folder_.write(incomplete, std::string(1000, 'x'));
  EXPECT_TRUE(has(pull_error(), "checksum"));
  EXPECT_EQ(blobs(), 0u);
  EXPECT_EQ(read_text_file(pull(request_, options_)), content);
}

TEST_F(HubTest, AWrongChecksumLeavesNothing) {
  one_gguf();
  std::string other = large_["m.gguf"];
  other[500] = char(other[500] ^ 1);
  cdn_override_ = [&](const LoopbackRequest&) { return http_answer(200, {}, other); };
  const std::string message = pull_error();
  EXPECT_TRUE(has(message, sha256(other)) && has(message, sha256(large_["m.gguf"]))) << message;
  EXPECT_EQ(blobs(), 0u);
  EXPECT_FALSE(fs::exists(model_folder() / "snapshots" / kCommit / "m.gguf"));
  large_.clear();
  small_["config.json"] = "{}";
  large_["model.safetensors"] = "x";
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.method != "GET" || !request.target.ends_with("config.json")) return std::nullopt;
    return http_answer(200, {}, "[]");
  };
  EXPECT_TRUE(has(pull_error(), git_sha1("[]")));
}

TEST_F(HubTest, WrongLengthsAreRefused) {
  one_gguf();
  const std::string& content = large_["m.gguf"];
  const auto with = [&](const std::string& answer) {
    fs::remove_all(options_.cache);
    cdn_override_ = [answer](const LoopbackRequest&) { return answer; };
    return pull_error();
  };
  EXPECT_TRUE(has(with(http_answer(200, {}, content + "x")), "longer than was expected"));
  EXPECT_TRUE(has(with(http_answer(200, {}, content.substr(1))), "sends 99999 bytes, but promised 100000"));
  EXPECT_TRUE(has(with("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n" + content),
                  "longer than was expected"));
  EXPECT_NE(with("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "");
  EXPECT_NE(with("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n"), "");
  EXPECT_TRUE(has(with("HTTP/1.1 200 OK\r\n\r\n" + content.substr(0, 70'000)),
                  "after 70000 of 100000"));  // to the end
  EXPECT_EQ(with("HTTP/1.1 200 OK\r\n\r\n" + content), "");
  EXPECT_EQ(
      with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + content + "\r\n0\r\n\r\n"), "");
  EXPECT_TRUE(
      has(with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n" + content + "x\r\n0\r\n\r\n"),
          "than"));  // one byte too many
  EXPECT_NE(with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + content),
            "");
  EXPECT_TRUE(has(with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n" +
                       content.substr(0, 256) + "\r\n0\r\n\r\n"),
                  "after 256 of 100000"));
  EXPECT_EQ(find_cached(request_, options_), std::nullopt);
}

TEST_F(HubTest, WrongRangesAreRefused) {
  one_gguf();
  const std::string& content = large_["m.gguf"];
  const auto with = [&](const std::vector<std::string>& fields, size_t from) {
    fs::remove_all(options_.cache);
    folder_.write("hub/models--org--name/blobs/" + sha256(content) + ".incomplete", content.substr(0, 1000));
    cdn_override_ = [&content, fields, from](const LoopbackRequest&) {
      return http_answer(206, fields, content.substr(from));
    };
    return pull_error();
  };
  EXPECT_EQ(with({"Content-Range: bytes 1000-99999/100000"}, 1000), "");
  EXPECT_TRUE(has(with({"Content-Range: bytes 1000-99999/100001"}, 1000), "bytes 1000-99999/100000"));
  EXPECT_TRUE(has(with({}, 1000), "no Content-Range"));
  EXPECT_TRUE(
      has(with({"Content-Range: bytes 0-99999/100000"}, 0), "sends 100000 bytes, but promised 99000"));
}

TEST_F(HubTest, HugeAnswersAreRefused) {
  one_gguf();
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (!request.target.starts_with("/api/")) return std::nullopt;
    return LoopbackAnswer("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n{");
  };
  EXPECT_TRUE(has(pull_error(), "longer than was expected"));
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (!request.target.starts_with("/api/")) return std::nullopt;
    return "HTTP/1.1 200 OK\r\nX: " + std::string(1 << 20, 'x') + "\r\n\r\n";
  };
  EXPECT_TRUE(has(pull_error(), "head of its answer is longer"));
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.method != "HEAD") return std::nullopt;
    return http_answer(302, {"Location: " + cdn_.address("/blob/m.gguf"),
                             "X-Linked-Etag: " + std::string(64, 'a'), "X-Linked-Size: 900000000000000000"});
  };
  const std::string message = pull_error();
  EXPECT_TRUE(has(message, "900000000000000000 bytes are to be downloaded") && has(message, "bytes free"))
      << message;
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.method != "HEAD") return std::nullopt;
    return http_answer(302, {"Location: " + cdn_.address("/x"), "X-Linked-Etag: " + std::string(64, 'a'),
                             "X-Linked-Size: 99999999999999999999"});
  };
  EXPECT_TRUE(has(pull_error(), "gives the size '99999999999999999999'"));
}

TEST_F(HubTest, EndlessListingsAreCutAtTheLimit) {
  const std::string chunk = "100000\r\n" + std::string(0x100000, ' ') + "\r\n";
  hub_override_ = [&](const LoopbackRequest&) {
    std::vector<LoopbackAnswer::Piece> pieces{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {}}};
    for (int i = 0; i < 100; ++i) pieces.push_back({chunk, {}});
    return LoopbackAnswer(pieces);
  };
  EXPECT_TRUE(has(pull_error(), "longer than was expected"));
}

TEST_F(HubTest, CompressedAnswersAreRefused) {
  one_gguf();
  for (const std::string encoding : {"gzip", "br", "zstd", "deflate", "identity, gzip"}) {
    cdn_override_ = [&](const LoopbackRequest&) {
      return http_answer(200, {"Content-Encoding: " + encoding}, large_["m.gguf"]);
    };
    EXPECT_TRUE(has(pull_error(), "compressed (" + encoding + ")"));
  }
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (!request.target.starts_with("/api/")) return std::nullopt;
    return http_answer(200, {"content-encoding: GZIP"}, "\x1f\x8b");
  };
  EXPECT_TRUE(has(pull_error(), "compressed"));
}

TEST_F(HubTest, RedirectLoopsEnd) {
  one_gguf();
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    return http_answer(302, {"Location: " + request.target + "x"});
  };
  EXPECT_TRUE(has(pull_error(), "more than 8 redirects"));
  EXPECT_EQ(hub_.requests().size(), 9u);
  hub_override_ = nullptr;
  cdn_override_ = [&](const LoopbackRequest&) {
    return http_answer(307, {"Location: " + cdn_.address("/again")});
  };
  EXPECT_TRUE(has(pull_error(), "more than 8 redirects"));
  for (const std::string to : {"file:///etc/passwd", "ftp://x/", "https://a@b/", "http://x y/"}) {
    cdn_override_ = [&](const LoopbackRequest&) { return http_answer(302, {"Location: " + to}); };
    EXPECT_TRUE(has(pull_error(), "not followed")) << to;
  }
}

TEST_F(HubTest, TheTokenStaysHomeEvenWhenARedirectComesBack) {
  one_gguf();
  const std::string back = hub_.address("/private");
  cdn_override_ = [&](const LoopbackRequest&) { return http_answer(302, {"Location: " + back}); };
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.target != "/private") return std::nullopt;
    return http_answer(200, {}, large_["m.gguf"]);
  };
  EXPECT_EQ(pull_error(), "");
  EXPECT_EQ(cdn_.requests().at(0).field("authorization"), "");
  EXPECT_EQ(hub_.requests().back().target, "/private");
  EXPECT_EQ(hub_.requests().back().field("authorization"), "");
}

TEST_F(HubTest, ARedirectedListingDoesNotGetTheToken) {
  one_gguf();
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (!request.target.starts_with("/api/")) return std::nullopt;
    return http_answer(302, {"Location: " + cdn_.address("/api")});
  };
  cdn_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (request.target != "/api") return std::nullopt;
    return http_answer(200, {}, listing());
  };
  EXPECT_EQ(pull_error(), "");
  for (const auto& request : cdn_.requests()) EXPECT_EQ(request.field("authorization"), "");
}

TEST_F(HubTest, NamesThatLeaveTheCacheAreRefused) {
  for (const std::string name : {"../../evil.gguf", "/tmp/evil.gguf", "a/../../../evil.gguf", "a//evil.gguf",
                                 "a\\\\..\\\\evil.gguf", "a\\u0000.gguf", "evil\\n.gguf"}) {
    listed_ = {name};
    EXPECT_TRUE(has(pull_error(), "no file name inside a model")) << name << ": " << pull_error();
  }
  listed_ = {std::string(300, 'x') + ".gguf"};
  EXPECT_TRUE(has(pull_error(), "no file name inside a model"));
  EXPECT_EQ(hub_.count("HEAD"), 0u);
  EXPECT_TRUE(!fs::exists(options_.cache) || fs::is_empty(options_.cache));
}

TEST_F(HubTest, AFileThatIsAlsoAFolderIsAnError) {
  small_["config.json"] = "{}";
  small_["model.safetensors.index.json"] =
      R"({"weight_map": {"a": "x.safetensors", "b": "x.safetensors/y"}})";
  large_["x.safetensors"] = "one";
  large_["x.safetensors/y"] = "two";
  EXPECT_TRUE(has(pull_error(), "org/name cannot be put into the cache"));
}

TEST_F(HubTest, LinksInTheCacheAreNotWrittenThrough) {
  one_gguf();
  const fs::path outside = folder_.write("outside.txt", "precious");
  fs::create_directories(model_folder() / "blobs");
  fs::create_symlink(outside, model_folder() / "blobs" / (sha256(large_["m.gguf"]) + ".incomplete"));
  EXPECT_TRUE(has(pull_error(), "cannot open"));
  EXPECT_EQ(read_text_file(outside), "precious");
}

TEST_F(HubTest, CommitsAndChecksumsThatAreNoneAreRefused) {
  one_gguf();
  for (const std::string sha : {"../../../../../../etc", "main", ""}) {
    hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
      if (!request.target.starts_with("/api/")) return std::nullopt;
      return http_answer(200, {}, R"({"sha":")" + sha + R"(","siblings":[{"rfilename":"m.gguf"}]})");
    };
    EXPECT_TRUE(has(pull_error(), "not 40 hexadecimal digits")) << sha;
  }
  for (const std::string etag : {"../../../x", "\"abc\"", "W/\"0\"", ""}) {
    hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
      if (request.method != "HEAD") return std::nullopt;
      return http_answer(200, {"ETag: " + etag}, "x");
    };
    EXPECT_TRUE(has(pull_error(), "what cannot be verified is not downloaded")) << etag;
  }
  for (const std::string& listing : std::vector<std::string>{
           "", "{", "[]", "{}", R"({"sha":1})", R"({"sha":null})", "<html>",
           (R"({"sha":")" + kCommit + R"("})"), (R"({"sha":")" + kCommit + R"(","siblings":{}})"),
           (R"({"sha":")" + kCommit + R"(","siblings":[1]})"),
           (R"({"sha":")" + kCommit + R"(","siblings":[{}]})")}) {
    hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
      if (!request.target.starts_with("/api/")) return std::nullopt;
      return http_answer(200, {}, listing);
    };
    EXPECT_TRUE(has(pull_error(), "the hub's listing of org/name at main")) << listing;
  }
}

TEST_F(HubTest, StatusesSayWhatToDo) {
  one_gguf();
  const auto with = [&](int status, const std::vector<std::string>& fields = {}) {
    hub_override_ = [status, fields](const LoopbackRequest&) { return http_answer(status, fields); };
    return pull_error();
  };
  EXPECT_TRUE(has(with(401, {"X-Error-Message: Access is restricted\xff"}),
                  "(\"Access is restricted\xef\xbf\xbd\")"));
  EXPECT_TRUE(has(with(403), "the token in HF_TOKEN does not give access"));
  options_.token.clear();
  EXPECT_TRUE(has(with(401), "set HF_TOKEN"));
  EXPECT_EQ(hub_.requests().back().field("authorization"), "");
  EXPECT_TRUE(has(with(404), "org/name at main is not on the hub"));
  EXPECT_TRUE(has(with(418), "answers 418"));
}

TEST_F(HubTest, BusyServersAreAskedAgain) {
  one_gguf();
  std::atomic<int> hub_asked{0}, cdn_asked{0};
  hub_override_ = [&](const LoopbackRequest&) -> std::optional<LoopbackAnswer> {
    if (hub_asked++ % 2 == 0) return http_answer(503, {});
    return std::nullopt;
  };
  cdn_override_ = [&](const LoopbackRequest&) -> std::optional<LoopbackAnswer> {
    if (cdn_asked++ < 2) return http_answer(429, {});
    return std::nullopt;
  };
  options_.attempts = 6;
  EXPECT_EQ(pull_error(), "");
  hub_override_ = [&](const LoopbackRequest&) { return http_answer(500, {}); };
  const size_t before = hub_.requests().size();
  EXPECT_TRUE(has(pull_error(), "answers 500"));
  EXPECT_EQ(hub_.requests().size() - before, size_t(options_.attempts));
}

TEST_F(HubTest, SlowAnswersEnd) {
  one_gguf();
  const auto seconds = [&](const std::function<void()>& action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  const auto drip = [](const std::string& text) {
    std::vector<LoopbackAnswer::Piece> pieces;
    for (const char c : text) pieces.push_back({std::string(1, c), 50ms});
    return LoopbackAnswer(pieces);
  };
  options_.attempts = 1;
  options_.http.head_timeout = 300ms;
  options_.http.stall_window = 300ms;
  hub_override_ = [&](const LoopbackRequest&) { return LoopbackAnswer({{"", 60s}}); };  // never answers
  EXPECT_LT(seconds([&] { EXPECT_TRUE(has(pull_error(), "waiting for the answer took too long")); }), 5);
  hub_override_ = [&](const LoopbackRequest&) { return drip(http_answer(200, {}, std::string(1000, ' '))); };
  EXPECT_LT(seconds([&] { EXPECT_TRUE(has(pull_error(), "took too long")); }), 5);  // the head drips
  hub_override_ = nullptr;
  cdn_override_ = [&](const LoopbackRequest&) {  // the body drips: always something, never enough
    auto answer = drip(std::string(500, 'x'));
    answer.pieces.insert(answer.pieces.begin(), {"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", {}});
    return answer;
  };
  EXPECT_LT(seconds([&] { EXPECT_TRUE(has(pull_error(), "waiting for more of the answer took too long")); }),
            5);
}

TEST_F(HubTest, CancellingEndsADownload) {
  one_gguf();
  std::atomic<bool> cancel{false};
  options_.http.cancel = &cancel;
  options_.http.stall_window = 60s;
  cdn_override_ = [&](const LoopbackRequest&) {
    return LoopbackAnswer(
        {{"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + std::string(1000, 'x'), {}}, {"", 60s}});
  };
  const auto begin = std::chrono::steady_clock::now();
  try {
    pull(request_, options_, [&](const PullProgress& progress) { cancel = progress.done > 0; });
    ADD_FAILURE() << "not cancelled";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::cancelled) << error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  EXPECT_EQ(blobs(), 1u);  // the part that came is kept for next time
}

TEST_F(HubTest, GarbageIsNotHttp) {
  one_gguf();
  options_.attempts = 1;
  for (const std::string& answer :
       {std::string(), std::string("\0\xff\x16\x03", 4), std::string("HTTP/1.1\r\n\r\n"),
        std::string("SSH-2.0-x\r\n"), std::string("HTTP/1.1 999999 X\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n" + std::string("HTTP/1.1 100 Continue\r\n\r\n") +
            "HTTP/1.1 100 X\r\n\r\n" + "HTTP/1.1 100 X\r\n\r\nHTTP/1.1 100 X\r\n\r\n"}) {
    hub_override_ = [&](const LoopbackRequest&) { return answer; };
    EXPECT_TRUE(has(pull_error(), hub_.address())) << answer;
  }
  hub_override_ = [&](const LoopbackRequest& request) -> std::optional<LoopbackAnswer> {
    if (!request.target.starts_with("/api/")) return std::nullopt;
    return "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http_answer(200, {}, listing());
  };
  EXPECT_EQ(pull_error(), "");
}

TEST_F(HubTest, AnUnreachableHubIsNamed) {
  options_.endpoint = "http://127.0.0.1:1";
  EXPECT_TRUE(has(pull_error(), "http://127.0.0.1:1: connecting failed"));
  options_.endpoint = "not a url";
  EXPECT_TRUE(has(pull_error(), "'not a url' is no URL"));
}

TEST_F(HubTest, TwoPullsOfOneFileDoNotMix) {
  one_gguf();
  cdn_override_ = [&](const LoopbackRequest&) {
    return LoopbackAnswer({{http_answer(200, {}, large_["m.gguf"]).substr(0, 1000), {}}, {"", 60s}});
  };
  std::atomic<bool> cancel{false};
  PullOptions cancellable = options_;
  cancellable.http.cancel = &cancel;
  std::thread first([&] { message_of([&] { pull(request_, cancellable); }); });
  while (cdn_.requests().empty()) std::this_thread::sleep_for(5ms);
  EXPECT_TRUE(has(pull_error(), "by another process"));
  cancel = true;
  first.join();
}

TEST(HubNames, AreTakenApart) {
  EXPECT_EQ(parse_model_name("org/name"), (PullRequest{.repo = "org/name", .file = ""}));
  EXPECT_EQ(parse_model_name("org/name:Q4_K_M"), (PullRequest{.repo = "org/name", .file = "Q4_K_M"}));
  EXPECT_EQ(parse_model_name("hf.co/org/name:sub/x.gguf@v1"),
            (PullRequest{.repo = "org/name", .file = "sub/x.gguf", .revision = "v1"}));
  EXPECT_EQ(parse_model_name("https://huggingface.co/org/name").repo, "org/name");
  for (const std::string bad :
       {"", "name", "a/b/c", "/abs/path", "./x", "../x/y", "org/name:", "org/name@", "org/name:../x",
        "org/name@../../x", "org/na me", "https://example.com/org/name"})
    EXPECT_FALSE(is_model_name(bad)) << bad;
}

// Sets variables for the time of a test.
class Environment {
 public:
  void set(const std::string& name, const std::string& value) {
    names_.push_back(name);
    setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& name : names_) unsetenv(name.c_str());
  }

 private:
  std::vector<std::string> names_;
};

TEST(HubOptions, ComeFromTheEnvironment) {
  for (const char* name : {"HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
                           "XDG_CACHE_HOME", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"})
    unsetenv(name);
  TemporaryFolder folder;
  Environment environment;
  environment.set("HF_HOME", folder.path());
  folder.write("token", "hf_from_file\n");
  EXPECT_EQ(pull_options_from_environment().endpoint, "https://huggingface.co");
  EXPECT_EQ(pull_options_from_environment().cache, folder.path() / "hub");
  EXPECT_EQ(pull_options_from_environment().token, "hf_from_file");
  EXPECT_FALSE(pull_options_from_environment().offline);
  environment.set("HF_ENDPOINT", "https://mirror");
  environment.set("HF_TOKEN", "hf_own ");
  environment.set("HF_HUB_CACHE", "/elsewhere");
  environment.set("HF_HUB_OFFLINE", "1");
  EXPECT_EQ(pull_options_from_environment().endpoint, "https://mirror");
  EXPECT_EQ(pull_options_from_environment().token, "hf_own");
  EXPECT_EQ(pull_options_from_environment().cache, "/elsewhere");
  EXPECT_TRUE(pull_options_from_environment().offline);
  environment.set("HF_TOKEN", "a\r\nHost: evil");
  EXPECT_NE(message_of([] { pull_options_from_environment(); }), "");
}

}  // namespace
}  // namespace cairn::formats
