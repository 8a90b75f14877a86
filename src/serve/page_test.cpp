#include "serve/page.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "serve/http/http_testing.h"

namespace cairn::serve {
namespace {

std::string header(const HttpResponse& response, std::string_view name) {
  for (const auto& [key, value] : response.headers)
    if (key == name) return value;
  return "";
}

const PageFile* file_at(std::string_view path) {
  for (const auto& file : page_files())
    if (file.path == path) return &file;
  return nullptr;
}

HttpResponse index(std::string_view if_none_match = "") {
  return page_response(*file_at("/"), if_none_match);
}

TEST(Page, CarriesEveryFileOfItsFolderByteForByte) {
  size_t count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(CAIRN_SOURCE_DIR) / "src/serve/page")) {
    const auto name = entry.path().filename().string();
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    const auto* file = file_at(name == "index.html" ? "/" : "/page/" + name);
    ASSERT_NE(file, nullptr) << name;
    EXPECT_EQ(page_response(*file, "").status, 200) << name;
    EXPECT_EQ(page_response(*file, "").body, bytes) << name;
    ++count;
  }
  EXPECT_EQ(page_files().size(), count);
  EXPECT_GE(count, 10u);
}

TEST(Page, HasATypeForEachFile) {
  for (const auto& file : page_files())
    EXPECT_TRUE(file.content_type.ends_with("; charset=utf-8")) << file.path << " " << file.content_type;
  EXPECT_EQ(index().content_type, "text/html; charset=utf-8");
  EXPECT_EQ(file_at("/page/app.js")->content_type, "text/javascript; charset=utf-8");
}

TEST(Page, IsNotSentAgainWhenItIsTheSame) {
  const std::string etag = header(index(), "ETag");
  ASSERT_EQ(etag.size(), 18u);
  for (const auto& same : {etag, "W/" + etag, "\"x\" , " + etag, std::string("*")}) {
    const auto answer = index(same);
    EXPECT_EQ(answer.status, 304) << same;
    EXPECT_TRUE(answer.body.empty()) << same;
    EXPECT_EQ(header(answer, "ETag"), etag);
  }
  for (const auto& other : {std::string("\"x\""), etag.substr(1), std::string(","), std::string(" "),
                            file_at("/page/app.js")->etag})
    EXPECT_EQ(index(other).status, 200) << other;
  std::set<std::string> tags;
  for (const auto& file : page_files()) tags.insert(file.etag);
  EXPECT_EQ(tags.size(), page_files().size());
}

// The policy stands in the way of what a model may write; a source that the page itself would break it with
// is refused here, before a browser is.
TEST(Page, KeepsToItsOwnPolicy) {
  const auto policy = header(index(), "Content-Security-Policy");
  for (const char* part : {"default-src 'none'", "script-src 'self';", "style-src 'self';",
                           "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"})
    EXPECT_NE(policy.find(part), std::string::npos) << part;
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(header(index(), "X-Content-Type-Options"), "nosniff");
  const std::regex refused(R"(innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function)");
  const std::regex inline_code(R"(<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=")");
  for (const auto& file : page_files()) {
    const std::string text(file.bytes);
    EXPECT_FALSE(std::regex_search(text, refused)) << file.path;
    if (file.path == "/") {
      EXPECT_FALSE(std::regex_search(text, inline_code));
    }
  }
}

// What a file refers to is carried too, and nothing comes from elsewhere.
TEST(Page, ReferencesOnlyItsOwnFiles) {
  const std::regex reference(R"re((?:from '\./|(?:src|href)="page/)([^'"]+)['"])re");
  const std::regex elsewhere(R"re((?:src|href)="(?:https?:)?//|@import|url\(|from '(?!\./))re");
  size_t references = 0;
  for (const auto& file : page_files()) {
    const std::string text(file.bytes);
    EXPECT_FALSE(std::regex_search(text, elsewhere)) << file.path;
    for (std::sregex_iterator found(text.begin(), text.end(), reference), end; found != end;
         ++found, ++references)
      EXPECT_NE(file_at("/page/" + (*found)[1].str()), nullptr) << file.path << ": " << (*found)[1];
  }
  EXPECT_GT(references, 20u);
}

// Through the server: open although a key is set, asked for again with its tag, and no path leads elsewhere.
TEST(Page, IsServedWithoutAKey) {
  HttpOptions options;
  options.api_keys = {{"desk", "secret"}};
  testing::RunningServer server(std::move(options), add_page_routes);
  auto client = server.client();
  const auto answer = client.ask("GET", "/");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, file_at("/")->bytes);
  EXPECT_NE(answer.header("Content-Security-Policy"), "");
  EXPECT_EQ(client.ask("HEAD", "/page/style.css").header("Content-Type"), "text/css; charset=utf-8");
  const auto again =
      client.ask("HEAD", "/page/app.js", "If-None-Match: " + file_at("/page/app.js")->etag + "\r\n");
  EXPECT_EQ(again.status, 304);
  EXPECT_NE(again.header("Content-Security-Policy"), "");
  for (const char* path : {"/index.html", "/page", "/page/index.html", "/page/APP.JS", "/page/nothing.js"}) {
    auto other = server.client();
    EXPECT_GE(other.ask("GET", path).status, 401) << path;
  }
}

}  // namespace
}  // namespace cairn::serve
