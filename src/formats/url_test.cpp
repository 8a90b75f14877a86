#include "formats/url.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using testing::message_of;

TEST(Url, TakesAddressesApart) {
  const Url url = parse_url("HTTPS://Hub.Example:8443/api/models?x=1#part");
  EXPECT_EQ(url, (Url{"https", "hub.example", "8443", "/api/models?x=1"}));
  EXPECT_EQ(parse_url("https://huggingface.co").text(), "https://huggingface.co:443/");
  EXPECT_EQ(parse_url("http://[::1]:80/x").host, "::1");
  EXPECT_EQ(parse_url("http://[::1]/x").origin(), "http://[::1]:80");
  EXPECT_EQ(parse_url("http://a?x").target, "/?x");
}

TEST(Url, RefusesWhatCouldMislead) {
  for (const std::string text :
       {"", "x", "ftp://a/", "file:///etc/passwd", "https://", "https:///x", "https://a:0/",
        "https://a:65536/", "https://a:80x/", "https://user@a/", "https://good.example@evil.example/",
        "https://a\\b/", "https://a b/", "https://a/\r\nHost: b", "https://a/\x7f", "https://[::1/",
        "https://a%00b/", "https://\xc3\xa4/"})
    EXPECT_NE(message_of([&] { parse_url(text); }).find("no URL"), std::string::npos) << text;
  EXPECT_NE(message_of([&] { parse_url("https://a/" + std::string(9000, 'x')); }), "");
}

TEST(Url, FollowsLocations) {
  const Url base = parse_url("https://a/b/c?d");
  EXPECT_EQ(resolve_location(base, "/x").text(), "https://a:443/x");
  EXPECT_EQ(resolve_location(base, "x").text(), "https://a:443/b/x");
  EXPECT_EQ(resolve_location(base, "//other/x").text(), "https://other:443/x");
  EXPECT_EQ(resolve_location(base, "http://other/x").text(), "http://other:80/x");
  EXPECT_NE(message_of([&] { resolve_location(base, "file:///etc/passwd"); }).find("not followed"),
            std::string::npos);
}

TEST(Url, EncodesPercent) {
  EXPECT_EQ(percent_encode("a b/ä?#%", "/"), "a%20b/%C3%A4%3F%23%25");
  EXPECT_EQ(percent_encode("refs/pr/1"), "refs%2Fpr%2F1");
}

}  // namespace
}  // namespace cairn::formats
